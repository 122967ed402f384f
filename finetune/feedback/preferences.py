"""Which of two answers is better: comparisons that were asked for, and preferences from every source.

preferences = Store("data/studio.sqlite").preferences
preferences.compare(question.id, left.id, right.id, blind=True)
preferences.prefer(left.id, right.id, source="compare")
for pair in preferences.pairs(): ...          # what a preference is learnt from

A pair has one word in force per source. Another takes its place, and `revoke` takes it back; what was said before
stays in the file with the time until which it held."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlite_utils import Database

from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.rows import Answer, answer_of, clean, new_id, now, parsed

Verdict = Literal["better", "both_good", "both_bad"]
"""The chosen one is better; or neither is, and both are good or bad."""

Source = Literal["compare", "vote", "draft", "correction"]
"""Where a preference came from: two answers side by side, votes on answers of one question, one of several drafts that
was picked, a better text that a person wrote."""


@dataclass(frozen=True)
class Preference:
    id: str
    question: str
    chosen: str | None  # the answer that is better; None where a person wrote the better text
    chosen_text: str | None  # that text
    rejected: str  # the answer that is worse
    verdict: Verdict  # unless it is "better", `chosen` and `rejected` are only the pair, in the order it was given
    source: Source
    reasons: tuple[str, ...]
    created: str
    revoked: str | None  # until when it held; None while it does


@dataclass(frozen=True)
class Comparison:
    """Two answers of one question that are shown side by side."""

    question: str
    left: Answer
    right: Answer
    blind: bool  # which is which is not to be told before the choice
    preference: Preference | None  # what was chosen, in force
    told: bool  # whether a choice was ever made, revoked ones too: what was hidden has been seen

    @property
    def preferred(self) -> Answer:
        """The answer a conversation goes on from: the better one, else the left one, else the one that says
        something."""
        chosen = self.preference
        if chosen is not None and chosen.verdict == "better":
            return self.left if chosen.chosen == self.left.id else self.right
        return self.left if self.left.text or not self.right.text else self.right


class Preferences:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do."""

    def __init__(self, file: File) -> None:
        self._file = file

    def compare(self, question: str, left: str, right: str, *, blind: bool = False) -> None:
        """Note that two answers of a question are to be told apart. FinetuneError if one of them was deleted."""
        with self._file.transaction() as db:
            if {_question_of(db, left), _question_of(db, right)} != {clean(question)}:
                raise ValueError("both answers must be answers of the question")
            row = {"question_id": clean(question), "left_id": clean(left), "right_id": clean(right)}
            db.table("comparisons").insert({**row, "blind": int(blind)})

    def comparisons(self, conversation: str) -> dict[str, Comparison]:
        """The comparisons of a conversation, by their question. Empty for one that does not exist."""
        with self._file.snapshot() as db:
            sql = (
                "SELECT c.* FROM comparisons c JOIN questions q ON q.id = c.question_id "
                "WHERE q.conversation_id = ? ORDER BY q.position"
            )
            return {row["question_id"]: _comparison(db, row) for row in db.query(sql, [clean(conversation)])}

    def prefer(
        self,
        chosen: str | None,
        rejected: str,
        *,
        source: Source,
        verdict: Verdict = "better",
        text: str | None = None,
        reasons: Sequence[str] = (),
    ) -> Preference:
        """Keep that the answer `chosen`, or the `text` that a person wrote, is better than the answer `rejected`; or
        with another verdict, what holds for both. It takes the place of what this source said of the pair.

        FinetuneError if one of the answers was deleted."""
        if verdict not in get_args(Verdict) or source not in get_args(Source):
            raise ValueError(f"there is no verdict {verdict!r} or no source {source!r}")
        if (chosen is None) == (text is None) or (text is not None and verdict != "better"):
            raise ValueError("give the better answer, or the better text")
        with self._file.transaction() as db:
            question = _question_of(db, rejected)
            if chosen is not None and (_question_of(db, chosen) != question or chosen == rejected):
                raise ValueError("a preference is between two answers of one question")
            made = now()
            self._end(db, _in_force(db, source, chosen, rejected), made)
            row = {
                "id": new_id(),
                "question_id": question,
                "chosen_id": None if chosen is None else clean(chosen),
                "chosen_text": None if text is None else clean(text),
                "rejected_id": clean(rejected),
                "verdict": verdict,
                "source": source,
                "reasons": json.dumps([clean(reason) for reason in reasons], ensure_ascii=False),
                "created": made,
                "revoked": None,
            }
            db.table("preferences").insert(row)
            return preference_of(row)

    def revoke(self, preference: str) -> bool:
        """Take it back. False if that was done before, or it was deleted."""
        with self._file.transaction() as db:
            return self._end(db, [clean(preference)], now()) > 0

    def of_conversation(self, conversation: str) -> list[Preference]:
        """What is in force there, oldest first."""
        sql = (
            "SELECT p.* FROM preferences p JOIN questions q ON q.id = p.question_id "
            "WHERE q.conversation_id = ? AND p.revoked IS NULL ORDER BY p.id"
        )
        with self._file.snapshot() as db:
            return [preference_of(row) for row in db.query(sql, [clean(conversation)])]

    def pairs(self, source: Source | None = None) -> list[Preference]:
        """What is in force and says which is better, oldest first; of one source if asked. Ties are left out."""
        sql = "SELECT * FROM preferences WHERE revoked IS NULL AND verdict = 'better' AND ? IN ('', source) ORDER BY id"
        with self._file.snapshot() as db:
            return [preference_of(row) for row in db.query(sql, [source or ""])]

    @staticmethod
    def _end(db: Database, ids: Sequence[str], when: str) -> int:
        sql = "UPDATE preferences SET revoked = ? WHERE id = ? AND revoked IS NULL"
        return sum(db.execute(sql, [when, one]).rowcount for one in ids)


