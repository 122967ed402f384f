"""Training keye-nano from nothing: the tower learns to see, the decoder reads pictures, then videos."""

from __future__ import annotations

import json
import math
import os
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
from finetune.probes import Probes, probe_batch, probe_step
from finetune.shape import new_model, save_checkpoint
from finetune.tokenizer import train_tokenizer

STAGES = {"tower": 0.085, "pictures": 0.38, "videos": 1.0}
"""Where each stage ends, as a share of the whole."""

RELEASE = 0.88
"""From here on the tower learns too, at a tenth of the rate: earlier, it forgets what it sees."""

MUON_RATE, ADAM_RATE = 0.02, 3e-3
TOWER_MUON_RATE, TOWER_ADAM_RATE = 0.05, 5e-3
SAVE_SECONDS = 150.0


@dataclass
class Plan:
    """What a run was asked for. `minutes` are minutes of processor time per thread, so that a busy machine trains as
    long as an idle one; `limit` are minutes by the clock, None for no limit. What is nearer its end sets the pace."""

    minutes: float = 60.0
    threads: int = 1
    seed: int = 0
    limit: float | None = None


@dataclass
class Progress:
    """Where a run stands; saved with the weights."""

    spent: float = 0.0  # seconds of processor time per thread
    wall: float = 0.0
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    clips: int = 0
    questions: int = 0


def rate(done: float) -> float:
    """The factor of the peak rates at a share 0..1 of the run after the tower's stage: a short rise, one cosine."""
    rise = 0.015
    if done < rise:
        return done / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min((done - rise) / (1 - rise), 1.0)))


def answers_right(logits: torch.Tensor, labels: torch.Tensor, batch: PackedBatch) -> dict[str, tuple[int, int]]:
    """By kind of question: how many answers have every token right (given the ones before), and how many there are."""
    where = batch.kind_of[batch.labels != -100]
    wrong = torch.zeros(len(batch.kinds), dtype=torch.long)
    wrong.index_add_(0, where, (logits.argmax(-1) != labels).long())
    out: dict[str, tuple[int, int]] = {}
    for kind, errors in zip(batch.kinds, wrong.tolist(), strict=True):
        right, total = out.get(kind, (0, 0))
        out[kind] = (right + (errors == 0), total + 1)
    return out


