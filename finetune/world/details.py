"""Details that are too small for the frames a model sees: what they are, where they lie, and where to look closer."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from engine.reasoning.operations import Box
from finetune.world.scene import COLOURS, SHAPES, WORDS, Camera, Detail, Scene, Thing

TEXT_PIXELS, SHAPE_PIXELS = 4.0, 5.0
"""Heights of a detail in the frame as the model sees it: no letter and no outline can be told there."""

LOOK, STEP = 40, 24
"""Side of the part that is looked at, and the steps in which it is placed, in pixels of the frame as the model sees
it. Cut out of a file of four times that size it is as large as a whole frame, and a letter as high as usual. Two
neighbouring parts have more in common than a detail is wide, so that one of them holds it; a model that reads places
from tokens of 28 pixels tells them apart, and would not tell finer steps."""

_ROOM = 0.05  # around a detail, in units of the shorter side


def with_details(scene: Scene, rng: random.Random, shorter: int) -> Scene | None:
    """`scene` with a tiny word and a tiny shape, before a camera at rest and without another text; None where there is
    no room for them. `shorter` is the shorter side of the frames that the model will see, in pixels.

    The shape is of a form and a colour that nothing else has, so that a question about a thing never means it."""
    bare = replace(scene, text="", camera=Camera())
    shapes = [shape for shape in SHAPES if all(shape != t.shape for t in scene.things)]
    colours = [colour for colour in COLOURS if all(colour not in (t.colour, t.turned) for t in scene.things)]
    short = [word for word in WORDS if len(word) <= 3]
    wanted = (
        Detail(0, 0, TEXT_PIXELS / shorter, text=rng.choice(short)),
        Detail(0, 0, SHAPE_PIXELS / shorter, shape=rng.choice(shapes), colour=rng.choice(colours)),
    )
    placed: list[Detail] = []
    for detail in wanted:
        for _ in range(200):
            width, height = bare.size
            across, down = detail.width / 2 + _ROOM, detail.height / 2 + _ROOM
            detail = replace(detail, x=rng.uniform(across, width - across), y=rng.uniform(down, height - down))
            away = all(math.hypot(detail.x - o.x, detail.y - o.y) > 0.2 for o in placed)
            if away and all(_clear(detail, thing) for thing in bare.things):
                placed.append(detail)
                break
        else:
            return None
    return replace(bare, details=tuple(placed))


def _clear(detail: Detail, thing: Thing) -> bool:
    """Whether a thing never comes near a detail: the distance from its straight path."""
    px, py = detail.x - thing.x, detail.y - thing.y
    length = thing.dx**2 + thing.dy**2
    part = min(max((px * thing.dx + py * thing.dy) / length, 0.0), 1.0) if length else 0.0
    return math.hypot(px - part * thing.dx, py - part * thing.dy) > thing.radius + thing.sway + detail.width / 2 + _ROOM


def detail_box(scene: Scene, detail: Detail, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a detail in pixels of a frame of `size` (height, width)."""
    (height, width), (wide, high) = size, scene.size
    x, y = width / wide, height / high
    return (
        (detail.x - detail.width / 2) * x,
        (detail.y - detail.height / 2) * y,
        (detail.x + detail.width / 2) * x,
        (detail.y + detail.height / 2) * y,
    )


def look_at(scene: Scene, detail: Detail, size: tuple[int, int]) -> Box:
    """The part of a frame of `size` (height, width) to look at, with the detail near its middle."""
    left, top, right, bottom = detail_box(scene, detail, size)
    x, y = _placed((left + right) / 2, size[1]), _placed((top + bottom) / 2, size[0])
    return x, y, x + LOOK, y + LOOK


def _placed(middle: float, most: int) -> int:
    return min(max(0, round((middle - LOOK / 2) / STEP) * STEP), most - LOOK)
