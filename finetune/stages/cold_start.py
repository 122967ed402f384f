"""Reasoning, cold start (report, section 4.2.1): all modes in one run, each with its switch and its own way to answer.

Direct answers, thoughts, answers that begin with the choice between the two, and thoughts that look closer at the
picture; in the published proportions where the recipe says no others."""

from __future__ import annotations

import zlib
from typing import get_args

import torch
from torch import nn

from engine.reasoning.modes import ModeName
from finetune.errors import FinetuneError
from finetune.packing.cold_batches import ColdBatches
from finetune.packing.packed import PackedBatch
from finetune.packing.probes import decoder_probes
from finetune.recipe import Part, Stage
from finetune.stages.reading import WORLD, Reading, Start, groups, learnt_in, load_beside, saver, size_of
from finetune.training.ahead import ahead
from finetune.training.trainer import Work


def check(stage: Stage) -> None:
    """FinetuneError where a part cannot be run as it is written."""
    names = get_args(ModeName)
    for name, part in stage.parts.items():
        where = stage.name if name == stage.name else f"{stage.name}.{name}"
        if part.data != WORLD:
            raise FinetuneError(f"{where} learns the modes from the world; leave out {where}.data.")
        odd = sorted(set(part.counts) - set(names))
        if odd:
            raise FinetuneError(f"{where}.counts knows no mode {odd[0]}; there are {', '.join(names)}.")
        if part.counts and (min(part.counts.values()) < 0 or not any(part.counts[n] for n in part.counts)):
            raise FinetuneError(f"{where}.counts must be numbers of examples, at least one above 0.")
        if set(part.counts) == {"think_with_image"}:
            raise FinetuneError(f"{where}.counts needs another mode beside think_with_image.")


class Modes:
    """Batches of the world in the modes, without end."""

    steps = 0

    def __init__(self, start: Start, part: Part) -> None:
        self._batches = ColdBatches(start.model.position_rule(), start.processor, start.seed, part.counts, part.seconds)
        self._rank = start.rank

    def make(self, number: int) -> PackedBatch:
        return self._batches.make_modes(number, self._rank)

    def learnt(self, batch: PackedBatch) -> int:
        return learnt_in(batch)

    def size(self, batch: PackedBatch) -> tuple[int, int]:
        return size_of(batch)


def work(start: Start, part: Part) -> Work:
    """The next token of what is written in the modes, by the modules that the part names."""
    torch.manual_seed(zlib.crc32(start.seed.encode()))  # a part that is gone on with begins with the same probes
    probes = decoder_probes(start.model) if part.dense else None
    if probes is not None:
        load_beside(probes, start.beside)
    beside: dict[str, nn.Module] = {"probes": probes} if probes is not None else {}
    objective = Reading(start.model, probes, part.dense)
    source = ahead(Modes(start, part), start.processes)
    return Work(objective, source, groups(start, part, beside), saver(start, probes))
