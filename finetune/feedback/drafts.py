"""Drafts: further answers to a question that was answered before, to choose the best of them.

drafts = Store("data/studio.sqlite").drafts
drafts.add(answer.id, [other.id, another.id])
drafts.pick(other.id)           # better than each of the others; the conversation goes on from it
drafts.unpick(question.id)

What was picked is a preference of the source "draft" over every other answer of the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.preferences import Preferences
from finetune.feedback.rows import Answer, answer_of, clean

_PICKS = "SELECT * FROM preferences WHERE question_id = ? AND source = 'draft' AND revoked IS NULL ORDER BY id"


@dataclass(frozen=True)
class DraftSet:
    """The answers of one question to choose from."""

    question: str
    answers: tuple[Answer, ...]  # the one that was there first, then its drafts, oldest first
    picked: str | None  # the answer that was chosen

    @property
    def running(self) -> bool:
        return any(answer.finish == "running" for answer in self.answers)

    @property
    def preferred(self) -> Answer:
        """The answer a conversation goes on from: the one that was picked, else the first that says something."""
        chosen = next((answer for answer in self.answers if answer.id == self.picked), None)
        written = (answer for answer in self.answers if answer.text and answer.finish != "running")
        return chosen or next(written, self.answers[0])


class Drafts:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do."""

    def __init__(self, file: File, preferences: Preferences) -> None:
        self._file = file
        self._preferences = preferences

    def add(self, original: str, drafts: Sequence[str]) -> None:
        """Note that the answers `drafts` were asked for as others of `original`, of the same question."""
        with self._file.transaction() as db:
            for draft in drafts:
                if _question(db, draft) != _question(db, original):
                    raise ValueError("a draft is an answer of the same question")
                db.table("drafts").insert({"answer_id": clean(draft), "original_id": clean(original)})

    def of_conversation(self, conversation: str) -> dict[str, DraftSet]:
        """The sets of a conversation, by their question."""
        sql = (
            "SELECT DISTINCT a.question_id FROM drafts d JOIN answers a ON a.id = d.answer_id "
            "JOIN questions q ON q.id = a.question_id WHERE q.conversation_id = ?"
        )
        with self._file.snapshot() as db:
            questions = [row["question_id"] for row in db.query(sql, [clean(conversation)])]
            return {question: _set(db, question) for question in questions}

    def pick(self, answer: str) -> DraftSet:
        """Keep that this one of the drafts is better than the others, in place of what was picked before.

        FinetuneError if it was deleted, or some are still being written, or there is nothing to choose between."""
        with self._file.transaction() as db:
            drafts = _set(db, _question(db, answer))
            if drafts.running:
                raise FinetuneError("Wait until every draft is written, then choose.")
            others = [other.id for other in drafts.answers if other.id != answer and other.text]
            mine = [one for one in drafts.answers if one.id == answer and one.text]
            if not mine or not others:
                raise FinetuneError("There are no other drafts to choose between; answer the question again first.")
            self._end(db, drafts.question)
            for other in others:
                self._preferences.prefer(answer, other, source="draft")
            return _set(db, drafts.question)

    def unpick(self, question: str) -> bool:
        """Take the choice back. False if none was made."""
        with self._file.transaction() as db:
            return self._end(db, question)

    def _end(self, db: Database, question: str) -> bool:
        return sum(self._preferences.revoke(row["id"]) for row in list(db.query(_PICKS, [clean(question)]))) > 0


def _set(db: Database, question: str) -> DraftSet:
    sql = (
        "SELECT a.*, 0 AS later FROM answers a WHERE id IN (SELECT original_id FROM drafts d JOIN answers b "
        "ON b.id = d.answer_id WHERE b.question_id = ?) AND id NOT IN (SELECT answer_id FROM drafts) UNION ALL "
        "SELECT a.*, 1 AS later FROM answers a JOIN drafts d ON d.answer_id = a.id WHERE a.question_id = ? "
        "ORDER BY later, id"
    )
    answers = []
    for row in db.query(sql, [question, question]):
        del row["later"]
        answers.append(answer_of(row))
    picked = next((row["chosen_id"] for row in db.query(_PICKS, [question])), None)
    return DraftSet(question, tuple(answers), picked)


def _question(db: Database, answer: str) -> str:
    found = db.execute("SELECT question_id FROM answers WHERE id = ?", [clean(answer)]).fetchone()
    if found is None:
        raise FinetuneError("The answer was deleted; nothing can be said of it any more.")
    return str(found[0])
