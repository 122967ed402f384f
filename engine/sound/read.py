"""The sound track of a video as samples, in pieces: decoded by PyAV, held as pydub's AudioSegment where it is short.

Times are the video's own: seconds after its first picture. What lies between is filled with silence, so that a sample's
place is its time; sound from before the first picture is left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from engine.errors import EngineError
from engine.video.container import DECODE_ERRORS, open_sound, regular_file
from engine.video.probe import probe
from engine.video.types import Cancelled, VideoInfo

with warnings.catch_warnings():  # it looks for a program to decode with, which nothing here needs
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

MOST_SECONDS = 600.0
"""Of sound that `read_sound` holds at once: 115 MB. More is read in pieces with `Track.blocks`."""

_LOOSE = 0.025  # seconds by which time stamps may wander before samples are moved to where they say
_RUN_UP = 0.3  # seconds decoded before a place that was sought: codecs need what came before
_BLOCK = 1.0  # seconds of a block, about
_HALF = 0.5**0.5
_FRONT = ("FL", "FR", "FC", "DL", "DR")
_USUAL = {2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # channels: layout


@dataclass
class Track:
    """The sound of a file, in stereo, or mono where it has one channel. `info` saves a probe of the same file.

    `rate` is in samples per second. `channels` is known (0: no sound track) once a block was read, as is `damaged`, how
    many packets could not be decoded."""

    path: Path
    rate: int
    info: VideoInfo | None = None
    channels: int = field(default=0, init=False)
    damaged: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        return Path(self.path).name

    def blocks(
        self, start: float = 0.0, end: float | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[np.ndarray]:
        """int16 [samples, channels], one after the other, from second `start` to `end` (None: the last picture's end)
        or the end of the track. Nothing where the file has no sound, or none in this range.

        Raises EngineError when the file is not a video and Cancelled when `cancelled` says so."""
        info = self._probed()
        zero = float(info.first_pts * info.time_base)
        end = info.duration if end is None else min(end, info.duration)  # a broken time stamp is no endless silence
        for sought in (True, False) if start > 1.0 else (False,):
            self.damaged = 0
            with open_sound(self.path) as (container, stream):
                if stream is None:
                    return
                if sought and not _seek(container, stream, start + zero - _RUN_UP):
                    continue
                pieces = self._placed(container, stream, zero, start, end, cancelled)
                first = next(pieces, None)
                if sought and (first is None or first[0] > start + _RUN_UP):
                    continue  # the container sought too far: read from the beginning
                if first is not None:
                    yield from _joined(first, pieces, start, end, self.rate)
                return

    def _probed(self) -> VideoInfo:
        if self.info is None:
            self.info = probe(regular_file(self.path))
        return self.info

    def _placed(
        self,
        container: Any,
        stream: Any,
        zero: float,
        start: float,
        end: float,
        cancelled: Callable[[], bool] | None,
    ) -> Iterator[tuple[float, np.ndarray]]:
        """(second of its first sample, samples) of everything that was decoded, mixed down and at the rate."""
        mixer: _Mixer | None = None
        for frame in self._frames(container, stream):
            if cancelled is not None and cancelled():
                raise Cancelled("Stopped.")
            when = None if frame.pts is None else float(frame.pts * (frame.time_base or stream.time_base)) - zero
            if mixer is None or not mixer.takes(frame):
                at = when
                if mixer is not None:
                    yield from mixer.rest()
                    at = mixer.clock if when is None or abs(when - mixer.clock) < _LOOSE else when
                mixer = _Mixer(frame, self.rate, self.channels or None, start if at is None else at)
                self.channels = mixer.channels
            elif when is not None and abs(when - mixer.clock) > _LOOSE:
                yield from mixer.rest()
                mixer = _Mixer(frame, self.rate, self.channels, when)
            yield from mixer.mixed(frame)
            if mixer.clock > end + _LOOSE:
                break
        if mixer is not None:
            yield from mixer.rest()

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except DECODE_ERRORS:
                self.damaged += 1  # cut off here: what was read so far counts
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except DECODE_ERRORS:
                self.damaged += 1
                continue
            yield from frames


def read_sound(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    *,
    rate: int = 48_000,
    mono: bool = False,
    info: VideoInfo | None = None,
) -> AudioSegment:
    """What is heard of a video from second `start` to `end` (None: its beginning, its end): 16 bits, stereo, or one
    channel with `mono` or where the track has no more. A file without sound gives an empty segment.

    Raises EngineError when the file is no video, or the range has more than MOST_SECONDS."""
    track = Track(Path(path), rate, info)
    most = round(MOST_SECONDS * rate)
    pieces: list[np.ndarray] = []
    held = 0
    for block in track.blocks(start or 0.0, end):
        pieces.append(to_mono(block) if mono else block)
        held += len(block)
        if held > most:
            raise EngineError(f"The sound is longer than {MOST_SECONDS:.0f} s; read a shorter range of it.")
    channels = pieces[0].shape[1] if pieces else 1
    data = np.concatenate(pieces).astype("<i2").tobytes() if pieces else b""
    return AudioSegment(data=data, sample_width=2, frame_rate=rate, channels=channels)


def to_mono(block: np.ndarray) -> np.ndarray:
    """int16 [samples, channels] to [samples, 1]: the mean of both channels; where these cancel each other out, as in a
    recording with one of them turned over, the left one alone."""
    if block.shape[1] == 1:
        return block
    wide = block.astype(np.int32)
    mean = (wide.sum(axis=1) // 2).astype(np.int16)
    left = float(np.square(wide[:, 0].astype(np.float64)).mean()) if len(wide) else 0.0
    if left and float(np.square(mean.astype(np.float64)).mean()) < left / 100:
        return np.ascontiguousarray(block[:, :1])
    return mean[:, None]


# -- inside ---------------------------------------------------------------------------------------------------------


class _Mixer:
    """Frames of one format to stereo or mono at one rate. `clock` is the second at which the next sample belongs."""

    def __init__(self, frame: Any, rate: int, channels: int | None, at: float) -> None:
        self.key = _key(frame)
        self.rate = rate
        self.weights = _weights([channel.name for channel in frame.layout.channels], channels)
        self.channels = int(self.weights.shape[0])
        self.clock = at
        self._out = at  # second of the next sample that comes out
        self._resampler: Any = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)

    def takes(self, frame: Any) -> bool:
        return _key(frame) == self.key

    def mixed(self, frame: Any) -> Iterator[tuple[float, np.ndarray]]:
        self.clock += frame.samples / frame.sample_rate
        frame.pts = None  # places are counted here; the resampler would guess others
        yield from self._pieces(self._resampler.resample(frame))

    def rest(self) -> Iterator[tuple[float, np.ndarray]]:
        """What the resampler still holds."""
        yield from self._pieces(self._resampler.resample(None))

    def _pieces(self, frames: Sequence[Any]) -> Iterator[tuple[float, np.ndarray]]:
        for frame in frames:
            mixed = self.weights @ frame.to_ndarray().astype(np.float32)  # [channels, samples], full scale is 1
            whole = np.clip(np.rint(np.nan_to_num(mixed) * 32768), -32768, 32767).astype(np.int16)
            yield self._out, np.ascontiguousarray(whole.T)
            self._out += whole.shape[1] / self.rate


def _key(frame: Any) -> tuple[Any, ...]:
    return frame.format.name, frame.sample_rate, frame.layout.name, frame.layout.nb_channels


def _weights(names: Sequence[str], channels: int | None) -> np.ndarray:
    """float32 [1 or 2, channels of the track]: how loud each goes to the left and the right (ITU-R BS.775: the centre
    and what comes from behind at -3 dB, the low-frequency channel left out)."""
    count = len(names)
    if count == 1:
        return np.ones((channels or 1, 1), np.float32)
    if not any(name in _FRONT for name in names) and count in _USUAL:
        names = [channel.name for channel in av.AudioLayout(_USUAL[count]).channels]  # the file does not say
    made = np.zeros((2, count), np.float32)
    for i, name in enumerate(names):
        if name.startswith("LFE"):
            continue
        side = None if not ("L" in name) ^ ("R" in name) else 0 if "L" in name else 1
        if side is None:
            made[:, i] = _HALF if name == "FC" else 0.5
        else:
            made[side, i] = 1.0 if name in (*_FRONT, "FLC", "FRC") else _HALF
    if not any(name in _FRONT for name in names):  # as they come, one to the left and one to the right
        made[:] = 0.0
        made[0, 0::2], made[1, 1::2] = 1.0, 1.0
        made /= np.maximum(made.sum(axis=1, keepdims=True), 1.0)
    return made if channels != 1 else made.mean(axis=0, keepdims=True)


def _seek(container: Any, stream: Any, second: float) -> bool:
    try:
        container.seek(int(Fraction(second) / (stream.time_base or Fraction(1, 1000))), stream=stream, backward=True)
    except DECODE_ERRORS:
        return False
    return True


def _joined(
    first: tuple[float, np.ndarray],
    rest: Iterator[tuple[float, np.ndarray]],
    start: float,
    end: float,
    rate: int,
) -> Iterator[np.ndarray]:
    """Pieces at their places from `start` on, without gaps or overlaps, in blocks of about a second."""
    channels = first[1].shape[1]
    most = max(0, round((end - start) * rate))
    size = round(_BLOCK * rate)
    waiting: list[np.ndarray] = []
    held = at = 0  # samples waiting; samples from `start` on, those included

    def pieces() -> Iterator[tuple[float, np.ndarray]]:
        yield first
        yield from rest

    for when, piece in pieces():
        place = round((when - start) * rate)
        if abs(place - at) <= 2:
            place = at  # rounding
        while place > at and at < most:  # a gap is heard as silence
            empty = min(place - at, size, most - at)
            waiting.append(np.zeros((empty, channels), np.int16))
            held, at = held + empty, at + empty
            if held >= size:
                yield np.concatenate(waiting)
                waiting, held = [], 0
        piece = piece[max(0, at - place) :][: most - at]
        waiting.append(piece)
        held, at = held + len(piece), at + len(piece)
        if held >= size:
            yield np.concatenate(waiting)
            waiting, held = [], 0
        if at >= most:
            break
    if held:
        yield np.concatenate(waiting)
