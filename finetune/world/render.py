"""Scenes to pixels, at any size."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from finetune.world.scene import LETTER_PITCH, Detail, Scene, Thing

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
_ROUNDS, _ROUND = ("circle", "ring"), 0.93  # round shapes look as large as others at a smaller radius
TEXT_HEIGHT = 0.125
"""Height of a capital letter, in units of the shorter side."""


def render(scene: Scene, times: Sequence[float], height: int, width: int) -> np.ndarray:
    """uint8 RGB [frames, height, width, 3]: the scene at each of `times` (seconds)."""
    tone = random.Random(f"look-{scene.seed}-{scene.split}")
    backdrop = _backdrop(scene, tone, height, width)
    tints = [tone.uniform(-14, 14) for _ in scene.things]
    filmed = scene.camera.kind != "none"
    if not filmed:
        _write(backdrop, scene)
    for detail in scene.details:
        _place(backdrop, detail)
    side = min(height, width)
    frames = np.empty((len(times), height, width, 3), np.uint8)
    for i, time in enumerate(times):
        frame = frames[i]
        frame[:] = _filmed(backdrop, scene, time) if filmed and scene.texture != "plain" else backdrop
        for thing, tint in zip(scene.things, tints, strict=True):
            if thing.visible(time):
                colour = tuple(min(max(c + tint, 0), 255) for c in RGB[thing.colour_at(time)])
                seen = scene.seen(thing, time)
                _draw(frame, thing.shape, seen, side, colour, cv2.LINE_AA)
                if thing.texture != "plain":
                    _mark(frame, thing, seen, side, tuple(0.3 * c for c in colour))
        if filmed:
            _write(frame, scene)
    return frames


def render_labels(scene: Scene, times: Sequence[float], height: int, width: int) -> np.ndarray:
    """uint8 [frames, height, width]: 0 where there is background, else 1 + the index of the thing on top."""
    labels = np.zeros((len(times), height, width), np.uint8)
    for i, time in enumerate(times):
        for k, thing in enumerate(scene.things):
            if thing.visible(time):
                _draw(labels[i], thing.shape, scene.seen(thing, time), min(height, width), (k + 1,), cv2.LINE_8)
    return labels


def box(scene: Scene, thing: Thing) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a thing at rest before a camera at rest, as shares 0..1 of the picture."""
    width, height = scene.size
    corners = np.array([(-_ROUND, -_ROUND), (_ROUND, _ROUND)]) if thing.shape in _ROUNDS else outline(thing.shape)
    (left, top), (right, bottom) = corners.min(0) * thing.radius, corners.max(0) * thing.radius
    return (
        (thing.x + left) / width,
        (thing.y + top) / height,
        (thing.x + right) / width,
        (thing.y + bottom) / height,
    )


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


@lru_cache(maxsize=1)
def _circle() -> np.ndarray:
    turns = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


@lru_cache(maxsize=16)
def outline(shape: str) -> np.ndarray:
    """float64 [points, 2]: the outline of a shape of radius 1 about its centre, y downwards. Not for round shapes."""
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
    image: np.ndarray, shape: str, seen: tuple[float, float, float], side: int, colour: Sequence[float], line: int
) -> None:
    """Fill a shape into `image`; `seen` is its centre and radius in units of `side` pixels."""
    one = 1 << _SHIFT
    x, y, radius = seen[0] * side - 0.5, seen[1] * side - 0.5, seen[2] * side
    if shape == "circle":
        centre = (round(x * one), round(y * one))
        cv2.circle(image, centre, round(radius * _ROUND * one), colour, -1, line, _SHIFT)
    elif shape == "ring":
        rounds = [np.rint((_circle() * (radius * r) + (x, y)) * one).astype(np.int32) for r in (_ROUND, 0.48)]
        cv2.fillPoly(image, rounds, colour, line, _SHIFT)  # what two outlines hold is outside
    else:
        points = np.rint((outline(shape) * radius + (x, y)) * one).astype(np.int32)
        cv2.fillPoly(image, [points], colour, line, _SHIFT)


