"""Everything that was collected, as a list that is searched, filtered, corrected and sifted.

    page = browse(store, Filters(text="red circle", has=frozenset({"correction"})))
    page = browse(store, filters, before=page.next)
    count(store, filters)
    correct(store, page.entries[0].answer, "A blue circle.")
    exclude(store, [entry.answer for entry in page.entries], "by hand")

Newest first, a page at a time. However many there are, a page comes within a given time: where it is over before the
page is full, the page says from where to look further."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from finetune.data.quality import TextLimits, wrong_with
from finetune.errors import FinetuneError
from finetune.feedback.filters import ALL, Filters, query_of
from finetune.feedback.rows import clean, now
from finetune.feedback.splits import SIDE, Side, edge_of, share_in
from finetune.feedback.store import Store

PAGE = 24
SECONDS = 0.1
"""For finding the rows of a page, and as much again for counting them all."""

LONGEST = 20_000  # characters of a correction
BY_HAND = "by hand"
_WINDOW = 2_000  # rows of the list that are looked through at once, at first
_SHORT, _LONG = 0.01, 0.03  # seconds that should go by between two looks at the clock


@dataclass(frozen=True)
class Entry:
    """An answer with its question, and what is known and was said of both."""

    n: int  # its place in the list
    answer: str  # ids
    question: str
    conversation: str
    asked: str
    said: str
    correction: str | None  # what a person wrote in its place
    video: str | None  # sha256
    name: str | None  # of the video
    start: float | None  # seconds of the file
    end: float | None
    mode: str
    model: str | None
    language: str
    created: str
    side: Side
    kin: str | None  # sha256 of another video that this one looks like
    finding: str | None  # what is wrong with it
    excluded: str | None  # why nothing is learnt from it
    preferred: int  # so often the better one of two answers, in force
    passed_over: int  # so often the worse one
    vote: str | None  # up or down


@dataclass(frozen=True)
class Page:
    entries: tuple[Entry, ...]
    next: int | None  # give this as `before` to see further; None at the end
    complete: bool  # False: the time was over before the page was full


def browse(
    store: Store, filters: Filters = ALL, before: int | None = None, size: int = PAGE, seconds: float = SECONDS
) -> Page:
    """The newest entries that fit, of those before the place `before`. FinetuneError for filters without sense."""
    with store.snapshot() as db:
        query = query_of(db, filters)
        found: list[int] = []
        low: int | None = None
        for below, ended in _windows(db, query.dense, filters, before, seconds):
            low = below
            left = size + 1 - len(found)
            sql = (
                f"SELECT l.n FROM {query.source} WHERE {query.where} AND {query.place} >= ? AND {query.place} < ? "
                f"ORDER BY {query.place} DESC LIMIT ?"
            )
            found += [n for (n,) in db.execute(sql, [*query.values, *ended, left]).fetchall()]
            if len(found) > size:
                break
        full = len(found) > size
        entries = _entries(db, found[:size])
        if full:
            return Page(entries, found[size - 1], True)
        return Page(entries, low, low is None)


def count(store: Store, filters: Filters = ALL, seconds: float = SECONDS) -> tuple[int, bool]:
    """How many entries fit, and whether that is all: False where the time was over before the end of the list."""
    with store.snapshot() as db:
        query = query_of(db, filters)
        if filters == ALL:
            return int(db.execute("SELECT count(*) FROM listing").fetchone()[0]), True
        total, low = 0, None
        for below, ended in _windows(db, query.few, filters, None, seconds):
            low = below
            sql = (
                f"SELECT count(*) FROM {query.source} WHERE {query.where} AND {query.place} >= ? AND {query.place} < ?"
            )
            total += db.execute(sql, [*query.values, *ended]).fetchone()[0]
        return total, low is None


def every(store: Store, filters: Filters = ALL, size: int = 200) -> Iterator[Entry]:
    """All entries that fit, oldest first, however long it takes; the list may change meanwhile."""
    place, last = filters.days()
    while True:
        with store.snapshot() as db:
            query = query_of(db, filters)
            sql = (
                f"SELECT l.n FROM {query.source} WHERE {query.where} AND {query.place} >= ? AND {query.place} < ? "
                f"ORDER BY {query.place} LIMIT ?"
            )
            found = [n for (n,) in db.execute(sql, [*query.values, place, last, size]).fetchall()]
            entries = _entries(db, found)
        yield from reversed(entries)
        if len(found) < size:
            return
        place = found[-1] + 1


def _windows(
    db: Database, whole: bool, filters: Filters, before: int | None, seconds: float
) -> Iterator[tuple[int | None, tuple[int, int]]]:
    """Ranges of the list, newest first, until its end or until the time is over, each with the place to go on from,
    which is None after the last; `whole`: all of it at once."""
    first, last = filters.days()
    top = last if before is None else min(before, last)
    began, width = time.monotonic(), _WINDOW
    deadline = began + seconds
    while True:
        low = None
        if not whole:
            sql = "SELECT n FROM listing WHERE n < ? AND n >= ? ORDER BY n DESC LIMIT 1 OFFSET ?"
            row = db.execute(sql, [top, first, width - 1]).fetchone()
            low = None if row is None else row[0]
        yield low, (first if low is None else low, top)
        moment = time.monotonic()
        if low is None or moment > deadline:
            return
        if not _SHORT <= moment - began <= _LONG:
            width = 2 * width if moment - began < _SHORT else max(1, width // 2)
        top, began = low, moment


def _entries(db: Database, places: Sequence[int]) -> tuple[Entry, ...]:
    if not places:
        return ()
    voted = "votes" in db.table_names()
    vote = "SELECT value FROM votes WHERE answer_id = a.id AND revoked IS NULL" if voted else "NULL"
    sql = f"""
        SELECT l.n, a.id AS answer, q.id AS question, q.conversation_id AS conversation, q.text AS asked,
            a.text AS said, nullif(t.c2, '') AS correction, q.video, v.name, q.clip_start AS start, q.clip_end AS end,
            a.mode, a.model, l.language, a.created, {SIDE.format(video="l.video", edge="?")} AS side,
            nullif(k.kin, l.video) AS kin, l.finding, e.why AS excluded,
            (SELECT count(*) FROM preferences p WHERE p.chosen_id = a.id AND p.verdict = 'better'
                AND p.revoked IS NULL AND p.source <> 'correction') AS preferred,
            (SELECT count(*) FROM preferences p WHERE p.rejected_id = a.id AND p.verdict = 'better'
                AND p.revoked IS NULL AND p.source <> 'correction') AS passed_over,
            ({vote}) AS vote
        FROM listing l JOIN answers a ON a.id = l.answer_id JOIN questions q ON q.id = a.question_id
            JOIN search_content t ON t.id = l.n LEFT JOIN videos v ON v.sha256 = q.video
            LEFT JOIN looks k ON k.video = q.video LEFT JOIN exclusions e ON e.answer_id = a.id
        WHERE l.n IN ({", ".join("?" * len(places))}) ORDER BY l.n DESC"""
    return tuple(Entry(**row) for row in db.query(sql, [edge_of(share_in(db)), *places]))


def models(store: Store) -> list[str]:
    """The models that answered, by name; at most a hundred."""
    sql = """WITH RECURSIVE t(model) AS (SELECT min(model) FROM listing UNION ALL
        SELECT (SELECT min(model) FROM listing WHERE model > t.model) FROM t WHERE t.model IS NOT NULL)
        SELECT model FROM t WHERE model IS NOT NULL LIMIT 100"""
    with store.snapshot() as db:
        return [str(model) for (model,) in db.execute(sql).fetchall()]


# -- changing -------------------------------------------------------------------------------------------------------


def correct(store: Store, answer: str, text: str) -> str | None:
    """Keep `text` as what should have been answered: it is what is learnt. The answer's own text takes an earlier
    correction back. What is now in force, None for the answer itself.

    FinetuneError for a text that nothing can be learnt from, or if the answer was deleted."""
    text = clean(text).strip()
    with store.transaction() as db:
        row = db.execute("SELECT text, question_id FROM answers WHERE id = ?", [clean(answer)]).fetchone()
        if row is None:
            raise FinetuneError("The answer was deleted; nothing can be said of it any more.")
        if text != row[0].strip():
            why = "a text is too short" if not text else wrong_with(text, TextLimits(shortest=1, longest=LONGEST))
            if why:
                raise FinetuneError(f"Nothing can be learnt from this correction: {why}; change it and save again.")
            store.preferences.prefer(None, clean(answer), text=text, source="correction")
        else:
            sql = (
                "SELECT id FROM preferences WHERE source = 'correction' AND chosen_text IS NOT NULL AND "
                "rejected_id = ? AND revoked IS NULL"
            )
            for (preference,) in db.execute(sql, [clean(answer)]).fetchall():
                store.preferences.revoke(preference)
        db.execute("UPDATE listing SET finding = NULL WHERE answer_id = ?", [clean(answer)])
        return text if text != row[0].strip() else None


def exclude(store: Store, answers: Iterable[str], why: str = BY_HAND) -> int:
    """Nothing is learnt from these answers any more; how many were not excluded before. Deleted ones are passed
    over."""
    added = 0
    with store.transaction() as db:
        for answer in answers:
            sql = "INSERT OR IGNORE INTO exclusions SELECT id, ?, ? FROM answers WHERE id = ?"
            added += db.execute(sql, [clean(why), now(), clean(answer)]).rowcount
    return added


def exclude_found(store: Store) -> int:
    """Exclude all answers that something was found to be wrong with (finetune.feedback.checks); how many."""
    sql = "INSERT OR IGNORE INTO exclusions SELECT answer_id, finding, ? FROM listing WHERE finding IS NOT NULL"
    with store.transaction() as db:
        return int(db.execute(sql, [now()]).rowcount)


def include(store: Store, answers: Iterable[str]) -> int:
    """Learn from these answers again; how many were excluded."""
    with store.transaction() as db:
        return sum(
            db.execute("DELETE FROM exclusions WHERE answer_id = ?", [clean(answer)]).rowcount for answer in answers
        )


def excluded(store: Store) -> frozenset[str]:
    """The answers from which nothing is learnt."""
    with store.snapshot() as db:
        return frozenset(answer for (answer,) in db.execute("SELECT answer_id FROM exclusions").fetchall())
