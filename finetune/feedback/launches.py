"""Which runs are started here, with which arguments, in which order, and the process of each.

launches = Launches(runs)
launches.add(run.id, ["recipes/sft.toml", "--model", "assets/keye-nano"])
launches.start_next(start)                       # the one that waits longest, if nothing trains"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlite_utils import Database

from finetune.feedback.process import is_running
from finetune.feedback.rows import clean, new_id, parsed
from finetune.feedback.runs import Runs

Wanted = Literal["run", "pause", "stop", "keep"]
"""What was asked of a run last: to train, to wait, to end, or to end with what it has learnt so far."""


@dataclass(frozen=True)
class Launch:
    run: str
    arguments: list[str]  # of `python -m finetune run`
    place: str  # in the queue, ascending
    wanted: Wanted
    process: tuple[int, str] | None  # its id and when it began

    @property
    def alive(self) -> bool:
        return self.process is not None and is_running(*self.process)


class Launches:
    """Every method may be called from any thread and process, and raises FinetuneError as Runs does."""

    def __init__(self, runs: Runs) -> None:
        self._file = runs.file

    def add(self, run: str, arguments: Sequence[str]) -> None:
        """A run waits at the end of the queue; one that was there before keeps its arguments."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO launches (run_id, arguments, place, wanted) VALUES (?, ?, ?, 'run') "
                "ON CONFLICT (run_id) DO UPDATE SET place = excluded.place, wanted = 'run', pid = NULL, started = NULL",
                [clean(run), json.dumps([clean(text) for text in arguments]), new_id()],
            )

    def one(self, run: str) -> Launch | None:
        with self._file.snapshot() as db:
            return next(iter(_launches(db, "run_id = ?", [clean(run)])), None)

    def started(self) -> list[Launch]:
        """Those for which a process was started whose end was not noticed yet."""
        with self._file.snapshot() as db:
            return _launches(db, "pid IS NOT NULL", [])

    def waiting(self) -> list[str]:
        """The runs of the queue, the next one first."""
        with self._file.snapshot() as db:
            sql = (
                "SELECT l.run_id FROM launches l JOIN runs r ON r.id = l.run_id "
                "WHERE r.status = 'queued' AND l.pid IS NULL ORDER BY l.place"
            )
            return [row["run_id"] for row in db.query(sql)]

    def want(self, run: str, wanted: Wanted) -> None:
        with self._file.transaction() as db:
            db.execute("UPDATE launches SET wanted = ? WHERE run_id = ?", [wanted, clean(run)])

    def ended(self, run: str) -> None:
        """Its process is gone, and that was noted."""
        with self._file.transaction() as db:
            db.execute("UPDATE launches SET pid = NULL, started = NULL WHERE run_id = ?", [clean(run)])

    def start_next(self, start: Callable[[Launch], tuple[int, str]]) -> Launch | None:
        """Where nothing trains and something waits: `start` its process, and remember which it is.

        One transaction, so that of two programs over one store only one starts it. What was started from a shell
        trains too."""
        with self._file.transaction() as db:
            if any(launch.alive for launch in _launches(db, "pid IS NOT NULL", [])):
                return None
            sql = "SELECT writer_pid, writer_started FROM runs WHERE status = 'running'"
            if any(is_running(row["writer_pid"], row["writer_started"]) for row in db.query(sql)):
                return None
            where = "run_id IN (SELECT id FROM runs WHERE status = 'queued') AND pid IS NULL"
            launch = next(iter(_launches(db, where, [])), None)
            if launch is None:
                return None
            pid, began = start(launch)
            sql = "UPDATE launches SET pid = ?, started = ? WHERE run_id = ?"
            db.execute(sql, [pid, began, launch.run])
            return launch


def _launches(db: Database, where: str, values: list[Any]) -> list[Launch]:
    # Conditions are ours, never the user's; the values are parameters.
    rows = db.query(f"SELECT * FROM launches WHERE {where} ORDER BY place", values)
    return [
        Launch(
            row["run_id"],
            [str(text) for text in parsed(row["arguments"])],
            row["place"],
            row["wanted"],
            None if row["pid"] is None else (row["pid"], row["started"]),
        )
        for row in list(rows)
    ]
