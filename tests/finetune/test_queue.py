"""Runs as processes of their own, on the model that ships: they wait for each other, survive whoever started them, go
on where they were killed as if nothing had happened, and say in one sentence why they failed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.keye.loading import load_config
from finetune.__main__ import main
from finetune.errors import FinetuneError
from finetune.feedback import Run
from finetune.loop.queue import Order, Queue, last_lines, why_it_failed

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO, RECIPE = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo", ROOT / "recipes" / "sft.toml"
PATIENCE = 240.0  # seconds: only how long a broken test takes to fail


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = []
    for clip in sorted(DEMO.glob("*.mp4")):
        turns = [{"role": "user", "content": "<video>Which shelf?"}, {"role": "assistant", "content": "Two."}]
        rows.append({"messages": turns, "videos": [{"path": str(clip), "max_frames": 2, "budget": 24}]})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "studio.sqlite", tmp_path / "runs", lower_priority=False)  # the test waits for it
    yield queue
    for child in queue._children.values():
        child.kill()
        child.wait()
    queue.close()


def numbers(tmp_path: Path, steps: int) -> tuple[str, ...]:
    return (
        *(
            "sft.lora=0",
            "sft.lr=1e-4",
            f"sft.steps={steps}",
            "sft.batch_tokens=200",
            "sft.recompute=false",
            "threads=1",
        ),
        f"sft.cache={tmp_path / 'frames'}",
    )


def order(data: Path, name: str, steps: int = 2, model: Path = NANO) -> Order:
    return Order(RECIPE, str(model), name, numbers(data.parent, steps), (str(data),))


def until(queue: Queue, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        queue.look()
        if happened():
            return
        assert time.monotonic() < deadline, [(run.name, run.status, run.sentence) for run in queue.runs.list()]
        time.sleep(0.05)


def status(queue: Queue, run: Run) -> str:
    return queue.runs.one(run.id).status


def trained(queue: Queue, run: Run) -> bool:
    """Whether at least one figure of its training is in the store."""
    found = queue.runs.one(run.id)
    assert found.status in ("queued", "running"), found.sentence
    return bool(queue.runs.metrics(run.id)) and found.status == "running"


def weights(run: Run) -> bytes:
    return (Path(run.folder) / "sft" / "model" / "model.safetensors").read_bytes()


def test_a_killed_and_a_paused_run_end_as_one_that_was_left_alone(queue: Queue, data: Path, tmp_path: Path) -> None:
    steps = 240
    run = queue.add(order(data, "shelves", steps))
    assert run.status == "queued" and queue.launches.waiting() == [run.id]
    until(queue, lambda: trained(queue, run))
    writer = queue.runs.one(run.id).writer
    assert writer is not None and queue.training() == run.id
    assert os.getsid(writer[0]) == writer[0] != os.getsid(0)  # it does not end with whoever started it
    os.kill(writer[0], signal.SIGKILL)
    until(queue, lambda: not queue.launches.started())
    killed = queue.runs.one(run.id)
    assert killed.status == "failed" and "memory" in (killed.sentence or "") and "resume" in (killed.sentence or "")
    queue.resume(run.id)
    until(queue, lambda: trained(queue, run))
    queue.pause(run.id)
    until(queue, lambda: status(queue, run) == "paused")
    assert queue.runs.one(run.id).sentence == "Paused; resume it to go on." and queue.training() is None
    assert (Path(run.folder) / "sft" / "state.pt").is_file()
    queue.resume(run.id)
    until(queue, lambda: status(queue, run) == "done")
    alone = ["run", str(RECIPE), *numbers(tmp_path, steps), "--model", str(NANO), "--data", str(data)]
    assert main([*alone, "--out", str(tmp_path / "alone"), "--store", str(tmp_path / "other.sqlite")]) == 0
    assert weights(run) == (tmp_path / "alone" / "sft" / "model" / "model.safetensors").read_bytes()
    assert queue.runs.result(run.id) == Path(run.folder) / "sft" / "model"
    with pytest.raises(FinetuneError, match="nothing to resume"):
        queue.resume(run.id)


STARTER = """
import os, signal, sys, time
from pathlib import Path
from finetune.loop.queue import Order, Queue
queue = Queue(Path(sys.argv[1]), Path(sys.argv[2]), lower_priority=False)
steps = sys.argv[4].split()
first = queue.add(Order(Path(sys.argv[3]), sys.argv[5], "first", tuple(steps), (sys.argv[6],)))
queue.add(Order(Path(sys.argv[3]), sys.argv[5], "second", (*steps, "sft.steps=1"), (sys.argv[6],)))
queue.start()
while not queue.runs.metrics(first.id):
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_whoever_started_it_is_killed_and_found_again(queue: Queue, data: Path, tmp_path: Path) -> None:
    told = [
        str(queue.runs.path),
        str(queue.folder),
        str(RECIPE),
        " ".join(numbers(tmp_path, 240)),
        str(NANO),
        str(data),
    ]
    starter = subprocess.run([sys.executable, "-c", STARTER, *told], cwd=ROOT, timeout=PATIENCE, check=False)
    assert starter.returncode == -signal.SIGKILL
    second, first = queue.runs.list()
    assert (first.name, first.status) == ("first", "running")  # it trains on
    launch = queue.launches.one(first.id)
    assert launch is not None and launch.alive and queue.launches.waiting() == [second.id]
    until(queue, lambda: status(queue, first) == "done")
    assert status(queue, second) == "queued"  # one at a time
    until(queue, lambda: status(queue, second) == "done")
    begun = [queue.runs.stages(run.id)[0].created for run in (first, second)]
    assert begun[1] > queue.runs.stages(first.id)[0].updated > begun[0]
    until(queue, lambda: queue.launches.started() == [])


