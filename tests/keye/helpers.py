"""Recorded figures and tiny configurations for the tests of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.keye import KeyeConfig, KeyeProcessor

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PUBLISHED = ROOT.parent / "shared" / "keye-vl-8b-preview"
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|frame|>",
    "<|fast_start|>",
    "<|fast_end|>",
)
INPUTS = (
    "input_ids",
    "attention_mask",
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "second_per_grid_ts",
)


def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def inputs_of(case: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: case[name] for name in INPUTS if name in case}


def tiny_config(cls: type[KeyeConfig] = KeyeConfig, **changes: Any) -> KeyeConfig:
    fields: dict[str, Any] = json.loads((GOLDEN / "A" / "config.json").read_text())
    return cls(**{**fields, **changes})


def save_tiny(folder: Path, processor: KeyeProcessor, cls: type[KeyeConfig] = KeyeConfig, **changes: Any) -> KeyeConfig:
    """A config whose ids are the tiny tokenizer's, written next to the processor's files."""
    ids = {name: processor.tokenizer.convert_tokens_to_ids(token) for name, token in _IDS.items()}
    config = tiny_config(cls, **{**ids, **changes})
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return config


_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "vision_token_id": "<|vision_pad|>",
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
}
needs_published_tokenizer = pytest.mark.skipif(
    not (PUBLISHED / "tokenizer.json").is_file(), reason="the published tokenizer is not beside the repository"
)
