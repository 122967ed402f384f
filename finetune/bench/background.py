"""A benchmark that runs on its own, one at a time: whoever started it may look away, come back, and stop it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.runtime.base import Runtime
from engine.runtime.served import hold
from finetune.bench.judge import Judge
from finetune.bench.open_runtime import requests_in_flight
from finetune.bench.report import write_report
from finetune.bench.run import Plan, Progress, run
from finetune.errors import FinetuneError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """How far the newest run is. `facts` is what its report.json holds, once there is one in `out`."""

    running: bool = False
    stopping: bool = False
    progress: Progress | None = None
    facts: dict[str, Any] | None = None
    out: Path | None = None
    error: str = ""


class Background:
    """All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = State()

    def state(self) -> State:
        return self._state

    def busy(self) -> str:
        """Why what is served must stay as it is, one sentence; empty while nothing is measured."""
        return "A benchmark measures the served model; stop it or wait for its end." if self._state.running else ""

    def start(
        self,
        plan: Plan,
        runtime: Runtime,
        out: Path,
        *,
        judge: Callable[[], Judge | None] = lambda: None,
    ) -> None:
        """Begin a run, or go on with the one in `out`; returns at once. `judge` is called when the run begins, since
        to find a judge may take a while.

        Raises FinetuneError where the plan makes no sense or a run is still going on."""
        plan.check()
        with self._lock:
            if self._state.running:
                raise FinetuneError("A benchmark is still running; stop it or wait for its end.")
            self._stop = threading.Event()
            self._state = State(running=True, out=out)
            self._thread = threading.Thread(
                target=self._run, args=(plan, runtime, out, judge), name="benchmark", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the run within a token; what was answered stays and gets a report."""
        with self._lock:
            self._stop.set()
            if self._state.running:
                self._state = replace(self._state, stopping=True)

    def close(self, timeout: float = 30.0) -> None:
        """Stop, and wait until the run has ended."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)

    def _run(self, plan: Plan, runtime: Runtime, out: Path, judge: Callable[[], Judge | None]) -> None:
        try:
            with hold(runtime) as answering:  # a run is of one model, whatever is served meanwhile
                run(
                    plan,
                    answering,
                    out,
                    parallel=requests_in_flight(answering),
                    judge=judge(),
                    report=lambda progress: self._set(progress=progress),
                    stop=self._stop,
                )
                self._set(facts=write_report(plan, answering.info(), out))
        except (FinetuneError, EngineError) as error:
            self._set(error=str(error))
        except Exception as error:  # our own defect: the user is told, the details are in the log
            _log.exception("a benchmark failed")
            self._set(error=f"The benchmark failed ({type(error).__name__}); start it again to go on from here.")
        finally:
            self._set(running=False, stopping=False)