def test_ended_early_it_keeps_what_it_has_learnt(queue: Queue, data: Path) -> None:
    run = queue.add(order(data, "short", 400))
    with pytest.raises(FinetuneError, match="does not train now"):
        queue.keep(run.id)
    until(queue, lambda: trained(queue, run))
    queue.keep(run.id)
    until(queue, lambda: not queue.launches.started())
    ended = queue.runs.one(run.id)
    assert ended.status == "done" and "ended early" in (ended.sentence or "")
    (stage,) = queue.runs.stages(run.id)
    assert 0 < stage.steps < 400
    result = queue.runs.result(run.id)
    assert result is not None and load_config(result) and weights(run) != (NANO / "model.safetensors").read_bytes()
    assert (Path(run.folder) / "report.html").is_file()


NO_MEMORY = """
import finetune.stages.sft as sft


def make(self, number):
    raise MemoryError


sft.Talks.make = make
"""

NO_DISK = """
import errno, torch, finetune.training.trainer as trainer

trainer.SAVE_SECONDS, save, saved = 0.0, torch.save, []


def full(state, path):
    saved.append(1)
    save(state, path)
    if len(saved) == 3:
        raise OSError(errno.ENOSPC, "No space left on device")


torch.save = full
"""

BROKEN = {"memory": NO_MEMORY, "disk": NO_DISK}


@pytest.mark.parametrize("what", BROKEN)
def test_what_runs_out_is_said_and_what_was_saved_is_gone_on_with(
    what: str, queue: Queue, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(BROKEN[what])
    run = queue.add(order(data, what, 4))
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path / "broken"))
        until(queue, lambda: status(queue, run) == "failed")
    sentence = queue.runs.one(run.id).sentence or ""
    assert {"memory": "The memory ran out", "disk": "cannot be written"}[what] in sentence
    assert "Traceback" not in sentence and sentence.count("\n") == 0
    if what == "disk":
        assert "The state before it is kept" in sentence and (Path(run.folder) / "sft" / "state.pt").is_file()
    queue.resume(run.id)
    until(queue, lambda: status(queue, run) == "done")


