"""What a blind comparison says: who was found better, what is right by the references, and what follows from both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.answers.scoring import right
from finetune.feedback.trials import Pair
from finetune.measuring.intervals import Estimate, paired, share

SURE = 0.05
"""Level of the sign test below which a preference is more than chance."""

Advice = Literal["more", "better", "worse", "disagree", "equal"]
"""Nothing can be told yet; promote; do not; people and references say the opposite; no difference is seen."""


@dataclass(frozen=True)
class Figures:
    pairs: int  # that can be judged
    judged: int
    wins: int  # of the candidate
    losses: int
    both_good: int
    both_bad: int
    preferred: Estimate | None  # share of wins among the decided ones, 95 %
    chance: float  # that so uneven a count comes from a fair coin: the two-sided sign test
    scored: int  # questions with a reference that both answered
    before: Estimate | None  # share that the base has right
    after: Estimate | None  # and the candidate
    change: Estimate | None  # after − before, of the same questions

    def advice(self, with_scores: bool) -> Advice:
        """What follows; without the scores, from what was judged alone."""
        decided = self.wins + self.losses
        people = 0 if self.chance >= SURE else (1 if self.wins > self.losses else -1)
        scores = 0
        if with_scores and self.change is not None:
            scores = (self.change.low > 0) - (self.change.high < 0)
        if people * scores < 0:
            return "disagree"
        if people + scores:
            return "better" if people + scores > 0 else "worse"
        enough = self.judged >= _ENOUGH or (with_scores and self.scored >= _ENOUGH)
        return "equal" if enough and (decided or self.judged or self.scored) else "more"


_ENOUGH = 10  # questions from which "no difference" is worth saying


def sign_test(wins: int, losses: int) -> float:
    """The probability that a fair coin falls at least so unevenly, either way; 1 of nothing."""
    n, k = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def figures(pairs: Sequence[Pair]) -> Figures:
    """What the complete pairs say so far."""
    said = [pair.verdict for pair in pairs if pair.verdict is not None]
    wins, losses = said.count("candidate"), said.count("base")
    scored = [
        (right(pair.base["text"], pair.asked.reference), right(pair.candidate["text"], pair.asked.reference))
        for pair in pairs
        if pair.base is not None and pair.candidate is not None and pair.asked.reference
    ]
    n = len(scored)
    both, neither = scored.count((True, True)), scored.count((False, False))
    gained, lost = scored.count((False, True)), scored.count((True, False))
    return Figures(
        pairs=sum(pair.both_say for pair in pairs),
        judged=len(said),
        wins=wins,
        losses=losses,
        both_good=said.count("both_good"),
        both_bad=said.count("both_bad"),
        preferred=share(wins, wins + losses) if wins + losses else None,
        chance=sign_test(wins, losses),
        scored=n,
        before=share(both + lost, n) if n else None,
        after=share(both + gained, n) if n else None,
        change=paired(both, gained, lost, neither) if n else None,
    )
