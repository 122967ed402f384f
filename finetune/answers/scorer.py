"""What an answer that was drawn is worth: by rules, and by a model that judges where one is given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.reasoning.modes import ModeName
from finetune.answers.queries import Query
from finetune.answers.rewards import Score, score, thought_of
from finetune.answers.rollouts import Rolled
from finetune.bench.cli import judge_from
from finetune.bench.judge import Judge, JudgeError, ask
from finetune.bench.scorers import Prediction

_RIGHT = "回答正确"
_AGREES = (
    "下面是模型的思考过程和最终回答。请判断思考过程的结论是否与最终回答一致，只输出“一致”或“不一致”。\n"
    "思考过程：{thought}\n最终回答：{answer}\n输出："
)
_MOST = 8000  # characters of a thought or an answer that the judge is shown


@dataclass
class Scorer:
    """Scores answers of at most `most` tokens. A judge is heard where words were compared one by one and differ, and on
    whether a thought comes to its answer; where it fails the rules stand, and `failed` counts."""

    most: int
    judge: Judge | None = None
    failed: int = field(default=0)

    def __call__(self, query: Query, mode: ModeName, rolled: Rolled) -> Score:
        found = score(
            rolled.text, query.reward, query.reference, mode, len(rolled.ids), self.most, finished=rolled.finished
        )
        if self.judge is None or not rolled.finished:
            return found
        parts = dict(found.parts)
        if query.reward == "exact" and parts["correct"] < 1:
            parts["correct"] = self._verdict(self.judge, query, rolled, parts["correct"])
        if "consistent" in parts:
            parts["consistent"] = self._agrees(self.judge, rolled, parts["consistent"])
        return replace(found, parts=parts)

    def _verdict(self, judge: Judge, query: Query, rolled: Rolled, otherwise: float) -> float:
        question = query.messages[-1].parts[-1]
        asked = Prediction("", query.where, str(question)[:_MOST], query.reference, rolled.text[-_MOST:])
        said = ask(judge, "verdict", asked)
        if not said.reply:
            self.failed += 1
            return otherwise
        return float(said.reply.strip().strip('。.“”"') == _RIGHT)

    def _agrees(self, judge: Judge, rolled: Rolled, otherwise: float) -> float:
        thought, answer = thought_of(rolled.text), rolled.text.rpartition("</think>")[2]
        try:
            reply = judge.reply(_AGREES.format(thought=thought[-_MOST:], answer=answer[:_MOST]), 0.0, 16)
        except JudgeError:
            self.failed += 1
            return otherwise
        return float("不一致" not in reply and "一致" in reply)


def scorer(most: int, judge: str) -> Scorer:
    """The rules, and the judge at an address (empty: none), whose key is in the environment. Raises FinetuneError
    where it does not answer."""
    return Scorer(most, judge_from(judge or None, None))
