"""Blind comparisons of what is served with a candidate: the questions, both answers to each, and what was said of them.

trials = Store("data/studio.sqlite").trials
trial = trials.begin(asked, seed=7, base=facts, candidate=facts, model=None, adapter="runs/evening/sft/adapter")
trials.answered(trial.id, 0, "base", {"text": "A red circle."})
trials.judge(trial.id, 0, "candidate")         # the newest word counts; None takes it back

Which answer stands on the left is drawn for each question from the trial's seed, and kept."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlite_utils import Database

from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.rows import Question, clean, column, loads, new_id, now, parsed, question_of

Party = Literal["base", "candidate"]
TrialVerdict = Literal["base", "candidate", "both_good", "both_bad"]


@dataclass(frozen=True)
class AskedPair:
    """A question that both are asked."""

    text: str
    kind: str
    mode: str = "auto"
    reference: str | None = None  # what is right, where that is known
    question: str | None = None  # id of the stored question that it is
    video: str | None = None  # the file to show
    start: float | None = None  # seconds of the file, here and below
    end: float | None = None


@dataclass(frozen=True)
class Pair:
    """A question with what both said. An answer holds text, raw (with the tags of its reasoning), finish, and error
    where it failed; None until it is there."""

    position: int
    asked: AskedPair
    left: Party
    base: dict[str, Any] | None
    candidate: dict[str, Any] | None
    verdict: TrialVerdict | None
    judged: str | None
    answers: tuple[str, str] | None  # ids of the stored answers of base and candidate, where a preference was kept

    @property
    def complete(self) -> bool:
        return self.base is not None and self.candidate is not None

    @property
    def both_say(self) -> bool:
        """Whether there is something to choose between."""
        return bool((self.base or {}).get("text")) and bool((self.candidate or {}).get("text"))

    def side(self, left: bool) -> dict[str, Any] | None:
        """The answer on one side."""
        return self.base if (self.left == "base") == left else self.candidate


@dataclass(frozen=True)
class Trial:
    id: str  # sorts by age
    model: str | None  # the candidate's folder, as finetune.feedback.promotions keeps it
    adapter: str | None
    run: str | None
    seed: int
    base: dict[str, Any]  # model, checkpoint, adapter, runtime: as answers carry them
    candidate: dict[str, Any]
    conversation: str | None  # where the preferences of stored questions are kept
    revealed: str | None  # since when the automatic score and the sides are shown
    sentence: str | None  # why it ended before its end
    created: str


class Trials:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do."""

    def __init__(self, file: File) -> None:
        self._file = file

    def begin(
        self,
        asked: Sequence[AskedPair],
        *,
        seed: int,
        base: Mapping[str, Any],
        candidate: Mapping[str, Any],
        model: str | None,
        adapter: str | None,
        run: str | None = None,
    ) -> Trial:
        """A trial of these questions; the sides are drawn now."""
        row = {"id": new_id(), "model": model, "adapter": adapter, "run": run, "seed": seed, "base": base}
        with self._file.transaction() as db:
            whole = {**row, "candidate": candidate, "created": now()}
            db.table("trials").insert({key: column(value) for key, value in whole.items()})
            for position, one in enumerate(asked):
                pair = {
                    "trial_id": row["id"],
                    "position": position,
                    "text": one.text,
                    "kind": one.kind,
                    "mode": one.mode,
                    "reference": one.reference,
                    "question": one.question,
                    "video": one.video,
                    "clip_start": one.start,
                    "clip_end": one.end,
                    "left_side": drawn_left(seed, position),
                }
                db.table("trial_pairs").insert({key: column(value) for key, value in pair.items()})
            return self._one(db, str(row["id"]))

    def spoken(self, trial: str, candidate: Mapping[str, Any]) -> None:
        """Keep what the candidate's answers come from, once it is loaded."""
        with self._file.transaction() as db:
            db.execute("UPDATE trials SET candidate = ? WHERE id = ?", [column(candidate), clean(trial)])

    def answered(self, trial: str, position: int, party: Party, answer: Mapping[str, Any]) -> None:
        """Keep what one of the two said."""
        if party not in get_args(Party):
            raise ValueError(f"there is no party {party!r}")
        with self._file.transaction() as db:
            sql = f"UPDATE trial_pairs SET {party} = ? WHERE trial_id = ? AND position = ?"
            db.execute(sql, [column(answer), clean(trial), position])

    def judge(self, trial: str, position: int, verdict: TrialVerdict | None) -> Pair:
        """Keep what a person says of a pair; None takes it back. FinetuneError if there is nothing to choose."""
        if verdict is not None and verdict not in get_args(TrialVerdict):
            raise ValueError(f"there is no verdict {verdict!r}")
        with self._file.transaction() as db:
            pair = self._pair(db, trial, position)
            if not pair.both_say:
                raise FinetuneError("One of the two says nothing, so there is nothing to choose; go on to the next.")
            sql = "UPDATE trial_pairs SET verdict = ?, judged = ? WHERE trial_id = ? AND position = ?"
            db.execute(sql, [verdict, now() if verdict else None, clean(trial), position])
            return self._pair(db, trial, position)

    def kept_as(self, trial: str, position: int, conversation: str, answers: tuple[str, str]) -> None:
        """Note the stored answers that a pair has become, of base and candidate, and the conversation they are in."""
        with self._file.transaction() as db:
            sql = "UPDATE trial_pairs SET answers = ? WHERE trial_id = ? AND position = ?"
            db.execute(sql, [json.dumps(answers), clean(trial), position])
            db.execute("UPDATE trials SET conversation = ? WHERE id = ?", [clean(conversation), clean(trial)])

    def ended(self, trial: str, sentence: str) -> None:
        """Keep why it ended early."""
        with self._file.transaction() as db:
            db.execute("UPDATE trials SET sentence = ? WHERE id = ?", [clean(sentence), clean(trial)])

    def reveal(self, trial: str) -> None:
        """From now on the automatic score and the sides are shown; the first time counts."""
        with self._file.transaction() as db:
            sql = "UPDATE trials SET revealed = ? WHERE id = ? AND revealed IS NULL"
            db.execute(sql, [now(), clean(trial)])

    def one(self, trial: str) -> Trial:
        """FinetuneError if it is not in the store."""
        with self._file.snapshot() as db:
            return self._one(db, trial)

    def newest(self) -> Trial | None:
        with self._file.snapshot() as db:
            rows = list(db.query("SELECT * FROM trials ORDER BY id DESC LIMIT 1"))
            return _trial(rows[0]) if rows else None

    def pair(self, trial: str, position: int) -> Pair:
        """FinetuneError if it is not in the store."""
        with self._file.snapshot() as db:
            return self._pair(db, trial, position)

    def pairs(self, trial: str) -> list[Pair]:
        """In order. Empty for a trial that is not in the store."""
        with self._file.snapshot() as db:
            sql = "SELECT * FROM trial_pairs WHERE trial_id = ? ORDER BY position"
            return [_pair(row) for row in db.query(sql, [clean(trial)])]

    def question(self, question: str) -> Question | None:
        """The stored question that a pair is about, if it was not deleted."""
        with self._file.snapshot() as db:
            rows = list(db.query("SELECT * FROM questions WHERE id = ?", [clean(question)]))
            return question_of(rows[0]) if rows else None

    def has_answers(self, answers: tuple[str, str]) -> bool:
        """Whether both are still stored."""
        with self._file.snapshot() as db:
            return len(list(db.query("SELECT id FROM answers WHERE id IN (?, ?)", list(answers)))) == 2

    def has_conversation(self, conversation: str) -> bool:
        with self._file.snapshot() as db:
            return bool(list(db.query("SELECT id FROM conversations WHERE id = ?", [clean(conversation)])))

    def _one(self, db: Database, trial: str) -> Trial:
        rows = list(db.query("SELECT * FROM trials WHERE id = ?", [clean(trial)]))
        if not rows:
            raise FinetuneError("This comparison is no longer kept; begin a new one.")
        return _trial(rows[0])

    def _pair(self, db: Database, trial: str, position: int) -> Pair:
        sql = "SELECT * FROM trial_pairs WHERE trial_id = ? AND position = ?"
        rows = list(db.query(sql, [clean(trial), position]))
        if not rows:
            raise FinetuneError("This comparison is no longer kept; begin a new one.")
        return _pair(rows[0])


def drawn_left(seed: int, position: int) -> Party:
    """Which of the two stands on the left of a question: a fair coin, the same for the same seed."""
    return "base" if random.Random(f"{seed}-{position}").random() < 0.5 else "candidate"


def _trial(row: Mapping[str, Any]) -> Trial:
    return Trial(**{**row, "base": loads(row["base"]), "candidate": loads(row["candidate"])})


def _pair(row: Mapping[str, Any]) -> Pair:
    asked = AskedPair(
        text=row["text"],
        kind=row["kind"],
        mode=row["mode"],
        reference=row["reference"],
        question=row["question"],
        video=row["video"],
        start=row["clip_start"],
        end=row["clip_end"],
    )
    base, candidate = (None if row[party] is None else loads(row[party]) for party in get_args(Party))
    answers = None if row["answers"] is None else parsed(row["answers"])
    return Pair(
        position=row["position"],
        asked=asked,
        left=row["left_side"],
        base=base,
        candidate=candidate,
        verdict=row["verdict"],
        judged=row["judged"],
        answers=None if answers is None else (str(answers[0]), str(answers[1])),
    )
