"""The arithmetic of the published utilities, versions 1.0.0 (Preview) and 1.5.2 (Keye-VL-1.5), as pure functions.

What a model was trained on is decided here: how many frames, which ones, how large. Only the total budget is not
taken from there, because the published total is not kept by the code that states it (see budget.py)."""

from __future__ import annotations

import math

import numpy as np
import torch

from engine.errors import EngineError
from engine.video.types import TOKEN_SIDE

PIXELS = TOKEN_SIDE * TOKEN_SIDE
MAX_ASPECT = 200
IMAGE_TOKENS = {"1.0.0": (4, 16384), "1.5.2": (4, 20480)}
"""Fewest and most tokens of a still picture, by version of the published utilities."""


def smart_resize(
    height: int, width: int, min_pixels: int, max_pixels: int, factor: int = TOKEN_SIDE
) -> tuple[int, int]:
    """The (height, width) in pixels, multiples of `factor`, at which a picture of `height`×`width` pixels is shown:
    its own size rounded, shrunk to at most `max_pixels`, or else grown to at least `min_pixels`.

    The limits are approximate: shrinking rounds down and may end below `min_pixels`, growing rounds up and may end
    above `max_pixels`. Raises EngineError for an aspect ratio above 200. Published utilities 1.0.0 and 1.5.2."""
    if height < 1 or width < 1:
        raise EngineError(f"The picture is {width}×{height} pixels; it needs at least one pixel on each side.")
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise EngineError(
            f"The picture is {width}×{height} pixels, more than {MAX_ASPECT} times as long as wide; "
            "crop it before asking about it."
        )
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def preview_frame_count(
    total: int,
    video_fps: float,
    *,
    fps: float = 2.0,
    nframes: int | None = None,
    min_frames: int = 4,
    max_frames: int = 768,
    multiple: int = 2,
) -> int:
    """How many of `total` frames the Preview takes: `fps` per second within the limits, a multiple of `multiple`;
    `nframes` asks for a number instead.

    Raises EngineError when that is less than `multiple` or more than `total`. Published utilities 1.0.0."""
    if nframes is not None:
        count = round(nframes / multiple) * multiple
    else:
        fewest = math.ceil(min_frames / multiple) * multiple
        most = math.floor(min(max_frames, total) / multiple) * multiple
        wanted = min(max(total / video_fps * fps, fewest), most, total)
        count = math.floor(wanted / multiple) * multiple
    if not multiple <= count <= total:
        raise EngineError(
            f"{count} frames were asked for, but the clip has {total} and at least {multiple} are needed."
        )
    return count


def fast_slow_frame_count(
    total: int, video_fps: float, *, fps: float = 2.0, max_frames: int = 768, max_total_frames: int = 1365
) -> int:
    """How many of `total` frames Keye-VL-1.5 takes: `fps` per second (never more than there are), at most
    `max_frames` and `max_total_frames` (as many as fit the total at the smallest size). May be 0 for a clip shorter
    than 1/fps. Published utilities 1.5.2."""
    return int(min(total / video_fps * min(fps, video_fps), max_frames, max_total_frames))


def even_indices(first: int, last: int, count: int) -> list[int]:
    """`count` frame indices spread evenly from `first` to `last`, both included: float32 steps, rounded half to even.
    Published utilities 1.0.0 and 1.5.2."""
    return [int(i) for i in torch.linspace(first, last, count).round().long()]


def even_in_time(times: np.ndarray, first: int, last: int, count: int) -> list[int]:
    """`count` different frame indices, ascending, as near as can be to evenly spread moments from `times[first]` to
    `times[last]`. `times`: float64 [frames], seconds, ascending. For clips whose frame rate varies, where even
    indices would crowd where the camera ran fast."""
    part = times[first : last + 1]
    wanted = np.linspace(part[0], part[-1], count)
    right = np.clip(np.searchsorted(part, wanted), 1, max(len(part) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(part) - 1)
    nearest = np.where(wanted - part[left] <= part[right] - wanted, left, right)
    # Each moment takes a frame of its own: push doubles forward, then back from the end.
    steps = np.arange(count)
    forward = np.maximum.accumulate(nearest - steps) + steps
    capped = np.minimum(forward, len(part) - count + steps)
    return [int(i) + first for i in capped]
