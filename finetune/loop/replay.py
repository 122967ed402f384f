"""Old skills beside new ones: a share of a part's steps goes over what the model knew before, so that it stays.

Whole steps are one or the other, because a loss is a mean over all that a step learns: beside a batch of the world, a
few rows of feedback would count for next to nothing."""

from __future__ import annotations

import math
from typing import Any

from finetune.training.trainer import Objective, Result, Source


class Replayed:
    """New and old steps in turn, spread evenly; which is which depends on the step's number alone."""

    def __init__(self, new: Source, old: Source, share: float, accumulate: int) -> None:
        """`share` (0 ≤ share < 1) of the steps is old. Both sources count batches on their own, from 0."""
        self.new, self.old, self.share, self.accumulate = new, old, share, accumulate
        self.steps = math.ceil(new.steps / (1 - share))

    def make(self, number: int) -> Any:
        step, batch = divmod(number, self.accumulate)
        before = math.floor(step * self.share)
        if math.floor((step + 1) * self.share) > before:
            return self.old.make(before * self.accumulate + batch)
        return self.new.make((step - before) * self.accumulate + batch)

    def learnt(self, batch: Any) -> int:
        return self._of(batch).learnt(batch)

    def size(self, batch: Any) -> tuple[int, int]:
        return self._of(batch).size(batch)

    def _of(self, batch: Any) -> Source:
        from finetune.packing.packed import PackedBatch

        return self.old if isinstance(batch, PackedBatch) else self.new


class Both(Objective):
    """One model that reads either kind of batch."""

    def __init__(self, new: Objective, old: Objective) -> None:
        super().__init__()
        self.new, self.old = new, old

    @property
    def model(self) -> Any:
        return self.new.model

    def forward(self, batch: Any) -> Result:
        from finetune.packing.packed import PackedBatch

        return (self.old if isinstance(batch, PackedBatch) else self.new)(batch)
