"""What a measurement is made of: runs, series of them, lines with a goal, rows of lines."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """One execution of a piece of work: seconds on the clock, and of all processor cores together."""

    seconds: float
    cpu: float
    value: Any = None  # what the work returned


@dataclass(frozen=True)
class Series:
    """The same thing measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest."""
        return min(self.values), max(self.values)


def seconds(runs: Sequence[Run]) -> Series:
    return Series(tuple(run.seconds for run in runs))


def cpu_seconds(runs: Sequence[Run]) -> Series:
    return Series(tuple(run.cpu for run in runs))


@dataclass(frozen=True)
class Goal:
    """At most, or else at least, `limit`."""

    limit: float
    at_most: bool

    def reached(self, figure: float) -> bool:
        return figure <= self.limit if self.at_most else figure >= self.limit


def at_most(limit: float) -> Goal:
    return Goal(limit, True)


def at_least(limit: float) -> Goal:
    return Goal(limit, False)


@dataclass(frozen=True)
class Line:
    """One figure of a row. `figure` is what the goal is about; `ours` and `theirs` are what it was made from.

    Where nothing could be measured `figure` is None and `note` says why."""

    name: str
    unit: str = "s"  # of the two series
    ours: Series | None = None
    theirs: Series | None = None
    figure: float | None = None
    figure_unit: str = "×"
    goal: Goal | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        return None if self.figure is None or self.goal is None else self.goal.reached(self.figure)


def times_faster(name: str, ours: Series, theirs: Series, goal: float | None = None, note: str = "") -> Line:
    """How many times as long the other takes: the ratio of the medians."""
    figure = theirs.median / ours.median
    return Line(name, "s", ours, theirs, figure, "× as fast", None if goal is None else at_least(goal), note)


def share_of(
    name: str, ours: Series, theirs: Series, goal: float | None = None, note: str = "", unit: str = "s"
) -> Line:
    """How much of the other's figure ours is: the ratio of the medians."""
    figure = ours.median / theirs.median
    return Line(name, unit, ours, theirs, figure, "×", None if goal is None else at_most(goal), note)


def not_measured(name: str, why: str, goal: Goal | None = None) -> Line:
    return Line(name, goal=goal, note=f"not measured: {why}")


@dataclass(frozen=True)
class Size:
    """How much is measured. `tiny` only shows that a row works: what it prints says nothing about speed."""

    runs: int = 5
    tiny: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table of goals and how it is measured."""

    name: str
    what: str
    against: str
    goal: str
    how: str
    measure: Callable[[Size], list[Line]]


def to_json(line: Line) -> dict[str, Any]:
    """A line as plain data, with the medians that a reader wants first."""
    made = asdict(line) | {"reached": line.reached}
    for name, series in (("ours", line.ours), ("theirs", line.theirs)):
        if series is not None:
            made[name] = {"median": series.median, "values": list(series.values)}
    return made


def from_json(fields: dict[str, Any]) -> Line:
    """What `to_json` wrote."""
    kept = {name: value for name, value in fields.items() if name != "reached"}
    for name in ("ours", "theirs"):
        if kept[name] is not None:
            kept[name] = Series(tuple(kept[name]["values"]))
    if kept["goal"] is not None:
        kept["goal"] = Goal(**kept["goal"])
    return Line(**kept)
