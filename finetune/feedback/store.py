"""The store: videos, conversations, questions and answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Unpack, get_args

from sqlite_utils import Database

from engine.events import Finish
from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.preferences import Preferences
from finetune.feedback.process import is_running, this_process
from finetune.feedback.rows import (
    Answer,
    AnswerFacts,
    Conversation,
    History,
    Question,
    Turn,
    Video,
    answer_of,
    clean,
    column,
    conversation_of,
    new_id,
    now,
    question_of,
    title_of,
    video_of,
)


class Store:
    """One SQLite file. Every method may be called from any thread, and several processes may share the file.

    When a method that writes returns, what it wrote is on the disk (`update_answer` is the exception and says so).
    Every method raises FinetuneError when the disk is full or read-only, or the file is damaged, written by a newer
    version or locked for more than `busy_seconds`."""

    def __init__(self, path: str | os.PathLike[str], busy_seconds: float = 10.0) -> None:
        self._file = File(path, busy_seconds)
        self.preferences = Preferences(self._file)
        self._recover()

    @property
    def path(self) -> Path:
        return self._file.path

    def transaction(self) -> AbstractContextManager[Database]:
        """`with store.transaction():` makes the calls in the block one: all of them are saved, or none."""
        return self._file.transaction()

    def snapshot(self) -> AbstractContextManager[Database]:
        """`with store.snapshot() as db:` all reads in the block see the same moment."""
        return self._file.snapshot()

    def close(self) -> None:
        """Close the file for all threads, when none uses the store any more. Nothing has to be saved first."""
        self._file.close()

    # -- videos -------------------------------------------------------------------------------------------------

    def add_video(self, sha256: str, *, name: str, path: str | os.PathLike[str], probe: Mapping[str, Any]) -> Video:
        """Note a kept file; the row of its content, which may be older and keeps its first name and path.

        Only if the file at the older path is gone does the new path take its place."""
        where = os.fspath(path)
        if where != clean(where):
            raise FinetuneError(f"The folder of {where!a} has a name that is not valid text; rename it.")
        with self.transaction() as db:
            known = self.video(sha256)
            if known is None:
                row = {"sha256": sha256, "name": name, "path": where, "probe": probe, "created": now()}
                _insert(db, "videos", row)
            elif known.path != where and not os.path.exists(known.path):
                db.execute("UPDATE videos SET path = ?, probe = ? WHERE sha256 = ?", [where, column(probe), sha256])
            return video_of(_row(db, "SELECT * FROM videos WHERE sha256 = ?", [sha256]))

    def video(self, sha256: str) -> Video | None:
        """The video with this content, if the store knows it."""
        with self._file.snapshot() as db:
            row = _one(db, "SELECT * FROM videos WHERE sha256 = ?", [clean(sha256)])
            return video_of(row) if row else None

    # -- conversations ------------------------------------------------------------------------------------------

    def new_conversation(
        self, question: str = "", *, model: str | None = None, language: str | None = None
    ) -> Conversation:
        """An empty conversation, titled after the question that will be its first, now or when it is added."""
        made = now()
        row = {"id": new_id(), "title": title_of(question), "created": made, "updated": made}
        with self.transaction() as db:
            _insert(db, "conversations", {**row, "model": model, "language": language})
            return conversation_of(_row(db, "SELECT * FROM conversations WHERE id = ?", [row["id"]]))

    def rename(self, conversation: str, title: str) -> Conversation:
        """Give it a title; a blank one brings back the one from its first question. It keeps its place in the list.

        FinetuneError if it was deleted."""
        with self.transaction() as db:
            title = " ".join(clean(title).split())
            if not title:
                sql = "SELECT text FROM questions WHERE conversation_id = ? ORDER BY position LIMIT 1"
                first = _one(db, sql, [clean(conversation)])
                title = title_of(first["text"]) if first else ""
            db.execute("UPDATE conversations SET title = ? WHERE id = ?", [title, clean(conversation)])
            return self._conversation(db, conversation)

    def conversations(self, limit: int = 100, offset: int = 0) -> list[Conversation]:
        """The most recently used first."""
        sql = "SELECT * FROM conversations ORDER BY updated DESC, id DESC LIMIT ? OFFSET ?"
        with self._file.snapshot() as db:
            return [conversation_of(row) for row in db.query(sql, [max(limit, 0), max(offset, 0)])]

    def conversation(self, conversation: str) -> History:
        """A conversation with all its questions and answers. FinetuneError if it was deleted."""
        with self._file.snapshot() as db:
            found = self._conversation(db, conversation)
            sql = "SELECT v.* FROM videos v WHERE sha256 IN (SELECT video FROM questions WHERE conversation_id = ?)"
            videos = {row["sha256"]: video_of(row) for row in db.query(sql, [found.id])}
            questions = _questions(db, found.id)
            answers: dict[str, list[Answer]] = {question.id: [] for question in questions}
            for answer in _answers(db, found.id):
                answers[answer.question].append(answer)
            turns = (Turn(q, tuple(answers[q.id]), videos.get(q.video or "")) for q in questions)
            return History(found, tuple(turns))

    def turns(self, conversation: str) -> list[tuple[Question, Answer | None]]:
        """Its questions in order, each with its newest answer. Empty for a conversation that does not exist."""
        with self._file.snapshot() as db:
            newest = {answer.question: answer for answer in _answers(db, clean(conversation))}
            return [(question, newest.get(question.id)) for question in _questions(db, clean(conversation))]

    def delete_conversation(self, conversation: str) -> list[Path]:
        """Remove it with its questions and answers, and forget the videos that no other conversation refers to.

        Returns the paths of those videos: their files are the caller's to delete. Empty if it was deleted before."""
        with self.transaction() as db:
            sql = "SELECT DISTINCT video FROM questions WHERE conversation_id = ? AND video IS NOT NULL ORDER BY video"
            used = [row["video"] for row in db.query(sql, [clean(conversation)])]
            db.execute("DELETE FROM conversations WHERE id = ?", [clean(conversation)])
            unused = []
            for sha in used:
                if _one(db, "SELECT 1 FROM questions WHERE video = ? LIMIT 1", [sha]) is None:
                    unused.append(Path(_row(db, "SELECT path FROM videos WHERE sha256 = ?", [sha])["path"]))
                    db.execute("DELETE FROM videos WHERE sha256 = ?", [sha])
            return unused

    # -- questions ----------------------------------------------------------------------------------------------

    def add_question(
        self,
        conversation: str,
        text: str,
        *,
        mode: str,
        video: str | None = None,
        start: float | None = None,
        end: float | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> Question:
        """Put a question at the end of a conversation. `video` is a content hash, `start` and `end` are seconds of
        the file, `sampling` is what the user asked for.

        FinetuneError if the conversation was deleted, or the video is not in the store."""
        made = now()
        with self.transaction() as db:
            found = self._conversation(db, conversation)
            if video is not None and self.video(video) is None:
                raise FinetuneError("The video of this question is no longer kept; upload it again and ask once more.")
            sql = "SELECT coalesce(max(position), -1) + 1 AS next FROM questions WHERE conversation_id = ?"
            row = {
                "id": new_id(),
                "conversation_id": found.id,
                "position": _row(db, sql, [found.id])["next"],
                "text": text,
                "video": video,
                "clip_start": None if start is None else float(start),
                "clip_end": None if end is None else float(end),
                "mode": mode,
                "sampling": sampling or {},
                "created": made,
            }
            _insert(db, "questions", row)
            changes = [made, found.title or title_of(text), found.id]
            db.execute("UPDATE conversations SET updated = ?, title = ? WHERE id = ?", changes)
            return question_of(_row(db, "SELECT * FROM questions WHERE id = ?", [row["id"]]))

    # -- answers ------------------------------------------------------------------------------------------------

    def begin_answer(self, question: str, *, mode: str, **facts: Unpack[AnswerFacts]) -> Answer:
        """A further answer to a question, "running" until `finish_answer`. What is not known yet (the model is
        still loading, the clip is not decoded) is given to `update_answer` later.

        FinetuneError if the question was deleted."""
        made = now()
        pid, began = this_process()
        with self.transaction() as db:
            asked = _one(db, "SELECT conversation_id FROM questions WHERE id = ?", [clean(question)])
            if asked is None:
                raise FinetuneError("The question was deleted before it was answered; ask it again.")
            row = {
                "id": new_id(),
                "question_id": question,
                "text": "",
                **_known(facts),
                "finish": "running",
                "mode": mode,
                "created": made,
                "writer_pid": pid,
                "writer_started": began,
            }
            _insert(db, "answers", row)
            db.execute("UPDATE conversations SET updated = ? WHERE id = ?", [made, asked["conversation_id"]])
            return answer_of(_row(db, "SELECT * FROM answers WHERE id = ?", [row["id"]]))

    def update_answer(self, answer: str, **facts: Unpack[AnswerFacts]) -> bool:
        """Keep how far a running answer is; only the facts that are given change (`text` is the whole text so far).

        Cheap: it survives a crash of the program, but after a power cut the last of them may be missing.
        False, and nothing is changed, if the answer has ended or was deleted."""
        with self._file.quick_transaction() as db:
            return _update(db, answer, _known(facts), only_running=True)

    def finish_answer(
        self, answer: str, finish: Finish, *, error: str | None = None, **facts: Unpack[AnswerFacts]
    ) -> bool:
        """Keep how an answer ended, with the facts that are given; of two calls the later one counts.

        False if it was deleted in the meantime."""
        if finish not in get_args(Finish):
            raise ValueError(f"finish is {finish!r}, not one of {', '.join(get_args(Finish))}")
        with self.transaction() as db:
            return _update(db, answer, {**_known(facts), "finish": finish, "error": error})

    # -- inside -------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Mark as stopped what a process that is gone left running.

        Takes the write lock even where there is nothing to do: a store that cannot be written says so now."""
        with self.transaction() as db:
            sql = "SELECT DISTINCT writer_pid, writer_started FROM answers WHERE finish = 'running'"
            for row in list(db.query(sql)):
                writer = [row["writer_pid"], row["writer_started"]]
                if not is_running(*writer):
                    gone = "finish = 'running' AND writer_pid = ? AND writer_started = ?"
                    db.execute(f"UPDATE answers SET finish = 'stopped' WHERE {gone}", writer)

    def _conversation(self, db: Database, conversation: str) -> Conversation:
        row = _one(db, "SELECT * FROM conversations WHERE id = ?", [clean(conversation)])
        if row is None:
            raise FinetuneError("This conversation was deleted; start a new one or open another.")
        return conversation_of(row)


def _one(db: Database, sql: str, parameters: list[Any]) -> dict[str, Any] | None:
    return next(iter(list(db.query(sql, parameters))), None)


def _row(db: Database, sql: str, parameters: list[Any]) -> dict[str, Any]:
    """The one row of a query that cannot come back empty."""
    (row,) = db.query(sql, parameters)
    return row


def _insert(db: Database, table: str, row: Mapping[str, Any]) -> None:
    db.table(table).insert({name: column(value) for name, value in row.items()})


def _update(db: Database, answer: str, columns: Mapping[str, Any], only_running: bool = False) -> bool:
    # The names are ours (see _known), never the user's; the values are parameters.
    assignments = ", ".join(f"{name} = ?" for name in columns) or "id = id"  # nothing to set: is the row there?
    condition = "id = ? AND finish = 'running'" if only_running else "id = ?"
    values = [column(value) for value in columns.values()]
    return db.execute(f"UPDATE answers SET {assignments} WHERE {condition}", [*values, clean(answer)]).rowcount == 1


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(facts) - set(AnswerFacts.__annotations__):
        raise TypeError(f"an answer has no {', '.join(sorted(unknown))}")
    return dict(facts)


def _questions(db: Database, conversation: str) -> list[Question]:
    sql = "SELECT * FROM questions WHERE conversation_id = ? ORDER BY position"
    return [question_of(row) for row in db.query(sql, [conversation])]


def _answers(db: Database, conversation: str) -> list[Answer]:
    """Every answer of a conversation, oldest first."""
    sql = (
        "SELECT a.* FROM answers a JOIN questions q ON q.id = a.question_id "
        "WHERE q.conversation_id = ? ORDER BY q.position, a.id"
    )
    return [answer_of(row) for row in db.query(sql, [conversation])]
