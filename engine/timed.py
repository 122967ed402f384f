"""Text that belongs to a time of a video: what a cue is, how the model reads it, and where it stands between frames.

One place for both sides: rows for training (finetune.data.transcript) and questions (engine.prompt) are made by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

SHORTEST = 2.0
"""Seconds of a stretch of frames: four frames, the fewest that the model takes of a clip, at its two per second."""

MOST_STRETCHES = 32
"""Stretches of frames in one row or question."""

LONGEST = 50_000
"""Characters of a text that can stand between marks."""

CLIP_TIME = ("<|clip_time_start|>", "<|clip_time_end|>")


@dataclass(frozen=True)
class Timed:
    """What is said, seen or read from `start` to `end`, seconds of the file."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Stretch:
    """Frames from `start` to `end`, and what has been said when they end. The last one of a video may hold no cue."""

    start: float
    end: float
    cues: tuple[Timed, ...]


def in_order(cues: Iterable[Timed]) -> tuple[Timed, ...]:
    """Cues by their start, without blank ones and repetitions."""
    return tuple(sorted({cue for cue in cues if cue.text}, key=lambda cue: (cue.start, cue.end, cue.text)))


def sayable(text: str) -> bool:
    """Whether a text can stand between marks: not blank, no blanks at its ends, no control token within."""
    return bool(text) and text == text.strip() and "<|" not in text and "|>" not in text and len(text) < LONGEST


def clip_time(start: float, end: float, text: str = "") -> str:
    """A time of a clip and what is said of it, as the report of 1.5 writes it (its format of clip times): seconds
    with one decimal."""
    opened, closed = CLIP_TIME
    return f"{opened}[{start:.1f}, {end:.1f}]{closed}" + (f" {text}" if text else "")


def said(cues: Sequence[Timed], zero: float = 0.0) -> str:
    """Cues as the model reads them, one a line; times count from the second `zero`."""
    return "\n".join(clip_time(max(cue.start - zero, 0.0), max(cue.end - zero, 0.0), cue.text) for cue in cues)


def stretches(cues: Sequence[Timed], start: float, end: float, shortest: float = SHORTEST) -> list[Stretch]:
    """Cut the frames from `start` to `end` where a cue has been said: the frames up to its end come first, then the
    cue, so that nothing is told before it is heard. Cues come in the order of their ends; those that end within
    `shortest` seconds of the cut before them wait for the next one. Cues outside the range are left out."""
    out: list[Stretch] = []
    waiting: list[Timed] = []
    cut = start
    inside = [cue for cue in cues if cue.start < end and cue.end > start]
    for cue in sorted(inside, key=lambda cue: (cue.end, cue.start)):
        waiting.append(cue)
        heard = min(cue.end, end)
        if heard - cut >= shortest:
            out.append(Stretch(cut, heard, tuple(waiting)))
            waiting, cut = [], heard
    if waiting and out and end - cut < shortest:
        last = out.pop()
        out.append(Stretch(last.start, end, (*last.cues, *waiting)))
    elif waiting or end - cut >= shortest:
        out.append(Stretch(cut, end, tuple(waiting)))
    return out


def whole(found: Sequence[Stretch], end: float) -> list[Stretch]:
    """The same stretches, the last one up to `end`: a question is about every frame, the ones behind the last word
    too, even where those are too few for a stretch of their own."""
    return [*found[:-1], replace(found[-1], end=max(found[-1].end, end))] if found else []
