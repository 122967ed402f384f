"""A judge among the rules that score an answer."""

from __future__ import annotations

from engine.reasoning.modes import written
from engine.runtime.base import Message
from finetune.answers.queries import Query
from finetune.answers.rollouts import Rolled
from finetune.answers.scorer import Scorer
from finetune.bench.judge import JudgeError


def query() -> Query:
    return Query("here", [Message("user", ("What colour?",))], "Red.", "exact", "colour")


class Judge:
    """Says what it is told to, or fails; keeps what it was asked."""

    name, pause = "told", 0.0

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), []  # type: ignore[var-annotated]

    def reply(self, prompt: str, temperature: float, max_tokens: int) -> str:
        self.asked.append(prompt)
        if not self.replies:
            raise JudgeError("it is gone")
        return self.replies.pop(0)


def rolled(text: str) -> Rolled:
    return Rolled((1, 2, 3), text, True)


def test_a_judge_is_heard_where_words_differ() -> None:
    judge = Judge("回答正确", "回答错误", "一致")
    scored = Scorer(64, judge)
    assert scored(query(), "no_think", rolled("Red.")).parts["correct"] == 1.0
    assert not judge.asked
    assert scored(query(), "no_think", rolled("It is the colour of blood.")).parts["correct"] == 1.0
    assert scored(query(), "no_think", rolled("Blue.")).parts["correct"] == 0.0
    agreed = scored(query(), "think", rolled(written("Red.", thought="The colour of blood.")))
    assert agreed.parts["consistent"] == 1.0 and scored.failed == 0


def test_where_the_judge_fails_the_rules_stand() -> None:
    scored = Scorer(64, Judge())
    found = scored(query(), "think", rolled(written("Blue.", thought="It is red.")))
    assert (found.parts["correct"], found.parts["consistent"]) == (0.0, 0.0)
    assert scored.failed == 2


def test_an_answer_that_was_cut_off_is_not_shown_to_the_judge() -> None:
    judge = Judge("回答正确")
    assert Scorer(64, judge)(query(), "no_think", Rolled((1,) * 64, "Blue and", False)).parts["correct"] == 0.0
    assert not judge.asked
