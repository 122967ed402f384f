"""Rows in which time matters: what is said interleaved with the frames it is said over, and what happens when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import EngineError
from finetune.data.formats import ClipTime, sayable, write
from finetune.data.frames import span
from finetune.data.items import Item, Medium, Timed
from finetune.data.report import Report
from finetune.data.rowfile import Example, Part, Turn, asked
from finetune.data.wording import question

SHORTEST = 2.0
"""Seconds of a stretch of frames: four frames, the fewest that the model takes of a clip, at its two per second."""

MOST_STRETCHES = 32
"""Stretches of frames in one row; a longer video becomes several rows."""


@dataclass(frozen=True)
class Stretch:
    """Frames from `start` to `end`, and what has been said when they end. The last one of a video may hold no cue."""

    start: float
    end: float
    cues: tuple[Timed, ...]


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
        said = min(cue.end, end)
        if said - cut >= shortest:
            out.append(Stretch(cut, said, tuple(waiting)))
            waiting, cut = [], said
    if waiting and out and end - cut < shortest:
        last = out.pop()
        out.append(Stretch(last.start, end, (*last.cues, *waiting)))
    elif waiting or end - cut >= shortest:
        out.append(Stretch(cut, end, tuple(waiting)))
    return out


def _spans(items: Sequence[Item], folder: Path, report: Report) -> Iterator[tuple[Item, Medium, float, float]]:
    """The videos among the items, each with its medium and the seconds of the file that it takes; the others of them
    are told to the report."""
    for item in items:
        if not item.is_video:
            continue
        report.came += 1
        medium = item.media[0]
        try:
            yield item, medium, *span(folder / medium.path, medium)
        except EngineError as error:
            report.drop(item.id, "a video cannot be read", str(error))


def transcripts(items: Sequence[Item], folder: Path) -> tuple[list[Example], Report]:
    """For each video with a transcript its frames and cues in the order of time, cues in the format of 1.5's clip
    times. Where there is a caption it is the answer to the whole; otherwise the text after each stretch of frames is
    an answer of its own, as in the report's pre-training on speech."""
    report = Report("transcript", "videos")
    made: list[Example] = []
    for item, medium, start, end in _spans([item for item in items if item.speech], folder, report):
        late = [cue for cue in item.speech if cue.end > end + 1 and medium.end is None]
        if len(late) * 2 > len(item.speech):
            report.drop(item.id, "most of a transcript lies behind its video's end", f"video {end:.1f} s")
            continue
        cues = [cue for cue in item.speech if sayable(cue.text)]
        found = stretches(cues, start, end)
        if not any(stretch.cues for stretch in found):
            report.drop(item.id, "no cue lies within the video")
            continue
        for first in range(0, len(found), MOST_STRETCHES):
            some = found[first : first + MOST_STRETCHES]
            whole = len(found) <= MOST_STRETCHES
            made += _examples(item, medium, some, item.text if whole else "")
        report.made += 1
    return made, report


def _examples(item: Item, medium: Medium, found: Sequence[Stretch], caption: str) -> list[Example]:
    source = f"{item.id} with its transcript"
    if caption:
        parts: list[Part] = []
        for stretch in found:
            parts += [
                replace(medium, start=stretch.start, end=stretch.end),
                f"{said(stretch.cues, medium.start or 0.0)}\n",
            ]
        return [asked("video", source, (*parts, question("transcript", item)), caption)]
    turns: list[Turn] = []
    for stretch in found:
        if stretch.cues:
            clip = replace(medium, start=stretch.start, end=stretch.end)
            turns += [Turn("user", (clip,)), Turn("assistant", (said(stretch.cues, medium.start or 0.0),))]
    return [Example("video", source, tuple(turns))] if turns else []


def said(cues: Sequence[Timed], zero: float = 0.0) -> str:
    """Cues as 1.5 writes them, one a line; times count from the second `zero`."""
    return "\n".join(write(ClipTime(max(cue.start - zero, 0.0), max(cue.end - zero, 0.0), cue.text)) for cue in cues)


def events(items: Sequence[Item], folder: Path) -> tuple[list[Example], Report]:
    """For each video with timed events the question what happens when, answered in the format of clip times. Times
    count from the start of the clip, since that is where the model counts from."""
    report = Report("events", "videos")
    made = []
    for item, medium, start, end in _spans([item for item in items if item.events], folder, report):
        inside = [
            Timed(max(cue.start, start), min(cue.end, end), cue.text)
            for cue in item.events
            if cue.start < end and cue.end >= start and sayable(cue.text)
        ]
        if not inside:
            report.drop(item.id, "no event lies within the video")
            continue
        made.append(
            asked("video", f"{item.id} with its events", (medium, question("events", item)), said(inside, start))
        )
    report.made = len(made)
    return made, report
