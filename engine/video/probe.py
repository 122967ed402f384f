"""What can be known about a video file without decoding it all.

One demuxing pass collects when each picture is shown and which ones are key frames; only the first picture is decoded,
because the display rotation travels with pictures."""

from __future__ import annotations

import hashlib
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.video.container import DECODE_ERRORS, open_video, regular_file
from engine.video.types import VideoInfo

MAX_FRAMES = 10_000_000
"""Frames of one file: 92 hours at 30 per second. More is a damaged or hostile file."""

_TRIES = 2000
"""Packets given to the decoder in search of a first picture before a file is called undecodable."""


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes as lower-case hexadecimal, read in pieces. Raises EngineError when unreadable."""
    digest = hashlib.sha256()
    file = regular_file(path)
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise EngineError(f"{file.name} cannot be read ({error.strerror}); copy or upload it again.") from None
    return digest.hexdigest()


def probe(path: str | Path) -> VideoInfo:
    """Everything the studio wants to know about a video before sampling it.

    Times are seconds after the first picture; pictures that an edit list hides do not count. Non-square pixels are
    taken as square, as the published utilities do. Raises EngineError when the file is not a decodable video."""
    file = regular_file(path)
    with open_video(file) as (container, stream):
        scan = _Scan(container, stream, file)
        times, key_times, first_pts, base = scan.timeline()
        width, height, rotation = scan.picture()
        last_length = scan.last_length(times)
        duration = float(times[-1]) + last_length
        average = stream.average_rate or stream.guessed_rate
        variable = _varies(times, float(base))
        fps = len(times) / duration
        if not variable and average and abs(float(average) - fps) < 0.01 * fps:
            fps = float(average)  # the exact fraction, which time stamps in milliseconds blur
        audio = container.streams.best("audio")
        context: Any = stream.codec_context
        return VideoInfo(
            path=Path(path),
            container=container.format.name,
            codec=context.codec.canonical_name,
            width=width,
            height=height,
            rotation=rotation,
            fps=fps,
            variable_rate=variable,
            duration=duration,
            frame_count=len(times),
            audio_codec=_codec_name(audio),
            size_bytes=file.stat().st_size,
            frame_times=times,
            key_times=key_times,
            time_base=base,
            first_pts=first_pts,
            counted=scan.counted or (container.format.name == "avi" and bool(context.has_b_frames)),
            notes=_complaints(container, stream, duration),
        )


def _codec_name(stream: Any) -> str | None:
    if stream is None:
        return None
    return stream.codec_context.name if stream.codec_context is not None else "unknown"


class _Scan:
    """One pass over a file's packets: when each picture is shown, and the first picture decoded."""

    def __init__(self, container: Any, stream: Any, file: Path) -> None:
        self.file = file
        self.stream = stream
        self.base: Fraction = stream.time_base or Fraction(1, 1000)
        self.first: Any = None
        self.longest = 0  # ticks: length of the packet shown last
        pts, keys = array("q"), bytearray()
        unstamped = tries = 0
        latest: int | None = None
        context = stream.codec_context
        context.thread_count = 1  # frame threads would hold the first picture back
        try:
            for packet in container.demux(stream):
                if packet.size == 0 and packet.dts is None:  # the end
                    tries = min(tries, _TRIES - 1)
                elif packet.size == 0:
                    continue
                if self.first is None and tries < _TRIES:
                    tries += 1
                    self.first = _first_picture(packet)
                if packet.size == 0 or packet.is_discard:
                    continue
                when = packet.pts if packet.pts is not None else packet.dts
                if when is None:
                    unstamped += 1
                    continue
                if len(pts) >= MAX_FRAMES:
                    raise EngineError(f"{file.name} has more than {MAX_FRAMES:,} frames; cut it into shorter files.")
                pts.append(when)
                keys.append(bool(packet.is_keyframe))
                if latest is None or when >= latest:
                    latest, self.longest = when, packet.duration or 0
        except DECODE_ERRORS:
            pass  # cut off in the middle: what was read so far counts
        # Some containers stamp only now and then: such pictures are counted and taken to come at an even beat.
        self.counted = unstamped > len(pts) // 10
        if self.counted:
            rate = stream.guessed_rate or stream.average_rate or Fraction(25)
            step = max(1, round(1 / (rate * self.base)))
            count = min(unstamped + len(pts), MAX_FRAMES)
            pts = array("q", range(0, count * step, step))
            keys = bytearray([1] + [0] * (count - 1))
            self.longest = step
        self.pts = np.frombuffer(pts, dtype=np.int64) if pts else np.empty(0, np.int64)
        self.keys = np.frombuffer(bytes(keys), dtype=np.uint8).astype(bool)

    def timeline(self) -> tuple[np.ndarray, np.ndarray, int, Fraction]:
        """Frame times and key-frame times in seconds, the first time stamp in ticks, seconds per tick."""
        if not len(self.pts):
            raise EngineError(f"{self.file.name} holds no pictures; it is empty or cut off: copy or upload it again.")
        if self.first is None:
            raise EngineError(
                f"No picture of {self.file.name} can be decoded; the file is damaged: copy or upload it again."
            )
        ticks = np.unique(self.pts)  # sorted: packets come in decoding order
        keys = np.unique(self.pts[self.keys])
        first = int(ticks[0])
        return self._seconds(ticks - first), self._seconds(keys - first), first, self.base

    def _seconds(self, ticks: np.ndarray) -> np.ndarray:
        return ticks.astype(np.float64) * self.base.numerator / self.base.denominator

    def last_length(self, times: np.ndarray) -> float:
        """Seconds the last picture is shown: as the file says, or else as long as the usual one."""
        if self.longest > 0:
            return float(self.longest * self.base)
        if len(times) > 1:
            return float(np.median(np.diff(times)))
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(1 / rate) if rate else 0.04

    def picture(self) -> tuple[int, int, int]:
        """Width and height as displayed, and degrees clockwise of rotation."""
        frame = self.first
        rotation = clockwise(frame)
        size = (frame.width, frame.height)
        if rotation % 180:
            size = (frame.height, frame.width)
        return size[0], size[1], rotation


def clockwise(frame: Any) -> int:
    """Degrees clockwise (0, 90, 180, 270) by which a decoded frame must be turned for display."""
    return round(-frame.rotation / 90) % 4 * 90


def _first_picture(packet: Any) -> Any:
    try:
        frames = packet.decode()
    except DECODE_ERRORS:
        return None
    return frames[0] if frames else None


def _varies(times: np.ndarray, tick: float) -> bool:
    """Whether the frame rate varies: a gap differs by more than a quarter from the usual one, or gaps drift by more
    than one frame from an even beat. Time stamps rounded to whole ticks do not count."""
    if len(times) < 3:
        return False
    gaps = np.diff(times)
    usual = float(np.median(gaps))
    if float(np.abs(gaps - usual).max()) > max(0.25 * usual, 2.01 * tick):
        return True
    beat = np.linspace(times[0], times[-1], len(times))
    return bool(np.abs(times - beat).max() > max(usual, 2.01 * tick))


def _complaints(container: Any, stream: Any, duration: float) -> tuple[str, ...]:
    stated = None
    if stream.duration and stream.time_base:
        stated = float(stream.duration * stream.time_base)
    if stated and stated > duration * 1.1 + 1:
        return (f"The file says it lasts {stated:.1f} s, but pictures can be read for {duration:.1f} s only.",)
    return ()
