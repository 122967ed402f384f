"""Intervals of differences and means, against the examples of the papers and a simulation."""

from __future__ import annotations

import math
import random

import pytest

from finetune.measuring.intervals import Estimate, difference, mean, paired, phi, share


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998, page 2635, method 10
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman, Statistics with Confidence, page 52
    ],
)
def test_the_same_questions_twice(table: tuple[int, int, int, int], low: float, high: float) -> None:
    both, first, second, _ = table
    found = paired(*table)
    assert found.value == pytest.approx((first - second) / sum(table))
    assert (found.low, found.high) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))
    turned = paired(both, second, first, table[3])
    assert turned == pytest.approx((-found.value, -found.high, -found.low))


def test_separate_questions() -> None:
    found = difference(share(56, 70), share(48, 80))  # Newcombe 1998, page 873, method 10
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=6e-5)


def test_pairs_that_agree_make_a_narrower_interval_and_pairs_that_do_not_a_wider_one() -> None:
    apart = difference(share(80, 100), share(80, 100))
    alike, against = paired(78, 2, 2, 18), paired(60, 20, 20, 0)
    assert alike.high - alike.low < 0.5 * (apart.high - apart.low)
    assert against.high - against.low > apart.high - apart.low
    assert phi(0, 0, 0, 5) == phi(5, 0, 0, 0) == 0.0


def test_a_mean_of_several() -> None:
    assert mean([]) is None
    assert mean([Estimate(0.5, 0.4, 0.7)]) == pytest.approx((0.5, 0.4, 0.7))
    # By hand: below hypot(0.1, 0.2) / 2, above hypot(0.2, 0.1) / 2.
    half = math.hypot(0.1, 0.2) / 2
    found = mean([Estimate(0.5, 0.4, 0.7), Estimate(0.9, 0.7, 1.0)])
    assert found == pytest.approx((0.7, 0.7 - half, 0.7 + half))


def test_the_interval_of_a_mean_difference_holds_the_truth_as_often_as_it_says() -> None:
    """400 made-up comparisons of two models on the same questions of five kinds."""
    rng = random.Random(0)
    kinds = [(0.9, 0.06, 0.02), (0.7, 0.1, 0.1), (0.5, 0.15, 0.05), (0.3, 0.1, 0.05), (0.8, 0.02, 0.1)]
    truth = sum(first - second for _, first, second in kinds) / len(kinds)
    held = 0
    for _ in range(400):
        several = []
        for both, first, second in kinds:
            table = [0, 0, 0, 0]
            for _ in range(80):
                drawn = rng.random()
                edges = (both * (1 - first - second), first, second)
                at = next((i for i in range(3) if drawn < sum(edges[: i + 1])), 3)
                table[at] += 1
            several.append(paired(*table))
        found = mean(several)
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.99
