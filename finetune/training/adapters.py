"""LoRA on the decoder: beside its weights, or beside its weights in 4 bits.

What is written is what `peft` writes and what the server loads: the seven kinds of matrices of the decoder's layers,
named by their endings, and never the tower, whose layers are named alike."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from engine.keye import KeyeForConditionalGeneration, load_model
from engine.runtime.adapters import apply_adapter, check_adapter
from engine.runtime.sglang_options import ADAPTER_RANK
from finetune.errors import FinetuneError
from finetune.training.checkpoint import replace_folder, stored_dtype, write_model

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What the server adapts, and what is adapted where nothing is said."""

_SEES = r"(visual|mlp_AR)\..*"


def add_lora(
    model: KeyeForConditionalGeneration, folder: Path, rank: int, alpha: float, targets: tuple[str, ...], seed: str
) -> PeftModel:
    """Put adapters of `rank` beside the `targets` of every decoder layer, in place, the same for the same `seed`.

    `folder` is the model's; the adapter names it as its base. `alpha` 0 is twice the rank. At first they change
    nothing. Raises FinetuneError for a rank or target that the server could not load."""
    if not 1 <= rank <= ADAPTER_RANK:
        raise FinetuneError(f"An adapter's rank must lie between 1 and {ADAPTER_RANK}, not {rank}.")
    unknown = [name for name in targets if name not in TARGETS]
    if unknown or not targets:
        raise FinetuneError(f"LoRA cannot adapt {', '.join(unknown) or 'nothing'}; choose from {', '.join(TARGETS)}.")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,  # type: ignore[arg-type]  # a fraction is as good
        target_modules=list(targets),  # a pattern instead of a list would be refused by the server
        exclude_modules=_SEES,
        base_model_name_or_path=str(folder.resolve()),
    )
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little") >> 1)
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def lora_modules(model: nn.Module) -> dict[str, nn.Module]:
    """What an adapted model trains, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[0].rpartition(".")[2] in ("lora_A", "lora_B")
    }


def save_adapter(adapted: PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write adapter_config.json and adapter_model.safetensors, whole or not at all.

    `weights` are the model's where its own are spread over processes. Raises FinetuneError where there is no room."""
    scratch = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        adapted.save_pretrained(str(scratch), state_dict=weights, safe_serialization=True)
        (scratch / "README.md").unlink(missing_ok=True)  # the library's empty form
        config = scratch / "adapter_config.json"
        fields: dict[str, Any] = json.loads(config.read_text("utf-8"))
        fields["target_modules"] = sorted(fields["target_modules"])
        config.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        os.chmod(scratch / "adapter_model.safetensors", 0o644)
        check_adapter(scratch)
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(scratch, folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise FinetuneError(f"The adapter cannot be written to {folder} ({error}); make room and try again.") from error


def merge_adapter(base: Path, adapter: Path, out: Path) -> Path:
    """Write to `out` the model of `base` with the adapter worked into its weights, in the type of `base`.

    Added up in float32 and rounded once; that takes four bytes of memory for every parameter. Raises EngineError where
    one of the folders cannot be read or they do not belong together, FinetuneError where there is no room."""
    merged = apply_adapter(load_model(base, torch.float32), base, adapter)
    write_model(out, merged.state_dict(), base, stored_dtype(base))
    return out
