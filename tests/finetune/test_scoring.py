"""Scores against values worked out by hand."""

from __future__ import annotations

import pytest

from finetune.answers.scoring import clause_recall, clauses, floor, overlap, read_box, right, wilson
from finetune.measuring.evaluate import Asked, report, table
from finetune.world.questions import Question
from finetune.world.speech import Language


def test_marks_and_case_do_not_matter_but_words_and_times_do() -> None:
    assert right("red", "Red.")
    assert right("Nowhere it stays still", "Nowhere, it stays still.")
    assert not right("Red star.", "Red.")
    assert not right("At 0:04.", "At 0:03.")
    assert not right("", "Red.")


def test_a_box_is_right_when_half_of_both_is_shared() -> None:
    truth = "<|box_start|>[[100, 200, 300, 400]]<|box_end|>"
    assert right(truth, truth) and overlap(truth, truth) == 1.0
    # 100 of 300 hundreds shared
    assert overlap("<|box_start|>[[200, 200, 400, 400]]<|box_end|>", truth) == pytest.approx(1 / 3)
    assert right("<|box_start|>[[100, 200, 300, 300]]<|box_end|>", truth)
    assert not right("<|box_start|>[[100, 200, 300, 290]]<|box_end|>", truth)
    assert overlap("<|box_start|>[[600, 600, 700, 700]]<|box_end|>", truth) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[100, 200, 300, 400]]",
        "<|box_start|>[[100, 200, 300]]<|box_end|>",
        "<|box_start|>[[300, 200, 100, 400]]<|box_end|>",
        "<|box_start|>[[100, 200, 100, 400]]<|box_end|>",
        "<|box_start|>[[-1, 200, 300, 400]]<|box_end|>",
        "<|box_start|>[[100, 200, 300, 4000]]<|box_end|>",
        "<|box_start|>[[1e9, nan, inf, 0x9]]<|box_end|>",
        "<|box_start|>[[１００, 200, 300, 400]]<|box_end|>",
        "<|box_start|>[[" + "9" * 100_000,
        "<|box_start|>" * 20_000,
        "<|box_start|>[[100, 200, 300, 400]]<|box_end|> and more",
    ],
)
def test_what_is_no_box_is_wrong_and_nothing_worse(text: str) -> None:
    assert read_box(text) is None
    assert not right(text, "<|box_start|>[[100, 200, 300, 400]]<|box_end|>")


def test_clauses_of_a_chinese_caption() -> None:
    assert clause_recall("红色星形不动，蓝色圆形消失。", "红色星形不动，蓝色圆形出现。") == 0.5
    assert clauses("红色星形、蓝色圆形和绿色方形。") == {"红色星形", "蓝色圆形", "绿色方形"}


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


def test_chinese_and_long_clips_are_counted_by_themselves_and_boxes_by_their_overlap() -> None:
    def one(group: str, kind: str, truth: str, answer: str, language: Language = "en") -> Asked:
        return Asked(group, Question(kind, "?", truth, language), answer, None)

    boxes = [f"<|box_start|>[[{x}, 200, {x + 200}, 400]]<|box_end|>" for x in (100, 200)]
    facts = report(
        [
            one("unseen triple", "colour", "Red.", "Red."),
            one("long", "colour", "Red.", "Blue."),
            one("chinese", "colour", "红色。", "红色", "zh"),
            one("chinese", "count", "两个。", "一个。", "zh"),
            one("video", "box", boxes[0], boxes[0]),
            one("video", "box", boxes[0], boxes[1]),
        ]
    )
    assert facts["kinds"]["colour"]["questions"] == 1 and facts["kinds"]["colour"]["accuracy"] == 1.0
    assert facts["kinds"]["box"]["accuracy"] == 0.5
    assert facts["kinds"]["box"]["overlap"] == pytest.approx((1 + 1 / 3) / 2, abs=1e-4)
    assert facts["chinese"]["kinds"]["colour"]["right"] == 1 and facts["chinese"]["mean_of_kinds"]["accuracy"] == 0.5
    assert list(facts["groups"]) == ["video", "unseen triple", "long", "chinese"]
    assert facts["groups"]["long"]["right"] == 0 and facts["asked_blind"] == []
    assert "Asked in Chinese, the mean of kinds is 0.50." in table(facts) and "| – |" in table(facts)
