"""What a fine-tuning run would take on this machine, before it is started: steps, time, memory, room on the disk.

Operations and memory follow from the model's config.json and the rows (finetune.planning.costs and .memory), counted on
a few of them. Where a run of the same kind has trained this model here, its measured tokens a second take the place of
the formula, and the estimate says so."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import psutil
import torch

from engine.keye import KeyeConfig, KeyeProcessor
from engine.keye.loading import load_config, weight_files
from engine.video import Sampling, plan, probe, sampling_for
from finetune.data.rows import Footage, Row, parse_row
from finetune.errors import FinetuneError
from finetune.feedback import Run, Runs
from finetune.planning.costs import Example, Item, Role, forward, lora_parameters, parameters, roles
from finetune.planning.memory import Batch, memory
from finetune.planning.plan import GPUS
from finetune.planning.workload import World
from finetune.recipe import Part, Recipe, Stage
from finetune.run import machine
from finetune.stages.reading import WORLD, WORLD_IN_MODES

SAMPLED = 24
"""Rows that are looked at, spread over all."""

REACHED = 0.4
"""The share of a machine's peak that training reaches, where nothing was measured."""

KEPT = 1.2
"""Room on the disk beyond what is counted, as a factor."""

ROLLOUTS = 8
"""Answers that reinforcement draws to each question."""


@dataclass(frozen=True)
class StageEstimate:
    stage: str
    rows: int
    steps: int
    examples: int  # rows times epochs
    seconds: float
    measured: str | None  # the run whose speed was measured; None: from the formula


@dataclass(frozen=True)
class Estimate:
    stages: tuple[StageEstimate, ...]
    memory: float  # bytes, the most of all stages
    memory_free: float
    disk: float  # bytes
    disk_free: float
    device: str  # cpu or the name of the GPU

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    def refuse(self) -> None:
        """FinetuneError where the run cannot come to its end here."""
        if self.disk > self.disk_free:
            raise FinetuneError(
                f"The run needs about {_gb(self.disk)} on the disk and {_gb(self.disk_free)} are free; make room first."
            )
        if self.memory > self.memory_free:
            raise FinetuneError(
                f"The run needs about {_gb(self.memory)} of memory and {_gb(self.memory_free)} are there; choose LoRA, "
                "4 bits or a smaller batch_tokens."
            )


def estimate(recipe: Recipe, rows: Mapping[str, Sequence[dict[str, object]]], folder: Path, runs: Runs) -> Estimate:
    """Of a recipe that begins with a model folder, is without the stages that are left out, and writes below `folder`.
    `rows` are those of each stage, as JSONL holds them; stages that learn from the world alone need none.

    EngineError where the model's folder cannot be read. Loads the weights of a small model only, and starts nothing."""
    model = Path(recipe.model["path"])
    config = load_config(model)
    cuda = torch.cuda.is_available()
    peak = _peak(cuda)
    world = World(recipe)
    stages, most = [], 0.0
    for stage in recipe.stages:
        for name, part in stage.parts.items():
            title = stage.name if name == stage.name else f"{stage.name}.{name}"
            sizes = [] if part.data == WORLD else _sizes(rows.get(stage.name, ()), model, config)
            told, held = _stage(recipe, stage, part, title, sizes, config, model, peak, runs, world, cuda)
            stages.append(told)
            most = max(most, held)
    free = torch.cuda.mem_get_info()[1] if cuda else psutil.virtual_memory().available
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return Estimate(
        tuple(stages),
        most,
        float(free),
        _disk(recipe, model, config) * KEPT,
        float(shutil.disk_usage(there).free),
        torch.cuda.get_device_name() if cuda else "cpu",
    )


def _peak(cuda: bool) -> float:
    """Operations a second that training reaches on this machine by the formula."""
    if not cuda:
        return GPUS["core"][0] * (os.cpu_count() or 1) * REACHED
    name = torch.cuda.get_device_name().casefold()
    return next((peak for gpu, (peak, _) in GPUS.items() if gpu in name), GPUS["4090"][0]) * REACHED


def _stage(
    recipe: Recipe,
    stage: Stage,
    part: Part,
    title: str,
    sizes: list[Example],
    config: KeyeConfig,
    model: Path,
    peak: float,
    runs: Runs,
    world: World,
    cuda: bool,
) -> tuple[StageEstimate, float]:
    """A part's estimate, and the bytes of memory that it takes."""
    count = len(sizes)
    tokens = sum(example.length(config) for example in sizes)
    per_epoch = max(1, math.ceil(tokens / (part.batch_tokens * part.accumulate))) if count else 0
    share = part.replay if part.replay_data else 0.0
    steps = part.steps or math.ceil(part.epochs * math.ceil(per_epoch / (1 - share)))
    new = steps * (1 - share)
    epochs = new / per_epoch if per_epoch else 0.0
    samples = ROLLOUTS if stage.kind in ("rl", "align") else 2 if stage.kind == "mpo" else 1
    again = 2.0 if stage.kind in ("mpo", "rl", "align") else 1.0  # the reference reads it, too
    by_role: tuple[Role, Role, Role] = ("frozen", "frozen", "passed") if part.lora else roles(part.train)
    passes = forward(config, sizes)
    work = epochs * samples * again * passes.step(*by_role) * (4 / 3 if part.recompute else 1.0)
    seen = epochs * tokens * samples
    batch = _batch(sizes, part, config)
    if (share and part.replay_data in (WORLD, WORLD_IN_MODES)) or part.data == WORLD:
        load = world.load(recipe, stage, replace(part, data=WORLD, steps=max(1, round(steps * share or steps))))
        work += load.training
        seen += load.tokens
        batch = Batch(*(max(a, b) for a, b in zip(vars(batch).values(), vars(load.batch).values(), strict=True)))
    elif share:
        work /= 1 - share
        seen /= 1 - share
    measured = _measured(runs, model, stage, part)
    seconds = seen / measured[1] if measured else work / peak
    took = memory(
        config,
        part.train,
        batch,
        1,
        lora=part.lora,
        four_bit=part.four_bit,
        copies=1 if stage.kind in ("mpo", "rl", "align") else 0,
    )
    held = took.least if part.recompute else took.full
    if not cuda:  # everything is float32: what is counted as two bytes is four
        held += took.weights + (took.checkpointed if part.recompute else took.activations)
    told = StageEstimate(title, count, steps, round(epochs * count), seconds, measured[0] if measured else None)
    return told, held


