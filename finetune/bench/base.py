"""The one interface of a benchmark: a name, its tasks, and a function that reads a data folder into rows.

A benchmark is one short file that makes one `Benchmark`; finetune/bench/registry.py lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.video.types import Clip
from finetune.bench.modes import Mode
from finetune.errors import FinetuneError

Medium = Path | Clip
"""A picture by its path, or a video."""


@dataclass(frozen=True)
class Item:
    """One question of a benchmark. `prompt` is the text that follows the media, without the mode's switch."""

    task: str
    index: str
    question: str  # as the data holds it
    prompt: str
    answer: str  # the truth, as the data holds it
    media: tuple[Medium, ...]
    category: str = ""
    second_category: str = ""  # another breakdown of the same task
    prepare: Callable[[], None] | None = field(default=None, compare=False)
    """Makes the media where they are made on demand; called in the thread that asks, before they are read."""


@dataclass(frozen=True)
class Flaw:
    """A row of the data that cannot be asked, and why: a kind of problem, and what it is about after a colon. `index`
    may be a line number where there is no index."""

    task: str
    index: str
    problem: str


Row = Item | Flaw


@dataclass(frozen=True)
class Benchmark:
    """`read` yields the rows of a data folder one by one, in the data's own order, without opening media. It raises
    FinetuneError where the folder is not this benchmark; a broken row is a Flaw."""

    name: str  # what the command line calls it
    title: str
    tasks: tuple[str, ...]
    read: Callable[[Path], Iterator[Row]]
    layout: str  # what the data folder must hold, one sentence
    notes: tuple[str, ...] = ()  # how it is measured here, one sentence each
    needs_data: bool = True
    mode: Mode = "think"  # asked with unless another is chosen; thinking is the published evaluation's


def rows(benchmark: Benchmark, data: Path, limit: int | None = None) -> Iterator[Row]:
    """The rows of a benchmark, at most `limit` of each task, with repeated indices turned into flaws."""
    seen: set[tuple[str, str]] = set()
    counts: Counter[str] = Counter()
    for row in benchmark.read(data):
        if limit is not None and counts[row.task] >= limit:
            continue
        counts[row.task] += 1
        if isinstance(row, Item):
            if (row.task, row.index) in seen:
                row = Flaw(row.task, row.index, "the index was there before")
            else:
                seen.add((row.task, row.index))
        yield row


def guarded(task: str, several: Iterator[Row]) -> Iterator[Row]:
    """The rows of one of a benchmark's tables; where it cannot be read a flaw that says so, so that the other tables
    can still be measured."""
    try:
        yield from several
    except FinetuneError as error:
        yield Flaw(task, "", f"the table cannot be read: {error}")


def inside(root: Path, name: str) -> Path | str:
    """The existing file `name` within `root`, or a sentence that says what is wrong with it.

    Names come from downloaded tables: they must not lead out of the folder, not by `..`, not by a link either."""
    if not name or "\0" in name or len(name) > 1000:
        return "a media file has no usable name"
    path = root / name
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return f"a media file lies outside the data folder: {name}"
        if not path.is_file():
            return f"a media file is missing: {name}"
    except OSError:
        return f"a media file is missing: {name}"
    return path


def with_options(question: str, options: list[str]) -> str:
    """The question and one option a line, with letters put before those that lack them."""
    letters = [chr(ord("A") + at) for at in range(len(options))]
    if not all(option.startswith(f"{letter}.") for option, letter in zip(options, letters, strict=True)):
        options = [f"{letter}. {option}" for option, letter in zip(options, letters, strict=True)]
    return "\n".join([question, *options])
