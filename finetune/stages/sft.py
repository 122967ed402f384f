"""Supervised fine-tuning on files of conversations: the next token of the assistant's turns. The stages before it
learn from files in the same way.

The weights themselves, LoRA beside the decoder's, or LoRA beside the decoder in 4 bits. A row that cannot be learnt
from is left out before training, counted and named."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel
from torch import Tensor

from engine.keye import KeyeForConditionalGeneration, load_model
from engine.video import sampling_for
from finetune.data.cache import FrameStore
from finetune.data.collate import Batch, collate, plan_epoch, read
from finetune.data.conversations import Conversations
from finetune.data.jsonl import Rows, load_rows
from finetune.data.problems import BadRow, Problems
from finetune.data.rows import Row, Use
from finetune.errors import FinetuneError
from finetune.loop.replay import Both, Replayed
from finetune.recipe import Part, Stage
from finetune.stages.cold_start import Modes
from finetune.stages.reading import WORLD, WORLD_IN_MODES, Reading, Start, World, groups, world_work
from finetune.training.adapters import TARGETS, add_lora, lora_modules, merge_adapter, save_adapter
from finetune.training.ahead import ahead
from finetune.training.checkpoint import stored_dtype, write_model
from finetune.training.losses import next_token_loss
from finetune.training.trainer import Group, Objective, Result, Source, Work

T = TypeVar("T")

AHEAD = 4
"""Batches that are made while one is learnt."""


def check(stage: Stage) -> None:
    """FinetuneError where a part cannot be run as it is written."""
    for name, part in stage.parts.items():
        where = stage.name if name == stage.name else f"{stage.name}.{name}"
        if part.data == WORLD:
            continue
        if not part.data or "world" in part.data:
            raise FinetuneError(f"Say what {where} learns from: --data FILE.jsonl, or {where}.data in the recipe.")
        if not 1 <= part.views <= len(VIEWS) or (part.views > 1 and stage.kind != "sft"):
            raise FinetuneError(f"{where}.views is 1 to {len(VIEWS)}, and 1 but for fine-tuning on conversations.")
        if part.four_bit and not part.lora:
            raise FinetuneError(f"{where}: weights in 4 bits cannot be trained themselves; give lora = 16 as well.")
        for file in (*part.data, *(part.replay_data if part.replay_data not in (WORLD, WORLD_IN_MODES) else ())):
            if not Path(file).is_file():
                raise FinetuneError(f"There is no file {file}; give a .jsonl file of conversations.")


def load(folder: Path, part: Part, device: torch.device) -> KeyeForConditionalGeneration:
    """The model of `folder` as `part` trains it, on `device`. Weights that move are float32; those that only carry an
    adapter are in half of it on a GPU, or in 4 bits."""
    cuda = device.type == "cuda"
    kind = torch.bfloat16 if part.lora and cuda else torch.float32
    attention = "flash_attention_2" if cuda and importlib.util.find_spec("flash_attn") else None
    model = load_model(folder, kind, attention, device, part.four_bit)
    assert isinstance(model, KeyeForConditionalGeneration)
    if part.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


class Answering(Objective):
    """The model that learns what the assistant said."""

    def __init__(self, model: KeyeForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Result:
        head: Tensor = self.model.lm_head.weight
        batch = batch.to(head.device)
        loss, _ = next_token_loss(read(self.model, batch), head, batch.labels)
        return Result(loss, loss.new_zeros(()), {})


VIEWS = (1.0, 0.5, 0.75)
"""Shares of a clip's frames a second: of each time that it is gone through, one after the other. The report learns from
every video with two numbers of frames; few clips are less easily learnt by heart so."""


class Talks:
    """Packed batches of rows, made ahead by threads. The same number always makes the same batch."""

    def __init__(self, rows: Rows, conversations: Conversations, part: Part, seed: str, rank: int, processes: int):
        self.rows, self.conversations, self.seed = rows, conversations, seed
        self.rank, self.processes, self.most, self.views = rank, processes, part.batch_tokens, part.views
        self.lost = Problems()  # rows that were good before training and cannot be read any more
        self._multiple = processes * part.accumulate
        self._plans: dict[int, list[list[int]]] = {}
        self._per_epoch = len(self._plan(0)) // processes
        self.steps = self._per_epoch // part.accumulate
        self._last = math.ceil((part.steps or part.epochs * self.steps) * part.accumulate)
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="batches")
        self._made: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()

    def make(self, number: int) -> Any:
        for n in range(number, min(number + AHEAD + 1, max(self._last, number + 1))):
            if n not in self._made:
                self._made[n] = self._pool.submit(self._make, self._rows_of(n))
        return self._made.pop(number).result()

    def learnt(self, batch: Any) -> int:
        return int(batch.learnt)

    def size(self, batch: Any) -> tuple[int, int]:
        return batch.examples, batch.input_ids.shape[1]

    def _plan(self, epoch: int) -> list[list[int]]:
        if epoch not in self._plans:
            self._plans = {epoch: plan_epoch(self.rows.lengths, self.most, self.seed, epoch, self._multiple)}
        return self._plans[epoch]

    def _rows_of(self, number: int) -> list[int]:
        """Which rows make a batch; beyond the last row they are the same again in the next view."""
        epoch, at = divmod(number, self._per_epoch)
        first = epoch % self.views * len(self.rows)
        return [first + i for i in self._plan(epoch)[at * self.processes + self.rank]]

    def _make(self, chosen: list[int]) -> Any:
        return collate([example for _, example in self._read(chosen, self.conversations.example)])

    def _read(self, chosen: list[int], read_row: Callable[[Row], T]) -> Iterator[tuple[int, T]]:
        """Rows as `read_row` makes them, with their numbers; what cannot be read any more is told and left out."""
        for i in chosen:
            view, at = divmod(i, len(self.rows))
            row = self.rows[at]
            if view:
                row = row.seen_at(VIEWS[view], self.conversations.sampling)
            try:
                yield i, read_row(row)
            except BadRow as problem:
                with self._lock:
                    self.lost.add(row.where, problem)
                print(f"{row.where} was left out: it {problem}.", file=sys.stderr)


def with_replay(start: Start, part: Part, objective: Objective, source: Source) -> tuple[Objective, Source]:
    """The same with the steps that go over old skills, where the part has any."""
    if not part.replay or not part.replay_data:
        return objective, source
    if part.replay_data in (WORLD, WORLD_IN_MODES):
        world: Source = World(start, part) if part.replay_data == WORLD else Modes(start, part)
        old = ahead(world, start.processes)
        objective = Both(objective, Reading(start.model, None, 0.0))
    else:
        old, _ = talks(replace(start, seed=f"{start.seed}-replay"), replace(part, data=part.replay_data))
    return objective, Replayed(source, old, part.replay, part.accumulate)


def conversations_of(start: Start, part: Part) -> Conversations:
    """How the part's model reads conversations; decoded clips are kept in the part's cache."""
    model = start.model
    longest = min(model.config.max_position_embeddings, part.batch_tokens)
    frames = FrameStore(Path(part.cache), int(part.cache_gb * 1e9))
    return Conversations(start.processor, model.position_rule(), sampling_for(start.folder), longest, frames)


def checked_rows(
    start: Start,
    part: Part,
    conversations: Conversations,
    use: Use,
    fits: Callable[[Row], None] | None = None,
) -> tuple[Rows, Problems]:
    """The rows of the part's files that can be learnt from, and what was left out, which is told. `fits` raises BadRow
    for a row of which nothing can be learnt here."""
    cache = Path(part.cache)
    tokenizer = (start.folder / "tokenizer.json").stat()
    depends = f"{asdict(conversations.sampling)} {conversations.longest} {tokenizer.st_size} {tokenizer.st_mtime_ns}"

    def length(row: Row) -> int:
        if fits is not None:
            fits(row)
        return conversations.length(row)

    depends += f" {fits.__qualname__ if fits else ''}"
    rows, problems = load_rows([Path(file) for file in part.data], length, cache, depends, use=use)
    if start.rank == 0:
        what = {"example": "conversations", "pair": "pairs of answers", "question": "questions"}[use]
        print(f"{len(rows):,} {what} of {', '.join(part.data)} are learnt.", file=sys.stderr)
        for line in problems.lines():
            print(f"Left out: {line}.", file=sys.stderr)
    return rows, problems


def talks(
    start: Start, part: Part, kind: type[Talks] = Talks, fits: Callable[[Row], None] | None = None
) -> tuple[Talks, Problems]:
    """The checked rows of the part's files as batches of a `kind`, and what was left out of them."""
    conversations = conversations_of(start, part)
    rows, problems = checked_rows(start, part, conversations, "example", fits)
    return kind(rows, conversations, part, start.seed, start.rank, start.processes), problems


