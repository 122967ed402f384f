"""Scenes to pixels, at any size."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from finetune.world.scene import Scene, Thing

cv2.setNumThreads(1)  # pictures are small: threads cost more than they save

RGB = {
    "red": (215, 35, 35),
    "orange": (240, 130, 25),
    "yellow": (240, 220, 40),
    "green": (45, 170, 60),
    "blue": (45, 95, 225),
    "purple": (130, 50, 170),
    "pink": (245, 145, 190),
    "white": (240, 240, 240),
}
BACKGROUND_RGB = {
    "black": (14, 14, 16),
    "grey": (112, 112, 114),
    "brown": (92, 64, 40),
    "navy": (20, 28, 74),
    "teal": (14, 92, 94),
}
_FONT = cv2.FONT_HERSHEY_DUPLEX
_SHIFT = 4  # cv2 takes coordinates in sixteenths of a pixel
TEXT_HEIGHT = 0.125
"""Height of a capital letter, in units of the shorter side."""


def render(scene: Scene, times: Sequence[float], height: int, width: int) -> np.ndarray:
    """uint8 RGB [frames, height, width, 3]: the scene at each of `times` (seconds)."""
    tone = random.Random(f"look-{scene.seed}-{scene.split}")
    backdrop = _backdrop(scene, tone, height, width)
    tints = {thing: tone.uniform(-14, 14) for thing in scene.things}
    if scene.text:
        for letter, x, y, scale in letters(scene, height, width):
            origin = (round(x), round(y))
            thick = max(1, round(scale * 1.3))
            cv2.putText(backdrop, letter, origin, _FONT, scale, (0, 0, 0), thick + max(1, thick), cv2.LINE_AA)
            cv2.putText(backdrop, letter, origin, _FONT, scale, (250, 250, 250), thick, cv2.LINE_AA)
    frames = np.empty((len(times), height, width, 3), np.uint8)
    for i, time in enumerate(times):
        frame = frames[i]
        frame[:] = backdrop
        for thing in scene.things:
            if thing.visible(time):
                colour = tuple(min(max(c + tints[thing], 0), 255) for c in RGB[thing.colour_at(time)])
                _draw(frame, thing, thing.place(time, scene.duration), min(height, width), colour, cv2.LINE_AA)
    return frames


def render_labels(scene: Scene, times: Sequence[float], height: int, width: int) -> np.ndarray:
    """uint8 [frames, height, width]: 0 where there is background, else 1 + the index of the thing on top."""
    labels = np.zeros((len(times), height, width), np.uint8)
    for i, time in enumerate(times):
        for k, thing in enumerate(scene.things):
            if thing.visible(time):
                place = thing.place(time, scene.duration)
                _draw(labels[i], thing, place, min(height, width), (k + 1,), cv2.LINE_8)
    return labels


def letters(scene: Scene, height: int, width: int) -> list[tuple[str, float, float, float]]:
    """Every letter of the overlay: itself, the left end and the baseline in pixels, and the font's scale."""
    side = min(height, width)
    scale = TEXT_HEIGHT * side / _capital_height()
    pitch = 0.15 * side
    left = (width - pitch * len(scene.text)) / 2
    baseline = (0.05 + TEXT_HEIGHT) * side if scene.text_top else height - 0.05 * side
    out = []
    for i, letter in enumerate(scene.text):
        (advance, _), _ = cv2.getTextSize(letter, _FONT, scale, 1)
        out.append((letter, left + pitch * i + (pitch - advance) / 2, baseline, scale))
    return out


def letter_centres(scene: Scene, height: int, width: int) -> list[tuple[str, float, float]]:
    """Every letter of the overlay with its centre, x and y in pixels."""
    side = min(height, width)
    pitch = 0.15 * side
    left = (width - pitch * len(scene.text)) / 2
    return [
        (letter, left + pitch * (i + 0.5), baseline - TEXT_HEIGHT * side / 2)
        for i, (letter, _, baseline, _) in enumerate(letters(scene, height, width))
    ]


@lru_cache(maxsize=1)
def _capital_height() -> int:
    (_, height), _ = cv2.getTextSize("H", _FONT, 1.0, 1)
    return height


@lru_cache(maxsize=16)
def outline(shape: str) -> np.ndarray:
    """float64 [points, 2]: the outline of a shape of radius 1 about its centre, y downwards. Not for circles."""
    if shape == "square":
        points = [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]
    elif shape == "triangle":
        points = [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)]
    elif shape == "star":
        radii = [1.0, 0.42] * 5
        angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
        points = [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    elif shape == "heart":
        turns = [2 * math.pi * i / 36 for i in range(36)]
        points = [
            (
                math.sin(a) ** 3,
                -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16 - 0.1,
            )
            for a in turns
        ]
    else:  # cross
        b = 0.32
        points = [(-b, -1), (b, -1), (b, -b), (1, -b), (1, b), (b, b), (b, 1), (-b, 1), (-b, b), (-1, b), (-1, -b)]
        points.append((-b, -b))
    return np.array(points, np.float64)


def _draw(
    image: np.ndarray, thing: Thing, place: tuple[float, float], side: int, colour: Sequence[float], line: int
) -> None:
    one = 1 << _SHIFT
    x, y, radius = place[0] * side - 0.5, place[1] * side - 0.5, thing.radius * side
    if thing.shape == "circle":
        centre = (round(x * one), round(y * one))
        cv2.circle(image, centre, round(radius * 0.93 * one), colour, -1, line, _SHIFT)
    else:
        points = np.rint((outline(thing.shape) * radius + (x, y)) * one).astype(np.int32)
        cv2.fillPoly(image, [points], colour, line, _SHIFT)


def _backdrop(scene: Scene, tone: random.Random, height: int, width: int) -> np.ndarray:
    base = np.array(BACKGROUND_RGB[scene.background], np.float32) * tone.uniform(0.85, 1.15)
    if scene.texture == "plain":
        return np.broadcast_to(base.astype(np.uint8), (height, width, 3)).copy()
    if scene.texture == "gradient":
        angle = tone.uniform(0, 2 * math.pi)
        across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * math.cos(angle)
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * math.sin(angle)
        light = 1 + 0.3 * (across + down)
    elif scene.texture == "noise":
        # a coarse grid of its own size, so that a scene looks the same at every resolution
        grid = np.random.default_rng(tone.getrandbits(32)).uniform(0.75, 1.25, (9, 9)).astype(np.float32)
        light = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        angle, period = tone.uniform(0, math.pi), tone.uniform(0.08, 0.25)
        side = min(height, width)
        across = np.arange(width, dtype=np.float32)[None, :] * (math.cos(angle) / side)
        down = np.arange(height, dtype=np.float32)[:, None] * (math.sin(angle) / side)
        light = 1 + 0.15 * np.sin((across + down) * (2 * math.pi / period))
    return np.clip(base * light[:, :, None], 0, 255).astype(np.uint8)
