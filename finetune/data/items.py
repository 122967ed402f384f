"""What is known of a picture, a video or a text before it becomes training rows, and its JSON form.

Everything here comes from files that others wrote. What does not make sense is left out and said, see `Problems`."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from engine.timed import Timed, in_order
from finetune.bench.lines import clean

Kind = Literal["image", "video"]
Problems = Callable[[str], None]
"""Told, in a few words, what of a file's facts could not be used."""

LONGEST_TEXT = 200_000  # characters of one text
MOST = 10_000  # entries of one list: questions, regions, cues


@dataclass(frozen=True)
class Medium:
    """A picture or video by its path, relative to the folder that was read, with `/` between its parts."""

    path: str
    kind: Kind
    start: float | None = None  # seconds of the file; None is its beginning or end
    end: float | None = None
    fps: float | None = None  # frames to take per second; None leaves it to the model
    max_frames: int | None = None
    zero: float | None = None  # the second of the file from which times count; None is `start`

    def to_row(self) -> str | dict[str, Any]:
        """As a row names it: the path alone, or an object where there is more to say."""
        facts = {k: v for k, v in dataclasses.asdict(self).items() if k != "kind" and v is not None}
        return self.path if len(facts) == 1 else facts


@dataclass(frozen=True)
class Region:
    """A named thing in a picture. `points` are shares 0..1 of its width and height: one for a point, the top left and
    bottom right corners of a box, three or more corners of a polygon."""

    name: str
    shape: Literal["point", "box", "polygon"]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Caption:
    """What a model wrote about a medium, and how many frames per second of it it was shown."""

    text: str
    by: str
    fps: float | None = None