class Trainer:
    """One run. Everything it writes lies under `out`: log.jsonl, state.pt (to resume) and keye-nano/ (the model)."""

    def __init__(self, out: Path, plan: Plan, resume: bool = False) -> None:
        if not 0.05 <= plan.minutes <= 100_000:
            raise FinetuneError(f"A run lasts at least 0.05 minutes, not {plan.minutes:g}.")
        if plan.limit is not None and plan.limit <= 0:
            raise FinetuneError(f"The limit must be more than 0 minutes, not {plan.limit:g}.")
        if plan.threads < 1:
            raise FinetuneError(f"At least one thread is needed, not {plan.threads}.")
        self.out, self.plan = out, plan
        self.state_file = out / "state.pt"
        if resume and not self.state_file.is_file():
            raise FinetuneError(f"There is no run to resume in {out}; leave --resume out to begin one.")
        if not resume and self.state_file.is_file():
            raise FinetuneError(f"{out} holds a run already; give --resume to go on with it, or another folder.")
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(plan.threads)
        self.tokenizer = train_tokenizer()
        self.model = new_model(self.tokenizer, plan.seed)
        self.model.train()
        self.probes = Probes(self.model.config.vision.hidden_size)
        self.progress = Progress()
        readers = {"mlp_AR": self.model.mlp_AR, "model": self.model.model, "lm_head": self.model.lm_head}
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {
            "tower": optimizers({"visual": self.model.visual, "probes": self.probes}, TOWER_MUON_RATE, TOWER_ADAM_RATE),
            "readers": optimizers(readers, MUON_RATE, ADAM_RATE),
            "released": optimizers({"visual": self.model.visual}, MUON_RATE / 10, ADAM_RATE / 10),
        }
        if resume:
            self._load()  # before anything is written: a run that cannot be resumed keeps its model
        save_checkpoint(out / "keye-nano", self.model, self.tokenizer)
        self.processor = KeyeProcessor.from_pretrained(out / "keye-nano")
        self.batches = Batches(self.model, self.processor, plan.seed)
        self._started = (time.process_time(), time.monotonic(), self.progress.spent, self.progress.wall)
        self._saved = time.monotonic()
        self._losses: list[float] = []
        self._right: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train to the end of the plan; the folder of the finished model."""
        before = ""
        while (done := self._done()) < 1:
            stage = next(name for name, end in STAGES.items() if done < end)
            if stage != before:
                self._log(before, done)
                before = stage
            if stage == "tower":
                self._tower_step(done)
            else:
                self._reader_step(stage, done)
            self.progress.steps[stage] += 1
            if self.progress.steps[stage] % 25 == 0:
                self._log(stage, done)
            if time.monotonic() - self._saved > SAVE_SECONDS:
                self.save()
        self._log(before, 1.0)
        self.save()
        return self.out / "keye-nano"

    def _done(self) -> float:
        cpu, wall, spent_before, wall_before = self._started
        self.progress.spent = spent_before + (time.process_time() - cpu) / self.plan.threads
        self.progress.wall = wall_before + time.monotonic() - wall
        passed = self.progress.wall / (self.plan.limit * 60) if self.plan.limit else 0.0
        return max(self.progress.spent / (self.plan.minutes * 60), passed)

    def _tower_step(self, done: float) -> None:
        batch = probe_batch(self.progress.steps["tower"], self.plan.seed)
        part = done / STAGES["tower"]
        factor = min(1.0, (self.progress.steps["tower"] + 1) / 20) * (1 - 0.95 * part)
        value, scores = probe_step(self.model, self.probes, batch)
        self._step(value, {"tower": factor}, [self.model.visual, self.probes])
        self._note(value.item(), scores)
        self.progress.clips += len(batch[1])

    def _reader_step(self, stage: str, done: float) -> None:
        released = done >= RELEASE
        batch = self.batches.make(self.progress.steps[stage], "pictures" if stage == "pictures" else "videos")
        factor = rate((done - STAGES["tower"]) / (1 - STAGES["tower"]))
        logits, labels = forward(self.model, batch, tower_grad=released)
        value = loss(logits, labels)
        parts: list[nn.Module] = [self.model.mlp_AR, self.model.model, self.model.lm_head]
        factors = {"readers": factor}
        if released and batch.pixels is not None:
            parts.append(self.model.visual)
            factors["released"] = factor
        self._step(value, factors, parts)
        self._note(value.item(), answers_right(logits.detach(), labels, batch))
        self.progress.clips += batch.row_ids.shape[0]
        self.progress.questions += len(batch.kinds)

    def _step(self, value: torch.Tensor, factors: dict[str, float], parts: list[nn.Module]) -> None:
        value.backward()
        nn.utils.clip_grad_norm_([p for part in parts for p in part.parameters()], 1.0)
        for name, factor in factors.items():
            for optimizer in self.optimizers[name]:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                optimizer.step()
        for part in (self.model, self.probes):
            part.zero_grad(set_to_none=True)

    # -- what is written ----------------------------------------------------------------------------------------

    def _note(self, value: float, scores: dict[str, tuple[int, int]]) -> None:
        self._losses.append(value)
        for kind, (right, total) in scores.items():
            self._right[kind][0] += right
            self._right[kind][1] += total

    def _log(self, stage: str, done: float) -> None:
        if not self._losses:
            return
        line = {
            "stage": stage,
            "done": round(done, 4),
            "step": self.progress.steps.get(stage, 0),
            "processor_minutes": round(self.progress.spent / 60, 2),
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
        state = {
            "plan": asdict(self.plan),
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "probes": self.probes.state_dict(),
            "optimizers": {name: [o.state_dict() for o in several] for name, several in self.optimizers.items()},
        }
        part = self.state_file.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.state_file)
        save_checkpoint(self.out / "keye-nano", self.model, self.tokenizer)

    def _load(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.state_file, weights_only=True)
            if state["plan"]["seed"] != self.plan.seed:
                raise FinetuneError(
                    f"The run in {self.out} has seed {state['plan']['seed']}, not {self.plan.seed}; give the same seed."
                )
            self.model.load_state_dict(state["model"])
            self.probes.load_state_dict(state["probes"])
            for name, several in state["optimizers"].items():
                for optimizer, saved in zip(self.optimizers[name], several, strict=True):
                    optimizer.load_state_dict(saved)
            self.progress = Progress(**state["progress"])
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise FinetuneError(f"{self.state_file} cannot be resumed ({error}); begin a new run.") from error


def train(out: Path, plan: Plan, resume: bool = False) -> Path:
    """Train keye-nano and return its folder. Raises FinetuneError where the folder or the plan does not fit."""
    return Trainer(out, plan, resume).run()
