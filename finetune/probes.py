"""Teaching the tower to see before the decoder learns to read: what lies under every patch, by linear probes."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.keye import KeyeForConditionalGeneration
from finetune.footage import Setting, draw_setting, shoot, to_patches
from finetune.world.clips import sampled_times
from finetune.world.render import letter_centres, render_labels
from finetune.world.scene import BACKGROUNDS, COLOURS, LETTERS, SHAPES, Scene

PATCH = 14
CHARACTERS = "".join(sorted(set(LETTERS + "01")))
TARGETS = {
    "colour": len(COLOURS) + 1,  # the last: nothing here
    "shape": len(SHAPES),
    "size": 2,
    "axis": 3,  # of its motion: still, sideways, up or down; only several frames show it
    "character": len(CHARACTERS) + 1,
    "background": len(BACKGROUNDS),
    # Where the patch lies. What a tower is not asked for it drops: without these two no question of place is learnt.
    "row": 8,
    "column": 8,
}
WEIGHTS = {"shape": 3.0, "character": 1.5, "background": 0.3, "colour": 0.5, "row": 0.5, "column": 0.5}
"""What is hard to see counts for more."""

_IGNORE = -100


class Probes(nn.Module):
    """One linear reading of a patch's features per target."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in TARGETS.items()})

    def forward(self, features: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, tuple[int, int]]]:
        """The sum of the targets' losses, and of each how many patches were right and counted.

        `features` [patches, width]; `labels` int64 [patches] each, -100 where a target says nothing."""
        total = features.new_zeros(())
        scores = {}
        for name, head in self.heads.items():
            known = labels[name] != _IGNORE
            if not bool(known.any()):
                continue
            logits, truth = head(features[known]).float(), labels[name][known]
            weight = torch.ones(TARGETS[name])
            if name == "character":
                weight[-1] = 0.05  # nearly every patch has none
            total = total + WEIGHTS.get(name, 1.0) * F.cross_entropy(logits, truth, weight)
            counted = truth != TARGETS[name] - 1 if name == "character" else torch.ones_like(truth, dtype=torch.bool)
            scores[name] = (int((logits.argmax(1) == truth)[counted].sum()), int(counted.sum()))
        return total, scores


def patch_labels(scene: Scene, times: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """int64 [frames * patches] for every target: the truth of what is drawn there. `size` is (height, width)."""
    height, width = size
    rows, columns = height // PATCH, width // PATCH
    drawn = render_labels(scene, list(times), height, width)
    cut = drawn.reshape(len(times), rows, PATCH, columns, PATCH).transpose(0, 1, 3, 2, 4)
    cut = cut.reshape(len(times), rows * columns, PATCH * PATCH)
    shares = np.stack([(cut == k + 1).mean(2) for k in range(len(scene.things))], axis=2)
    owner, share = shares.argmax(2), shares.max(2)
    on, off = share > 0.2, share < 0.02
    out = {name: np.full(owner.shape, _IGNORE, np.int64) for name in TARGETS}
    out["colour"][off] = len(COLOURS)
    out["background"][:] = BACKGROUNDS.index(scene.background)
    eighths = [((np.arange(n) + 0.5) * 8 / n).astype(np.int64) for n in (rows, columns)]
    out["row"][:], out["column"][:] = np.repeat(eighths[0], columns), np.tile(eighths[1], rows)
    axes = {"still": 0, "left": 1, "right": 1, "up": 2, "down": 2}
    for k, thing in enumerate(scene.things):
        here = on & (owner == k)
        out["shape"][here] = SHAPES.index(thing.shape)
        out["size"][here] = int(thing.big)
        if len(times) > 1:
            out["axis"][here] = axes[thing.motion]
        colours = np.array([COLOURS.index(thing.colour_at(t)) for t in times])
        out["colour"][here] = np.broadcast_to(colours[:, None], here.shape)[here]
    out["character"][:] = len(CHARACTERS)
    for letter, x, y in letter_centres(scene, height, width):
        column, row = int(x // PATCH), int(y // PATCH)
        if 0 <= column < columns and 0 <= row < rows:
            out["character"][:, row * columns + column] = CHARACTERS.index(letter)
    return {name: values.reshape(-1) for name, values in out.items()}


def probe_batch(number: int, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Pixels [patches, 3, 14, 14], grid [items, 3] and labels of one warm-up batch: pictures, or clips, because the
    tower of the Preview sees a clip as one sequence and must not meet that later for the first time."""
    rng = random.Random(f"{seed}-probe-{number}")
    still = rng.random() < 0.8
    setting = draw_setting(rng, still)
    if setting.path == "h264":
        setting = Setting(**{**setting.__dict__, "path": "scaled"})
    frames = 1 if still else max(4, min(16, setting.duration * setting.sampling.fps))
    items = max(2, round(24 / frames))  # many small steps teach shapes sooner than few large ones
    first = seed * 1_000_000_007 + 500_000_000 + number * 64
    scenes, images, _ = shoot(setting, range(first, first + items))
    times = np.zeros(1)
    if not still:
        times, _ = sampled_times(setting.duration, setting.video_fps, setting.sampling)
    made = [patch_labels(scene, times, setting.size) for scene in scenes]
    labels = {name: torch.from_numpy(np.concatenate([m[name] for m in made])) for name in TARGETS}
    return *to_patches(images), labels


def probe_step(
    model: KeyeForConditionalGeneration, probes: Probes, batch: tuple[Tensor, Tensor, dict[str, Tensor]]
) -> tuple[Tensor, dict[str, tuple[int, int]]]:
    """Loss and scores of one batch."""
    pixels, grid, labels = batch
    return probes(model.visual(pixels, grid), labels)
