"""Rows of what items already hold: captions, questions, text in pictures, documents with pictures, and pure text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.timed import sayable
from finetune.data.formats import ClipTime, Reading, write
from finetune.data.items import Item, Medium
from finetune.data.report import Report
from finetune.data.rowfile import Category, Example, Part, Turn, asked
from finetune.data.wording import question


def _single(items: Sequence[Item]) -> Iterator[Item]:
    return (item for item in items if item.is_image or item.is_video)


def captions(items: Sequence[Item]) -> tuple[list[Example], Report]:
    """A row for the caption that came with a medium, and one for each that a model wrote about it, shown at the frame
    rate at which it was written."""
    report = Report("caption", "rows")
    made: list[Example] = []
    for item in _single(items):
        medium = item.media[0]
        kind: Category = "caption" if item.is_image else "video"
        ask = question("caption_image" if item.is_image else "caption_video", item)
        if item.text:
            made.append(asked(kind, item.id, (medium, ask), item.text))
        for caption in item.captions:
            seen = replace(medium, fps=caption.fps) if item.is_video else medium
            made.append(asked(kind, f"{item.id} by {caption.by}", (seen, ask), caption.text))
        if not item.text and not item.captions:
            report.drop(item.id, "there is no caption")
    report.came = len(made) + report.left_out
    report.made = len(made)
    return made, report


def answers(items: Sequence[Item]) -> tuple[list[Example], Report]:
    """A row for each question that came with its answer; those about no medium are pure text."""
    report = Report("vqa", "rows")
    made = []
    for item in items:
        if item.parts:
            continue
        category: Category = "video" if item.is_video else "ocr_vqa" if item.media else "text"
        for ask, answer in item.questions:
            made.append(asked(category, item.id, (*item.media, ask), answer))
    report.came = report.made = len(made)
    return made, report


def read_texts(items: Sequence[Item]) -> tuple[list[Example], Report]:
    """A row for the text seen in a medium; in a video with its times."""
    report = Report("read", "rows")
    made = []
    for item in _single(items):
        seen = [cue for cue in item.screen if sayable(cue.text)]
        if not seen:
            continue
        if item.is_image:
            lines = [write(Reading(cue.text)) for cue in seen]
        else:
            zero = item.media[0].start or 0.0  # the model counts from the start of the clip
            lines = [write(ClipTime(cue.start - zero, cue.end - zero, Reading(cue.text))) for cue in seen]
        ask = question("read_image" if item.is_image else "read_video", item)
        made.append(asked("ocr_vqa" if item.is_image else "video", item.id, (item.media[0], ask), "\n".join(lines)))
    report.came = report.made = len(made)
    return made, report


def documents(items: Sequence[Item]) -> tuple[list[Example], Report]:
    """A document with its media in place as a conversation: what comes up to and with a run of media is the user's
    turn, the text after it the answer, so that every text that follows a medium is learnt. Media after the last text
    are left out."""
    report = Report("interleaved", "rows")
    made = []
    for item in items:
        if not item.parts:
            continue
        report.came += 1
        turns = _turns(item.parts)
        if turns:
            made.append(Example("interleaved", item.id, turns))
        else:
            report.drop(item.id, "no text follows a medium")
    report.made = len(made)
    return made, report


def _turns(parts: Sequence[str | Medium]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    waiting: list[Part] = []
    for part in parts:
        if isinstance(part, str) and any(isinstance(one, Medium) for one in waiting):
            turns += [Turn("user", tuple(waiting)), Turn("assistant", (part,))]
            waiting = []
        else:
            waiting.append(part)
    return tuple(turns)


_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_SHORT = 20  # characters of either half of a text that is continued


def texts(items: Sequence[Item]) -> tuple[list[Example], Report]:
    """A row for each pure text: its beginning is given, up to the end of the sentence nearest to a third of it, and
    the rest is the answer."""
    report = Report("plain", "rows")
    made = []
    for item in items:
        if item.media or not item.text:
            continue
        report.came += 1
        cut = _cut(item.text)
        if cut is None:
            report.drop(item.id, "a text is too short to be continued", item.text[:80])
        else:
            ask = f"{question('continue', item)}\n\n{item.text[:cut].strip()}"
            made.append(asked("text", item.id, (ask,), item.text[cut:].strip()))
    report.made = len(made)
    return made, report


def _cut(text: str) -> int | None:
    """Where to cut a text in two, each of some length; None where no sentence ends there."""
    places = [
        match.end()
        for match in _SENTENCE.finditer(text)
        if len(text[: match.end()].strip()) >= _SHORT and len(text[match.end() :].strip()) >= _SHORT
    ]
    return min(places, key=lambda place: abs(place - len(text) / 3), default=None)
