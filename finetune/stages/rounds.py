"""Pairs of the model's own making: it answers, its answers are scored, and of each question two are kept.

In rounds: what a round learns from was written by the model as it stood when the round began, which is also the model
that this round is not to leave (report, section 4.2.3). A round lies in the part's folder, so that a run that was
killed goes on with the same pairs."""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from engine.reasoning.modes import ModeName
from engine.runtime.base import Decoding
from finetune.answers.queries import Queries, Query
from finetune.answers.rewards import Score
from finetune.answers.rollouts import ModelRoller, Rolled
from finetune.answers.scorer import Scorer
from finetune.data.conversations import Conversations, Prompt
from finetune.data.problems import BadRow
from finetune.errors import FinetuneError
from finetune.recipe import Part
from finetune.stages.preferring import PairBatch, answer_log_probs, pair_batch, write_json
from finetune.stages.reading import Start

MARGIN = 0.05
"""Of two answers that differ by less in score none is the better one."""

Chosen = Literal["best", "truth"]
"""What is preferred to the worst answer: the best one, or the known answer itself."""


@dataclass(frozen=True)
class Pair:
    """Two answers to question `number`, as tokens, and what the reference says of them."""

    number: int
    mode: ModeName
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    reference: tuple[float, float]


@dataclass(frozen=True)
class Round:
    pairs: list[Pair]
    asked: int  # questions
    same: int  # of which no two answers were apart enough, or none was right
    lost: int  # that could not be read any more
    score: float  # mean of all answers


class RoundPairs:
    """Batches of pairs, round after round; the same number always makes the same batch."""

    def __init__(
        self, start: Start, part: Part, queries: Queries, conversations: Conversations, scorer: Scorer, chosen: Chosen,
        rounds: int, modes: Sequence[ModeName],
    ) -> None:  # fmt: skip
        self.start, self.part, self.queries, self.conversations = start, part, queries, conversations
        self.scorer, self.chosen, self.modes = scorer, chosen, tuple(modes)
        self.steps = queries.steps // (part.questions * part.accumulate * start.processes)
        batches = (part.steps or math.ceil(part.epochs * self.steps)) * part.accumulate
        self._of_round = max(1, math.ceil(batches / rounds))
        self._roller = ModelRoller(start.model, conversations)
        self._round: tuple[int, Round] | None = None
        self.told: list[dict[str, float]] = []

    def make(self, number: int) -> PairBatch:
        which, at = divmod(number, self._of_round)
        pairs = self._pairs(which)
        if not pairs:
            return pair_batch([], torch.zeros(0, 2), at == 0)
        order = list(range(len(pairs)))
        random.Random(f"{self.start.seed}-{which}").shuffle(order)
        first = at * self.part.questions
        count = min(self.part.questions, len(pairs))
        taken = [pairs[order[i % len(pairs)]] for i in range(first, first + count)]
        made, reference = [], []
        for pair in taken:
            prompt = self._prompt(pair.number, pair.mode)
            if prompt is not None:
                made.append((prompt.answered(pair.chosen), prompt.answered(pair.rejected)))
                reference.append(pair.reference)
        return pair_batch(made, torch.tensor(reference), at == 0)

    def learnt(self, batch: PairBatch) -> int:
        return batch.learnt

    def size(self, batch: PairBatch) -> tuple[int, int]:
        return batch.learnt, batch.batch.input_ids.shape[1]

    def _prompt(self, number: int, mode: ModeName, query: Query | None = None) -> Prompt | None:
        query = query or self.queries.make(number)
        try:
            return None if query is None else self.conversations.prompt(query.asked(mode))
        except BadRow:
            return None

    # -- a round ----------------------------------------------------------------------------------------------------

    def _pairs(self, which: int) -> list[Pair]:
        if self._round is None or self._round[0] != which:
            file = self.start.out / f"round-{which}-{self.start.rank}.json" if self.start.out else None
            found = _stored(file)
            if found is None:
                found = self._draw(which)
                if file is not None:
                    write_json(file, asdict(found))
            self._round = which, found
            self.told.append({"round": which, **{k: v for k, v in asdict(found).items() if k != "pairs"}})
        return self._round[1].pairs

    def _draw(self, which: int) -> Round:
        asked = self.part.questions * self._of_round
        pairs: list[Pair] = []
        scores: list[float] = []
        same = lost = 0
        for i in range(asked):
            number = (which * asked + i) * self.start.processes + self.start.rank
            mode = self.modes[i % len(self.modes)]
            query = self.queries.make(number)
            prompt = self._prompt(number, mode, query)
            if query is None or prompt is None:
                lost += 1
                continue
            decoding = Decoding(
                self.part.answer_tokens, False, self.part.temperature, 1.0, 0, seed_of(self.start.seed, number, mode)
            )
            rolled = self._roller.roll(prompt, self.part.samples, decoding)
            scored = [self.scorer(query, mode, one) for one in rolled]
            scores += [one.total for one in scored]
            found = self._chosen(query, rolled, scored)
            if found is None:
                same += 1
                continue
            with torch.no_grad():
                both = pair_batch([(prompt.answered(found[0]), prompt.answered(found[1]))], torch.zeros(1, 2))
                summed, _ = answer_log_probs(self.start.model, both.batch, 2)
            pairs.append(Pair(number, mode, *found, (float(summed[0]), float(summed[1]))))
        return Round(pairs, asked, same, lost, sum(scores) / max(1, len(scores)))

    def _chosen(
        self, query: Query, rolled: list[Rolled], scored: list[Score]
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The two answers to learn from, the better one first; None where there are none. An answer that is not right
        is never preferred: the loss would teach it as well."""
        order = sorted(range(len(rolled)), key=lambda i: (scored[i].total, -i))
        worst, best = order[0], order[-1]
        if self.chosen == "truth":
            truth = tuple(self.conversations.answer(query.reference))
            wrong = scored[worst].parts["correct"] < 0.5 and rolled[worst].ids != truth
            return (truth, rolled[worst].ids) if wrong else None
        apart = scored[best].total - scored[worst].total >= MARGIN
        right = scored[best].parts["correct"] >= 0.5
        return (rolled[best].ids, rolled[worst].ids) if apart and right else None


def seed_of(*parts: object) -> int:
    """A seed of what a draw depends on."""
    return zlib.crc32("-".join(map(str, parts)).encode())


def _stored(file: Path | None) -> Round | None:
    if file is None or not file.is_file():
        return None
    try:
        data = json.loads(file.read_text("utf-8"))
        pairs = [
            Pair(p["number"], p["mode"], tuple(p["chosen"]), tuple(p["rejected"]), tuple(p["reference"]))
            for p in data.pop("pairs")
        ]
        return Round(pairs, **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetuneError(f"{file} is damaged ({error}); delete it and give the same command again.") from error


def forget_rounds(start: Start, pattern: str) -> None:
    """Where a part begins anew, what an earlier attempt drew is of other weights."""
    if start.out and start.out.is_dir() and not (start.out / "state.pt").is_file():
        for file in start.out.glob(pattern.format(rank=start.rank)):
            file.unlink(missing_ok=True)