def test_what_cannot_work_is_refused_before_and_leaves_nothing(queue: Queue, data: Path, tmp_path: Path) -> None:
    for wrong, error in (
        (order(data, "x" * 61), "1 to 60 characters"),
        (order(data.with_name("gone.jsonl"), "gone"), "There is no file"),
        (order(data, "elsewhere", model=tmp_path), "no config.json"),
        (Order(RECIPE, str(NANO), "odd", ("sft.rank=3",), (str(data),)), "knows no “rank”"),
    ):
        with pytest.raises((FinetuneError, EngineError), match=error):
            queue.add(wrong)
    refused = FinetuneError("There is no room.")

    def full(recipe: Any, out: Path) -> None:
        raise refused

    with pytest.raises(FinetuneError, match="no room"):
        queue.add(order(data, "large"), full)
    assert queue.runs.list() == [] and [*queue.folder.glob("*")] == []


def test_a_base_that_was_moved_is_said_before_it_is_started_again(queue: Queue, data: Path, tmp_path: Path) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(NANO, base)
    run = queue.add(order(data, "moved", 2, base))
    base.rename(tmp_path / "elsewhere")
    until(queue, lambda: status(queue, run) == "failed")
    assert str(base) in (queue.runs.one(run.id).sentence or "")
    with pytest.raises(FinetuneError, match="was moved; put it back"):
        queue.resume(run.id)
    (tmp_path / "elsewhere").rename(base)
    queue.resume(run.id)
    until(queue, lambda: status(queue, run) == "done")


def test_the_queue_is_changed_while_nothing_is_started(queue: Queue, data: Path) -> None:
    one, two = queue.add(order(data, "one")), queue.add(order(data, "one"))
    assert Path(two.folder).name == "one-2" and queue.launches.waiting() == [one.id, two.id]
    queue.pause(one.id)
    assert status(queue, one) == "paused" and queue.launches.waiting() == [two.id]
    queue.resume(one.id)
    assert queue.launches.waiting() == [two.id, one.id]
    queue.remove(two.id)
    assert not Path(two.folder).exists() and [run.id for run in queue.runs.list()] == [one.id]
    with pytest.raises(FinetuneError, match="no longer kept"):
        queue.remove(two.id)
    queue.remove(one.id)


def test_another_process_with_the_same_number_is_left_alone(queue: Queue, data: Path) -> None:
    run = queue.add(order(data, "reused"))
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            with sqlite3.connect(queue.runs.path) as db:
                db.execute("UPDATE launches SET pid = ?, started = 'another boot/1'", [other.pid])
            queue.stop(run.id)
            assert other.poll() is None and status(queue, run) == "stopped"
        finally:
            other.kill()


def test_a_damaged_store_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    store = tmp_path / "studio.sqlite"
    Queue(store, tmp_path / "runs").close()
    broken = store.read_bytes()[:3000] + os.urandom(3000) + store.read_bytes()[6000:]
    store.write_bytes(broken)
    with pytest.raises(FinetuneError, match="damaged"):
        Queue(store, tmp_path / "runs")
    assert store.read_bytes() == broken


@pytest.mark.parametrize(
    ("log", "code", "told"),
    [
        ("Traceback …\nRuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", 1, "The memory ran out"),
        ("Traceback …\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate", 1, "The memory ran out"),
        ("OSError: [Errno 28] No space left on device", 1, "is full"),
        ("", -signal.SIGKILL, "as it does when the memory runs out"),
        ("There is no file x; give a .jsonl file.", 2, "There is no file x; give a .jsonl file."),
        ("Traceback …\nKeyError: 'odd'", 1, "It failed (KeyError: 'odd')"),
        ("20 conversations are learnt", None, None),
    ],
)
def test_the_end_of_a_log_is_told_in_one_sentence(tmp_path: Path, log: str, code: int | None, told: str | None) -> None:
    path = tmp_path / "run.log"
    path.write_text(f"$ an older command\nMemoryError\n$ the command\n{log}\n")
    found = why_it_failed(path, code)
    assert found is None if told is None else told in (found or "")
    assert "MemoryError" not in last_lines(path)  # of an earlier start
