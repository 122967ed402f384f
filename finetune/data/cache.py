"""Decoded clips on disk, so that the second epoch, the next run and every other process decode nothing.

A clip is kept under what it depends on: the content of its file (so that a copy or a moved file is the same clip), the
range and the sampling. Its frames are one .npy file that is mapped into memory, never read as a whole; beside it stands
a .json file with the rest. Each is written elsewhere first and moved into place, the .json last: what a reader finds is
whole. The least recently used clips are deleted where the folder would become too large."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import threading
import time
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.video import Clip, Frames, Sampling, VideoInfo, content_hash
from engine.video.cache import Key

_VERSION = 1
_KEPT = 0.9  # of the size limit, after something had to go
_LOOK = 0.02  # of the size limit: after so much was written, the folder is measured anew
_STALE_SECONDS = 3600.0  # what a process that died left half written
_INFO = ("container", "codec", "width", "height", "rotation", "fps", "variable_rate", "duration", "frame_count")
_INFO_MORE = ("audio_codec", "size_bytes", "first_pts", "counted")


class FrameStore:
    """An `engine.video.cache.FrameKeeper` in a folder. Threads and processes may share it; it holds about `max_bytes`.

    A folder that cannot be written to (a full disk) costs time, not the run: then clips are decoded again."""

    def __init__(self, folder: Path, max_bytes: int = 50_000_000_000) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.hits = self.misses = 0
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._unmeasured = math.inf  # bytes written since the folder was last measured
        self._lock = threading.Lock()

    def get(self, key: Key) -> Frames | None:
        frames = None
        try:
            name = self._name(key)
            if name is not None:
                frames = _read(self.folder, name, key)
                now = time.time()
                os.utime(self.folder / f"{name}.json", (now, now))
        except (OSError, ValueError, KeyError, TypeError, EngineError):
            frames = None  # deleted meanwhile, or damaged: decode
        with self._lock:
            self.hits += frames is not None
            self.misses += frames is None
        return frames

    def put(self, key: Key, frames: Frames) -> None:
        try:
            name = self._name(key)
            size = sum(image.nbytes for image in frames.images)
            if name is None or size > self.max_bytes * _KEPT:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder, name, frames)
            with self._lock:
                self._unmeasured += size
                if self._unmeasured > self.max_bytes * _LOOK:
                    self._unmeasured = 0
                    self._make_room()
        except OSError:
            return

    def _name(self, key: Key) -> str | None:
        path, changed, size, start, end, sampling = key
        stamp = (path, changed, size)
        known = self._hashes.get(stamp)
        if known is None:
            known = self._hash(stamp)
            self._hashes[stamp] = known
        asked = json.dumps([_VERSION, known, start, end, dataclasses.asdict(sampling)], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:40]

    def _hash(self, stamp: tuple[str, int, int]) -> str:
        """The content hash of a file, remembered on disk by its path, time of change and size."""
        note = self.folder / f"{hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:40]}.hash"
        with contextlib.suppress(OSError, ValueError):
            text = note.read_text("ascii")
            if len(text) == 64:
                return text
        value = content_hash(stamp[0])
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(note, lambda file: file.write_text(value, "ascii"))
        return value

    def _make_room(self) -> None:
        """Delete what was used longest ago until the folder keeps its limit. Others may do the same meanwhile."""
        entries: list[tuple[float, int, str]] = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(OSError):
                stat = entry.stat()
                if entry.name.endswith(".part"):
                    if time.time() - stat.st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)
                elif entry.name.endswith(".npy"):
                    told = self.folder / f"{entry.name[:-4]}.json"
                    used = told.stat().st_mtime if told.exists() else stat.st_mtime
                    entries.append((used, stat.st_size, entry.name[:-4]))
        total = sum(size for _, size, _ in entries)
        if total <= self.max_bytes:
            return
        for _, size, name in sorted(entries):
            # The .json first: without it nobody finds the frames. Whoever has them mapped keeps them.
            for suffix in (".json", ".npy"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
            total -= size
            if total <= self.max_bytes * _KEPT:
                return


def _replace(path: Path, write: Any) -> None:
    scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _write(folder: Path, name: str, frames: Frames) -> None:
    info = frames.info
    # Times first, so that they lie where eight bytes must lie; then the pictures.
    head = np.concatenate((info.frame_times, info.key_times)).astype(np.float64)
    pieces = [head.view(np.uint8), *(np.ascontiguousarray(image).reshape(-1) for image in frames.images)]
    told = {
        "shapes": [image.shape for image in frames.images],
        "times": frames.times,
        "kinds": frames.kinds,
        "fps": frames.fps,
        "notes": frames.notes,
        "info": {field: getattr(info, field) for field in (*_INFO, *_INFO_MORE)},
        "info_notes": info.notes,
        "time_base": [info.time_base.numerator, info.time_base.denominator],
        "counts": [len(info.frame_times), len(info.key_times)],
    }

    def pictures(path: Path) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (sum(p.nbytes for p in pieces),)}
            )
            for piece in pieces:
                file.write(piece.data)

    _replace(folder / f"{name}.npy", pictures)
    _replace(folder / f"{name}.json", lambda path: path.write_text(json.dumps(told), "utf-8"))


def _read(folder: Path, name: str, key: Key) -> Frames:
    told = json.loads((folder / f"{name}.json").read_text("utf-8"))
    flat = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    many, keys = told["counts"]
    at = 8 * (many + keys)
    head = np.array(flat[:at]).view(np.float64)
    images = []
    for height, width, channels in told["shapes"]:
        size = height * width * channels
        if at + size > len(flat):
            raise ValueError("the frames are cut short")
        images.append(np.asarray(flat[at : at + size]).reshape(height, width, channels))
        at += size
    path, _, _, start, end, sampling = key
    file = Path(path)
    assert isinstance(sampling, Sampling)
    info = VideoInfo(
        path=file,
        frame_times=head[:many],
        key_times=head[many:],
        time_base=Fraction(*told["time_base"]),
        notes=tuple(told["info_notes"]),
        **told["info"],
    )
    return Frames(
        clip=Clip(file, start, end),
        info=info,
        sampling=sampling,
        images=tuple(images),
        times=tuple(told["times"]),
        kinds=tuple(told["kinds"]),
        fps=told["fps"],
        notes=tuple(told["notes"]),
    )