def moved_by(start: Start, part: Part) -> tuple[list[Group], Callable[[Path], None], PeftModel | None]:
    """What the part trains: LoRA beside the decoder's weights, or the modules that it names; how that is written to a
    folder; and the adapted model, where there is one."""
    if not part.lora:

        def save_model(folder: Path) -> None:
            kind = None if part.data == WORLD else stored_dtype(start.folder)
            write_model(folder / "model", start.model.state_dict(), start.folder, kind)

        return groups(start, part, {}), save_model, None
    adapted = add_lora(start.model, start.folder, part.lora, part.lora_alpha, part.targets or TARGETS, start.seed)

    def save(folder: Path) -> None:
        save_adapter(adapted, folder / "adapter")
        if part.merge:
            merge_adapter(start.folder, folder / "adapter", folder / "model")

    return [Group(lora_modules(start.model), part.lr, part.muon_lr, part.weight_decay)], save, adapted


def write_facts(folder: Path, part: Part, learnt: int, problems: Problems, lost: Problems, **more: Any) -> None:
    """data.json: what was learnt from, and what was left out and why."""
    facts: dict[str, Any] = {"files": list(part.data), "learnt": learnt, "left_out": problems.as_json(), **more}
    if lost.total:
        facts["lost"] = lost.as_json()
    (folder / "data.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def work(start: Start, part: Part) -> Work:
    """Full fine-tuning of the modules that the part names, or LoRA beside the decoder's. The world is one more
    file of conversations, without end."""
    if part.data == WORLD:
        return world_work(start, part)
    source, problems = talks(start, part)
    moved, save_weights, _ = moved_by(start, part)

    def save(folder: Path) -> None:
        save_weights(folder)
        write_facts(folder, part, len(source.rows), problems, source.lost)

    objective, mixed = with_replay(start, part, Answering(start.model), source)
    return Work(objective, mixed, moved, save)
