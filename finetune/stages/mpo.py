"""Mixed preference optimisation (report, section 4.1.2): of two answers to a question the better one is preferred, told
as good by itself, and learnt.

From files: pairs of a chosen and a rejected answer. From the world: what is chosen is the true answer and what is
rejected a wrong one of the model's own, the report's self-improvement. The reference, by which it is measured how far
the model has moved, is the model that the part begins with; what it says of every answer is computed once, before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from engine.keye import KeyeForConditionalGeneration
from engine.reasoning.modes import ModeName
from finetune.answers.queries import WorldQueries
from finetune.answers.scorer import scorer
from finetune.data.conversations import Conversations
from finetune.data.jsonl import Rows
from finetune.data.problems import Problems
from finetune.errors import FinetuneError
from finetune.recipe import Part, Stage
from finetune.stages import sft
from finetune.stages.preferring import PairBatch, Preferring, pair_batch, reference_log_probs
from finetune.stages.reading import WORLD, Start, diet_of
from finetune.stages.rounds import RoundPairs, forget_rounds
from finetune.training.trainer import Work

__all__ = ["check", "load", "work"]

load = sft.load


def check(stage: Stage) -> None:
    """FinetuneError where a part cannot be run as it is written."""
    sft.check(stage)
    for name, part in stage.parts.items():
        if part.data == WORLD and not direct_modes(part):
            where = stage.name if name == stage.name else f"{stage.name}.{name}"
            raise FinetuneError(f'The world knows answers and no thoughts; give {where}.modes = ["no_think"].')


def direct_modes(part: Part) -> list[ModeName]:
    """The modes in which the world's known answers are given."""
    return [mode for mode in part.modes if mode != "think"]


class FilePairs(sft.Talks):
    """Packed batches of the pairs of files, with what the reference says of them."""

    def __init__(
        self, rows: Rows, conversations: Conversations, part: Part, seed: str, rank: int, processes: int,
        reference: Tensor,
    ) -> None:  # fmt: skip
        super().__init__(rows, conversations, part, seed, rank, processes)
        self.reference = reference

    def size(self, batch: PairBatch) -> tuple[int, int]:
        return batch.learnt, batch.batch.input_ids.shape[1]

    def _make(self, chosen: Sequence[int]) -> PairBatch:
        known = [i for i in chosen if not bool(self.reference[i].isnan().any())]
        read = list(self._read(known, self.conversations.pair))
        return pair_batch([pair for _, pair in read], self.reference[[i for i, _ in read]])


def work(start: Start, part: Part) -> Work:
    """The loss of MPO on pairs, by the modules that the part names or by LoRA beside the decoder."""
    model: KeyeForConditionalGeneration = start.model
    conversations = sft.conversations_of(start, part)
    source: FilePairs | RoundPairs
    if part.data == WORLD:
        forget_rounds(start, "round-*-{rank}.json")
        queries = WorldQueries(start.seed, diet_of(part))
        judged = scorer(part.answer_tokens, part.judge)
        source = RoundPairs(start, part, queries, conversations, judged, "truth", 1, direct_modes(part))
        problems = lost = Problems()
    else:
        rows, problems = sft.checked_rows(start, part, conversations, "pair")
        training = model.training
        reference = reference_log_probs(start, rows, conversations, part.batch_tokens)  # before anything is adapted
        model.train(training)
        source = FilePairs(rows, conversations, part, start.seed, start.rank, start.processes, reference)
        lost = source.lost
    moved, save_weights, _ = sft.moved_by(start, part)

    def save(folder: Path) -> None:
        save_weights(folder)
        if isinstance(source, RoundPairs):
            sft.write_facts(folder, part, 0, problems, lost, rounds=source.told)
        else:
            sft.write_facts(folder, part, len(source.rows), problems, lost)

    return Work(Preferring(model, part.beta), source, moved, save)
