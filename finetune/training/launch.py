"""Several processes on this machine that train one model, where no launcher (`accelerate launch`, `torchrun`) has
started them."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engine.errors import EngineError
from finetune.errors import FinetuneError
from finetune.recipe import Recipe
from finetune.training.trainer import Stopped

Execute = Callable[[Recipe, Path, Path | None], object]
"""What each process does; of a module, because the processes look it up by its name."""

WAIT = timedelta(minutes=60)
"""How long one process may wait for another: it may be measuring."""


def spawn(execute: Execute, recipe: Recipe, out: Path, store: Path | None = None) -> None:
    """Execute the recipe in `recipe.processes` processes that meet on this machine only. Ended from outside, they save
    and end too. Raises what the first of them raised."""
    context = mp.get_context("spawn")
    failure: tuple[str, str] | None = None
    with tempfile.TemporaryDirectory() as scratch:
        workers, ends = [], []
        for rank in range(recipe.processes):
            mine, theirs = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(rank, execute, recipe, out, store, Path(scratch) / "meeting", theirs)
            )
            worker.start()
            theirs.close()
            workers.append(worker)
            ends.append(mine)
        with _passed_on(workers):
            failure = _watch(workers, ends)
    if failure:
        kind, text = failure
        raise Stopped if kind == "stopped" else FinetuneError(text)


def _watch(workers: list[SpawnProcess], ends: list[Connection[Any, Any]]) -> tuple[str, str] | None:
    """Wait for all; where one fails, the others could wait for it for ever and are ended."""
    failure: tuple[str, str] | None = None
    left = dict(zip(ends, workers, strict=True))
    while left:
        ready = wait(list(left))
        for end in [end for end in left if end in ready]:
            worker = left.pop(end)
            told: tuple[str, str] | None
            try:
                told = end.recv()
            except EOFError:
                worker.join()
                told = ("error", f"A training process ended with code {worker.exitcode}; the last saved state is kept.")
            if told and not failure:
                failure = told
                if told[0] != "stopped":
                    for other in left.values():
                        other.terminate()
                        other.join(20)
                        if other.is_alive():
                            other.kill()
    for worker in workers:
        worker.join()
    return failure


class _passed_on:
    """Signals to this process go on to the workers, which finish their step first."""

    def __init__(self, workers: list[Any]) -> None:
        self._workers = workers
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        def tell(number: int, frame: Any) -> None:
            for worker in self._workers:
                if worker.is_alive():
                    os.kill(worker.pid, signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM)

        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, tell) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _work(
    rank: int, execute: Execute, recipe: Recipe, out: Path, store: Path | None, meeting: Path, end: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; it is passed on once
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(recipe.processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # unused: the processes meet over a file
    told: tuple[str, str] | None = None
    try:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(rank)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=f"file://{meeting.resolve()}",
            rank=rank,
            world_size=recipe.processes,
            timeout=WAIT,
        )
        execute(recipe, out, store)
    except Stopped:
        told = ("stopped", "")
    except (FinetuneError, EngineError) as error:
        told = ("error", str(error))
    finally:
        end.send(told)
        end.close()
    if dist.is_initialized():
        dist.destroy_process_group()
