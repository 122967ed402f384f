"""A piece of work in a process of its own, run as often as it is told to.

Both sides of a comparison are such processes, so that neither has the other's packages, memory or warm caches, and
their runs alternate, so that a machine that slows down slows both. `python -m bench.worker MODULE:FUNCTION JSON` calls
the function with the JSON's fields; what it returns is called once for every line read, and the figures are written."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Run, Size

ROOT = Path(__file__).resolve().parents[1]
_MARK = "bench-worker "  # packages print to standard output too


def timed(work: Callable[[], Any]) -> Run:
    """Do it once. Processor seconds are those of all threads of this process."""
    clock, cpu = time.perf_counter(), time.process_time()
    value = work()
    return Run(time.perf_counter() - clock, time.process_time() - cpu, value)


class WorkerError(RuntimeError):
    """The work could not be set up or failed; the text is what it said last."""


class Worker:
    """The other end: starts the process, waits until the work is set up, and asks for runs."""

    def __init__(self, work: str, *, search: Sequence[Path] = (), threads: int | None = None, **fields: Any) -> None:
        places = [*(str(folder) for folder in search), str(ROOT)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "GRADIO_ANALYTICS_ENABLED": "False"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        # A file, because nobody reads a pipe until something goes wrong, and a full pipe stops the process.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", work, json.dumps(fields)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self.base_mb: float = self._answer()["memory_mb"]

    def run(self) -> Run:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Run(answer["seconds"], answer["cpu"], answer["value"])

    def peak_mb(self) -> float:
        """The most memory that the process held so far beyond what it held when the work was set up."""
        assert self._process.stdin is not None
        self._process.stdin.write("peak\n")
        self._process.stdin.flush()
        return float(self._answer()["peak_mb"]) - self.base_mb

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                answer: dict[str, Any] = json.loads(line[len(_MARK) :])
                return answer
        self._process.wait()
        self._said.seek(0)
        said = self._said.read().strip().splitlines()
        raise WorkerError(said[-1] if said else "it ended without a word")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Here:
    """The same in this process: for trying, where nobody looks at the figures."""

    def __init__(self, work: str, **fields: Any) -> None:
        self._work = find(work)(**fields)
        self.base_mb = memory_mb("VmRSS")

    def run(self) -> Run:
        return timed(self._work)

    def peak_mb(self) -> float:
        return memory_mb("VmHWM") - self.base_mb

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        del self._work


def ours(size: Size, work: str, **fields: Any) -> Worker | Here:
    """A process for our side of a comparison; at tiny size there is none."""
    return Here(work, **fields) if size.tiny else Worker(work, **fields)


def find(work: str) -> Callable[..., Callable[[], Any]]:
    """The function that `MODULE:FUNCTION` names."""
    module, function = work.split(":")
    found: Callable[..., Callable[[], Any]] = getattr(importlib.import_module(module), function)
    return found


def alternate(works: Sequence[Callable[[], Run]], runs: int, warm: int = 1) -> list[list[Run]]:
    """`runs` runs of each, one of each in turn, after `warm` that do not count."""
    for work in works:
        for _ in range(warm):
            work()
    made: list[list[Run]] = [[] for _ in works]
    for _ in range(runs):
        for kept, work in zip(made, works, strict=True):
            kept.append(work())
    return made


def memory_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of this process, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1000
    raise WorkerError(f"this system does not tell {field}")


def _say(fields: dict[str, Any]) -> None:
    print(_MARK + json.dumps(fields), flush=True)


def main(name: str, fields: str) -> None:
    work = find(name)(**json.loads(fields))
    _say({"memory_mb": memory_mb("VmRSS")})
    for line in sys.stdin:
        if line.strip() == "peak":
            _say({"peak_mb": memory_mb("VmHWM")})
            continue
        run = timed(work)
        _say({"seconds": run.seconds, "cpu": run.cpu, "value": run.value})


if __name__ == "__main__":
    main(*sys.argv[1:3])
