"""Runs, stages and figures of the store as plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from finetune.feedback.rows import Row, loads

Ending = Literal["paused", "done", "failed", "stopped"]
Status = Ending | Literal["queued", "running"]


@dataclass(frozen=True)
class Run:
    """One execution of a recipe."""

    id: str  # sorts by age
    name: str
    recipe: dict[str, Any]  # with every default filled in
    folder: str  # where it writes
    status: Status
    sentence: str | None  # why it failed or stopped, or what it has to say
    model: str | None  # the folder it started from; None: random weights
    code: str  # version of the program
    seed: int
    created: str  # UTC, ISO-8601 with milliseconds, here and below
    updated: str  # when something of it was last written
    writer: tuple[int, str] | None  # process id and when that process began; None while it is queued

    def stopped(self, sentence: str) -> Run:
        return replace(self, status="stopped", sentence=self.sentence or sentence)


@dataclass(frozen=True)
class Stage:
    """One step of the recipe in a run."""

    run: str
    name: str
    position: int  # ascending
    status: Status
    folder: str | None  # of the model it wrote
    seconds: float  # of training
    examples: int
    tokens: int
    steps: int  # so far, or in all
    accuracy: dict[str, Any] | None  # by kind of question
    created: str
    updated: str


@dataclass(frozen=True)
class Metric:
    """The figures noted at a step of a stage: loss, rate, shares right, and what else the stage has."""

    run: str
    stage: str
    step: int
    figures: dict[str, Any]
    created: str


def run_of(row: Row) -> Run:
    fields = {key: value for key, value in row.items() if key not in ("writer_pid", "writer_started")}
    writer = None if row["writer_pid"] is None else (row["writer_pid"], row["writer_started"])
    return Run(**{**fields, "recipe": loads(row["recipe"])}, writer=writer)


def stage_of(row: Row, alive: bool) -> Stage:
    """`alive`: whether its run still has a writer. Without one nothing of it is running."""
    fields = {key: value for key, value in row.items() if key != "run_id"}
    fields["accuracy"] = None if row["accuracy"] is None else loads(row["accuracy"])
    if row["status"] == "running" and not alive:
        fields["status"] = "stopped"
    return Stage(run=row["run_id"], **fields)


def metric_of(row: Row) -> Metric:
    return Metric(row["run_id"], row["stage"], row["step"], loads(row["figures"]), row["created"])
