"""Pictures and single frames of videos at their own size, one at a time: for looking at, not for the model's input."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from engine.errors import EngineError
from engine.pictures import read_picture
from engine.video.container import regular_file
from engine.video.decode import frames_at
from engine.video.probe import probe
from engine.video.types import VideoInfo
from finetune.data.items import Medium
from finetune.errors import FinetuneError

MOST_FRAMES = 20_000
"""Frames of one video that are asked for singly: five hours at one a second."""


def picture(path: Path) -> np.ndarray:
    """A picture file, uint8 RGB [height, width, 3]. Raises FinetuneError where it cannot be read or is too large."""
    try:
        return read_picture(path, path.name, "dropped")
    except EngineError as error:
        raise FinetuneError(str(error)) from error


def info_of(path: Path) -> VideoInfo:
    """What a probe finds; the last files probed are remembered. Raises EngineError for what is no video."""
    stat = regular_file(path).stat()
    return _probed(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _probed(path: Path, changed: int, size: int) -> VideoInfo:
    return probe(path)


def span(path: Path, medium: Medium) -> tuple[float, float]:
    """The seconds of the file that a medium takes from it. Raises EngineError where it lies outside the file."""
    duration = info_of(path).duration
    start, end = medium.start or 0.0, duration if medium.end is None else min(medium.end, duration)
    if not 0 <= start < end:
        raise EngineError(f"{path.name} lasts {duration:.1f} s and has nothing from {start:.1f} to {medium.end} s.")
    return start, end


def spread(path: Path, medium: Medium, count: int, longest: int | None = None) -> list[tuple[float, np.ndarray]]:
    """(second, frame) in the middle of each of `count` equal parts of a video; fewer where it has fewer frames.

    Frames are uint8 RGB [height, width, 3], made smaller so that no side exceeds `longest`."""
    start, end = span(path, medium)
    return list(at_times(path, [start + (end - start) * (at + 0.5) / count for at in range(count)], longest))


def every(path: Path, medium: Medium, fps: float, longest: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """(second, frame) `fps` times a second, from the first frame on; one at a time. Raises FinetuneError where that
    is more than MOST_FRAMES."""
    start, end = span(path, medium)
    count = max(1, int((end - start) * fps + 1e-6))
    if count > MOST_FRAMES:
        raise FinetuneError(f"{path.name} has {count:,} frames at {fps:g} per second; ask for fewer or cut it.")
    return at_times(path, [start + at / fps for at in range(count)], longest)


def at_times(path: Path, times: list[float], longest: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """The frames that are shown at these seconds (ascending); each frame once. Raises EngineError for what is no
    video."""
    info = info_of(path)
    shown = np.searchsorted(info.frame_times, np.asarray(times) + 1e-6, side="right") - 1
    indices = tuple(int(index) for index in np.unique(np.clip(shown, 0, info.frame_count - 1)))
    for _, time, rgb in frames_at(info, indices, info.frame_count - 1, lambda slot, rgb: shrunk(rgb, longest)):
        yield time, rgb


def shrunk(rgb: np.ndarray, longest: int | None) -> np.ndarray:
    """A picture whose longer side is at most `longest`; it is never enlarged."""
    height, width = rgb.shape[:2]
    if longest is None or max(height, width) <= longest:
        return np.ascontiguousarray(rgb)
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def looks(folder: Path, medium: Medium, frames: int, longest: int | None = None) -> list[np.ndarray]:
    """A picture as itself, a video as `frames` of it. Raises FinetuneError or EngineError where it cannot be read."""
    path = folder / medium.path
    if medium.kind == "image":
        return [shrunk(picture(path), longest)]
    found = [rgb for _, rgb in spread(path, medium, frames, longest)]
    if not found:
        raise EngineError(f"No frame of {path.name} can be decoded; the file is damaged.")
    return found
