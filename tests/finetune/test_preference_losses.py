"""The losses of preferences and of reinforcement against values worked by hand and figures recorded from TRL."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from finetune.training.losses import bco_loss, dpo_loss, group_advantages, grpo_loss, mpo_loss

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_losses.json"


def one(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_the_published_loss_by_hand() -> None:
    """Chosen moved by 2, rejected by −1, shift 0.15, half a nat a token, β 0.1:
    0.8·ln(1+e^−0.3) + 0.2·(ln(1+e^−0.05) + ln(1+e^−0.25)) + 0.5 = 0.4435 + 0.2489 + 0.5."""
    loss, parts = mpo_loss(one(2.0), one(-1.0), one(-0.5), 0.1, 0.15)
    assert float(loss) == pytest.approx(1.1924, abs=1e-4)
    assert float(parts["preference"]) == pytest.approx(math.log(1 + math.exp(-0.3)), abs=1e-6)
    assert float(parts["quality"]) == pytest.approx(math.log1p(math.exp(-0.05)) + math.log1p(math.exp(-0.25)), abs=1e-6)
    assert float(parts["generation"]) == 0.5


def test_a_model_that_has_not_moved_costs_two_to_the_half() -> None:
    assert float(dpo_loss(one(0.0), one(0.0), 0.1)) == pytest.approx(math.log(2), abs=1e-7)
    assert float(bco_loss(one(0.0), one(0.0), 0.1, 0.0)) == pytest.approx(2 * math.log(2), abs=1e-7)


def test_the_shift_counts_for_the_quality_alone() -> None:
    assert float(bco_loss(one(1.0), one(1.0), 1.0, 1.0)) == pytest.approx(2 * math.log(2), abs=1e-6)
    high, _ = mpo_loss(one(1.0), one(1.0), one(0.0), 1.0, 1.0)
    assert float(high) == pytest.approx(0.8 * math.log(2) + 0.2 * 2 * math.log(2), abs=1e-6)


def test_advantages_by_hand() -> None:
    """Rewards 1, 0, 0, 1: half from the mean, a deviation of √(1/3). A group without spread teaches nothing."""
    found = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.7, 0.7, 0.7, 0.7]]))
    value = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    torch.testing.assert_close(found, torch.tensor([[value, -value, -value, value], [0.0] * 4]))


def test_the_clipped_ratio_by_hand() -> None:
    """Two answers of two tokens, ratios 1.5 and 0.5, clip 0.2. Better than its group: −min(1.5, 1.2), −min(0.5, 0.8).
    Worse: max(1.5, 1.2), max(0.5, 0.8)."""
    now = one(1.5, 0.5, 1.5, 0.5).log().requires_grad_()
    which = torch.tensor([0, 0, 1, 1])
    loss, apart = grpo_loss(now, torch.zeros(4), None, one(1.0, -1.0), which, 0.2)
    torch.testing.assert_close(loss, one(-(1.2 + 0.5) / 2, (1.5 + 0.8) / 2))
    assert float(apart) == 0
    (gradient,) = torch.autograd.grad(loss.sum(), now)
    torch.testing.assert_close(gradient, one(0.0, -0.25, 0.75, 0.0))  # what is clipped moves no more


def test_the_divergence_by_hand() -> None:
    """A token half as likely as under the reference: 2 − ln 2 − 1; one as likely: nothing."""
    loss, apart = grpo_loss(
        one(math.log(0.25), math.log(0.5)), one(math.log(0.25), math.log(0.5)), one(math.log(0.5), math.log(0.5)),
        one(0.0), torch.tensor([0, 0]), 0.2, kl=2.0,
    )  # fmt: skip
    assert float(loss) == pytest.approx((1 - math.log(2)) * 2 / 2, abs=1e-6)
    assert float(apart) == pytest.approx((1 - math.log(2)) / 2, abs=1e-6)


def test_answers_count_alike_however_long_they_are() -> None:
    which = torch.tensor([0, 1, 1, 1])
    loss, _ = grpo_loss(torch.zeros(4, requires_grad=True), torch.zeros(4), None, one(2.0, 2.0), which)
    torch.testing.assert_close(loss, one(-2.0, -2.0))


def test_nothing_to_learn_from_has_gradients() -> None:
    log_probs = torch.zeros(0, requires_grad=True)
    loss, _ = grpo_loss(log_probs, log_probs.detach(), None, torch.zeros(0), torch.zeros(0, dtype=torch.long))
    loss.sum().backward()
    assert log_probs.grad is not None


# -- a second opinion: figures of TRL's own code (scripts/record_trl.py) ---------------------------------------------


def flat(rows: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of all rows one after the other, and the row of each."""
    values = torch.tensor([value for row in rows for value in row], dtype=torch.float64)
    return values, torch.tensor([i for i, row in enumerate(rows) for _ in row])


def test_preferences_are_trls_without_the_shift() -> None:
    facts = json.loads(GOLDEN.read_text())["preference"]
    values, which = flat(facts["log_probs"])
    values.requires_grad_()
    summed = torch.zeros(4, dtype=torch.float64).index_add(0, which, values)
    moved = summed - torch.tensor(facts["reference"], dtype=torch.float64)
    lengths = torch.tensor(facts["lengths"][:2])
    loss, _ = mpo_loss(moved[:2], moved[2:], summed[:2] / lengths, 0.1, 0.0)
    assert float(loss.mean().detach()) == pytest.approx(facts["loss"], rel=1e-12)
    (gradient,) = torch.autograd.grad(loss.mean(), values)
    torch.testing.assert_close(gradient, flat(facts["gradient"])[0])


def test_reinforcement_is_trls() -> None:
    facts = json.loads(GOLDEN.read_text())["reinforcement"]
    now, which = flat(facts["log_probs"])
    now.requires_grad_()
    old, reference = (flat(facts[name])[0] for name in ("old", "reference"))
    advantages = torch.tensor(facts["advantages"], dtype=torch.float64)
    loss, apart = grpo_loss(now, old, reference, advantages, which, 0.2, 0.05)
    assert float(loss.mean().detach()) == pytest.approx(facts["loss"], rel=1e-12)
    assert float(apart) == pytest.approx(facts["divergence"], rel=1e-6)
    (gradient,) = torch.autograd.grad(loss.mean(), now)
    torch.testing.assert_close(gradient, flat(facts["gradient"])[0])
