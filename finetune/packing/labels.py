"""The truth of what lies under every patch of the tower and every visual token of the decoder, from the scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.world.details import detail_box
from finetune.world.render import box, letter_centres, render_labels
from finetune.world.scene import BACKGROUNDS, COLOURS, LETTERS, MOTIONS, SHAPES, TEXTURES, Scene, Thing

PATCH, TOKEN = 14, 28
CHARACTERS = "".join(sorted(set(LETTERS + "01")))
EVENTS = ("appears", "disappears", "turns")
IGNORE = -100
"""Where a target says nothing."""

PATCH_TARGETS = {
    "colour": len(COLOURS) + 1,  # the last: nothing here
    "shape": len(SHAPES),
    "size": 2,
    "axis": 3,  # of its motion: still, sideways, up or down; only several frames show it
    "character": len(CHARACTERS) + 1,  # the last: none
    "background": len(BACKGROUNDS),
    # Where the patch lies. What a tower is not asked for it drops, and with it every question of place.
    "row": 8,
    "column": 8,
    "texture": len(TEXTURES),
}
BINS = 25
"""Of a coordinate of a box: 40 thousandths of the picture's width or height each."""

_SIDES = ("x1", "y1", "x2", "y2")
TOKEN_TARGETS = {
    "colour": len(COLOURS) + 1,
    "shape": len(SHAPES),
    "size": 2,
    "motion": len(MOTIONS),  # so far: a token sees only the frames before its own
    "event": len(EVENTS) + 1,  # what has happened here so far; the last: nothing
    "second": 16,  # in which it happened
    "clock": 16,  # the second that this frame shows
    "left": len(CHARACTERS) + 1,  # the character in the left half of the token
    "right": len(CHARACTERS) + 1,
    "place": 5,  # which character of the text is the first of this token
    "texture": len(TEXTURES),
    "detail": 3,  # too small to be read: a text, a shape; the last: none
    **dict.fromkeys(_SIDES, BINS),  # the box of the thing here, if it rests before a camera that does
}

_MOVED = 0.09  # units of the shorter side: from here on a motion is told from rest


