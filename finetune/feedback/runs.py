"""Runs of a recipe: what was asked for, how far each stage is, and the figures noted on the way.

    runs = Runs("data/studio.sqlite")
    run = runs.begin("nano", recipe, folder, seed=0, code="0.1.0")
    runs.stage_begun(run.id, "stage0", 0)
    runs.metric(run.id, "stage0", 25, {"loss": 3.1})
    runs.stage_done(run.id, "stage0", folder="runs/nano/stage0/model", seconds=61.5, steps=1000)
    runs.finished(run.id, "done")

One process writes a run; any other reads it meanwhile. A writer that is gone without a word leaves a run that reads
as stopped, from the moment it is gone."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from sqlite_utils import Database

from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.process import is_running, this_process
from finetune.feedback.rows import clean, column, new_id, now
from finetune.feedback.run_rows import Ending, Metric, Run, Stage, metric_of, run_of, stage_of

BATCH_ROWS, BATCH_SECONDS = 50, 1.0
"""Figures are written together: when so many wait, or the oldest of them has waited so long."""

GONE = "The process that trained it ended without a word; resume it to go on."


class Runs:
    """The runs in one store file. Every method may be called from any thread, and raises FinetuneError when the disk
    is full or read-only, or the file is damaged, written by a newer version or locked for `busy_seconds`."""

    def __init__(self, path: str | os.PathLike[str], busy_seconds: float = 10.0) -> None:
        self._file = File(path, busy_seconds)
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, str, int, str, str]] = []
        self._since = 0.0

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def file(self) -> File:
        """For what hangs on a run (finetune.feedback.launches)."""
        return self._file

    def close(self) -> None:
        """Write what waits, and close the file for all threads."""
        self.flush()
        self._file.close()

    # -- writing ------------------------------------------------------------------------------------------------

    def queue(
        self,
        name: str,
        recipe: Mapping[str, Any],
        folder: str | os.PathLike[str],
        *,
        seed: int,
        code: str,
        model: str | None = None,
    ) -> Run:
        """A run that waits for the process that will `begin` it in `folder`.

        FinetuneError if a living process trains in this folder, or one waits there already."""
        with self._file.transaction() as db:
            known = self._newest(db, folder)
            if known is not None and known.status in ("queued", "running"):
                raise FinetuneError(
                    f"A run is {known.status} in {known.folder} already; stop it or choose another name."
                )
            return self._insert(db, "queued", name, recipe, folder, seed, code, model)

    def begin(
        self,
        name: str,
        recipe: Mapping[str, Any],
        folder: str | os.PathLike[str],
        *,
        seed: int,
        code: str,
        model: str | None = None,
        resume: bool = False,
    ) -> Run:
        """This process trains in `folder` from now on: the run that is queued there, with `resume` the one that was
        begun there last, else a new one. `model` is the folder it starts from (None: random weights), `code` the
        version of the program. What is given replaces what was queued.

        FinetuneError if another living process trains in this folder."""
        pid, began = this_process()
        with self._file.transaction() as db:
            known = self._newest(db, folder)
            if known is not None and known.status == "running" and known.writer != (pid, began):
                raise FinetuneError(f"Another process trains in {known.folder}; stop it first or choose another name.")
            if known is None or not (resume or known.status == "queued"):
                if known is not None and known.status == "running":  # ours, and left without a word
                    _update(db, "runs", "id = ?", [known.id], {"status": "stopped"})
                known = self._insert(db, "queued", name, recipe, folder, seed, code, model)
            changes = {
                "name": name,
                "recipe": recipe,
                "status": "running",
                "sentence": None,
                "model": model,
                "code": code,
                "seed": seed,
                "updated": now(),
                "writer_pid": pid,
                "writer_started": began,
            }
            _update(db, "runs", "id = ?", [known.id], changes)
            return self._run(db, known.id)

    def requeue(self, run: str) -> Run:
        """A run that does not train waits again for the process that will go on with it.

        FinetuneError if it is running, has ended for good, or is not in the store."""
        with self._file.transaction() as db:
            found = self._run(db, run)
            if found.status in ("running", "done"):
                raise FinetuneError(f"The run {found.name} is {found.status}; there is nothing to resume.")
            _update(db, "runs", "id = ?", [found.id], {"status": "queued", "sentence": None, "updated": now()})
            return self._run(db, found.id)

    def forget(self, run: str) -> None:
        """Take a run that does not train off the list; its folder stays."""
        with self._file.transaction() as db:
            found = self._find(db, run)
            if found is not None and found.status == "running":
                raise FinetuneError(f"The run {found.name} is running; stop it first.")
            db.execute("DELETE FROM runs WHERE id = ?", [clean(run)])

    def stage_begun(self, run: str, stage: str, position: int, *, step: int = 0) -> Stage:
        """Training of a stage begins, or goes on after `step` steps; figures of later steps are forgotten.

        `position` orders the stages. FinetuneError if the run is not in the store."""
        self.flush()
        made = now()
        with self._file.transaction() as db:
            self._run(db, run)
            sql = (
                "INSERT INTO stages "
                "(run_id, name, position, status, seconds, examples, tokens, steps, created, updated) "
                "VALUES (?, ?, ?, 'running', 0, 0, 0, ?, ?, ?) ON CONFLICT (run_id, name) DO UPDATE SET "
                "position = excluded.position, status = 'running', steps = excluded.steps, updated = excluded.updated"
            )
            db.execute(sql, [clean(run), clean(stage), position, step, made, made])
            db.execute(
                "DELETE FROM metrics WHERE run_id = ? AND stage = ? AND step > ?", [clean(run), clean(stage), step]
            )
            _update(db, "runs", "id = ?", [clean(run)], {"updated": made})
            return self._stage(db, run, stage)

    def metric(self, run: str, stage: str, step: int, figures: Mapping[str, Any]) -> None:
        """Note the figures of a step of a stage that was begun; of two calls for one step the later one counts.

        Cheap: they are written together, and of a crash the last second may be missing. Numbers that are none (the
        loss of a model that has diverged) are kept as null."""
        row = (clean(run), clean(stage), step, str(column(_finite(figures))), now())
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(row)
            due = len(self._waiting) >= BATCH_ROWS or time.monotonic() - self._since >= BATCH_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Write the figures that wait. If they cannot be written they go on waiting."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        if not rows:
            return
        try:
            with self._file.quick_transaction() as db:
                db.conn.executemany(
                    "INSERT INTO metrics (run_id, stage, step, figures, created) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (run_id, stage, step) DO UPDATE SET figures = excluded.figures, "
                    "created = excluded.created",
                    rows,
                )
                latest = {(run, stage): (step, made) for run, stage, step, _, made in rows}
                for (run, stage), (step, made) in latest.items():
                    _update(db, "stages", "run_id = ? AND name = ?", [run, stage], {"steps": step, "updated": made})
                    _update(db, "runs", "id = ?", [run], {"updated": made})
        except FinetuneError:
            with self._lock:
                self._waiting = rows + self._waiting
                self._since = time.monotonic()  # not at every step while the disk is full
            raise

    def stage_done(
        self,
        run: str,
        stage: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        seconds: float = 0.0,
        examples: int = 0,
        tokens: int = 0,
        steps: int = 0,
        accuracy: Mapping[str, Any] | None = None,
    ) -> Stage:
        """A stage has ended: the folder of the model it wrote, its training time, what it saw, and its accuracy by
        kind of question. May be called again when the accuracy is known.

        FinetuneError if the stage was not begun."""
        self.flush()
        made = now()
        with self._file.transaction() as db:
            self._stage(db, run, stage)
            changes = {
                "status": "done",
                "folder": None if folder is None else os.fspath(folder),
                "seconds": float(seconds),
                "examples": examples,
                "tokens": tokens,
                "steps": steps,
                "accuracy": None if accuracy is None else _finite(accuracy),
                "updated": made,
            }
            _update(db, "stages", "run_id = ? AND name = ?", [clean(run), clean(stage)], changes)
            _update(db, "runs", "id = ?", [clean(run)], {"updated": made})
            return self._stage(db, run, stage)

    def finished(self, run: str, status: Ending, sentence: str | None = None) -> Run:
        """How a run ended, with one sentence where there is something to say; a stage that was under way ends alike.

        FinetuneError if the run is not in the store."""
        if status not in get_args(Ending):
            raise ValueError(f"status is {status!r}, not one of {', '.join(get_args(Ending))}")
        self.flush()
        made = now()
        with self._file.transaction() as db:
            self._run(db, run)
            _update(db, "runs", "id = ?", [clean(run)], {"status": status, "sentence": sentence, "updated": made})
            _update(
                db, "stages", "run_id = ? AND status = 'running'", [clean(run)], {"status": status, "updated": made}
            )
            return self._run(db, run)

    # -- reading ------------------------------------------------------------------------------------------------

    def list(self, limit: int = 100, offset: int = 0) -> Sequence[Run]:
        """The newest first."""
        with self._file.snapshot() as db:
            sql = "SELECT * FROM runs ORDER BY id DESC LIMIT ? OFFSET ?"
            return [_seen(run_of(row)) for row in db.query(sql, [max(limit, 0), max(offset, 0)])]

    def one(self, run: str) -> Run:
        """FinetuneError if the run is not in the store."""
        with self._file.snapshot() as db:
            return self._run(db, run)

    def in_folder(self, folder: str | os.PathLike[str]) -> Run | None:
        """The run that was last queued or begun in a folder."""
        with self._file.snapshot() as db:
            return self._newest(db, folder)

    def stages(self, run: str) -> Sequence[Stage]:
        """The stages that were begun, in order. Empty for a run that is not in the store."""
        with self._file.snapshot() as db:
            alive = any(found.status == "running" for found in [self._find(db, run)] if found is not None)
            sql = "SELECT * FROM stages WHERE run_id = ? ORDER BY position, name"
            return [stage_of(row, alive) for row in db.query(sql, [clean(run)])]

    def result(self, run: str) -> Path | None:
        """What a run has made: the folder of the model, or of the adapter, of its last stage that has ended. None
        where none has, or the folder is gone."""
        ended = [stage for stage in self.stages(run) if stage.status == "done" and stage.folder]
        folder = Path(ended[-1].folder or "") if ended else None
        return folder if folder is not None and folder.is_dir() else None

    def metrics(self, run: str, stage: str | None = None, after: int = -1) -> Sequence[Metric]:
        """The figures of a run in the order of its stages and steps, of one stage if it is named, of the steps beyond
        `after`. Empty for a run that is not in the store."""
        sql = (
            "SELECT m.* FROM metrics m JOIN stages s ON s.run_id = m.run_id AND s.name = m.stage "
            "WHERE m.run_id = ? AND m.step > ? AND (? IS NULL OR m.stage = ?) ORDER BY s.position, s.name, m.step"
        )
        name = None if stage is None else clean(stage)
        with self._file.snapshot() as db:
            return [metric_of(row) for row in db.query(sql, [clean(run), after, name, name])]

    # -- inside -------------------------------------------------------------------------------------------------

    def _insert(
        self,
        db: Database,
        status: str,
        name: str,
        recipe: Mapping[str, Any],
        folder: str | os.PathLike[str],
        seed: int,
        code: str,
        model: str | None,
    ) -> Run:
        made, run = now(), new_id()
        row = {
            "id": run,
            "name": name,
            "recipe": recipe,
            "folder": _absolute(folder),
            "status": status,
            "model": model,
            "code": code,
            "seed": seed,
            "created": made,
            "updated": made,
        }
        db.table("runs").insert({key: column(value) for key, value in row.items()})
        return self._run(db, run)

    def _find(self, db: Database, run: str) -> Run | None:
        rows = list(db.query("SELECT * FROM runs WHERE id = ?", [clean(run)]))
        return _seen(run_of(rows[0])) if rows else None

    def _run(self, db: Database, run: str) -> Run:
        found = self._find(db, run)
        if found is None:
            raise FinetuneError("This run is no longer kept; begin a new one or open another.")
        return found

    def _newest(self, db: Database, folder: str | os.PathLike[str]) -> Run | None:
        sql = "SELECT * FROM runs WHERE folder = ? ORDER BY id DESC LIMIT 1"
        rows = list(db.query(sql, [_absolute(folder)]))
        return _seen(run_of(rows[0])) if rows else None

    def _stage(self, db: Database, run: str, stage: str) -> Stage:
        rows = list(db.query("SELECT * FROM stages WHERE run_id = ? AND name = ?", [clean(run), clean(stage)]))
        if not rows:
            raise FinetuneError(f"Stage {stage} of this run was not begun; begin it first.")
        return stage_of(rows[0], alive=True)


def _seen(run: Run) -> Run:
    """A run as it stands: "running" holds only as long as its writer does."""
    if run.status == "running" and not (run.writer and is_running(*run.writer)):
        return run.stopped(GONE)
    return run


def _absolute(folder: str | os.PathLike[str]) -> str:
    where = str(Path(folder).absolute())
    if where != clean(where):
        raise FinetuneError(f"The folder {where!a} has a name that is not valid text; rename it.")
    return where


def _update(db: Database, table: str, condition: str, keys: Sequence[Any], changes: Mapping[str, Any]) -> None:
    # Names and conditions are ours, never the user's; the values are parameters.
    assignments = ", ".join(f"{name} = ?" for name in changes)
    values = [column(value) for value in changes.values()]
    db.execute(f"UPDATE {table} SET {assignments} WHERE {condition}", [*values, *keys])


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with null for numbers that JSON has not."""

    def value(v: Any) -> Any:
        if isinstance(v, Mapping):
            return {str(name): value(inner) for name, inner in v.items()}
        if isinstance(v, list | tuple):
            return [value(inner) for inner in v]
        return None if isinstance(v, float) and not math.isfinite(v) else v

    return {str(name): value(v) for name, v in figures.items()}
