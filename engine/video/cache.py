"""Frames already read, so that a follow-up question about the same clip does not decode it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from engine.errors import EngineError
from engine.video.types import Clip, Frames, Sampling

Key = tuple[str, int, int, float | None, float | None, Sampling]


def cache_key(file: Path, clip: Clip, sampling: Sampling) -> Key:
    """What frames depend on: the file (its path, time of change and size), the range and the sampling.

    Raises EngineError when the file is gone."""
    try:
        stat = file.stat()
    except OSError as error:
        raise EngineError(
            f"{file.name} cannot be read ({error.strerror}); give a video file on this machine."
        ) from None
    return (str(file), stat.st_mtime_ns, stat.st_size, clip.start, clip.end, sampling)


class FrameKeeper(Protocol):
    """Where frames are looked up before a clip is decoded, and left after it was."""

    def get(self, key: Key) -> Frames | None: ...

    def put(self, key: Key, frames: Frames) -> None: ...


class FrameCache:
    """The most recently used frames, up to `max_bytes` of pictures. Threads may share it."""

    def __init__(self, max_bytes: int = 512 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._frames: OrderedDict[Key, Frames] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Frames | None:
        with self._lock:
            frames = self._frames.get(key)
            if frames is not None:
                self._frames.move_to_end(key)
            return frames

    def put(self, key: Key, frames: Frames) -> None:
        """Keep `frames`, dropping the least recently used ones; frames larger than the whole cache are not kept."""
        size = _size(frames)
        with self._lock:
            old = self._frames.pop(key, None)
            self.bytes -= _size(old) if old is not None else 0
            if size > self.max_bytes:
                return
            self._frames[key] = frames
            self.bytes += size
            while self.bytes > self.max_bytes:
                _, dropped = self._frames.popitem(last=False)
                self.bytes -= _size(dropped)

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()
            self.bytes = 0


def _size(frames: Frames) -> int:
    return sum(image.nbytes for image in frames.images)
