"""Rows in which time matters: what is said interleaved with the frames it is said over, and what happens when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import EngineError
from engine.timed import MOST_STRETCHES, Stretch, Timed, said, sayable, stretches
from finetune.data.frames import span
from finetune.data.items import Item, Medium
from finetune.data.report import Report
from finetune.data.rowfile import Example, Part, Turn, asked
from finetune.data.wording import question


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
    zero = medium.start or 0.0  # frames and cues count from the same second, so that a cue's time means a frame
    if caption:
        parts: list[Part] = []
        for stretch in found:
            parts += [
                replace(medium, start=stretch.start, end=stretch.end, zero=zero),
                f"{said(stretch.cues, zero)}\n",
            ]
        return [asked("video", source, (*parts, question("transcript", item)), caption)]
    turns: list[Turn] = []
    for stretch in found:
        if stretch.cues:
            clip = replace(medium, start=stretch.start, end=stretch.end, zero=zero)
            turns += [Turn("user", (clip,)), Turn("assistant", (said(stretch.cues, zero),))]
    return [Example("video", source, tuple(turns))] if turns else []


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
