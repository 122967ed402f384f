"""How loud a video is, when, and what of it is silence, speech or loud: one pass over its sound in a second's pieces.

The rules are simple on purpose, so that anybody can say why a place has its colour:

silence  quieter than 30 dB below the loud tenth of the track, and than -50 dBFS, for 0.3 s or longer
loud     above -12 dBFS for 0.2 s or longer (a sine at full scale has -3)
speech   most power between 200 and 4,000 Hz, and within a second the level keeps falling: of its 10 ms frames a quarter
         has less than half the mean power, as between syllables (the low short-time energy ratio of Lu and Zhang, 2001)
sound    everything else

Whether somebody really speaks only a transcript knows; where there is one, its times say what is speech."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from engine.sound.read import Track
from engine.timed import Timed
from engine.video.probe import probe
from engine.video.types import VideoInfo

Kind = Literal["silence", "speech", "sound", "loud"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RATE = 48_000  # samples per second at which everything is measured
CELL = 0.01  # seconds: the finest step
FLOOR = -96.0  # dBFS of digital silence: one bit of sixteen

_QUIET, _BELOW, _QUIETEST = -50.0, 30.0, -80.0  # dBFS; dB below the loud tenth; dBFS
_LOUD = -12.0  # dBFS
_SHORTEST: dict[Kind, float] = {"silence": 0.3, "loud": 0.2, "speech": 0.3, "sound": 0.0}  # seconds
_BAND = (2, 41)  # of the bins of a cell's spectrum, each 100 Hz wide: 200 to 4,000 Hz
_IN_BAND, _LOW_FRAMES = 0.6, 0.25
_COLUMNS = 600  # of the drawing
_FULL = 32768.0


@dataclass(frozen=True)
class Span:
    """What is heard from `start` to `end`, seconds of the file."""

    start: float
    end: float
    kind: Kind


@dataclass(frozen=True)
class Sound:
    """What a pass over a sound track found. Without a track everything is empty and `note` says so."""

    duration: float  # seconds of the video
    channels: int  # 0: no sound track
    loudness: float  # dBFS of the whole: the mean power of its samples
    peak: float  # dBFS of its largest sample
    step: float  # seconds of a level
    levels: tuple[float, ...]  # dBFS of each step, one decimal
    low: tuple[int, ...]  # the waveform: smallest and largest sample of each column, -100…100 per cent of full scale
    high: tuple[int, ...]
    spans: tuple[Span, ...]
    note: str = ""  # one sentence where something is missing

    def to_dict(self) -> dict[str, Any]:
        """As compact JSON holds it: spans as [start, end, kind]."""
        spans = [[round(span.start, 2), round(span.end, 2), span.kind] for span in self.spans]
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "spans": spans}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Sound:
        """The inverse of `to_dict`. KeyError, TypeError or ValueError for anything else."""
        spans = tuple(Span(float(start), float(end), kind) for start, end, kind in facts["spans"])
        lists = {name: tuple(facts[name]) for name in ("levels", "low", "high")}
        if any(span.kind not in KINDS for span in spans) or len(lists["low"]) != len(lists["high"]):
            raise ValueError("these are no facts of a sound track")
        return cls(**{**facts, **lists, "spans": spans})


def measure(
    path: str | Path,
    info: VideoInfo | None = None,
    *,
    progress: Callable[[float, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Sound:
    """Loudness, waveform and spans of a video's sound. Holds about a second of it at a time, and some twenty bytes for
    every hundredth.

    `progress` is called with (seconds heard, seconds in all). What cannot be decoded is heard as silence, and `note`
    says so. Raises EngineError when the file is no video, and Cancelled."""
    info = info or probe(path)
    track = Track(Path(path), RATE, info)
    cells = _Cells()
    for block in track.blocks(cancelled=cancelled):
        cells.add(block)
        if progress is not None:
            progress(len(cells.power) * CELL, info.duration)
    cells.finish()
    if not track.channels:
        note = f"Nothing of the sound of {track.name} can be decoded." if track.damaged else ""
        return _nothing(info.duration, note or f"{track.name} has no sound.")
    note = ""
    if track.damaged:
        note = f"Some of the sound of {track.name} is damaged; it is heard as silence there."
    return cells.sound(info.duration, track.channels, note)


def with_transcript(sound: Sound, cues: Sequence[Timed]) -> Sound:
    """The same sound, where what is said is known: speech is where the cues say so, and nowhere else. Silence and what
    is loud stay."""
    cells = round(sound.duration / CELL)
    kinds = np.full(cells, KINDS.index("silence"), np.int8)
    for span in sound.spans:
        kind: Kind = "sound" if span.kind == "speech" else span.kind
        kinds[round(span.start / CELL) : round(span.end / CELL)] = KINDS.index(kind)
    spoken = np.zeros(cells, bool)
    for cue in cues:
        spoken[max(0, round(cue.start / CELL)) : max(0, round(cue.end / CELL))] = True
    kinds[spoken & (kinds == KINDS.index("sound"))] = KINDS.index("speech")
    return replace(sound, spans=_spans(kinds))


def _nothing(duration: float, note: str) -> Sound:
    return Sound(duration, 0, FLOOR, FLOOR, CELL, (), (), (), (), note)


def decibels(power: Any) -> Any:
    """Mean squares of full scale 1 as dBFS, FLOOR at least."""
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR)


class _Cells:
    """Facts of every hundredth of a second, gathered from blocks of any length."""

    def __init__(self) -> None:
        self.power = array("f")  # mean square over samples and channels, of full scale 1
        self.band = array("f")  # share of it in the band of speech
        self.low = array("h")
        self.high = array("h")
        self._size = round(RATE * CELL)
        self._rest: np.ndarray | None = None

    def add(self, block: np.ndarray) -> None:
        if self._rest is not None:
            block = np.concatenate((self._rest, block))
        count = len(block) // self._size
        self._rest = block[count * self._size :]
        self._take(block[: count * self._size].reshape(count, self._size, -1))

    def finish(self) -> None:
        """The last, shorter cell, from which nothing is missing but its end."""
        if self._rest is not None and len(self._rest) >= self._size // 4:
            self._take(self._rest[None])
        self._rest = None

    def _take(self, cells: np.ndarray) -> None:
        if not len(cells):
            return
        self.low.extend(cells.min(axis=(1, 2)).tolist())
        self.high.extend(cells.max(axis=(1, 2)).tolist())
        samples = cells.astype(np.float32) / _FULL
        self.power.extend(np.square(samples).mean(axis=(1, 2)).tolist())
        spectrum = np.square(np.abs(np.fft.rfft(samples * np.hanning(cells.shape[1])[:, None], axis=1))).sum(axis=2)
        bins = cells.shape[1] / (RATE * CELL)  # a shorter cell has wider bins
        inside = spectrum[:, round(_BAND[0] * bins) : round(_BAND[1] * bins)].sum(axis=1)
        self.band.extend((inside / np.maximum(spectrum.sum(axis=1), 1e-12)).tolist())

    def sound(self, duration: float, channels: int, note: str) -> Sound:
        power = np.frombuffer(self.power, np.float32).astype(np.float64)
        low, high = np.frombuffer(self.low, np.int16), np.frombuffer(self.high, np.int16)
        most = float(max(-int(low.min()), int(high.max()), 1)) / _FULL if len(low) else 1 / _FULL
        step = CELL * max(10, -(-len(power) // _COLUMNS))
        firsts = np.arange(0, len(power), round(step / CELL))
        means = np.add.reduceat(power, firsts) / np.diff(np.append(firsts, len(power)))
        columns = np.unique(np.linspace(0, len(low), min(_COLUMNS, len(low)), endpoint=False).astype(int))
        return Sound(
            duration=duration,
            channels=channels,
            loudness=round(float(decibels(power.mean())), 1),
            peak=round(float(decibels(most**2)), 1),
            step=round(step, 2),
            levels=tuple(round(float(level), 1) for level in decibels(means)),
            low=tuple(int(v) for v in np.rint(np.minimum.reduceat(low, columns) / _FULL * 100)),
            high=tuple(int(v) for v in np.rint(np.maximum.reduceat(high, columns) / _FULL * 100)),
            spans=_spans(_kinds(power, np.frombuffer(self.band, np.float32))),
            note=note,
        )


# -- the rules ------------------------------------------------------------------------------------------------------


def _kinds(power: np.ndarray, band: np.ndarray) -> np.ndarray:
    """int8 [cells]: the index in KINDS of each hundredth of a second."""
    kinds = np.full(len(power), KINDS.index("sound"), np.int8)
    kinds[_speech(power, band)] = KINDS.index("speech")
    kinds[_lasting(decibels(_smooth(power, 10)) >= _LOUD, _SHORTEST["loud"])] = KINDS.index("loud")
    quiet = _lasting(decibels(_smooth(power, 3)) < _threshold(power), _SHORTEST["silence"])
    kinds[quiet] = KINDS.index("silence")
    return _settled(kinds)


def _threshold(power: np.ndarray) -> float:
    """dBFS below which a track is silent."""
    loud = float(np.percentile(decibels(_smooth(power, 10)), 90))
    return max(min(_QUIET, loud - _BELOW), _QUIETEST)


def _smooth(values: np.ndarray, cells: int) -> np.ndarray:
    """The mean of so many cells around each."""
    if len(values) < cells:
        return np.full(len(values), values.mean())
    sums = np.cumsum(np.concatenate(([0.0], values)))
    at = np.arange(len(values))
    first = np.clip(at - cells // 2, 0, len(values) - cells)
    mean: np.ndarray = (sums[first + cells] - sums[first]) / cells
    return np.maximum(mean, 0.0)


def _speech(power: np.ndarray, band: np.ndarray) -> np.ndarray:
    """bool [cells]: whether the second around each sounds like speech."""
    window = min(100, len(power))
    mean = _smooth(power, window)
    falls = _smooth((power < mean / 2).astype(np.float64), window) >= _LOW_FRAMES
    inside = _smooth(power * band, window) >= _IN_BAND * mean
    return falls & inside


def _lasting(mask: np.ndarray, seconds: float) -> np.ndarray:
    """The mask without runs that are shorter."""
    out = mask.copy()
    for first, last in _runs(mask):
        if mask[first] and (last - first) * CELL < seconds - 1e-9:
            out[first:last] = False
    return out


def _settled(kinds: np.ndarray) -> np.ndarray:
    """Runs too short to be told apart join what comes before them, or at the beginning what follows; silence stays."""
    out = kinds.copy()
    silence = KINDS.index("silence")
    for first, last in _runs(kinds):
        kind = KINDS[kinds[first]]
        if kind == "silence" or (last - first) * CELL >= max(_SHORTEST[kind], 0.2) - 1e-9:
            continue
        if first > 0 and out[first - 1] != silence:
            out[first:last] = out[first - 1]
        elif last < len(out) and kinds[last] != silence:
            out[first:last] = kinds[last]
    return out


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """First and last-but-one index of every run of equal values."""
    edges = np.flatnonzero(np.diff(values.astype(np.int8))) + 1
    starts = [0, *edges.tolist()] if len(values) else []
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def _spans(kinds: np.ndarray) -> tuple[Span, ...]:
    spans = []
    for kind, runs in groupby(_runs(kinds), lambda run: KINDS[kinds[run[0]]]):
        first, *_, last = [edge for run in runs for edge in run]
        spans.append(Span(round(first * CELL, 2), round(last * CELL, 2), kind))
    return tuple(spans)
