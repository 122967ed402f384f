"""Learning to answer: the next token of the assistant's turns, and what lies under every visual token."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.keye import KeyeForConditionalGeneration, KeyeProcessor
from finetune.errors import FinetuneError
from finetune.packing.batches import Batches, Diet
from finetune.packing.packed import PackedBatch, forward
from finetune.packing.probes import Probes, decoder_probes
from finetune.recipe import MODULES, Module, Part
from finetune.training.ahead import ahead
from finetune.training.checkpoint import write_model
from finetune.training.trainer import Group, Objective, Result, Scores, Work

WORLD = ("world",)
WORLD_IN_MODES = ("modes",)  # the same, asked in every mode, as the cold start learns it
"""The data of a part that learns from the generated world."""

BESIDE = "beside.safetensors"
"""In a part's folder: what was trained beside the model and is no part of it."""


@dataclass
class Start:
    """What a part begins with."""

    model: KeyeForConditionalGeneration
    processor: KeyeProcessor
    folder: Path  # of the model
    beside: Path | None  # file of what an earlier part trained beside it
    seed: str  # of the part's batches
    rank: int
    processes: int
    out: Path | None = None  # the part's own folder, for what it keeps while it trains


class Reading(Objective):
    """The model that reads a packed batch of the world."""

    def __init__(self, model: KeyeForConditionalGeneration, probes: Probes | None, dense: float) -> None:
        super().__init__()
        self.model, self.probes, self.dense = model, probes, dense

    def forward(self, batch: PackedBatch) -> Result:
        batch = batch.to(self.model.lm_head.weight.device)
        tower_grad = next(self.model.visual.parameters()).requires_grad
        logits, labels, visual = forward(self.model, batch, tower_grad)
        value = F.cross_entropy(logits.float(), labels, reduction="sum")
        scores = answers_right(logits.detach(), labels, batch)
        beside = value.new_zeros(())
        if self.probes is not None:
            seen = logits.new_zeros(0, self.model.config.hidden_size) if visual is None else visual
            nothing = {name: batch.labels.new_zeros(0) for name in self.probes.targets}
            dense, right = self.probes(seen, batch.truth or nothing)
            beside = self.dense * dense
            scores |= {f"token {name}": score for name, score in right.items()}
        return Result(value, beside, scores)


def diet_of(part: Part) -> Diet:
    """What the part's batches of the generated world are made of."""
    still, mixture = part.media == "pictures", dict(part.mixture)
    return Diet(still, part.things, part.seconds, mixture, part.chinese, part.plain)


class World:
    """Batches of the generated world, without end."""

    steps = 0

    def __init__(self, start: Start, part: Part) -> None:
        self._batches = Batches(start.model.position_rule(), start.processor, start.seed)
        self._diet = diet_of(part)
        self._rank = start.rank

    def make(self, number: int) -> PackedBatch:
        return self._batches.make(number, self._diet, self._rank)

    def learnt(self, batch: PackedBatch) -> int:
        return learnt_in(batch)

    def size(self, batch: PackedBatch) -> tuple[int, int]:
        return size_of(batch)


def learnt_in(batch: PackedBatch) -> int:
    """The tokens of a batch that are learnt."""
    return int((batch.labels != -100).sum())


def size_of(batch: PackedBatch) -> tuple[int, int]:
    """The answers of a batch, and its tokens."""
    return len(batch.kinds), batch.prefix_ids.numel() + int((batch.segments >= 0).sum())


def answers_right(logits: Tensor, labels: Tensor, batch: PackedBatch) -> Scores:
    """By kind of question: how many answers have every token right (given the ones before), and how many there are."""
    where = batch.kind_of[batch.labels != -100]
    wrong = labels.new_zeros(len(batch.kinds))
    wrong.index_add_(0, where, (logits.argmax(-1) != labels).long())
    out: Scores = {}
    for kind, errors in zip(batch.kinds, wrong.tolist(), strict=True):
        right, total = out.get(kind, (0, 0))
        out[kind] = (right + (errors == 0), total + 1)
    return out


def named_modules(model: KeyeForConditionalGeneration) -> dict[Module, dict[str, nn.Module]]:
    """The three modules that a recipe names, by the names that their weights have."""
    return {
        "tower": {"visual": model.visual},
        "projector": {"mlp_AR": model.mlp_AR},
        "decoder": {"model": model.model, "lm_head": model.lm_head},
    }


def groups(start: Start, part: Part, beside: dict[str, nn.Module]) -> list[Group]:
    """The modules that `part` trains and what is trained beside them; the tower, where it is not alone, slower: at
    the full rate it forgets what it sees."""
    named = named_modules(start.model)
    chosen = {name: module for m in MODULES if m in part.train and m != "tower" for name, module in named[m].items()}
    out = [Group({**chosen, **beside}, part.lr, part.muon_lr, part.weight_decay)] if chosen or beside else []
    if "tower" in part.train:
        share = part.tower_lr if chosen else 1.0
        out.append(Group(named["tower"], part.lr * share, part.muon_lr * share, part.weight_decay))
    return out


def world_work(start: Start, part: Part) -> Work:
    """The next token on the world, by the modules that the part names."""
    if part.data != WORLD:
        raise FinetuneError(f"This stage learns from the world; data = {list(part.data)} cannot be mixed with it.")
    torch.manual_seed(zlib.crc32(start.seed.encode()))  # a part that is gone on with begins with the same probes
    probes = decoder_probes(start.model) if part.dense else None
    if probes is not None:
        load_beside(probes, start.beside)
    objective = Reading(start.model, probes, part.dense)
    beside: dict[str, nn.Module] = {"probes": probes} if probes is not None else {}
    source = ahead(World(start, part), start.processes)
    return Work(objective, source, groups(start, part, beside), saver(start, probes))


def load_beside(module: nn.Module, file: Path | None) -> None:
    """What an earlier part of the same kind has learnt, where there is such a thing."""
    if file is None or not file.is_file():
        return
    state = load_file(file)
    if set(state) == set(module.state_dict()):
        module.load_state_dict(state)


def saver(start: Start, beside: nn.Module | None) -> Any:
    """Writes `folder`/model, and what was trained beside it next to that."""

    def save(folder: Path) -> None:
        if beside is not None:
            save_file({k: v.contiguous() for k, v in beside.state_dict().items()}, folder / BESIDE)
        write_model(folder / "model", start.model.state_dict(), start.folder)

    return save
