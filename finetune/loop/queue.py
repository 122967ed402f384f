"""Runs that wait for each other and train one at a time, each as a process of its own.

queue = Queue(Path("data/studio.sqlite"), Path("data/runs"))
run = queue.add(Order(Path("recipes/feedback.toml"), "assets/keye-nano", "corrections"))
queue.start()                                    # looks once a second until `close`

The process is `python -m finetune run …` in a session of its own: it goes on when whoever started it is closed, and
is found again afterwards. What was training when the machine went down reads as stopped and is resumed by hand; what
waited is started. Nothing is signalled but the very process that was started (its id and when it began)."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune.cli import given
from finetune.errors import FinetuneError
from finetune.feedback import Run, Runs
from finetune.feedback.launches import Launch, Launches, Wanted
from finetune.feedback.process import is_running, when_began
from finetune.feedback.runs import GONE
from finetune.recipe import Recipe, load_recipe
from finetune.training.shortage import shortage

_log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 1.0
LOG_BYTES = 20_000
"""Of the end of a run's log, where it says why it failed."""

NICE = 5
"""Without a GPU training gives way to answers: it runs at this lower priority, and both go on."""


@dataclass(frozen=True)
class Order:
    """A run that somebody wants. `numbers` replace the recipe's, as in the shell."""

    recipe: Path
    model: str  # a folder
    name: str
    numbers: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()

    def resolved(self) -> Recipe:
        """FinetuneError or EngineError where it makes no sense."""
        return given(load_recipe(self.recipe, self._numbers(), self.model), self.model, self.data, (), self.replay)

    def arguments(self, out: Path, store: Path) -> list[str]:
        """Of `python -m finetune run`."""
        told = [str(self.recipe), *self._numbers(), "--model", self.model, "--out", str(out), "--store", str(store)]
        for flag, files in (("--data", self.data), ("--replay", self.replay)):
            told += [word for file in files for word in (flag, file)]
        return told

    def _numbers(self) -> tuple[str, ...]:
        return (*self.numbers, f"name={json.dumps(self.name)}")


class Machine(Protocol):
    """What else needs the machine that trains, such as the model that answers."""

    def claim(self, run: Path) -> None:
        """A run is about to train in this folder. May be called again."""

    def release(self) -> None:
        """Nothing trains and nothing waits. May be called again."""


