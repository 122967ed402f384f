"""Models that answer otherwise than keye-nano, made from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine.keye import load_model
from engine.runtime.source import NANO
from finetune.training.adapters import TARGETS, add_lora, save_adapter


def changed_copy(folder: Path, strength: float = 0.5) -> Path:
    """keye-nano with noise in its decoder, as a whole model."""
    shutil.copytree(NANO, folder)
    weights = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(1)
    for name, tensor in weights.items():
        if name.endswith("down_proj.weight"):
            weights[name] = tensor + (strength * torch.randn(tensor.shape, generator=noise)).to(tensor.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def trained_adapter(folder: Path, strength: float = 1.5) -> Path:
    """A LoRA adapter of keye-nano's decoder; of strength 0 it is untrained."""
    model = load_model(NANO, torch.float32)
    adapted = add_lora(model, NANO, 4, 8.0, TARGETS, "s")  # type: ignore[arg-type]
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(strength * torch.randn(weight.shape, generator=noise))
    save_adapter(adapted, folder)
    return folder
