"""How sure a difference of two shares is, and a mean of several; 95 % intervals throughout.

Wilson's interval of each share (finetune.answers.scoring) is carried over to the difference by squaring and adding
(Newcombe, Statistics in Medicine 17, 1998: page 873 for separate questions, page 2635 for the same questions asked
twice), and to a mean of independent shares in the same way (Zou and Donner, Statistics in Medicine 27, 2008)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from finetune.answers.scoring import wilson


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


def share(right: int, total: int) -> Estimate:
    """A share of `total` questions, which must be at least one."""
    return Estimate(right / total, *wilson(right, total))


def difference(first: Estimate, second: Estimate, correlation: float = 0.0) -> Estimate:
    """`first` − `second`. `correlation` is that of the two over the questions (`phi`), 0 where these are others."""
    d = first.value - second.value
    below = _added(first.value - first.low, second.high - second.value, correlation)
    above = _added(first.high - first.value, second.value - second.low, correlation)
    return Estimate(d, max(-1.0, d - below), min(1.0, d + above))


def paired(both: int, only_first: int, only_second: int, neither: int) -> Estimate:
    """The difference of two shares right among the same questions, from how many both, one or none has right."""
    total = both + only_first + only_second + neither
    first, second = share(both + only_first, total), share(both + only_second, total)
    return difference(first, second, phi(both, only_first, only_second, neither))


def phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """The correlation of two rights and wrongs, 0 where one of them is all right or all wrong; a positive one is
    reduced by half a question (Newcombe's method 10)."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if not margins:
        return 0.0
    above = both * neither - only_first * only_second
    total = both + only_first + only_second + neither
    return (max(above - total / 2, 0.0) if above > 0 else above) / math.sqrt(margins)


def mean(several: Sequence[Estimate]) -> Estimate | None:
    """The unweighted mean of independent shares or differences; None of nothing."""
    if not several:
        return None
    n = len(several)
    value = sum(one.value for one in several) / n
    below = math.hypot(*(one.value - one.low for one in several)) / n
    above = math.hypot(*(one.high - one.value for one in several)) / n
    return Estimate(value, value - below, value + above)


def _added(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))
