"""The words of the video path: clip, video information, sampling, plan, frames."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import EngineError

Kind = Literal["slow", "fast"]

TOKEN_SIDE = 28
"""One visual token covers 28×28 pixels: a 14-pixel patch, merged 2×2 by the projector."""


class Cancelled(EngineError):
    """The caller asked to stop while a clip was being read."""


@dataclass(frozen=True)
class Clip:
    """A video file and a time range of it, in seconds after the file's first frame.

    `start` None means the first frame, `end` None means the last. `zero` is the second of the file from which the
    model's times count; None means `start`, and another one says that this is a later part of a longer clip."""

    path: Path
    start: float | None = None
    end: float | None = None
    zero: float | None = None


@dataclass(frozen=True)
class VideoInfo:
    """What a probe learns about a file: one demuxing pass, and its first picture decoded."""

    path: Path
    container: str
    codec: str
    width: int  # as displayed: after rotation
    height: int
    rotation: int  # degrees clockwise the stored picture is turned for display: 0, 90, 180, 270
    fps: float  # average: frames / duration
    variable_rate: bool
    duration: float  # seconds, from the first frame's start to the last frame's end
    frame_count: int
    audio_codec: str | None
    size_bytes: int
    frame_times: np.ndarray = field(repr=False, compare=False)  # float64 [frame_count], seconds, ascending, first is 0
    key_times: np.ndarray = field(repr=False, compare=False)  # float64, times of the key frames
    time_base: Fraction = Fraction(1, 1000)  # seconds per tick of the file's own clock
    first_pts: int = 0  # ticks: the presentation time of the first frame
    counted: bool = False  # the container cannot say when a picture is shown: pictures are counted instead
    notes: tuple[str, ...] = ()  # what is wrong with the file, one sentence each


@dataclass(frozen=True)
class Sampling:
    """How a clip becomes frames. `budget` is the most visual tokens a clip may cost; it is never exceeded.

    Raises EngineError when a value makes no sense."""

    name: str
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    frame_multiple: int = 2  # frame counts are rounded down to a multiple of this (Preview: 2, 1.5: 1)
    min_frame_tokens: int = 128
    max_frame_tokens: int = 768
    budget: int = 24576
    slow_fast: bool = False  # 1.5: frames like the last slow one cost `fast_ratio` of its tokens
    fast_ratio: float = 0.3
    min_fast_tokens: int = 48
    min_frame_similarity: float = 0.9
    resample: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            _check_field(spec.name, getattr(self, spec.name), str(spec.type))
        if self.max_frames < self.min_frames:
            raise EngineError(f"max_frames ({self.max_frames}) must not be below min_frames ({self.min_frames}).")
        if self.max_frame_tokens < self.min_frame_tokens:
            raise EngineError(
                f"max_frame_tokens ({self.max_frame_tokens}) must not be below min_frame_tokens "
                f"({self.min_frame_tokens})."
            )

    def with_limits(
        self, fps: float | None = None, max_frames: int | None = None, budget: int | None = None
    ) -> Sampling:
        """The same sampling with other limits; None keeps a value. Raises EngineError for a value that is not a
        positive number. Fewer frames than `min_frames` lower that too."""
        changes: dict[str, Any] = {}
        if fps is not None:
            changes["fps"] = float(fps) if isinstance(fps, int) and not isinstance(fps, bool) else fps
        if max_frames is not None:
            changes["max_frames"] = frames = _whole("max_frames", max_frames)
            changes["min_frames"] = max(1, min(self.min_frames, frames))
        if budget is not None:
            changes["budget"] = _whole("budget", budget)
        return dataclasses.replace(self, **changes)


def _whole(name: str, value: Any) -> int:
    """A slider hands over 32.0 for 32: take it, and nothing else that is not whole."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise EngineError(f"{name} must be a whole number above zero, not {value!r}.")


def _check_field(name: str, value: Any, kind: str) -> None:
    if name == "resample":
        if value not in ("bicubic", "bilinear"):
            raise EngineError(f'resample must be "bicubic" or "bilinear", not {value!r}.')
    elif kind == "str":
        if not isinstance(value, str) or not value:
            raise EngineError(f"{name} must be a text, not {value!r}.")
    elif kind == "bool":
        if not isinstance(value, bool):
            raise EngineError(f"{name} must be true or false, not {value!r}.")
    elif kind == "int":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise EngineError(f"{name} must be a whole number above zero, not {value!r}.")
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value <= 0:
            raise EngineError(f"{name} must be a number above zero, not {value!r}.")
        if name != "fps" and value > 1:
            raise EngineError(f"{name} must not be above 1, not {value!r}.")


@dataclass(frozen=True)
class Plan:
    """Which frames of a clip will be read and what they cost, worked out without decoding.

    With slow/fast sampling nobody knows before decoding which frames are fast: `size` and the token counts then
    say what the clip costs if every frame is slow, and `exact` is False."""

    clip: Clip
    info: VideoInfo
    sampling: Sampling
    indices: tuple[int, ...]  # of frames in presentation order, counted from the file's first
    times: tuple[float, ...]  # seconds in the file
    last_index: int  # the last frame that belongs to the clip
    fps: float  # frames sampled per second of the clip
    height: int  # of each frame as the model sees it, pixels
    width: int
    exact: bool
    notes: tuple[str, ...] = ()  # what was reduced and why, one sentence each

    @property
    def frame_count(self) -> int:
        return len(self.indices)

    @property
    def frame_tokens(self) -> int:
        return (self.height // TOKEN_SIDE) * (self.width // TOKEN_SIDE)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Visual tokens of each frame."""
        return (self.frame_tokens,) * len(self.indices)

    @property
    def total_tokens(self) -> int:
        return self.frame_tokens * len(self.indices)


@dataclass(frozen=True)
class Frames:
    """What the model will see of a clip.

    `images[i]` is uint8 RGB [height, width, 3], both sides multiples of 28, already at the size at which it
    enters the vision tower; slow frames share one size and fast frames another. The arrays are read-only because
    several callers share them."""

    clip: Clip
    info: VideoInfo
    sampling: Sampling
    images: tuple[np.ndarray, ...] = field(repr=False)
    times: tuple[float, ...]  # seconds in the file: the true presentation time of each frame
    kinds: tuple[Kind, ...]
    fps: float  # frames sampled per second of the clip; 1/fps is the model's second_per_grid_ts
    notes: tuple[str, ...] = ()  # what was reduced or left out, one sentence each

    @property
    def tokens(self) -> tuple[int, ...]:
        """Visual tokens of each frame."""
        return tuple((h // TOKEN_SIDE) * (w // TOKEN_SIDE) for h, w, _ in (im.shape for im in self.images))

    @property
    def total_tokens(self) -> int:
        return sum(self.tokens)

    @property
    def start(self) -> float:
        """The second of the file that the model counts as zero."""
        first = self.clip.zero if self.clip.zero is not None else self.clip.start
        return first if first is not None else 0.0
