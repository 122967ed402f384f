"""What is pointed at, read and timed, written as published (technical report, table 1; clip times from that of 1.5).

`write` and `read` are each other's inverse. `read` is strict: model output and downloaded text that is not exactly one
of these forms gives None, and nothing in it is run or repaired. Coordinates are whole numbers in [0, 1000): thousandths
of the picture's width and height, counted from its top left corner."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from engine.timed import CLIP_TIME, clip_time, sayable
from finetune.errors import FinetuneError

GRID = 1000
LONGEST = 100_000
"""Characters of a text that is read; a longer one is none of these forms."""

Point = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Points:
    points: tuple[Point, ...]
    name: str = ""


@dataclass(frozen=True)
class Boxes:
    boxes: tuple[Box, ...]
    name: str = ""


@dataclass(frozen=True)
class Polygons:
    """Each with three corners or more; published ones go clockwise, see `clockwise`."""

    polygons: tuple[tuple[Point, ...], ...]
    name: str = ""


@dataclass(frozen=True)
class Reading:
    """Text in a picture, and where it stands if that is known."""

    text: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ClipTime:
    """From `start` to `end`, seconds with one decimal, and what is said of that time or read in it."""

    start: float
    end: float
    text: str | Reading = ""


Mark = Points | Boxes | Polygons | Reading | ClipTime

_TAGS = {name: (f"<|{name}_start|>", f"<|{name}_end|>") for name in
         ("object_ref", "point", "box", "polygon", "ocr_text")} | {"clip_time": CLIP_TIME}  # fmt: skip


# -- writing --------------------------------------------------------------------------------------------------------


def write(mark: Mark) -> str:
    """The published text of a mark. Raises FinetuneError where it has none: no shapes, numbers outside the grid, a
    name or text that is blank or holds a control token, a time that ends before it starts."""
    if isinstance(mark, Reading):
        where = _in("box", _rows(map(_box, mark.boxes))) if mark.boxes else ""
        return _in("ocr_text", _said(mark.text)) + where
    if isinstance(mark, ClipTime):
        if not 0 <= mark.start <= mark.end < 1e6:
            raise FinetuneError(
                f"A clip cannot last from {mark.start:.1f} to {mark.end:.1f} s; give a start before its end."
            )
        said = write(mark.text) if isinstance(mark.text, Reading) else _said(mark.text) if mark.text else ""
        return clip_time(mark.start, mark.end, said)
    if len(mark.name) > 2000 or "\n" in mark.name:
        raise FinetuneError(f"{mark.name!r:.60} is no name; a name is one line of at most 2000 characters.")
    name = _in("object_ref", _said(mark.name)) if mark.name else ""
    if isinstance(mark, Points):
        return name + _in("point", _rows(map(_point, mark.points)))
    if isinstance(mark, Boxes):
        return name + _in("box", _rows(map(_box, mark.boxes)))
    return name + _in("polygon", _rows(map(_polygon, mark.polygons)))


def _in(tag: str, inner: str) -> str:
    return f"{_TAGS[tag][0]}{inner}{_TAGS[tag][1]}"


def _rows(rows: Iterable[str]) -> str:
    text = ", ".join(rows)
    if not text:
        raise FinetuneError("There is nothing to point at; give at least one shape.")
    return f"[{text}]"


def _numbers(numbers: tuple[int, ...]) -> str:
    if not all(isinstance(number, int) and 0 <= number < GRID for number in numbers):
        raise FinetuneError(f"{numbers} are no coordinates; they must be whole numbers from 0 to {GRID - 1}.")
    return f"[{', '.join(map(str, numbers))}]"


def _point(point: Point) -> str:
    return _numbers(point)


def _box(box: Box) -> str:
    if box[0] > box[2] or box[1] > box[3]:
        raise FinetuneError(f"{box} is no box; its left and top must not exceed its right and bottom.")
    return _numbers(box)


def _polygon(polygon: tuple[Point, ...]) -> str:
    if len(polygon) < 3:
        raise FinetuneError(f"A polygon of {len(polygon)} corners encloses nothing; give at least three.")
    return _rows(map(_point, polygon))


def _said(text: str) -> str:
    if not sayable(text):
        raise FinetuneError(f"{text!r:.60} cannot be written between marks; it is blank or holds a control token.")
    return text


# -- reading --------------------------------------------------------------------------------------------------------

_N = r"(?:0|[1-9][0-9]{0,2})"
_PAIR = rf"\[{_N}, ?{_N}\]"
_FOUR = rf"\[{_N}, ?{_N}, ?{_N}, ?{_N}\]"
_RING = rf"\[{_PAIR}(?:, ?{_PAIR}){{2,}}\]"
_SECONDS = r"((?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,3})?)"


def _list(one: str) -> str:
    return rf"(\[{one}(?:, ?{one})*\])"


def _tagged(tag: str, inner: str) -> str:
    first, last = map(re.escape, _TAGS[tag])
    return first + inner + last


_NAME = f"(?:{_tagged('object_ref', '(.{1,2000}?)')})?"
_SHAPES = {
    "point": re.compile(_NAME + _tagged("point", _list(_PAIR))),
    "box": re.compile(_NAME + _tagged("box", _list(_FOUR))),
    "polygon": re.compile(_NAME + _tagged("polygon", _list(_RING))),
}
_READING = re.compile(_tagged("ocr_text", "(.*?)") + rf"(?:{_tagged('box', _list(_FOUR))})?", re.DOTALL)
_CLIP = re.compile(_tagged("clip_time", rf"\[{_SECONDS}, ?{_SECONDS}\]") + r"(?: (.+))?", re.DOTALL)
_INTEGER = re.compile(r"[0-9]+")


def read(text: str) -> Mark | None:
    """The mark that `text` is, from its first character to its last; None for anything else. Never raises."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return None
    if text.startswith(_TAGS["ocr_text"][0]):
        return _reading(text)
    if text.startswith(_TAGS["clip_time"][0]):
        return _clip(text)
    for kind, pattern in _SHAPES.items():
        if match := pattern.fullmatch(text):
            name = match[1] or ""
            if name and not sayable(name):
                return None
            return _shapes(kind, match[2], name)
    return None


