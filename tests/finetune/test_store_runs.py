"""Runs, stages and figures in the store: what is kept, who reads it, and what is left of a writer that dies."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.feedback import Run, Runs, Store

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {"name": "nano", "stage0": {"kind": "vision", "steps": 1000}}

TRAINING = """
import os, sys
from finetune.feedback import Runs
runs = Runs(sys.argv[1])
run = runs.begin("nano", {"name": "nano"}, sys.argv[2], seed=3, code="0.1.0", resume=True)
runs.stage_begun(run.id, "stage0", 0)
os.write(1, f"{run.id}\\n".encode())
for step in range(1, int(sys.argv[3]) + 1):
    runs.metric(run.id, "stage0", step, {"loss": 1 / step})
    if step % 10 == 0:
        runs.flush()
        os.write(1, f"{step}\\n".encode())
sys.stdin.read()
"""


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "studio.sqlite")
    yield runs
    runs.close()


def begin(runs: Runs, folder: str = "/runs/nano", **more: bool) -> Run:
    return runs.begin("nano", RECIPE, folder, seed=3, code="0.1.0+abc", **more)


def read(path: Path, sql: str) -> list[tuple]:
    conn = sqlite3.connect(path)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()


def train(path: Path, folder: Path, steps: int) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", TRAINING, str(path), str(folder), str(steps)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_run_column_by_column(runs: Runs) -> None:
    run = runs.begin("nano", RECIPE, "/runs/nano", seed=3, code="0.1.0", model="/models/猫")
    runs.stage_begun(run.id, "stage1", 1)
    runs.stage_begun(run.id, "stage0", 0)
    runs.metric(run.id, "stage0", 25, {"loss": 2.5, "right": {"colour": 0.5}})
    accuracy = {"colour": {"accuracy": 0.9, "questions": 40}}
    runs.stage_done(
        run.id, "stage0", folder="/m", seconds=61.5, examples=800, tokens=90_000, steps=50, accuracy=accuracy
    )
    runs.finished(run.id, "failed", "The disk is full.")
    columns = "name, folder, status, sentence, model, code, seed, writer_pid"
    assert read(runs.path, f"SELECT {columns} FROM runs") == [
        ("nano", "/runs/nano", "failed", "The disk is full.", "/models/猫", "0.1.0", 3, os.getpid())
    ]
    assert json.loads(read(runs.path, "SELECT recipe FROM runs")[0][0]) == RECIPE
    columns = "run_id, name, position, status, folder, seconds, examples, tokens, steps"
    assert read(runs.path, f"SELECT {columns} FROM stages ORDER BY position") == [
        (run.id, "stage0", 0, "done", "/m", 61.5, 800, 90_000, 50),
        (run.id, "stage1", 1, "failed", None, 0.0, 0, 0, 0),
    ]
    assert [s.accuracy for s in runs.stages(run.id)] == [accuracy, None]
    (metric,) = runs.metrics(run.id)
    assert (metric.stage, metric.step, metric.figures) == ("stage0", 25, {"loss": 2.5, "right": {"colour": 0.5}})
    assert (runs.one(run.id).recipe, runs.one(run.id).status) == (RECIPE, "failed")


def test_the_newest_run_comes_first(runs: Runs) -> None:
    made = [begin(runs, f"/runs/{n}").id for n in range(5)]
    assert made == sorted(made)
    assert [run.id for run in runs.list()] == made[::-1]
    assert [run.id for run in runs.list(limit=2, offset=1)] == [made[3], made[2]]
    found = runs.in_folder("/runs/2")
    assert found is not None and found.id == made[2]
    assert runs.in_folder("/runs/9") is None


def test_a_queued_run_is_begun_and_a_stopped_one_is_resumed(runs: Runs) -> None:
    queued = runs.queue("first", {}, "/runs/nano", seed=1, code="")
    assert (queued.status, queued.writer) == ("queued", None)
    with pytest.raises(FinetuneError, match="queued in /runs/nano already"):
        runs.queue("second", {}, "/runs/nano", seed=1, code="")
    run = begin(runs)
    assert (run.id, run.status, run.seed, run.recipe) == (queued.id, "running", 3, RECIPE)
    runs.finished(run.id, "paused")
    assert runs.one(run.id).status == "paused"
    assert begin(runs, resume=True).id == run.id
    runs.finished(run.id, "done")
    again = begin(runs)
    assert again.id != run.id and [r.status for r in runs.list()] == ["running", "done"]
    assert begin(runs).id != again.id  # this process left that one without a word
    assert [r.status for r in runs.list()] == ["running", "stopped", "done"]


def test_a_resumed_stage_writes_over_what_it_trains_again(runs: Runs) -> None:
    run = begin(runs)
    runs.stage_begun(run.id, "stage0", 0)
    for step in range(25, 201, 25):
        runs.metric(run.id, "stage0", step, {"loss": float(step)})
    runs.stage_begun(run.id, "stage0", 0, step=100)
    assert [m.step for m in runs.metrics(run.id)] == [25, 50, 75, 100]
    runs.metric(run.id, "stage0", 125, {"loss": 1.0})
    runs.metric(run.id, "stage0", 125, {"loss": 2.0})
    runs.flush()
    assert [(m.step, m.figures["loss"]) for m in runs.metrics(run.id, "stage0", after=75)] == [(100, 100.0), (125, 2.0)]
    assert [s.steps for s in runs.stages(run.id)] == [125]
    assert runs.metrics(run.id, "stage1") == []


def test_figures_that_are_no_numbers_become_null(runs: Runs) -> None:
    run = begin(runs)
    runs.stage_begun(run.id, "stage0", 0)
    runs.metric(run.id, "stage0", 1, {"loss": math.nan, "right": {"colour": math.inf}, "list": [1.0, -math.inf]})
    runs.flush()
    assert runs.metrics(run.id)[0].figures == {"loss": None, "right": {"colour": None}, "list": [1.0, None]}


def test_figures_are_written_together(runs: Runs, tmp_path: Path) -> None:
    run = begin(runs)
    runs.stage_begun(run.id, "stage0", 0)
    other = Runs(runs.path)
    for step in range(1, 1001):
        runs.metric(run.id, "stage0", step, {"loss": 1.0})
    assert len(other.metrics(run.id)) == 1000 - len(runs._waiting) > 950  # the last few may wait
    runs.close()
    assert len(other.metrics(run.id)) == 1000
    other.close()


def test_what_does_not_exist_is_one_sentence(runs: Runs) -> None:
    for act in (
        lambda: runs.one("no"),
        lambda: runs.stage_begun("no", "stage0", 0),
        lambda: runs.finished("no", "done"),
        lambda: runs.stage_done("no", "stage0"),
    ):
        with pytest.raises(FinetuneError, match=r"^[A-Z][^.]*; begin [^.]*\.$|begin it first\.$"):
            act()
    assert runs.stages("no") == [] and runs.metrics("no") == []
    with pytest.raises(ValueError, match="not one of"):
        runs.finished(begin(runs).id, "running")  # type: ignore[arg-type]


def test_one_writes_while_others_read(runs: Runs) -> None:
    """Readers in threads see every figure once, in order, and never a half-written one."""
    run = begin(runs)
    runs.stage_begun(run.id, "stage0", 0)
    failures: list[BaseException] = []
    ended = threading.Event()

    def look() -> None:
        mine = Runs(runs.path)
        try:
            seen = 0
            while not ended.is_set() or seen < 2000:
                steps = [m.step for m in mine.metrics(run.id)]
                assert steps == list(range(1, len(steps) + 1)) and len(steps) >= seen
                seen = len(steps)
                assert mine.one(run.id).status == "running"
        except BaseException as error:
            failures.append(error)
        finally:
            mine.close()

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    store = Store(runs.path)  # conversations go on beside it
    for step in range(1, 2001):
        runs.metric(run.id, "stage0", step, {"loss": 1 / step})
        if step % 500 == 0:
            store.new_conversation(f"at step {step}")
    runs.flush()
    ended.set()
    for reader in readers:
        reader.join()
    store.close()
    assert not failures
    assert read(runs.path, "SELECT count(*) FROM conversations") == [(4,)]


def test_a_killed_writer_reads_as_stopped_at_once_and_keeps_what_it_told(tmp_path: Path) -> None:
    path, folder = tmp_path / "s.sqlite", tmp_path / "run"
    page = Runs(path)  # a page that was there before and stays
    process, run = train(path, folder, 1_000_000)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(20)]
    assert page.one(run).status == "running" and [s.status for s in page.stages(run)] == ["running"]
    with pytest.raises(FinetuneError, match="Another process trains in"):
        page.begin("nano", {}, folder, seed=0, code="")
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    found = page.one(run)
    assert found.status == "stopped" and found.sentence is not None and "resume it" in found.sentence
    assert [r.status for r in page.list()] == ["stopped"] and [s.status for s in page.stages(run)] == ["stopped"]
    steps = [m.step for m in page.metrics(run)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= told[-1]
    assert read(path, "PRAGMA integrity_check") == [("ok",)] and read(path, "PRAGMA foreign_key_check") == []
    resumed = page.begin("nano", {}, folder, seed=3, code="", resume=True)
    assert (resumed.id, resumed.status, resumed.sentence) == (run, "running", None)
    page.close()


def test_a_process_id_that_is_used_again_does_not_keep_a_run_running(runs: Runs) -> None:
    run = begin(runs)
    conn = sqlite3.connect(runs.path)
    conn.execute("UPDATE runs SET writer_started = 'another time'")
    conn.commit()
    conn.close()
    assert runs.one(run.id).status == "stopped"


def test_figures_wait_while_the_store_is_locked(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "s.sqlite", busy_seconds=0.05)
    run = begin(runs)
    runs.stage_begun(run.id, "stage0", 0)
    runs.metric(run.id, "stage0", 1, {"loss": 1.0})
    other = sqlite3.connect(runs.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(FinetuneError, match="locked"):
        runs.flush()
    other.execute("ROLLBACK")
    other.close()
    runs.metric(run.id, "stage0", 2, {"loss": 0.5})
    runs.close()
    assert read(runs.path, "SELECT step FROM metrics ORDER BY step") == [(1,), (2,)]
