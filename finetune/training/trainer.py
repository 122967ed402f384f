"""The one loop that trains: batches in, steps out, on `accelerate`.

What is trained, on what and with which loss is a `Work` that a stage makes. The loop knows how to spread it over
processes, accumulate, clip, follow the schedule, write checkpoints that a kill cannot break, and go on from one as if
nothing had happened: a batch depends on the seed, the part and the number of its step alone."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from finetune.errors import FinetuneError
from finetune.recipe import Part
from finetune.training.muon import optimizers
from finetune.training.shard import divide_optimizer, gather, shard, whole_optimizer, whole_state

Scores = dict[str, tuple[int, int]]
"""By name, how many were right and how many were counted."""

SAVE_SECONDS = 150.0
LOG_STEPS = 25
"""At most so many steps between two lines of figures; of short parts there are at least fifty lines."""

KEPT = 2
BAD_STEPS = 5
"""So many steps in a row without a finite gradient end the run."""


class Result(NamedTuple):
    """What one batch gives."""

    loss: Tensor  # sum over what is learnt
    beside: Tensor  # further losses, already weighted, as a mean over the batch
    scores: Scores


class Source(Protocol):
    """Where batches come from."""

    steps: int
    """How many steps the data lasts, for parts that count epochs; 0 where it has no end."""

    def make(self, number: int) -> Any:
        """Batch `number` of this process, always the same for the same number."""

    def learnt(self, batch: Any) -> int:
        """Over how many things the batch's loss is a sum."""

    def size(self, batch: Any) -> tuple[int, int]:
        """How many examples and how many tokens the batch holds."""


class Objective(nn.Module):
    """The model inside what its stage asks of it; a stage's own forward(batch) gives a Result."""

    kept: tuple[str, ...] = ()
    """Buffers that steps change; saved and loaded with the weights."""

    def forward(self, batch: Any) -> Result:
        raise NotImplementedError


@dataclass
class Group:
    """Modules that share their rates."""

    modules: dict[str, nn.Module]
    lr: float
    muon_lr: float = 0.0
    weight_decay: float = 0.0


@dataclass
class Work:
    """What a part of a stage trains: everything in `groups` moves and nothing else."""

    objective: Objective
    source: Source
    groups: list[Group]
    save: Callable[[Path], None]  # writes a model folder that `engine` loads
    close: Callable[[], None] | None = None  # ends what runs beside the training


@dataclass
class Progress:
    """Where a part stands; saved with the weights."""

    step: int = 0
    seconds: float = 0.0
    processor: float = 0.0  # seconds of processor time, of all processes
    examples: int = 0
    tokens: int = 0
    skipped: int = 0  # steps left out because their gradient was not finite


@dataclass
class Log:
    """Lines of figures, in a file and wherever else they are wanted."""

    path: Path
    also: Callable[[str, int, dict[str, Any]], None] | None = None  # stage, step, figures

    def write(self, stage: str, step: int, figures: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, **figures}) + "\n")
        if self.also:
            self.also(stage, step, figures)


class Stopped(Exception):
    """The user asked a run to stop; its state is saved."""


class Stop(threading.Event):
    """Set when the user asks a run to stop. `keep`: for good, with what was learnt so far as its result."""

    keep = False


Look = Callable[[int], dict[str, Any]]
"""Asks the model as it is after so many steps; gives figures for the log."""


