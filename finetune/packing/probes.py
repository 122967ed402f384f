"""Linear readings of hidden states, learnt beside the model and thrown away: they tell every patch and every visual
token what it should know, a thousand times as often as the answers to questions do."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.keye import KeyeForConditionalGeneration
from finetune.packing.footage import draw_setting, shoot, to_patches
from finetune.packing.labels import IGNORE, PATCH_TARGETS, TOKEN_TARGETS, batch_labels, patch_labels
from finetune.world.clips import sampled_times
from finetune.world.questions import ask
from finetune.world.scene import Scene

Scores = dict[str, tuple[int, int]]
"""Of each target, how many were right and counted."""

TOWER_WEIGHTS = {"colour": 2.0, "shape": 3.0, "character": 1.5, "background": 0.3, "row": 0.5, "column": 0.5}
"""What is hard to see, or asked for most, counts for more."""

DECODER_WEIGHTS = {
    "motion": 2.0,
    "event": 2.0,
    "second": 2.0,
    "clock": 0.5,
    "texture": 0.5,
    "detail": 2.0,
    **dict.fromkeys(("x1", "y1", "x2", "y2"), 0.3),
}

_COMMON = {"colour": 0.1, "character": 0.05, "left": 0.05, "right": 0.05, "event": 0.1, "detail": 0.1}
"""Targets whose last value means that nothing is there. It is met nearly everywhere: this is its weight."""


class Probes(nn.Module):
    """One linear reading of the hidden states per target."""

    def __init__(self, width: int, targets: dict[str, int], weights: dict[str, float]) -> None:
        super().__init__()
        self.targets, self.weights = targets, weights
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in targets.items()})

    def forward(self, features: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, Scores]:
        """The weighted mean of the targets' losses, and the scores of what is there.

        `features` [n, width]; `labels` int64 [n] each, IGNORE where a target says nothing."""
        total = features.new_zeros(())
        scores: Scores = {}
        for name, head in self.heads.items():
            known = labels[name] != IGNORE
            if not bool(known.any()):
                total = total + 0.0 * head(features[:0]).sum()  # a gradient for every weight, in every process
                continue
            logits, truth = head(features[known]).float(), labels[name][known]
            balance = torch.ones(self.targets[name], device=features.device)
            balance[-1] = _COMMON.get(name, 1.0)
            total = total + self.weights.get(name, 1.0) * F.cross_entropy(logits, truth, balance)
            counted = truth != self.targets[name] - 1 if name in _COMMON else torch.ones_like(truth, dtype=torch.bool)
            scores[name] = (int((logits.argmax(1) == truth)[counted].sum()), int(counted.sum()))
        return total / sum(self.weights.get(name, 1.0) for name in self.targets), scores


def tower_probes(model: KeyeForConditionalGeneration) -> Probes:
    return Probes(model.config.vision.hidden_size, PATCH_TARGETS, TOWER_WEIGHTS)


def decoder_probes(model: KeyeForConditionalGeneration) -> Probes:
    return Probes(model.config.hidden_size, TOKEN_TARGETS, DECODER_WEIGHTS)


def probe_batch(rng: random.Random) -> tuple[Tensor, Tensor, dict[str, Tensor], list[str]]:
    """Pixels [patches, 3, 14, 14], grid [items, 3], labels and descriptions of one batch for the tower: pictures, or
    clips, because the tower of the Preview sees a clip as one sequence and must not meet that later for the first
    time."""
    still = rng.random() < 0.8
    setting = draw_setting(rng, still)
    if setting.path == "h264":
        setting = replace(setting, path="scaled")
    frames = 1 if still else max(4, min(16, setting.duration * setting.sampling.fps))
    items = max(2, round(24 / frames))  # many small steps teach shapes sooner than few large ones
    first = rng.getrandbits(44)
    scenes, images, _ = shoot(setting, range(first, first + items))
    times = np.zeros(1)
    if not still:
        times, _ = sampled_times(setting.duration, setting.video_fps, setting.sampling)
    labels = batch_labels([patch_labels(scene, times, setting.size) for scene in scenes])
    return *to_patches(images), labels, [describe(scene, rng) for scene in scenes]


def describe(scene: Scene, rng: random.Random) -> str:
    """All that is to see in one sentence or two."""
    told = ask(scene, rng, "list" if scene.still else "caption", plain=True)
    assert told is not None
    return f"{told.answer} {scene.text}".strip()
