"""What answers are worth: rewards against cases worked by hand, and what hostile texts do to them."""

from __future__ import annotations

import pytest

from engine.reasoning.modes import written
from finetune.answers.rewards import (
    RewardName,
    Score,
    consistent,
    correctness,
    infer,
    readable,
    repeats,
    score,
    well_formed,
)

BOX = "<|box_start|>[[100, 100, 300, 300]]<|box_end|>"


@pytest.mark.parametrize(
    ("reward", "text", "reference", "worth"),
    [
        ("exact", "red.", "Red.", 1.0),
        ("exact", "<think>It is red.</think><answer>Red</answer>", "Red.", 1.0),
        ("exact", "<think>It is red. So: Red.", "Red.", 0.0),  # never closed
        ("exact", "Blue.", "Red.", 0.0),
        ("choice", "The answer is B.", "B", 1.0),
        ("choice", "B. a dog", "B", 1.0),
        ("choice", "Because", "B", 0.0),
        ("number", "There are 1,200 of them.", "1200", 1.0),
        ("number", "2 and 3 are 5", "5", 1.0),
        ("number", "five", "5", 0.0),
        ("number", "-0.5", "−0.5", 1.0),
        ("set", "a red star and a blue heart", "A blue heart, a red star.", 1.0),
        ("set", "a red star", "a red star, a blue heart", 2 / 3),
        ("set", "a red star, a red star", "a red star", 2 / 3),
        ("order", "[视频2，视频1，视频3]", "视频2, 视频1, 视频3", 1.0),
        ("order", "3, 1, 2", "1, 2, 3", 1 / 3),  # of three pairs only 1 before 2 is kept
        ("order", "1, 2", "1, 2, 3", 0.0),
        ("json", '{"colour": "red", "size": "big"}', '{"colour": "red", "size": "small"}', 0.5),
        ("json", "{'tags': ['b', 'a']}", '{"tags": ["a", "b"]}', 1.0),
        ("json", "red", '{"colour": "red"}', 0.0),
        ("box", "<|box_start|>[[100, 100, 300, 200]]<|box_end|>", BOX, 0.5),
        ("box", "there", BOX, 0.0),
        ("time", "It appears at 0:04.", "At 0:03.", 1.0),
        ("time", "At 0:05.", "At 0:03.", 0.0),
        ("time", "at 63 s", "1:03", 1.0),
        ("time", "0:01 to 0:09", "0:01", 0.0),
    ],
)
def test_how_right_an_answer_is(reward: RewardName, text: str, reference: str, worth: float) -> None:
    assert correctness(reward, text, reference) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("reference", "reward"),
    [
        (BOX, "box"), ('{"a": 1}', "json"), ("B", "choice"), ("(C)", "choice"), ("-3.5", "number"),
        ("At 0:03.", "time"), ("Red.", "exact"), ("It says 0:03 on the big board.", "exact"), ("Three.", "exact"),
    ],
)  # fmt: skip
def test_a_reference_says_how_it_is_compared(reference: str, reward: RewardName) -> None:
    assert infer(reference) == reward
    assert readable(reward, reference)
    assert correctness(reward, reference, reference) == 1.0


def test_what_a_reward_cannot_read_is_told() -> None:
    for reward in ("choice", "number", "json", "box", "time"):
        assert not readable(reward, "quite so")


def test_what_is_written_in_a_mode_is_well_formed_in_that_mode_alone() -> None:
    direct, thought = written("Red."), written("Red.", thought="It is red.")
    weighed = written("Red.", analysis="Easy.")
    hard = written("Red.", analysis="Hard.", thought="It is red.")
    assert [well_formed(t, "no_think") for t in (direct, thought, weighed, hard)] == [True, False, False, False]
    assert [well_formed(t, "think") for t in (direct, thought, weighed, hard)] == [False, True, False, False]
    assert [well_formed(t, "auto") for t in (direct, thought, weighed, hard)] == [True, False, True, True]


@pytest.mark.parametrize(
    "text",
    [
        "<think></think><answer>Red.</answer>",
        "<think>a</think><answer></answer>",
        "<think>a</think>so<answer>Red.</answer>",
        "<think>a</think><answer>Red.</answer> or blue",
        "<think>a</think><answer>Red.",
        "<think>a<think>b</think><answer>Red.</answer>",
        "Well <think>a</think><answer>Red.</answer>",
        "",
    ],
)
def test_what_misses_its_format(text: str) -> None:
    assert not well_formed(text, "think")
    assert not well_formed(text.replace("think>", "analysis>"), "auto")


def test_an_analysis_must_decide_for_what_follows() -> None:
    said = "<analysis>Easy. Therefore, /no_think mode is more appropriate.</analysis>"
    assert well_formed(f"{said}Red.", "auto")
    assert not well_formed(f"{said}<think>a</think><answer>Red.</answer>", "auto")
    assert not well_formed("<analysis>Easy.</analysis>Red.", "auto")


def test_a_thought_that_comes_to_another_answer_is_not_consistent() -> None:
    assert consistent(written("Two.", thought="A star and a heart. That makes two.")) is True
    assert consistent(written("Three.", thought="A star and a heart. That makes two.")) is False
    assert consistent(written("No.", thought="There is nothing.")) is False  # "no" is no word of it
    assert consistent("Two.") is None


@pytest.mark.parametrize(
    ("thought", "answer", "agrees"),
    [
        ("I count circles: 2.", "Two.", True),
        ("I count circles: 2.", "Three.", False),
        ("I count stars: 12, hearts: 1.", "Two.", False),  # no part of another number
        ("I count circles: 3, stars: 1. 3 is more than 1.", "Circles.", True),
        ("It turns red at 0:03.", "At 0:03.", True),
        ("It turns red at 0:03.", "At 0:04.", False),
        ("画面里有两颗星和三个圆。2 加 3 是 5。", "五", True),
        ("画面里有两颗星。", "三", False),
        ("左边的是红色的圆。", "红色。", True),
    ],
)
def test_numbers_and_chinese_agree_however_they_are_written(thought: str, answer: str, agrees: bool) -> None:
    assert consistent(written(answer, thought=thought)) is agrees


def test_circles_are_seen_in_short_answers_too() -> None:
    assert repeats("red star, " * 30, 64)
    assert not repeats("Two.", 64)
    assert not repeats(
        "A red star moves left, a blue heart stays still, a green cross moves up, a white circle turns.", 64
    )


def test_the_parts_add_up_and_what_was_cut_off_is_worth_little() -> None:
    good = score("Red.", "exact", "Red.", "no_think", 3, 64, True)
    assert good.parts == {"correct": 1.0, "format": 1.0, "length": 1.0, "repetition": 1.0}
    assert good.total == pytest.approx(1.0 + 0.2 + 0.1 + 0.3)
    cut = score("Red.", "exact", "Red.", "no_think", 64, 64, False)
    assert cut.total == pytest.approx(0.3)
    thought = score(written("Red.", thought="Red."), "exact", "Red.", "think", 48, 64, True)
    assert thought.parts["consistent"] == 1.0 and thought.parts["length"] == pytest.approx(0.5)
    assert Score({"correct": 0.5}).total == 0.5