class Queue:
    """Every method may be called from any thread. FinetuneError and EngineError say what cannot be done and why."""

    def __init__(self, store: Path, folder: Path, machine: Machine | None = None, lower_priority: bool = True) -> None:
        """Runs are written below `folder`. `machine` is told before training begins and when there is none left."""
        self.machine = machine
        self.runs = Runs(store)
        self.launches = Launches(self.runs)
        self.folder = folder.absolute()
        self.problem = ""  # why the queue itself cannot go on, one sentence
        self._nice = ["--nice", str(NICE)] if lower_priority else []
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look after the queue in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="queue", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Look away. What trains goes on."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(30)
        self.runs.close()

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            try:
                self.look()
                self.problem = ""
            except FinetuneError as error:
                self.problem = str(error)
            except Exception as error:  # our own defect: the page says so, and the queue looks again
                _log.exception("the queue failed")
                self.problem = f"The queue of runs failed ({type(error).__name__}); the program's log has the details."

    def look(self) -> None:
        """Once: note what has ended, and start the next."""
        with self._lock:
            for launch in self.launches.started():
                child = self._children.get(launch.run)
                # Of an own child what is left stays until it is asked; asked once, so that nothing happens in between.
                code = child.poll() if child is not None else None
                if code is None and (child is not None or launch.alive):
                    continue
                self._children.pop(launch.run, None)
                self._settle(launch, code)
            waiting = self.launches.waiting()
            if self.machine is not None and self.training() is None:
                if waiting:
                    self.machine.claim(Path(self.runs.one(waiting[0]).folder))
                else:
                    self.machine.release()
            failed: list[tuple[str, str]] = []
            self.launches.start_next(lambda launch: self._begin(launch, failed))
            for run, sentence in failed:
                self.runs.finished(run, "failed", sentence)
                self.launches.ended(run)

    # -- what a user asks for -----------------------------------------------------------------------------------

    def add(self, order: Order, check: Callable[[Recipe, Path], None] = lambda recipe, out: None) -> Run:
        """A run at the end of the queue, checked as far as it can be without starting it, with what it learns from
        already in its folder. `check` may refuse the recipe as it will run in a folder.

        FinetuneError or EngineError with what to do; nothing is left then."""
        from finetune.loop.from_feedback import drawn
        from finetune.reports.run_record import code_version
        from finetune.run import prepare

        recipe = order.resolved()
        out = self._free_folder(order.name)
        try:
            drawn_recipe = drawn(recipe, out, self.runs.path)
            check(drawn_recipe, out)
            prepare(drawn_recipe, out)
            with self.runs.file.transaction():
                run = self.runs.queue(
                    recipe.name,
                    drawn_recipe.as_json(),
                    out,
                    seed=recipe.seed,
                    code=code_version(),
                    model=recipe.model.get("path"),
                )
                self.launches.add(run.id, order.arguments(out, self.runs.path))
                return run
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise

    def pause(self, run: str) -> None:
        """Save and let the machine go; `resume` goes on from there. One that only waits, waits no longer."""
        self._ask(run, "pause", signal.SIGTERM, "It waits no longer; resume it to put it back.")

    def stop(self, run: str) -> None:
        """Save and end. It can be resumed all the same."""
        self._ask(run, "stop", signal.SIGTERM, "It was taken out of the queue; resume it to put it back.")

    def keep(self, run: str) -> None:
        """End training now, with what was learnt so far as its result."""
        found = self.runs.one(run)
        if found.status != "running":
            raise FinetuneError(f"The run {found.name} does not train now; resume it first, then end it.")
        self._ask(run, "keep", signal.SIGUSR1, "")

    def resume(self, run: str) -> None:
        """Put a run back into the queue, to go on from its last saved step.

        FinetuneError or EngineError where its folder or its base model is gone, or it was started elsewhere."""
        from engine.keye.loading import load_config

        found, launch = self.runs.one(run), self.launches.one(run)
        if launch is None:
            raise FinetuneError(f"The run {found.name} was started from a shell; give the same command there to go on.")
        if not Path(found.folder).is_dir():
            raise FinetuneError(f"The folder {found.folder} of this run is gone; put it back or begin a new run.")
        if found.model is not None:
            if not Path(found.model).is_dir():
                raise FinetuneError(
                    f"The model {found.model} that this run began with was moved; put it back, or begin a new run."
                )
            load_config(Path(found.model))
        with self._lock, self.runs.file.transaction():
            self.runs.requeue(run)
            self.launches.add(run, launch.arguments)

    def remove(self, run: str) -> None:
        """Take a run that waits out of the queue: one that never trained is forgotten with its folder."""
        with self._lock, self.runs.file.transaction():
            found = self.runs.one(run)
            if run not in self.launches.waiting():
                raise FinetuneError(f"The run {found.name} does not wait in the queue; pause or stop it instead.")
            if self.runs.stages(run):
                self.runs.finished(run, "stopped", "It was taken out of the queue; resume it to put it back.")
                return
            self.runs.forget(run)
        if Path(found.folder).parent == self.folder:
            shutil.rmtree(found.folder, ignore_errors=True)

    def training(self) -> str | None:
        """The run that trains now, or is being started."""
        return next((launch.run for launch in self.launches.started() if launch.alive), None)

    # -- inside -------------------------------------------------------------------------------------------------

    def _free_folder(self, name: str) -> Path:
        """Made here, so that two of one name do not meet."""
        if not 1 <= len(name) <= 60 or any(ord(c) < 32 for c in name):
            raise FinetuneError("Give the run a name of 1 to 60 characters.")
        plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
        for number in range(1, 10_000):
            out = self.folder / (plain if number == 1 else f"{plain}-{number}")
            try:
                out.mkdir(parents=True)
                return out
            except FileExistsError:
                continue
            except OSError as error:
                raise FinetuneError(
                    f"The run cannot be written to {self.folder} ({error.strerror}); make room or free its permissions."
                ) from error
        raise FinetuneError(f"There are too many runs called {name}; choose another name.")

    def _ask(self, run: str, wanted: Wanted, number: signal.Signals, waits_no_more: str) -> None:
        with self._lock:
            found = self.runs.one(run)
            launch = self.launches.one(run)
            if launch is not None and launch.process is not None and launch.alive:
                self.launches.want(run, wanted)
                _signal(launch.process, number)
            elif found.status == "queued":
                self.runs.finished(run, "paused" if wanted == "pause" else "stopped", waits_no_more)
            elif found.status == "running" and found.writer is not None:  # started from a shell
                _signal(found.writer, number)
            else:
                raise FinetuneError(f"The run {found.name} does not train now.")

    def _begin(self, launch: Launch, failed: list[tuple[str, str]]) -> tuple[int, str]:
        """Start the process of a run. One that cannot be started is noted in `failed`, and (0, "") is no process."""
        out = Path(self.runs.one(launch.run).folder)
        command = [sys.executable, "-m", "finetune", "run", *launch.arguments, *self._nice]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            out.mkdir(parents=True, exist_ok=True)
            with (out / "run.log").open("ab") as log:
                log.write(f"$ {' '.join(command)}\n".encode())
                log.flush()
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
        except OSError as error:
            failed.append((launch.run, f"It could not be started ({error}); make room in {out.parent} and resume it."))
            return 0, ""
        self._children[launch.run] = child
        return child.pid, when_began(child.pid)

    def _settle(self, launch: Launch, code: int | None) -> None:
        """The process of a run is gone: say how it ended, where it did not say so itself."""
        run = self.runs.one(launch.run)
        silent = run.status == "queued" or run.sentence == GONE
        if launch.wanted == "pause" and (silent or run.status == "stopped"):
            self.runs.finished(run.id, "paused", "Paused; resume it to go on.")
        elif silent and launch.wanted == "stop":
            self.runs.finished(run.id, "stopped", "It was stopped; resume it to go on.")
        elif silent:
            sentence = why_it_failed(Path(run.folder) / "run.log", code, begun=run.status != "queued")
            self.runs.finished(run.id, "failed" if sentence else "stopped", sentence or GONE)
        self.launches.ended(run.id)