def rate(part: Part, step: int, steps: int) -> float:
    """The factor of the peak rates at a step (from 0) of `steps`."""
    rise = min(1.0, (step + 1) / part.warmup) if part.warmup else 1.0
    done = step / steps
    fall = {"none": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[part.fall]
    return rise * (part.floor + (1 - part.floor) * fall)


class Trainer:
    """One part of one stage. What it needs to go on lies in `folder`/state.pt."""

    def __init__(
        self,
        name: str,
        part: Part,
        work: Work,
        folder: Path,
        accelerator: Accelerator,
        log: Log,
        look: Look | None = None,
    ) -> None:
        self.name, self.part, self.work, self.folder = name, part, work, folder
        self.accelerator, self.log, self.look = accelerator, log, look
        self.steps = part.steps or math.ceil(part.epochs * work.source.steps)
        if self.steps < 1:
            raise FinetuneError(f"{name} has nothing to do; give it steps, or epochs of data that ends.")
        self.log_steps = max(1, min(LOG_STEPS, self.steps // 50))
        self.state_file = folder / "state.pt"
        self.progress = Progress()
        objective = work.objective
        objective.requires_grad_(False)
        for group in work.groups:
            for module in group.modules.values():
                module.requires_grad_(True)
        folder.mkdir(parents=True, exist_ok=True)
        self.raw = objective
        self.divided = part.shard and not part.four_bit and accelerator.num_processes > 1
        state = self._read() if self.state_file.is_file() else None
        if state is not None:
            self._load(lambda: load_moving_state(objective, state["objective"]))
        if self.divided:
            objective.to(accelerator.device)
            shard(objective, compute=torch.bfloat16 if accelerator.device.type == "cuda" else None)
        self.moved = [p for g in work.groups for module in g.modules.values() for p in module.parameters()]
        made = [o for g in work.groups for o in optimizers(g.modules, g.muon_lr, g.lr, g.weight_decay)]
        self.optimizers = made
        if state is not None:
            self._load(lambda: self._go_on(state))
        if self.divided:
            self.objective, self.stepping = objective, made
        else:
            prepared = accelerator.prepare(objective, *made)
            self.objective, self.stepping = prepared[0], list(prepared[1:])
        self._losses: list[float] = []
        self._right: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._clock = (time.process_time(), time.monotonic())
        self._saved = time.monotonic()
        self._due = 0.0  # whether it is time to save, as all processes see it

    def run(self, stop: threading.Event) -> Progress:
        """Train to the end, or to where `stop` asks to keep what there is. Raises Stopped, after saving, when `stop`
        is set in any process, and FinetuneError where the loss is no longer a number or the state cannot be
        written."""
        bar = self._bar()
        bad = 0
        if self.progress.step == 0 and (seen := self._looked()):
            self.log.write(self.name, 0, {"of": self.steps, **seen})
        while self.progress.step < self.steps:
            stopping, norm = self._step(rate(self.part, self.progress.step, self.steps), stop)
            if stopping:
                self.save()
                if stopping == KEPT:
                    if self._losses:
                        self._log(norm, self._looked())
                    break
                raise Stopped
            bad = 0 if math.isfinite(norm) else bad + 1
            if bad == BAD_STEPS:
                raise FinetuneError(
                    f"The loss of {self.name} has not been a number for {BAD_STEPS} steps, from step "
                    f"{self.progress.step - BAD_STEPS} on; resume with a lower {self.name}.lr. "
                    "The last saved state is kept."
                )
            self.progress.step += 1
            bar.update()
            last = self.progress.step == self.steps
            seen = self._looked() if last or (self.part.look and self.progress.step % self.part.look == 0) else {}
            if seen or last or self.progress.step % self.log_steps == 0:
                self._log(norm, seen)
                bar.set_postfix_str(f"loss {self._last:.3f}")
            if bad == 0 and self._due:
                self.save()
        bar.close()
        self.save()
        return self.progress

    def _bar(self) -> tqdm[Any]:
        hidden = not self.accelerator.is_main_process or not sys.stderr.isatty()
        return tqdm(total=self.steps, initial=self.progress.step, desc=self.name, disable=hidden, dynamic_ncols=True)

    def _looked(self) -> dict[str, Any]:
        """What the model says now; the main process asks, the others wait. It costs no training time. Divided weights
        cannot answer: no process holds them all."""
        if self.look is None or self.divided:
            return {}
        seen = self.look(self.progress.step) if self.accelerator.is_main_process else {}
        self.accelerator.wait_for_everyone()
        self._clock = (time.process_time(), time.monotonic())
        return seen

    def _step(self, factor: float, stop: threading.Event) -> tuple[int, float]:
        """One step of the optimiser. Whether to stop (0: no, KEPT: for good), and the norm of the gradient."""
        source, every = self.work.source, self.part.accumulate
        first = self.progress.step * every
        batches = [source.make(first + i) for i in range(every)]
        counts = [source.learnt(b) for b in batches]
        # The first process alone says when it is time to save: divided weights are written by all of them together.
        due = self.accelerator.is_main_process and time.monotonic() - self._saved > SAVE_SECONDS
        asked = stop.is_set()
        kept = asked and getattr(stop, "keep", False)
        told = torch.tensor([sum(counts), int(asked), int(kept), int(due)], dtype=torch.float64)
        agreed = self.accelerator.reduce(told.to(self.accelerator.device), "sum").tolist()
        total, stopping, keeping, self._due = agreed
        if stopping:
            return KEPT if keeping else 1, 0.0
        value = 0.0
        for i, batch in enumerate(batches):
            with self._whole(i + 1 == every):
                with self.accelerator.autocast():
                    result = self.objective(batch)
                # Gradients are averaged over the processes, so each takes its share of the sum over all of them.
                share = result.loss * (self.accelerator.num_processes / max(1.0, total))
                self.accelerator.backward(share + result.beside / every)
            value += float(share.detach())
            for kind, (right, of) in result.scores.items():
                self._right[kind][0] += right
                self._right[kind][1] += of
            examples, tokens = source.size(batch)
            self.progress.examples += examples * self.accelerator.num_processes
            self.progress.tokens += tokens * self.accelerator.num_processes
        norm = _number(self.accelerator.clip_grad_norm_(self.moved, self.part.clip))
        if math.isfinite(norm):
            for optimizer in self.stepping:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                optimizer.step()
            self._losses.append(value)
        else:
            self.progress.skipped += 1
        for optimizer in self.stepping:
            optimizer.zero_grad(set_to_none=True)
        before, self._clock = self._clock, (time.process_time(), time.monotonic())
        self.progress.processor += (self._clock[0] - before[0]) * self.accelerator.num_processes
        self.progress.seconds += self._clock[1] - before[1]
        self._rate = factor
        return 0, norm

    @contextmanager
    def _whole(self, last: bool) -> Iterator[None]:
        """Gradients travel between processes once a step, with its last batch."""
        if self.divided:
            assert isinstance(self.objective, FSDPModule)  # sharding made it one
            self.objective.set_requires_gradient_sync(last)
        if last or self.divided:
            yield
        else:
            with self.accelerator.no_sync(self.objective):
                yield

    def _log(self, norm: float, seen: dict[str, Any]) -> None:
        self._last = sum(self._losses) / len(self._losses) if self._losses else float("nan")
        if self.accelerator.is_main_process:
            p = self.progress
            figures = {
                "of": self.steps,
                "minutes": round(p.seconds / 60, 2),
                "processor_minutes": round(p.processor / 60, 2),
                "examples": p.examples,
                "tokens": p.tokens,
                "loss": round(self._last, 4) if math.isfinite(self._last) else None,
                "lr": self._rate * self.part.lr,
                "norm": round(norm, 3) if math.isfinite(norm) else None,
                "skipped": p.skipped,
                "right": {k: round(r / t, 3) for k, (r, t) in sorted(self._right.items()) if t},
                **seen,
            }
            self.log.write(self.name, p.step, figures)
        self._losses.clear()
        self._right.clear()

    def save(self) -> None:
        """Write the state in one step: what was there before stays until the new one is whole."""
        self._saved = time.monotonic()
        whole = whole_state(self.raw) if self.divided else self.raw.state_dict()
        optimizers = [whole_optimizer(o) if self.divided else o.state_dict() for o in self.optimizers]
        if not self.accelerator.is_main_process:
            return
        state = {
            "part": json.dumps(asdict(self.part)),
            "processes": self.accelerator.num_processes,
            "progress": asdict(self.progress),
            "objective": moving_state(self.raw, whole),
            "optimizers": optimizers,
        }
        scratch = self.state_file.with_suffix(".part")
        try:
            torch.save(state, scratch)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(scratch, self.state_file)
        except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
            scratch.unlink(missing_ok=True)
            kept = " The state before it is kept." if self.state_file.is_file() else ""
            raise FinetuneError(
                f"The state of {self.name} at step {self.progress.step} cannot be written to {self.folder} ({error}); "
                f"make room and give the same command again.{kept}"
            ) from error

    def gather(self) -> None:
        """Divided weights become whole in the first process, so that it can write them. Training has ended."""
        if self.divided:
            gather(self.raw)

    def _read(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        self._load(lambda: state.update(torch.load(self.state_file, weights_only=True, map_location="cpu")))
        if (processes := state.get("processes")) != self.accelerator.num_processes:
            raise FinetuneError(
                f"{self.state_file} was written by {processes} processes, not {self.accelerator.num_processes}; "
                "go on with as many."
            )
        return state

    def _go_on(self, state: dict[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            peaks = [group["peak"] for group in optimizer.param_groups]  # a new rate holds for what is left
            optimizer.load_state_dict(divide_optimizer(optimizer, saved) if self.divided else saved)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak
        self.progress = Progress(**state["progress"])

    def _load(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError, EOFError) as error:
            raise FinetuneError(
                f"{self.state_file} cannot be gone on with ({error}); delete it to begin {self.name} again."
            ) from error


def _moving(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad} | set(getattr(module, "kept", ()))


def moving_state(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What training changes of the module's state: all else is in the model that the part began with."""
    moving = _moving(module)
    return {name: value for name, value in state.items() if name in moving}


def _number(norm: Tensor) -> float:
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def load_moving_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    moving = _moving(module)
    if moving != set(state):
        odd = sorted(moving ^ set(state))[0]
        raise ValueError(f"it moves other parameters, such as {odd}")
    module.load_state_dict(state, strict=False)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Set when the program is asked to end (Ctrl-C, SIGTERM): the step that runs is finished and saved first. SIGUSR1
    asks to end for good with what was learnt so far."""
    event = Stop()

    def told(number: int, frame: FrameType | None) -> None:
        event.keep = event.keep or number == signal.SIGUSR1
        event.set()

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, told) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