def read_all(text: str) -> list[Mark] | None:
    """The marks of a text that holds one a line and nothing else; None where a line is none, or there is none."""
    marks = [read(line) for line in text.strip().split("\n")] if isinstance(text, str) else []
    return None if not marks or None in marks else [mark for mark in marks if mark is not None]


def _reading(text: str) -> Reading | None:
    match = _READING.fullmatch(text)
    if match is None or not sayable(match[1]):
        return None
    if match[2] is None:
        return Reading(match[1])
    found = _shapes("box", match[2], "")
    return Reading(match[1], found.boxes) if isinstance(found, Boxes) else None


def _clip(text: str) -> ClipTime | None:
    match = _CLIP.fullmatch(text)
    if match is None or float(match[1]) > float(match[2]):
        return None
    said = match[3] or ""
    reading = _reading(said) if said.startswith(_TAGS["ocr_text"][0]) else None
    if said and reading is None and not sayable(said):
        return None
    return ClipTime(float(match[1]), float(match[2]), reading or said)


def _shapes(kind: str, inner: str, name: str) -> Points | Boxes | Polygons | None:
    if kind == "polygon":
        rings = re.findall(_RING, inner)
        return Polygons(tuple(tuple(_pairs(ring)) for ring in rings), name)
    if kind == "point":
        return Points(tuple(_pairs(inner)), name)
    numbers = [int(number) for number in _INTEGER.findall(inner)]
    boxes = [(numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]) for at in range(0, len(numbers), 4)]
    if any(left > right or top > bottom for left, top, right, bottom in boxes):
        return None
    return Boxes(tuple(boxes), name)


def _pairs(inner: str) -> list[Point]:
    numbers = [int(number) for number in _INTEGER.findall(inner)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


# -- the grid -------------------------------------------------------------------------------------------------------


def to_grid(share: float) -> int:
    """A place within a picture, 0 at its left or top edge and 1 at the other, as a whole number in [0, 1000)."""
    return min(max(int(share * GRID), 0), GRID - 1)


def clockwise(polygon: tuple[Point, ...]) -> tuple[Point, ...]:
    """The same corners in clockwise order as seen in the picture, starting with the same corner."""
    pairs = zip(polygon, (*polygon[1:], polygon[0]), strict=True)
    area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)  # above zero: clockwise, since y grows downwards
    return polygon if area >= 0 else (polygon[0], *reversed(polygon[1:]))
