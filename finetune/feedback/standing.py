"""How a conversation stands: every question with the answer that it goes on from."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.feedback.drafts import DraftSet
from finetune.feedback.preferences import Comparison
from finetune.feedback.rows import Answer, Question
from finetune.feedback.store import Store


@dataclass(frozen=True)
class Standing:
    question: Question
    answer: Answer | None  # of a comparison the better one, of drafts the one that was picked, else the newest
    comparison: Comparison | None = None
    drafts: DraftSet | None = None


def standing(store: Store, conversation: str) -> list[Standing]:
    """Its questions, oldest first; empty for a conversation that does not exist."""
    compared = store.preferences.comparisons(conversation)
    drafted = store.drafts.of_conversation(conversation)
    out = []
    for question, newest in store.turns(conversation):
        comparison, drafts = compared.get(question.id), drafted.get(question.id)
        answer = comparison.preferred if comparison else drafts.preferred if drafts else newest
        out.append(Standing(question, answer, comparison, drafts))
    return out
