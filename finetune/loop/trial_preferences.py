"""What was said of two answers to a stored question, kept as a preference as well."""

from __future__ import annotations

from finetune.feedback.store import Store
from finetune.feedback.trials import Pair, Trial


def as_preference(store: Store, trial: Trial, pair: Pair) -> Pair:
    """Keep a judged pair of a stored question as two answers and what is preferred, or take that back.

    They stand in a conversation of the trial's own, because the one in which it was asked goes on from the answer that
    it had. A question of the world, and one that was deleted, is left alone. Call it within a transaction."""
    question = store.trials.question(pair.asked.question) if pair.asked.question is not None else None
    if question is None or (question.video is not None and store.video(question.video) is None):
        return pair
    ids = pair.answers if pair.answers is not None and store.trials.has_answers(pair.answers) else None
    if ids is None:
        if pair.verdict is None:
            return pair
        known = trial.conversation if trial.conversation and store.trials.has_conversation(trial.conversation) else None
        if known is None:
            known = store.new_conversation(f"{trial.base.get('model')} – {trial.candidate.get('model')}").id
        copy = store.add_question(
            known,
            question.text,
            mode=question.mode,
            video=question.video,
            start=question.start,
            end=question.end,
            sampling=question.sampling,
        )
        made = []
        for said, facts in ((pair.base, trial.base), (pair.candidate, trial.candidate)):
            assert said is not None
            begun = store.begin_answer(copy.id, mode=pair.asked.mode, **facts)
            store.finish_answer(begun.id, "stop", text=said["text"], raw_text=said.get("raw") or None)
            made.append(begun.id)
        ids = (made[0], made[1])
        left, right = ids if pair.left == "base" else ids[::-1]
        store.preferences.compare(copy.id, left, right, blind=True)
        store.trials.kept_as(trial.id, pair.position, known, ids)
        trial = store.trials.one(trial.id)
    base, candidate = ids
    if pair.verdict == "candidate":
        store.preferences.prefer(candidate, base, source="compare")
    elif pair.verdict == "base":
        store.preferences.prefer(base, candidate, source="compare")
    elif pair.verdict is not None:
        store.preferences.prefer(base, candidate, source="compare", verdict=pair.verdict)
    else:
        for preference in store.preferences.of_conversation(trial.conversation or ""):
            if {preference.chosen, preference.rejected} == set(ids):
                store.preferences.revoke(preference.id)
    return store.trials.pair(trial.id, pair.position)
