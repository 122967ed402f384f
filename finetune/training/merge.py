"""Model merging (report, section 3.2): the weights of models annealed on different mixtures, averaged.

Neither weights nor number of the models are published; a plain average is the safe reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from engine.keye.loading import weight_files
from finetune.errors import FinetuneError
from finetune.training.checkpoint import write_model


def average(folders: Sequence[Path], out: Path, shares: Sequence[float] | None = None) -> Path:
    """Write to `out` the weighted mean (uniform without `shares`) of the models in `folders`, and return it.

    Summed in float32 and kept in the first model's types. FinetuneError where the models do not have the same
    tensors or the shares do not fit."""
    if not folders:
        raise FinetuneError("There is nothing to merge; name at least one model folder.")
    shares = shares or [1 / len(folders)] * len(folders)
    if len(shares) != len(folders) or abs(sum(shares) - 1) > 1e-6:
        raise FinetuneError(f"Each of the {len(folders)} models needs a share, and the shares must add up to 1.")
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for folder, share in zip(folders, shares, strict=True):
        seen: set[str] = set()
        for file in weight_files(folder):
            with safe_open(str(file), framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    value = opened.get_tensor(name)
                    seen.add(name)
                    if folder == folders[0]:
                        kinds[name], total[name] = value.dtype, share * value.float()
                    elif name not in total or total[name].shape != value.shape:
                        raise FinetuneError(f"{folder} and {folders[0]} differ in {name}; merge models of one kind.")
                    else:
                        total[name] += share * value.float()
        if seen != set(total):
            odd = sorted(seen ^ set(total))[0]
            raise FinetuneError(f"{folder} and {folders[0]} differ in {odd}; merge models of one kind.")
    write_model(out, {name: value.to(kinds[name]) for name, value in total.items()}, folders[0])
    return out
