"""The table of the modes: its figures by hand, and the command's errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import EngineError
from finetune.answers.scoring import wilson
from finetune.errors import FinetuneError
from finetune.measuring.modes_table import Told, measure, report, table
from finetune.world.thoughts import Group

DIRECT, THINKS = "no_think", "think"


def told(question: int, mode: str, right: bool, tokens: int, group: Group = "steps", **more: object) -> Told:
    facts = {
        "clip": 0, "kind": "sum", "text": "?", "truth": "Two.", "answer": "Two." if right else "One.",
        "thought_tokens": tokens - 2, "chose": "", "overlap": None, "holds": None, "repeating": False, "raw": "",
    }  # fmt: skip
    return Told(
        **{**facts, "question": question, "mode": mode, "right": right, "tokens": tokens, "group": group, **more}
    )  # type: ignore[arg-type]


def test_the_figures_of_a_small_table() -> None:
    answers = [told(n, DIRECT, n < 2, 2, repeating=n == 7) for n in range(8)] + [
        told(n, THINKS, n < 6, 30 + n) for n in range(8)
    ]
    answers += [told(n, "auto", n < 6, 40, chose=THINKS if n < 7 else DIRECT) for n in range(8)]
    answers += [
        told(20 + n, "think_with_image", n == 0, 50, "detail", kind="tiny_text", overlap=0.5 * n, holds=n == 1)
        for n in range(2)
    ]
    facts = report(answers)
    steps = facts["groups"]["steps"]
    assert steps[DIRECT]["value"] == 0.25 and steps[DIRECT]["tokens"] == 2
    assert steps[THINKS]["value"] == 0.75 and steps[THINKS]["tokens"] == 33.5
    low, high = wilson(6, 8)
    assert steps[THINKS]["low"] == round(low, 4) and steps[THINKS]["high"] == round(high, 4)
    # four questions of eight are right only after a thought, none only before it
    difference = facts["differences"]["thinking − direct, several steps"]
    assert difference["value"] == 0.5 and 0 < difference["low"] < 0.5 < difference["high"] < 1
    assert facts["auto_thinks"]["steps"] | {"low": 0, "high": 0} == {
        "questions": 8, "right": 7, "value": 0.875, "low": 0, "high": 0,
    }  # fmt: skip
    assert {mode: row["value"] for mode, row in facts["repeating"].items()} == {
        "auto": 0.0, THINKS: 0.0, DIRECT: 0.125, "think_with_image": 0.0,
    }  # fmt: skip
    assert facts["boxes"]["mean_overlap"] == 0.25 and facts["boxes"]["hold_the_detail"]["right"] == 1
    assert facts["differences"]["thinking − direct, one fact"] is None
    text = table(facts)
    assert "| **several steps** | 8 | 0.75" in text and "+50.0" in text and "held the whole detail in 50%" in text


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="At least one clip"):
        measure(tmp_path, 0)
    with pytest.raises(FinetuneError, match="At least one process"):
        measure(tmp_path, 1, processes=0)
    with pytest.raises(EngineError):
        measure(tmp_path / "none", 1)