def _mark(
    frame: np.ndarray, thing: Thing, seen: tuple[float, float, float], side: int, shade: tuple[float, ...]
) -> None:
    """Draw the stripes or dots of a thing over it, wide enough to be seen when a thing is 20 pixels large."""
    height, width = frame.shape[:2]
    x, y, radius = seen[0] * side - 0.5, seen[1] * side - 0.5, seen[2] * side
    left, top = max(0, int(x - radius)), max(0, int(y - radius))
    right, bottom = min(width, int(x + radius) + 2), min(height, int(y + radius) + 2)
    window = frame[top:bottom, left:right]
    one = 1 << _SHIFT
    marked = window.copy()
    marks = np.rint((_marks(thing.texture) * radius + (x - left, y - top)) * one).astype(np.int32)
    cv2.fillPoly(marked, list(marks), shade, cv2.LINE_AA, _SHIFT)
    cover = np.zeros(window.shape[:2], np.uint8)
    _draw(cover, thing.shape, (seen[0] - left / side, seen[1] - top / side, seen[2]), side, (255,), cv2.LINE_8)
    cv2.copyTo(marked, cover, window)


@lru_cache(maxsize=4)
def _marks(texture: str) -> np.ndarray:
    """Outlines of stripes or dots about a centre, float64 [marks, points, 2], in radii of the thing."""
    if texture == "striped":
        band = np.array([(-1.5, -0.1), (1.5, -0.1), (1.5, 0.1), (-1.5, 0.1)])
        bands = np.stack([band + np.array((0, step * 0.57)) for step in (-2, -1, 0, 1, 2)])
        return bands @ (np.array([[1, -1], [1, 1]]) / math.sqrt(2))
    places = [(i * 0.62, k * 0.62) for i in (-1, 0, 1) for k in (-1, 0, 1)]
    eight = _circle()[::6] * 0.16
    return np.stack([eight + place for place in places])


def _write(image: np.ndarray, scene: Scene) -> None:
    """The overlay: it lies on the picture, not in the world."""
    if not scene.text:
        return
    for letter, x, y, scale in letters(scene, *image.shape[:2]):
        origin = (round(x), round(y))
        thick = max(1, round(scale * 1.3))
        cv2.putText(image, letter, origin, _FONT, scale, (0, 0, 0), thick + max(1, thick), cv2.LINE_AA)
        cv2.putText(image, letter, origin, _FONT, scale, (250, 250, 250), thick, cv2.LINE_AA)


def _place(image: np.ndarray, detail: Detail) -> None:
    """A detail on the background."""
    side = min(image.shape[:2])
    if not detail.text:
        seen = (detail.x, detail.y, detail.height / 2)
        _draw(image, detail.shape, seen, side, RGB[detail.colour], cv2.LINE_AA)
        return
    capital = detail.height * side
    scale = capital / _capital_height()
    thick = max(1, round(scale * 1.3))
    for i, letter in enumerate(detail.text):
        (advance, _), _ = cv2.getTextSize(letter, _FONT, scale, 1)
        middle = detail.x * side + (i + 0.5 - len(detail.text) / 2) * LETTER_PITCH * capital
        origin = (round(middle - advance / 2), round(detail.y * side + capital / 2))
        cv2.putText(image, letter, origin, _FONT, scale, (0, 0, 0), 2 * thick, cv2.LINE_AA)
        cv2.putText(image, letter, origin, _FONT, scale, RGB[detail.colour], thick, cv2.LINE_AA)


def _filmed(backdrop: np.ndarray, scene: Scene, time: float) -> np.ndarray:
    """The backdrop as the camera sees it; past its edge it is mirrored."""
    height, width = backdrop.shape[:2]
    scale, right, down = scene.camera.view(time, scene.duration)
    side = min(height, width)
    move = np.array(
        [
            [scale, 0, (1 - scale) * (width - 1) / 2 + right * side],
            [0, scale, (1 - scale) * (height - 1) / 2 + down * side],
        ]
    )
    return cv2.warpAffine(backdrop, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _backdrop(scene: Scene, tone: random.Random, height: int, width: int) -> np.ndarray:
    base = np.array(BACKGROUND_RGB[scene.background], np.float32) * tone.uniform(0.85, 1.15)
    if scene.texture == "plain":
        return np.broadcast_to(base.astype(np.uint8), (height, width, 3)).copy()
    light: np.ndarray  # [height, width]: by what the colour is multiplied
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
