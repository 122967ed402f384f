"""LoRA beside the decoder: what is written is what peft and the server take, and merging gives the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import EngineError
from engine.keye import load_model
from engine.runtime.adapters import check_adapter
from finetune.errors import FinetuneError
from finetune.training.adapters import TARGETS, add_lora, lora_modules, merge_adapter, save_adapter

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"
IDS = torch.tensor([[5, 9, 30, 77, 12, 400]])


def fresh() -> Any:
    return load_model(NANO, torch.float32)


def trained(seed: str = "s", **changes: Any) -> tuple[Any, PeftModel]:
    """A model whose adapters do something."""
    model = fresh()
    adapted = add_lora(model, NANO, **{"rank": 4, "alpha": 8.0, "targets": TARGETS, "seed": seed, **changes})
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05)
    return model, adapted


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=IDS, use_cache=False).logits
    return out


def test_a_new_adapter_changes_nothing_and_moves_the_decoder_alone() -> None:
    model = fresh()
    before = logits(model)
    add_lora(model, NANO, 4, 0.0, TARGETS, "s")
    assert torch.equal(logits(model), before)
    names = list(lora_modules(model))
    assert len(names) == 2 * 4 * 7  # A and B of seven matrices in four layers
    assert all(name.startswith("model.layers.") for name in names)
    moved = {f"{name}.{p}" for name, module in lora_modules(model).items() for p, _ in module.named_parameters()}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}


def test_every_process_begins_with_the_same_adapter() -> None:
    def first(seed: str) -> Tensor:
        torch.manual_seed(torch.seed())  # whatever the process did before
        model = fresh()
        add_lora(model, NANO, 4, 0.0, TARGETS, seed)
        return torch.cat([p.flatten() for n, p in model.named_parameters() if "lora_A" in n])

    assert torch.equal(first("a"), first("a"))
    assert not torch.equal(first("a"), first("b"))


def test_the_folder_is_read_by_peft_and_passes_the_servers_checks(tmp_path: Path) -> None:
    model, adapted = trained()
    save_adapter(adapted, tmp_path / "adapter")
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    check_adapter(tmp_path / "adapter")
    fields = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (fields["peft_type"], fields["r"], fields["lora_alpha"]) == ("LORA", 4, 8)
    assert sorted(fields["target_modules"]) == sorted(TARGETS)
    assert Path(fields["base_model_name_or_path"]) == NANO
    assert all(".layers." in n and "visual" not in n for n in load_file(tmp_path / "adapter/adapter_model.safetensors"))
    again = PeftModel.from_pretrained(fresh(), str(tmp_path / "adapter"))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",)])
def test_some_matrices_only(targets: tuple[str, ...], tmp_path: Path) -> None:
    _, adapted = trained(targets=targets)
    save_adapter(adapted, tmp_path / "adapter")
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == set(targets)


def test_merged_weights_are_w_plus_scaled_b_a(tmp_path: Path) -> None:
    model, adapted = trained()
    save_adapter(adapted, tmp_path / "adapter")
    merge_adapter(NANO, tmp_path / "adapter", tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    base = load_file(NANO / "model.safetensors")
    assert set(merged) == set(base)
    low = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    stem = "base_model.model."
    for name, weight in base.items():
        a, b = (low.get(f"{stem}{name.removesuffix('.weight')}.lora_{x}.weight") for x in "AB")
        wanted = weight.float() if a is None or b is None else weight.float() + 8 / 4 * (b @ a)
        assert merged[name].dtype == weight.dtype
        assert torch.allclose(merged[name].float(), wanted, rtol=2**-8, atol=1e-6), name  # rounded once to bfloat16
    loaded = load_model(tmp_path / "merged", torch.float32)
    assert float((logits(loaded) - logits(model)).abs().max()) < 0.05 * float(logits(model).abs().max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 65}, "between 1 and 64"),
        ({"rank": 0}, "between 1 and 64"),
        ({"targets": ("q_proj", "out_proj")}, "cannot adapt out_proj"),
        ({"targets": ()}, "cannot adapt nothing"),
    ],
)
def test_what_the_server_could_not_load_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FinetuneError, match=message):
        add_lora(fresh(), NANO, **{"rank": 4, "alpha": 0.0, "targets": TARGETS, "seed": "s", **changes})


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    _, adapted = trained()
    save_adapter(adapted, tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.zeros(3, 5) for name in load_file(weights)}, weights)
    with pytest.raises(EngineError, match="does not fit the model"):
        merge_adapter(NANO, tmp_path / "adapter", tmp_path / "merged")
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(EngineError, match=r"no \.bin file"):
        merge_adapter(NANO, tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_below_the_adapter_the_weights_may_have_four_bits(tmp_path: Path) -> None:
    """Only the adapter has gradients; tower, projector and head keep their precision."""
    model: Any = load_model(NANO, torch.float32, quantize_4bit=True)
    adapted = add_lora(model, NANO, 4, 0.0, TARGETS, "s")
    kinds = {n: type(m).__name__ for n, m in model.named_modules() if n.endswith(("q_proj", "q_proj.base_layer"))}
    assert kinds["model.layers.0.self_attn.q_proj.base_layer"] == "Linear4bit"
    assert kinds["visual.vision_model.encoder.layers.0.self_attn.q_proj"] == "Linear"
    model.requires_grad_(False)
    for module in lora_modules(model).values():
        module.requires_grad_(True)
    model(input_ids=IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient and all("lora_B" in n for n in with_gradient)  # A's is zero as long as B is
    save_adapter(adapted, tmp_path / "adapter")
    PeftModel.from_pretrained(fresh(), str(tmp_path / "adapter"))  # fits the whole weights too
