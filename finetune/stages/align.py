"""Iterative alignment (report, section 4.2.3): in rounds, the model answers, rules and a judge where there is one score
the answers, the best and the worst become a pair, and MPO learns from the pairs. The next round asks the better model.

It is to end what rules see: answers that go round in circles, that miss their format, that do not follow from their
thoughts. How many rounds, which rules and which weights the report does not say; ours are in
finetune.answers.rewards."""

from __future__ import annotations

from pathlib import Path

from finetune.answers.queries import FileQueries
from finetune.answers.scorer import scorer
from finetune.recipe import Part
from finetune.stages import sft
from finetune.stages.preferring import Preferring
from finetune.stages.reading import Start
from finetune.stages.rl import queries_of
from finetune.stages.rounds import RoundPairs, forget_rounds
from finetune.training.trainer import Work

__all__ = ["check", "load", "work"]

check, load = sft.check, sft.load


def work(start: Start, part: Part) -> Work:
    """`part.rounds` rounds of equally many steps; each asks as many questions as its batches could hold pairs."""
    conversations = sft.conversations_of(start, part)
    queries, problems = queries_of(start, part, conversations)
    forget_rounds(start, "round-*-{rank}.json")
    judged = scorer(part.answer_tokens, part.judge)
    source = RoundPairs(start, part, queries, conversations, judged, "best", part.rounds, part.modes)
    moved, save_weights, _ = sft.moved_by(start, part)

    def save(folder: Path) -> None:
        save_weights(folder)
        lost = queries.lost if isinstance(queries, FileQueries) else problems
        sft.write_facts(folder, part, queries.steps, problems, lost, rounds=source.told, judge_failed=judged.failed)

    return Work(Preferring(start.model, part.beta), source, moved, save)