def preference_of(row: Mapping[str, Any]) -> Preference:
    return Preference(
        id=row["id"],
        question=row["question_id"],
        chosen=row["chosen_id"],
        chosen_text=row["chosen_text"],
        rejected=row["rejected_id"],
        verdict=row["verdict"],
        source=row["source"],
        reasons=tuple(str(reason) for reason in parsed(row["reasons"])),
        created=row["created"],
        revoked=row["revoked"],
    )


def _comparison(db: Database, row: Mapping[str, Any]) -> Comparison:
    left, right = (_answer(db, row[side]) for side in ("left_id", "right_id"))
    sql = "SELECT * FROM preferences WHERE source = 'compare' AND chosen_id IN (?, ?) AND rejected_id IN (?, ?)"
    said = [preference_of(found) for found in db.query(sql, [left.id, right.id, left.id, right.id])]
    preference = next((one for one in said if one.revoked is None), None)
    return Comparison(row["question_id"], left, right, bool(row["blind"]), preference, bool(said))


def _in_force(db: Database, source: str, chosen: str | None, rejected: str) -> list[str]:
    """Ids of what this source says of the two answers, in either order, and still holds; without `chosen`, of the
    text that a person wrote in place of `rejected`."""
    if chosen is None:
        pair, values = "chosen_id IS NULL AND rejected_id = ?", [rejected]
    else:
        pair, values = "chosen_id IN (?, ?) AND rejected_id IN (?, ?)", [chosen, rejected] * 2
    sql = f"SELECT id FROM preferences WHERE source = ? AND revoked IS NULL AND {pair}"
    return [row["id"] for row in db.query(sql, [source, *map(clean, values)])]


def _answer(db: Database, answer: str) -> Answer:
    (row,) = db.query("SELECT * FROM answers WHERE id = ?", [answer])
    return answer_of(row)


def _question_of(db: Database, answer: str) -> str:
    found = db.execute("SELECT question_id FROM answers WHERE id = ?", [clean(answer)]).fetchone()
    if found is None:
        raise FinetuneError("The answer was deleted; nothing can be said of it any more.")
    return str(found[0])
