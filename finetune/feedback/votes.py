"""What people think of single answers: a vote, what is wrong, the moments of the video it is about, a better text.

votes = Store("data/studio.sqlite").votes
votes.vote(answer.id, "down", reasons=["wrong"], moments=[2.4])
votes.correct(answer.id, "The heart turns blue.")

An answer has one vote and one correction in force. Another takes its place, and `revoke` and `uncorrect` take it back;
what was said before stays in the file with the time until which it held. A correction is a preference for its text, and
a 👍 and a 👎 on two answers of one question are a preference for the first (finetune.feedback.preferences)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlite_utils import Database

from engine.reasoning.modes import (
    ANALYSIS_CLOSE,
    ANALYSIS_OPEN,
    ANSWER_CLOSE,
    ANSWER_OPEN,
    CALL_CLOSE,
    CALL_OPEN,
    RESULT_CLOSE,
    RESULT_OPEN,
    THOUGHT_CLOSE,
    THOUGHT_OPEN,
)
from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.preferences import Preference, Preferences, preference_of
from finetune.feedback.rows import clean, new_id, now, parsed

Value = Literal["up", "down"]

Reason = Literal["wrong", "incomplete", "irrelevant", "badly_written", "dull", "made_up", "repeats", "wrong_time"]
"""What is wrong with an answer. The first five are the report's dimensions of quality turned round: correctness,
completeness, relevance, fluency, creativity."""

REASONS: tuple[Reason, ...] = get_args(Reason)
MOST_MOMENTS = 20
LONGEST_CORRECTION = 8000  # characters
_MARKS = (
    *(ANALYSIS_OPEN, ANALYSIS_CLOSE, THOUGHT_OPEN, THOUGHT_CLOSE, ANSWER_OPEN, ANSWER_CLOSE),
    *(CALL_OPEN, CALL_CLOSE, RESULT_OPEN, RESULT_CLOSE),
)


@dataclass(frozen=True)
class Vote:
    id: str
    answer: str
    value: Value
    reasons: tuple[str, ...]  # of REASONS, in their order; none with 👍
    moments: tuple[float, ...]  # seconds of the file, ascending
    created: str
    revoked: str | None  # until when it held; None while it does


class Votes:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do."""

    def __init__(self, file: File, preferences: Preferences) -> None:
        self._file = file
        self._preferences = preferences

    def vote(self, answer: str, value: Value, *, reasons: Sequence[str] = (), moments: Sequence[float] = ()) -> Vote:
        """Keep what is thought of an answer, in place of what was thought before. `moments` are seconds of the file.

        FinetuneError if the answer was deleted or is still being written, or there are too many moments."""
        if value not in get_args(Value) or not set(reasons) <= set(REASONS) or (reasons and value == "up"):
            raise ValueError(f"there is no vote {value!r} with the reasons {reasons!r}")
        if not all(math.isfinite(moment) and moment >= 0 for moment in moments):
            raise ValueError("a moment is a second of the file")
        times = sorted({round(float(moment), 2) for moment in moments})
        if len(times) > MOST_MOMENTS:
            raise FinetuneError(f"An answer can have {MOST_MOMENTS} marked moments; take one away first.")
        with self._file.transaction() as db:
            question, _ = _written(db, answer)
            made = now()
            _end(db, answer, made)
            row = {
                "id": new_id(),
                "answer_id": clean(answer),
                "value": value,
                "reasons": json.dumps([reason for reason in REASONS if reason in reasons]),
                "moments": json.dumps(times),
                "created": made,
                "revoked": None,
            }
            db.table("votes").insert(row)
            self._pair(db, question)
            return vote_of(row)

    def revoke(self, answer: str) -> bool:
        """Take the vote on an answer back. False if there is none."""
        with self._file.transaction() as db:
            ended = _end(db, answer, now())
            if ended:
                self._pair(db, _written(db, answer)[0])
            return ended

    def correct(self, answer: str, text: str) -> Preference:
        """Keep the better text that a person wrote, in place of the one before.

        FinetuneError if it is no answer to learn from, or the answer was deleted or is still being written."""
        better = clean(text).strip()
        if not better:
            raise FinetuneError("The correction is empty; write what the answer should have been.")
        if len(better) > LONGEST_CORRECTION:
            raise FinetuneError(
                f"The correction has {len(better)} characters; the most is {LONGEST_CORRECTION}. Shorten it."
            )
        if found := next((mark for mark in _MARKS if mark in better), None):
            raise FinetuneError(f"The correction holds the mark {found}; write the answer alone, without the thought.")
        with self._file.transaction() as db:
            _, said = _written(db, answer)
            if better == said.strip():
                raise FinetuneError("The correction is the answer as it is; change the text, or vote for it instead.")
            return self._preferences.prefer(None, answer, source="correction", text=better)

    def uncorrect(self, answer: str) -> bool:
        """Take the correction of an answer back. False if there is none."""
        sql = (
            "SELECT id FROM preferences WHERE source = 'correction' AND revoked IS NULL AND chosen_id IS NULL "
            "AND rejected_id = ?"
        )
        with self._file.transaction() as db:
            return sum(self._preferences.revoke(row["id"]) for row in list(db.query(sql, [clean(answer)]))) > 0

    def of_conversation(self, conversation: str) -> dict[str, Vote]:
        """The votes in force there, by the answer."""
        sql = (
            "SELECT v.* FROM votes v JOIN answers a ON a.id = v.answer_id JOIN questions q ON q.id = a.question_id "
            "WHERE q.conversation_id = ? AND v.revoked IS NULL ORDER BY v.id"
        )
        with self._file.snapshot() as db:
            return {row["answer_id"]: vote_of(row) for row in db.query(sql, [clean(conversation)])}

    def in_force(self) -> list[Vote]:
        """Every vote that holds, oldest first."""
        with self._file.snapshot() as db:
            return [vote_of(row) for row in db.query("SELECT * FROM votes WHERE revoked IS NULL ORDER BY id")]

    def _pair(self, db: Database, question: str) -> None:
        """Make the preferences of a question that votes stand for the ones in force: each 👍 over each 👎."""
        sql = (
            "SELECT v.* FROM votes v JOIN answers a ON a.id = v.answer_id "
            "WHERE a.question_id = ? AND v.revoked IS NULL ORDER BY v.id"
        )
        votes = [vote_of(row) for row in db.query(sql, [question])]
        wanted = {
            (up.answer, down.answer): down.reasons
            for up in votes
            for down in votes
            if (up.value, down.value) == ("up", "down")
        }
        sql = "SELECT * FROM preferences WHERE question_id = ? AND source = 'vote' AND revoked IS NULL"
        for held in [preference_of(row) for row in db.query(sql, [question])]:
            pair = (held.chosen or "", held.rejected)
            if wanted.get(pair) == held.reasons:
                del wanted[pair]
            else:
                self._preferences.revoke(held.id)
        for (chosen, rejected), reasons in wanted.items():
            self._preferences.prefer(chosen, rejected, source="vote", reasons=reasons)


def vote_of(row: Mapping[str, Any]) -> Vote:
    return Vote(
        id=row["id"],
        answer=row["answer_id"],
        value=row["value"],
        reasons=tuple(str(reason) for reason in parsed(row["reasons"])),
        moments=tuple(float(moment) for moment in parsed(row["moments"])),
        created=row["created"],
        revoked=row["revoked"],
    )


def _end(db: Database, answer: str, when: str) -> bool:
    sql = "UPDATE votes SET revoked = ? WHERE answer_id = ? AND revoked IS NULL"
    return bool(db.execute(sql, [when, clean(answer)]).rowcount)


def _written(db: Database, answer: str) -> tuple[str, str]:
    """The question and the text of an answer that has ended."""
    sql = "SELECT question_id, text, finish FROM answers WHERE id = ?"
    found = db.execute(sql, [clean(answer)]).fetchone()
    if found is None:
        raise FinetuneError("The answer was deleted; nothing can be said of it any more.")
    question, text, finish = found
    if finish == "running":
        raise FinetuneError("The answer is still being written; wait for its end.")
    return str(question), str(text)
