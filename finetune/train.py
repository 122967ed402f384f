"""Training keye-nano from nothing: the tower learns to see, the decoder reads pictures, then videos, and what it
knows settles at a falling rate.

    python -m finetune nano --out runs/nano --processes 2

A batch depends on the seed and the number of its step alone, so a run that was stopped and resumed is the same run."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.keye import KeyeProcessor
from finetune.batches import Batches
from finetune.errors import FinetuneError
from finetune.muon import optimizers
from finetune.packed import PackedBatch, forward, loss
from finetune.probes import Scores, decoder_probes, probe_batch, tower_probes
from finetune.shape import new_model, save_checkpoint
from finetune.team import Team
from finetune.tokenizer import train_tokenizer

STAGES = ("tower", "pictures", "videos", "anneal")
MUON_RATE, ADAM_RATE = 0.02, 3e-3
TOWER_MUON_RATE, TOWER_ADAM_RATE = 0.05, 5e-3
DENSE = 1.0
"""Weight of what the decoder's visual tokens are asked, beside the answers' loss."""

RISE = 50
"""Steps until the full rate."""

SAVE_SECONDS = 150.0


@dataclass
class Plan:
    """What a run was asked for: the steps of each stage. A stage may be made longer or shorter by resuming the run,
    as long as it has not ended."""

    tower: int = 1000
    pictures: int = 1100
    videos: int = 1400
    anneal: int = 800
    processes: int = 1  # each takes batches of its own at every step
    seed: int = 0

    def steps(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in STAGES}

    def check(self) -> None:
        """FinetuneError for numbers that make no sense."""
        for name, steps in self.steps().items():
            if steps < 1:
                raise FinetuneError(f"Stage {name} needs at least one step, not {steps}.")
        if not 1 <= self.processes <= 16:
            raise FinetuneError(f"1 to 16 processes can train together, not {self.processes}.")


@dataclass
class Progress:
    """Where a run stands; saved with the weights."""

    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    processor: float = 0.0  # seconds of processor time, of all processes
    wall: float = 0.0
    clips: int = 0
    questions: int = 0


def rate(stage: str, step: int, steps: int) -> float:
    """The factor of the peak rates at a step (from 0) of a stage of `steps`.

    The tower has a schedule of its own. Projector and decoder rise at the beginning of the pictures, keep their rate
    through the videos, so that these can be made longer at any time, and fall to nothing in the last stage."""
    part = step / steps
    if stage == "tower":
        return min(1.0, (step + 1) / RISE) * (1 - 0.95 * part)
    if stage == "anneal":
        return 1 - part
    return min(1.0, (step + 1) / RISE) if stage == "pictures" else 1.0


def most_things(step: int) -> int:
    """How many things a picture may hold: what a word names is learnt before which one of several is meant."""
    return 1 if step < 150 else 2 if step < 450 else 4


def answers_right(logits: torch.Tensor, labels: torch.Tensor, batch: PackedBatch) -> Scores:
    """By kind of question: how many answers have every token right (given the ones before), and how many there are."""
    where = batch.kind_of[batch.labels != -100]
    wrong = torch.zeros(len(batch.kinds), dtype=torch.long)
    wrong.index_add_(0, where, (logits.argmax(-1) != labels).long())
    out: Scores = {}
    for kind, errors in zip(batch.kinds, wrong.tolist(), strict=True):
        right, total = out.get(kind, (0, 0))
        out[kind] = (right + (errors == 0), total + 1)
    return out


class Trainer:
    """One run. Everything it writes lies under `out`: log.jsonl, state.pt (to resume) and keye-nano/ (the model)."""

    def __init__(self, out: Path, plan: Plan, resume: bool = False, team: Team | None = None) -> None:
        plan.check()
        self.out, self.plan, self.team = out, plan, team or Team()
        self.state_file = out / "state.pt"
        _check_folder(out, resume)
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)  # small products: a second thread waits more than it computes
        self.tokenizer = train_tokenizer()
        self.model = new_model(self.tokenizer, plan.seed)
        self.model.train()
        self.tower_probes, self.decoder_probes = tower_probes(self.model), decoder_probes(self.model)
        self.progress = Progress()
        tower = {"visual": self.model.visual, "probes": self.tower_probes}
        readers = {
            "mlp_AR": self.model.mlp_AR,
            "model": self.model.model,
            "lm_head": self.model.lm_head,
            "probes": self.decoder_probes,
        }
        self.parts = {"tower": tower, "readers": readers, "released": {"visual": self.model.visual}}
        self.optimizers = {
            "tower": optimizers(tower, TOWER_MUON_RATE, TOWER_ADAM_RATE),
            "readers": optimizers(readers, MUON_RATE, ADAM_RATE),
            # Released late and at a tenth of the rate: earlier, it forgets what it sees.
            "released": optimizers({"visual": self.model.visual}, MUON_RATE / 10, ADAM_RATE / 10),
        }
        if resume:
            self._load()  # before anything is written: a run that cannot be resumed keeps its model
        if self.team.rank == 0:
            save_checkpoint(out / "keye-nano", self.model, self.tokenizer)
        self.team.wait()
        self.processor = KeyeProcessor.from_pretrained(out / "keye-nano")
        self.batches = Batches(self.model, self.processor, plan.seed)
        self._clock = (time.process_time(), time.monotonic())
        self._saved = time.monotonic()
        self._losses: list[float] = []
        self._right: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train to the end of the plan; the folder of the finished model."""
        for stage, steps in self.plan.steps().items():
            while self.progress.steps[stage] < steps:
                step = self.progress.steps[stage]
                if stage == "tower":
                    self._tower_step(step, rate(stage, step, steps))
                else:
                    self._reader_step(stage, step, rate(stage, step, steps))
                self._count()
                self.progress.steps[stage] = step + 1
                if (step + 1) % 25 == 0 or step + 1 == steps:
                    self._log(stage)
                if time.monotonic() - self._saved > SAVE_SECONDS:
                    self.save()
        self.save()
        self.team.wait()
        return self.out / "keye-nano"

    def _tower_step(self, step: int, factor: float) -> None:
        pixels, grid, labels = probe_batch(step * self.team.size + self.team.rank, self.plan.seed)
        value, scores = self.tower_probes(self.model.visual(pixels, grid), labels)
        self._step(value, {"tower": factor})
        self._note(value.item(), scores)
        self.progress.clips += len(grid) * self.team.size

    def _reader_step(self, stage: str, step: int, factor: float) -> None:
        released = stage == "anneal"
        if stage == "pictures":
            batch = self.batches.make(step, "pictures", most_things(step), part=self.team.rank)
        else:
            number = step + (self.progress.steps["videos"] if released else 0)
            batch = self.batches.make(number, "videos", part=self.team.rank)
        logits, labels, visual = forward(self.model, batch, tower_grad=released)
        value = loss(logits, labels)
        scores = answers_right(logits.detach(), labels, batch)
        total = value
        if visual is not None and batch.truth is not None:
            dense, seen = self.decoder_probes(visual, batch.truth)
            total = value + DENSE * dense
            scores |= {f"token {name}": score for name, score in seen.items()}
        self._step(total, {"readers": factor, "released": factor} if released else {"readers": factor})
        self._note(value.item(), scores)
        self.progress.clips += batch.row_ids.shape[0] * self.team.size
        self.progress.questions += len(batch.kinds) * self.team.size

    def _step(self, value: torch.Tensor, factors: dict[str, float]) -> None:
        value.backward()
        moved = [p for name in factors for part in self.parts[name].values() for p in part.parameters()]
        self.team.average_gradients(moved)
        nn.utils.clip_grad_norm_(moved, 1.0)
        for name, factor in factors.items():
            for optimizer in self.optimizers[name]:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                optimizer.step()
        for part in (self.model, self.tower_probes, self.decoder_probes):
            part.zero_grad(set_to_none=True)

    def _count(self) -> None:
        before, self._clock = self._clock, (time.process_time(), time.monotonic())
        self.progress.processor += (self._clock[0] - before[0]) * self.team.size  # the others do the same work
        self.progress.wall += self._clock[1] - before[1]

    # -- what is written ----------------------------------------------------------------------------------------

    def _note(self, value: float, scores: Scores) -> None:
        self._losses.append(value)
        for kind, (right, total) in scores.items():
            self._right[kind][0] += right
            self._right[kind][1] += total

    def _log(self, stage: str) -> None:
        if self.team.rank:
            return
        line = {
            "stage": stage,
            "step": self.progress.steps[stage],
            "of": self.plan.steps()[stage],
            "processor_minutes": round(self.progress.processor / 60, 2),
            "minutes": round(self.progress.wall / 60, 2),
            "clips": self.progress.clips,
            "questions": self.progress.questions,
            "loss": round(sum(self._losses) / len(self._losses), 4),
            "right": {k: round(r / t, 3) for k, (r, t) in sorted(self._right.items()) if t},
        }
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self._losses.clear()
        self._right.clear()

    def save(self) -> None:
        """The state, in one step, and the model folder."""
        self._saved = time.monotonic()
        if self.team.rank:
            return
        state = {
            "plan": asdict(self.plan),
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "probes": [self.tower_probes.state_dict(), self.decoder_probes.state_dict()],
            "optimizers": {name: [o.state_dict() for o in several] for name, several in self.optimizers.items()},
        }
        part = self.state_file.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.state_file)
        save_checkpoint(self.out / "keye-nano", self.model, self.tokenizer)

    def _load(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.state_file, weights_only=True)
            for name in ("seed", "processes"):
                if state["plan"][name] != getattr(self.plan, name):
                    raise FinetuneError(
                        f"The run in {self.out} has {name} {state['plan'][name]}, not {getattr(self.plan, name)}; "
                        "give the same."
                    )
            self.model.load_state_dict(state["model"])
            for probes, saved in zip((self.tower_probes, self.decoder_probes), state["probes"], strict=True):
                probes.load_state_dict(saved)
            for name, several in state["optimizers"].items():
                for optimizer, saved in zip(self.optimizers[name], several, strict=True):
                    optimizer.load_state_dict(saved)
            self.progress = Progress(**state["progress"])
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise FinetuneError(f"{self.state_file} cannot be resumed ({error}); begin a new run.") from error


def _check_folder(out: Path, resume: bool) -> None:
    there = (out / "state.pt").is_file()
    if resume and not there:
        raise FinetuneError(f"There is no run to resume in {out}; leave --resume out to begin one.")
    if not resume and there:
        raise FinetuneError(f"{out} holds a run already; give --resume to go on with it, or another folder.")


def train(out: Path, plan: Plan, resume: bool = False) -> Path:
    """Train keye-nano and return its folder. Raises FinetuneError where the folder or the plan does not fit."""
    plan.check()
    _check_folder(out, resume)
    if plan.processes == 1:
        return Trainer(out, plan, resume).run()
    # Ended from outside, it must not leave the others training: an exception ends them all.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
                _work, (out, plan, resume, Path(scratch) / "meeting"), plan.processes, daemon=True
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    return out / "keye-nano"


def _work(rank: int, out: Path, plan: Plan, resume: bool, meeting: Path) -> None:
    Trainer(out, plan, resume, Team.join(rank, plan.processes, meeting)).run()
