"""Checkpoint folders: what loads, what is refused and in which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import EngineError
from engine.keye import (
    KeyeConfig,
    KeyeForConditionalGeneration,
    KeyeProcessor,
    KeyeVL1_5Config,
    KeyeVL1_5ForConditionalGeneration,
    encode,
    load_model,
)
from engine.keye.loading import load_config
from tests.keye.helpers import GOLDEN, inputs_of, save_tiny, tensors, tiny_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "A" / name, tmp_path / name)
    return tmp_path


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value != "absent"}))


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(tensors("A/mixed"))).logits


def test_unused_published_tensors_may_be_there_or_not(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    unused = [name for name in weights if ".head." in name]
    assert len(unused) == 11, "the recorded checkpoint carries the pooling head, as the published one does"
    packing = {"visual.vision_model.embeddings.packing_position_embedding.weight": torch.zeros(32768, 64)}
    save_file(weights | packing, folder / "model.safetensors")
    torch.testing.assert_close(logits_of(load_model(folder)), tensors("A/mixed")["logits"], atol=1e-4, rtol=0)
    save_file({name: tensor for name, tensor in weights.items() if name not in unused}, folder / "model.safetensors")
    torch.testing.assert_close(logits_of(load_model(folder)), tensors("A/mixed")["logits"], atol=1e-4, rtol=0)


def test_shards(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, inside in files.items():
        save_file({name: weights[name] for name in inside}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in files.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.testing.assert_close(logits_of(load_model(folder)), tensors("A/mixed")["logits"], atol=1e-4, rtol=0)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(EngineError, match="model-00002-of-00002"):
        load_model(folder)
    index["weight_map"] = {"lm_head.weight": "../outside.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match=r"not a \.safetensors file of this folder"):
        load_model(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.q_norm.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(EngineError, match=r"lacks the tensor model\.layers\.1\.self_attn\.q_norm\.weight \[16\]"):
        load_model(folder)


def test_a_misshapen_tensor_is_named(folder: Path) -> None:
    edit(folder, intermediate_size=64)
    with pytest.raises(EngineError, match=r"mlp\.\w+\.weight has the shape \[\d+, \d+\] but config\.json asks for"):
        load_model(folder)


def test_tied_embeddings_need_no_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(EngineError, match="lm_head"):
        load_model(folder)
    edit(folder, tie_word_embeddings=True)
    model: Any = load_model(folder)
    assert torch.equal(model.lm_head.weight, weights["model.embed_tokens.weight"])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickles_are_refused_unread(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(EngineError, match="pickled"):
        load_model(folder)


def test_code_of_a_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: ...\n")
    auto = {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    edit(folder, auto_map=auto)
    assert isinstance(load_model(folder), KeyeForConditionalGeneration)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(EngineError):
        load_model(folder)


def test_weights_cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(EngineError, match="download it again"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '"x"'])
def test_a_config_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(EngineError):
        load_model(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "llama"),
        ("model_type", ["Keye"]),
        ("hidden_size", -64),
        ("hidden_size", 0),
        ("hidden_size", "64"),
        ("hidden_size", 64.5),
        ("hidden_size", True),
        ("hidden_size", 10**30),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", None),
        ("num_attention_heads", 0),
        ("num_attention_heads", 3),
        ("num_key_value_heads", -2),
        ("head_dim", 15),
        ("vocab_size", -1),
        ("vocab_size", 400),
        ("rms_norm_eps", -1),
        ("rope_theta", 0),
        ("rope_theta", "big"),
        ("rope_scaling", {"type": "mrope"}),
        ("rope_scaling", {"type": "mrope", "mrope_section": [2, 3]}),
        ("rope_scaling", {"type": "mrope", "mrope_section": [2, 3, -3]}),
        ("rope_scaling", {"type": "mrope", "mrope_section": [2, 3, 4]}),
        ("rope_scaling", {"type": "yarn", "mrope_section": [2, 3, 3]}),
        ("rope_scaling", 7),
        ("image_token_id", "absent"),
        ("video_token_id", "absent"),
        ("vision_start_token_id", "absent"),
        ("image_token_id", 512),
        ("image_token_id", -1),
        ("image_token_id", 506),
        ("hidden_act", "no_such_function"),
        ("torch_dtype", "no_such_type"),
        ("vision_config", 3),
        ("vision_config", {"hidden_size": -1}),
        ("vision_config", {"hidden_size": 66, "num_attention_heads": 3}),
        ("vision_config", {"num_attention_heads": 0}),
        ("vision_config", {"patch_size": 0}),
        ("vision_config", {"image_size": 7}),
        ("vision_config", {"spatial_merge_size": 3}),
        ("vision_config", {"hidden_act": "no_such_function"}),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["no_such_layer"] * 2),
    ],
)
def test_hostile_config_fields(folder: Path, field: str, value: Any) -> None:
    edit(folder, **{field: value})
    with pytest.raises(EngineError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text((GOLDEN / "A" / "config.json").read_text())
    with pytest.raises(EngineError, match=r"no model\.safetensors"):
        load_model(tmp_path)


def test_the_published_configuration_is_understood() -> None:
    config = load_config(GOLDEN / "keye-vl-8b-preview")
    assert (config.head_dim, config.mrope_section, config.vision.head_dim) == (128, (16, 24, 24), 72)
    assert (config.image_token_id, config.sliding_window) == (151655, None)


@pytest.mark.parametrize(
    ("cls", "config_cls"),
    [(KeyeForConditionalGeneration, KeyeConfig), (KeyeVL1_5ForConditionalGeneration, KeyeVL1_5Config)],
)
@pytest.mark.parametrize("tied", [False, True])
def test_saved_and_loaded_again(cls: Any, config_cls: Any, tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = cls(tiny_config(config_cls, tie_word_embeddings=tied)).eval()
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == config_cls.model_type
    assert written["rope_scaling"]["mrope_section"] == [2, 3, 3] and written["rope_theta"] == 1e6
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied
    again = load_model(tmp_path)
    assert type(again) is cls
    inputs = inputs_of(tensors("A15/one_image"))
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
        auto = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(auto) is cls and torch.equal(auto(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype(dtype: torch.dtype, folder: Path) -> None:
    assert {p.dtype for p in load_model(folder, dtype).parameters()} == {dtype}


def test_generation_settings_of_the_folder(folder: Path) -> None:
    published = json.loads((GOLDEN / "keye-vl-8b-preview" / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(published | {"eos_token_id": [501, 500]}))
    generation: Any = load_model(folder).generation_config
    assert (generation.temperature, generation.top_p, generation.top_k) == (0.6, 0.95, 20)
    assert generation.do_sample and generation.eos_token_id == [501, 500]
    assert {505, 506} <= set(generation.suppress_tokens)


def test_generation_settings_from_the_config_alone(folder: Path) -> None:
    generation: Any = load_model(folder).generation_config
    assert generation.eos_token_id == 501 and generation.pad_token_id == 501


def test_another_tokenizer_end_to_end(tmp_path: Path, processor: KeyeProcessor) -> None:
    config = save_tiny(tmp_path, processor)
    torch.manual_seed(0)
    KeyeForConditionalGeneration(config).save_pretrained(tmp_path)
    again, model = KeyeProcessor.from_pretrained(tmp_path), load_model(tmp_path)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    prompt = again.apply_chat_template(messages, add_generation_prompt=True)
    batch = encode(again, prompt, [tensors("A/mixed")["raw_image0"].numpy()])
    made: Any = model.generate(**batch, max_new_tokens=4, do_sample=False)  # type: ignore[operator]
    assert made.shape[1] > batch["input_ids"].shape[1]


def test_four_bit_keeps_what_sees_whole_and_answers_alike() -> None:
    """NF4 has 16 levels per block of 64 weights, about 9 % relative error of a normally distributed matrix. Each of the
    two layers adds an attention and an MLP branch, so errors of about that size add up independently: √4 × 9 % = 18 %
    of the logits' spread. Measured 16 %; wrong blocks or an unwanted layer would leave no likeness at all."""
    pytest.importorskip("bitsandbytes")
    model: Any = load_model(GOLDEN / "A", torch.float32, quantize_4bit=True)
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if name.endswith("q_proj")}
    assert {k for name, k in kinds.items() if name.startswith("model.")} == {"Linear4bit"}
    assert {k for name, k in kinds.items() if name.startswith("visual.")} == {"Linear"}
    assert type(model.lm_head) is type(model.mlp_AR.linear_1) is torch.nn.Linear
    case = tensors("A/mixed")
    with torch.no_grad():
        logits = model(**inputs_of(case)).logits
        seen = torch.cat(model.encode_visual(case["pixel_values"], case["image_grid_thw"]))
    torch.testing.assert_close(seen, case["image_projector_out"], atol=1e-4, rtol=0)
    recorded = case["logits"]
    error = (logits - recorded).pow(2).mean().sqrt() / recorded.std()
    assert 0.01 < error < 0.25, f"relative error {error:.3f}"
    assert torch.nn.functional.cosine_similarity(logits.flatten(), recorded.flatten(), dim=0) > 0.97