def _batch(sizes: list[Example], part: Part, config: KeyeConfig) -> Batch:
    tokens = sum(example.length(config) for example in sizes)
    full = min(1.0, part.batch_tokens / tokens) if tokens else 0.0
    learnt = sum(max(0, example.learnt) for example in sizes)
    return Batch(round(full * sum(e.patches for e in sizes)), round(full * tokens), round(full * learnt))


def _sizes(rows: Sequence[dict[str, object]], model: Path, config: KeyeConfig) -> list[Example]:
    """What the rows are to the model; those that are not looked at are as the others are."""
    if not rows:
        return []
    every = max(1, len(rows) // SAMPLED)
    seen = []
    for raw in rows[::every]:
        try:
            row = parse_row(_whole(raw), Path("/"), "a row")
            seen.append(_size(row, model))
        except Exception:  # a row that cannot be read is left out of the run as well
            continue
    return [seen[i * len(seen) // len(rows)] for i in range(len(rows))] if seen else []


def _whole(raw: dict[str, object]) -> dict[str, object]:
    """A preference's or a question's row as a conversation that has its answer."""
    told = raw.get("chosen") or raw.get("reference")
    messages = raw.get("messages")
    row = {key: value for key, value in raw.items() if key not in ("chosen", "rejected", "reference", "reward")}
    if isinstance(told, str) and isinstance(messages, list):
        row["messages"] = [*messages, {"role": "assistant", "content": told}]
    return row


def _size(row: Row, model: Path) -> Example:
    processor, sampling = _reader(model)
    items = []
    for medium in row.media:
        if isinstance(medium, Footage):
            planned = plan(probe(medium.clip.path), medium.clip, medium.sampling(sampling))
            items.append(Item(planned.frame_count, (planned.height // 14) * (planned.width // 14)))
        else:
            items.append(Item(1, 4 * 256))
    lengths = [len(processor.tokenizer(turn.text)["input_ids"]) for turn in row.turns]
    learnt = lengths[-1] + 1
    return Example(sum(lengths) + 5 * len(lengths) + 12, tuple(items), learnt)  # marks of turns, the system's line


@lru_cache(maxsize=4)
def _reader(model: Path) -> tuple[KeyeProcessor, Sampling]:
    return cast(KeyeProcessor, KeyeProcessor.from_pretrained(model)), sampling_for(model)


# -- what was measured ------------------------------------------------------------------------------------------


def _measured(runs: Runs, model: Path, stage: Stage, part: Part) -> tuple[str, float] | None:
    """The newest run that trained a model of this size here in the same way: its name, and its tokens a second."""
    here = _machine_name(machine())
    for run in runs.list(50):
        if not _alike(run, model) or _machine_name(_read_machine(run)) != here:
            continue
        for done in runs.stages(run.id):
            numbers = _numbers(run, done.name, stage.kind)
            same = numbers is not None and bool(numbers.get("lora")) == bool(part.lora)
            if same and done.seconds > 1 and done.tokens and done.status == "done":
                return run.name, done.tokens / done.seconds
    return None


def _alike(run: Run, model: Path) -> bool:
    if run.model is None:
        return False
    try:
        one, other = load_config(Path(run.model)), load_config(model)
    except Exception:  # its base is gone: nothing is known of it
        return False
    return parameters(one).built == parameters(other).built


def _numbers(run: Run, title: str, kind: str) -> dict[str, object] | None:
    """The numbers that a part of a run was trained with, if it is of this kind."""
    name, _, part = title.partition(".")
    for stage in run.recipe.get("stages", ()):
        if stage.get("name") == name and stage.get("kind") == kind:
            found = stage.get("parts", {}).get(part or name)
            return found if isinstance(found, dict) else None
    return None


def _read_machine(run: Run) -> dict[str, object]:
    try:
        found = json.loads((Path(run.folder) / "machine.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _machine_name(facts: dict[str, object]) -> tuple[object, ...]:
    return facts.get("processor"), facts.get("cores"), str(facts.get("gpus"))


# -- the disk ---------------------------------------------------------------------------------------------------


def _disk(recipe: Recipe, model: Path, config: KeyeConfig) -> float:
    """Bytes: of each part the model or adapter that it leaves, and of one part the state while it trains, twice,
    because the new one is written beside the old."""
    whole = float(sum(file.stat().st_size for file in weight_files(model)))
    held = parameters(config)
    size = {
        "tower": held.tower,
        "projector": held.projector,
        "decoder": held.decoder + held.embeddings + held.output,
    }
    left = state = 0.0
    for stage in recipe.stages:
        for part in stage.parts.values():
            moved = lora_parameters(config, part.lora) if part.lora else sum(size[m] for m in part.train)
            left += 4.0 * moved if part.lora else whole
            left += whole if part.lora and part.merge else 0.0
            state = max(state, 2 * 12.0 * moved)
    return left + state + (whole if recipe.evaluate.final else 0.0)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