def patch_labels(scene: Scene, times: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """int64 [frames * patches] for every target of PATCH_TARGETS. `size` is (height, width), `times` in seconds."""
    height, width = size
    rows, columns = height // PATCH, width // PATCH
    shares = _shares(render_labels(scene, list(times), height, width), len(scene.things), PATCH)
    owner, share = shares.argmax(2), shares.max(2)
    on, off = share > 0.2, share < 0.02
    out = {name: np.full(owner.shape, IGNORE, np.int64) for name in PATCH_TARGETS}
    out["colour"][off] = len(COLOURS)
    out["background"][:] = BACKGROUNDS.index(scene.background)
    eighths = [((np.arange(n) + 0.5) * 8 / n).astype(np.int64) for n in (rows, columns)]
    out["row"][:], out["column"][:] = np.repeat(eighths[0], columns), np.tile(eighths[1], rows)
    axes = {"still": 0, "left": 1, "right": 1, "up": 2, "down": 2}
    _name_things(scene, times, on, owner, out)
    if len(times) > 1:
        for k, thing in enumerate(scene.things):
            out["axis"][on & (owner == k)] = axes.get(thing.motion, IGNORE)
    out["character"][:] = len(CHARACTERS)
    for letter, x, y in letter_centres(scene, height, width):
        column, row = int(x // PATCH), int(y // PATCH)
        if 0 <= column < columns and 0 <= row < rows:
            out["character"][:, row * columns + column] = CHARACTERS.index(letter)
    return {name: values.reshape(-1) for name, values in out.items()}


def token_labels(scene: Scene, times: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """int64 [frames * tokens] for every target of TOKEN_TARGETS, in the decoder's order: frame, row, column."""
    height, width = size
    rows, columns = height // TOKEN, width // TOKEN
    # a quarter of the resolution tells well enough who covers a token
    shares = _shares(render_labels(scene, list(times), height // 4, width // 4), len(scene.things), TOKEN // 4)
    owner, share = shares.argmax(2), shares.max(2)
    on, off = share > 0.1, share < 0.01
    out = {name: np.full(owner.shape, IGNORE, np.int64) for name in TOKEN_TARGETS}
    out["colour"][off] = len(COLOURS)
    _name_things(scene, times, on, owner, out)
    if scene.camera.kind == "none":
        for k, thing in enumerate(scene.things):
            if thing.resting:
                for side, share in zip(_SIDES, box(scene, thing), strict=True):
                    out[side][on & (owner == k)] = min(max(int(share * BINS), 0), BINS - 1)
    out["clock"][:] = np.minimum(times.astype(np.int64), TOKEN_TARGETS["clock"] - 1)[:, None]
    if len(times) > 1:
        out["event"][on | off] = len(EVENTS)
        for k, thing in enumerate(scene.things):
            here = on & (owner == k)
            _label_motion(thing, times, scene.duration, here, out["motion"])
            if thing.event is None:
                continue
            if thing.event == "disappears":  # it has left the tokens where it was
                here = np.broadcast_to(here.any(axis=0), here.shape)
            happened = here & (times >= thing.at)[:, None]
            out["event"][happened] = EVENTS.index(thing.event)
            out["second"][happened] = min(int(thing.at), TOKEN_TARGETS["second"] - 1)
    out["left"][:] = out["right"][:] = len(CHARACTERS)
    for number, (letter, x, y) in reversed(list(enumerate(letter_centres(scene, height, width)))):
        column, row = int(x // TOKEN), int(y // TOKEN)
        if 0 <= column < columns and 0 <= row < rows:
            at = row * columns + column
            out["left" if x % TOKEN < TOKEN / 2 else "right"][:, at] = CHARACTERS.index(letter)
            out["place"][:, at] = number
    if scene.details:
        _label_details(scene, size, out)
    return {name: values.reshape(-1) for name, values in out.items()}


def _label_details(scene: Scene, size: tuple[int, int], out: dict[str, np.ndarray]) -> None:
    """Where a detail is, says that it is there and nothing else: what else is under it is not told from it."""
    height, width = size
    columns = width // TOKEN
    names = ("text", "shape")
    touched, here = [], {}
    for detail in scene.details:
        left, top, right, bottom = (int(side // TOKEN) for side in detail_box(scene, detail, size))
        touched += [row * columns + column for row in range(top, bottom + 1) for column in range(left, right + 1)]
        across, down = detail.x / scene.size[0] * width, detail.y / scene.size[1] * height
        here[int(down // TOKEN) * columns + int(across // TOKEN)] = names.index("text" if detail.text else "shape")
    for values in out.values():
        values[:, touched] = IGNORE
    out["detail"][:] = len(names)
    out["detail"][:, touched] = IGNORE
    for at, what in here.items():
        out["detail"][:, at] = what


def batch_labels(made: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """The labels of several scenes, one after the other."""
    return {name: torch.from_numpy(np.concatenate([m[name] for m in made])) for name in made[0]}


def _shares(drawn: np.ndarray, things: int, cell: int) -> np.ndarray:
    """float64 [frames, cells, things]: how much of each cell of `cell`² pixels a thing covers. `drawn` as
    render_labels makes it."""
    frames, height, width = drawn.shape
    rows, columns = height // cell, width // cell
    cut = drawn.reshape(frames, rows, cell, columns, cell).transpose(0, 1, 3, 2, 4)
    cut = cut.reshape(frames, rows * columns, cell * cell)
    return np.stack([(cut == k + 1).mean(2) for k in range(things)], axis=2)


def _name_things(scene: Scene, times: np.ndarray, on: np.ndarray, owner: np.ndarray, out: dict[str, Any]) -> None:
    for k, thing in enumerate(scene.things):
        here = on & (owner == k)
        out["shape"][here] = SHAPES.index(thing.shape) if thing.shape in SHAPES else IGNORE
        out["texture"][here] = TEXTURES.index(thing.texture)
        out["size"][here] = int(thing.big)
        colours = np.array([COLOURS.index(thing.colour_at(t)) for t in times])
        out["colour"][here] = np.broadcast_to(colours[:, None], here.shape)[here]


def _label_motion(thing: Thing, times: np.ndarray, duration: float, here: np.ndarray, out: np.ndarray) -> None:
    """Says nothing of the first frames, in which what moves has hardly moved and what rests might."""
    if thing.motion not in MOTIONS:
        return
    moved = (abs(thing.dx) + abs(thing.dy)) * times / duration
    told = times >= 0.35 * duration if thing.motion == "still" else moved >= _MOVED
    out[here & told[:, None]] = MOTIONS.index(thing.motion)