def _signal(process: tuple[int, str], number: signal.Signals) -> None:
    """To this process and to no other that has its id by now."""
    pid, began = process
    try:
        if not hasattr(os, "pidfd_open"):
            if is_running(pid, began):
                os.kill(pid, number)
            return
        handle = os.pidfd_open(pid)  # holds on to the process, whichever it is; then it is looked at
        try:
            if is_running(pid, began):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
    except ProcessLookupError:
        pass  # it has just ended by itself


def last_lines(log: Path, most: int = 12) -> list[str]:
    """The end of a run's log, without the commands."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    newest = text.rpartition("\n$ ")[2] if "\n$ " in text else text
    lines = [line.rstrip() for line in newest.splitlines()[1:] if line.strip()]
    return lines[-most:]


def why_it_failed(log: Path, code: int | None, begun: bool = False) -> str | None:
    """One sentence on a process that ended without giving a reason in the store, from its exit code (None: unknown)
    and the end of its log; None where nothing is known but that it is gone. A run that has `begun` writes why it is
    refused into the store, so that the last line of its log is no reason."""
    lines = last_lines(log)
    text = "\n".join(lines)
    if (found := shortage(text, log.parent)) is not None:
        return found
    if code == -signal.SIGKILL:
        return (
            "The system ended it, as it does when the memory runs out; what was learnt up to the last saved step is "
            "kept. Close other programs and resume it."
        )
    if "Traceback" in text or (code is not None and code > 2):
        last = lines[-1] if lines else f"code {code}"
        return f"It failed ({last[:200]}); the whole log is {log}. Resume it to go on from the last saved step."
    if code == 2 or (code is None and not begun and lines and lines[-1].endswith(".")):
        return lines[-1] if lines else None
    return None
