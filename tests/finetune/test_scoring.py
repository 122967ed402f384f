"""Scores against values worked out by hand."""

from __future__ import annotations

import pytest

from finetune.evaluate import Asked, report, table
from finetune.scoring import clause_recall, clauses, floor, right, wilson
from finetune.world.questions import Question


def test_marks_and_case_do_not_matter_but_words_and_times_do() -> None:
    assert right("red", "Red.")
    assert right("Nowhere it stays still", "Nowhere, it stays still.")
    assert not right("Red star.", "Red.")
    assert not right("At 0:04.", "At 0:03.")
    assert not right("", "Red.")


def test_clauses_are_the_facts_of_a_sentence() -> None:
    truth = "A red star moves left, an orange heart appears and a blue circle stays still."
    assert clauses(truth) == {"red star moves left", "orange heart appears", "blue circle stays still"}
    assert clause_recall("An orange heart appears and a red star moves right.", truth) == pytest.approx(1 / 3)
    assert clause_recall(truth, truth) == 1.0


def test_wilson_interval() -> None:
    # 8 of 10: the textbook values of the score interval
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=2e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=2e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_floor_is_the_share_of_the_most_frequent_answer() -> None:
    assert floor(["Yes.", "yes", "No.", "Yes."]) == 0.75
    assert floor([]) == 0.0


def test_report_counts_by_kind_and_group() -> None:
    def one(group: str, kind: str, truth: str, answer: str, blind: str | None) -> Asked:
        return Asked(group, Question(kind, "?", truth), answer, blind)

    facts = report(
        [
            one("video", "colour", "Red.", "Red.", "Blue."),
            one("unseen", "colour", "Blue.", "Red.", "Blue."),
            one("video", "count", "Two.", "two", "Two."),
            one("picture", "count", "One.", "Two.", "Two."),
            one("talk", "greeting", "Hello!", "Hello", None),
        ]
    )
    assert facts["kinds"]["colour"] | {"low": 0, "high": 0} == {
        "questions": 2,
        "right": 1,
        "accuracy": 0.5,
        "low": 0,
        "high": 0,
        "blind": 0.5,
        "floor": 0.5,
    }
    assert facts["kinds"]["count"]["questions"] == 1  # pictures are a group of their own
    assert facts["mean_of_kinds"] == {"accuracy": 0.75, "blind": 0.75, "floor": 0.75}
    assert facts["groups"]["picture"]["right"] == 0
    assert "| colour | 2 | 0.50 |" in table(facts)