@dataclass(frozen=True)
class Item:
    id: str  # the medium's path, or the file and line of a text; unique in a folder
    media: tuple[Medium, ...] = ()
    text: str = ""  # the caption that came with the medium, or the text itself where there is none
    language: str = ""  # as marked, lower case: en, zh
    group: str = ""
    tags: tuple[str, ...] = ()
    questions: tuple[tuple[str, str], ...] = ()
    speech: tuple[Timed, ...] = ()  # what is spoken
    events: tuple[Timed, ...] = ()  # what happens
    screen: tuple[Timed, ...] = ()  # what is written; of a picture from 0 to 0
    regions: tuple[Region, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()  # of things in the picture, by name
    captions: tuple[Caption, ...] = ()  # by models
    parts: tuple[str | Medium, ...] = ()  # of a document: its texts and its media, in order

    @property
    def is_video(self) -> bool:
        return len(self.media) == 1 and self.media[0].kind == "video" and not self.parts

    @property
    def is_image(self) -> bool:
        return len(self.media) == 1 and self.media[0].kind == "image" and not self.parts


# -- facts, as a sidecar, captions.jsonl or items.jsonl states them -------------------------------------------------


def read_facts(item: Item, facts: dict[str, Any], tell: Problems) -> Item:
    """`item` with what `facts` says: text or caption, language, group, tags, questions, segments (or speech), events,
    objects (with width and height). Anything that makes no sense is told and left out."""
    changes: dict[str, Any] = {}
    text = facts.get("text", facts.get("caption"))
    if text is not None:
        changes["text"] = _text(text, "text", tell) or item.text
    for name in ("language", "group"):
        if facts.get(name) is not None:
            value = _text(facts[name], name, tell)[:200]
            changes[name] = value.lower() if name == "language" else value
    changes["tags"] = tuple(tag for one in _list(facts, "tags", tell) if (tag := _text(one, "tags", tell)))
    changes["questions"] = tuple(filter(None, (_question(one, tell) for one in _list(facts, "questions", tell))))
    for field, names in (("speech", ("segments", "speech")), ("events", ("events",)), ("screen", ("screen",))):
        entries = [one for name in names for one in _list(facts, name, tell)]
        changes[field] = in_order(filter(None, (_timed(one, field, tell) for one in entries)))
    entries = _list(facts, "objects", tell) + _list(facts, "annotations", tell)
    if entries:
        changes["regions"] = tuple(_regions(entries, facts.get("width"), facts.get("height"), tell))
        changes["counts"] = _counts(entries)
    return dataclasses.replace(item, **{name: value for name, value in changes.items() if value})


def _list(facts: dict[str, Any], name: str, tell: Problems) -> list[Any]:
    value = facts.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        tell(f"{name} is no list")
        return []
    if len(value) > MOST:
        tell(f"{name} has more than {MOST:,} entries")
    return value[:MOST]


def _text(value: Any, name: str, tell: Problems) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = value[0]  # several captions of one picture: the first, as COCO's order has it
    if not isinstance(value, str):
        tell(f"{name} is no text")
        return ""
    if len(value) > LONGEST_TEXT:
        tell(f"{name} is longer than {LONGEST_TEXT:,} characters")
        return ""
    return clean(value).strip()


def _question(entry: Any, tell: Problems) -> tuple[str, str] | None:
    if not isinstance(entry, dict):
        tell("a question is no object")
        return None
    question, answer = (_text(entry.get(name), f"a {name}", tell) for name in ("question", "answer"))
    return (question, answer) if question and answer else None


def _timed(entry: Any, name: str, tell: Problems) -> Timed | None:
    if not isinstance(entry, dict):
        tell(f"an entry of {name} is no object")
        return None
    start, end = number(entry.get("start")), number(entry.get("end"))
    if start is None or end is None or not 0 <= start <= end:
        tell(f"an entry of {name} has no times from start to end")
        return None
    return Timed(start, end, _text(entry.get("text"), f"a text of {name}", tell))


def number(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number with more digits than a float holds
        return None


# -- regions: instances as COCO has them, in pixels -----------------------------------------------------------------


def _counts(entries: list[Any]) -> tuple[tuple[str, int], ...]:
    """How many instances each name has; names of which some are only there as a crowd cannot be counted."""
    whole = [entry for entry in entries if isinstance(entry, dict)]
    crowds = {_name(entry) for entry in whole if entry.get("iscrowd")}
    names = Counter(name for entry in whole if (name := _name(entry)) and name not in crowds)
    return tuple(names.items())


def _name(entry: dict[str, Any], tell: Problems = lambda problem: None) -> str:
    return " ".join(_text(entry.get("name", entry.get("category")), "an object's name", tell).split())


def _regions(entries: list[Any], width: Any, height: Any, tell: Problems) -> Iterable[Region]:
    wide, high = number(width), number(height)
    if wide is None or high is None or wide < 1 or high < 1:
        tell("objects lack the width and height of their picture")
        return
    for entry in entries:
        if not isinstance(entry, dict):
            tell("an object is no JSON object")
            continue
        name = _name(entry, tell)
        if not name:
            continue
        if entry.get("iscrowd"):
            tell("an object is a crowd")
            continue
        found = False
        for shape, points in _shapes(entry, tell):
            inside = all(-1 <= x <= wide + 1 and -1 <= y <= high + 1 for x, y in points)
            if not inside:  # a pixel beyond the edge is rounding
                tell(f"a {shape} lies outside its picture")
                continue
            found = True
            shares = tuple((min(max(x / wide, 0.0), 1.0), min(max(y / high, 0.0), 1.0)) for x, y in points)
            yield Region(name, shape, shares)
        if not found:
            tell("an object has no usable shape")


def _shapes(
    entry: dict[str, Any], tell: Problems
) -> Iterable[tuple[Literal["point", "box", "polygon"], list[tuple[float, float]]]]:
    """Every shape of an instance in pixels: bbox [left, top, width, height], point [x, y], segmentation as a list of
    [x1, y1, x2, y2, …]."""
    if (box := _numbers(entry.get("bbox"))) is not None:
        if len(box) == 4 and box[2] > 0 and box[3] > 0:
            yield "box", [(box[0], box[1]), (box[0] + box[2], box[1] + box[3])]
        else:
            tell("a bbox is not left, top, width and height")
    if (point := _numbers(entry.get("point"))) is not None:
        if len(point) == 2:
            yield "point", [(point[0], point[1])]
        else:
            tell("a point is not x and y")
    outlines = entry.get("segmentation")
    if isinstance(outlines, dict):
        tell("a segmentation is run-length coded; only polygons are read")
    elif isinstance(outlines, list):
        for outline in outlines[:MOST]:
            corners = _numbers(outline)
            if corners is None or len(corners) < 6 or len(corners) % 2:
                tell("a segmentation is no list of x1, y1, x2, y2, x3, y3 …")
            else:
                yield "polygon", list(zip(corners[::2], corners[1::2], strict=True))


def _numbers(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) > MOST:
        return None
    numbers = [number(one) for one in value]
    return None if None in numbers else [one for one in numbers if one is not None]
