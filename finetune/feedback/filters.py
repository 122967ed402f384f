"""What is looked for in the list of everything collected, and how that reads in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from sqlite_utils import Database

from engine.reasoning.modes import MODE_NAMES
from finetune.errors import FinetuneError
from finetune.feedback.rows import clean
from finetune.feedback.splits import SIDE, Side, edge_of, share_in

Has = Literal["vote", "correction", "preference", "excluded", "finding"]
"""What was said of an answer, or found out about it."""
FEW = 5_000
"""Rows of feedback that are looked through from their end; of more, each answer is asked whether it has one."""

LONGEST_SEARCH = 200  # characters
_SHORT = 3  # fewer characters than this are not in the index
_TICKS = 1_048_576  # numbers of the list in a millisecond


@dataclass(frozen=True)
class Filters:
    """All that is said must hold. FinetuneError for a value that there is none of, when they are used."""

    text: str = ""  # words that stand in the question, the answer or its correction, in any order
    has: frozenset[Has] = field(default_factory=frozenset)
    lacks: frozenset[Has] = field(default_factory=frozenset)
    mode: str | None = None
    model: str | None = None
    language: str | None = None  # en, zh
    side: Side | None = None
    video: str | None = None  # sha256
    first_day: str | None = None  # YYYY-MM-DD, UTC
    last_day: str | None = None

    @property
    def words(self) -> list[str]:
        return clean(self.text).split()

    def check(self) -> None:
        if len(self.text) > LONGEST_SEARCH:
            raise FinetuneError(
                f"The search has {len(self.text)} characters; the most is {LONGEST_SEARCH}. Shorten it."
            )
        if self.mode is not None and self.mode not in MODE_NAMES:
            raise FinetuneError(f"There is no mode {self.mode}; use one of {', '.join(MODE_NAMES)}.")
        if self.side is not None and self.side not in get_args(Side):
            raise FinetuneError(f"There is no side {self.side}; use train or held_out.")
        if unknown := (self.has | self.lacks) - set(get_args(Has)):
            raise FinetuneError(f"There is no mark {min(unknown)}; use one of {', '.join(get_args(Has))}.")
        self.days()

    def days(self) -> tuple[int, int]:
        """The numbers of the list from the first to the last day: at least one, below the other."""
        first = 0 if self.first_day is None else _day(self.first_day)
        last = 2**62 if self.last_day is None else _day(self.last_day) + 86_400_000 * _TICKS
        return first, last


@dataclass(frozen=True)
class Query:
    """FROM and WHERE over `listing` as l."""

    source: str
    where: str
    values: tuple[Any, ...]
    place: str = "l.n"  # the column that orders it
    few: bool = False  # all that fit are soon found
    dense: bool = False  # the next that fits is soon found


def query_of(db: Database, filters: Filters) -> Query:
    """FinetuneError where the filters say what makes no sense."""
    filters.check()
    tables = set(db.table_names())
    joins: list[str] = []
    where: list[str] = []
    values: list[Any] = []
    few = False
    for column in ("mode", "model", "language", "video"):
        wanted = getattr(filters, column)
        if wanted is not None:
            rows = f"SELECT n FROM listing WHERE {column} = ?"
            scarce = _few(db, rows, [clean(wanted)])
            few |= scarce
            where.append(f"l.n IN ({rows})" if scarce else f"+l.{column} = ?")  # +: not by its index, but by place
            values.append(clean(wanted))
    for mark in sorted(filters.has):
        rows = _marked(mark, tables)
        scarce = _few(db, rows)
        few |= scarce
        where.append(f"l.n IN ({rows})" if scarce else f"l.n = (SELECT m.n FROM ({rows}) m WHERE m.n = l.n LIMIT 1)")
    for mark in sorted(filters.lacks):
        where.append(f"NOT EXISTS (SELECT 1 FROM ({_marked(mark, tables)}) m WHERE m.n = l.n)")
    if filters.side is not None:
        joins.append("LEFT JOIN looks k ON k.video = l.video")
        where.append(f"{SIDE.format(video='l.video', edge='?')} = ?")
        values += [edge_of(share_in(db)), filters.side]
    spoken = _spoken(db, filters.words) if "transcripts" in tables else []
    # Where few rows are left, or what is said in a video is to be found too, the texts are read, not their index.
    indexed = [] if few or spoken else [word for word in filters.words if len(word) >= _SHORT]
    read = [word for word in filters.words if word not in indexed]
    if indexed:
        joins.append("JOIN search s ON s.rowid = l.n")
        where.append("search MATCH ?")
        values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in indexed))
    if read:
        joins.append("JOIN search_content t ON t.id = l.n")
        anywhere = " OR ".join(f"t.{column} LIKE ? ESCAPE '\\'" for column in ("c0", "c1", "c2"))
        texts = " AND ".join([f"({anywhere})"] * len(read))
        where.append(f"({texts} OR l.video IN ({', '.join('?' * len(spoken))}))" if spoken else texts)
        values += [like for word in read for like in [_like(word)] * 3] + spoken
    return Query(
        source=f"listing l {' '.join(joins)}".strip(),
        where=" AND ".join(where) or "1",
        values=tuple(values),
        place="s.rowid" if indexed else "l.n",
        few=few,
        dense=few or not where or (bool(indexed) and len(where) == 1),
    )


ALL = Filters()


def _marked(mark: Has, tables: set[str]) -> str:
    """The places of the answers with a mark, perhaps several times, as a SELECT of n."""
    if mark == "finding":
        return "SELECT n FROM listing WHERE finding IS NOT NULL"
    if mark == "excluded":
        said = "SELECT answer_id FROM exclusions"
    elif mark == "vote":
        said = "SELECT answer_id FROM votes WHERE revoked IS NULL" if "votes" in tables else _NONE
    elif mark == "correction":
        said = "SELECT rejected_id AS answer_id FROM preferences WHERE source = 'correction' AND revoked IS NULL"
    else:
        held = "FROM preferences WHERE source <> 'correction' AND revoked IS NULL"
        said = f"SELECT rejected_id AS answer_id {held} UNION ALL SELECT chosen_id {held}"
    return f"SELECT d.n FROM ({said}) s JOIN listing d ON d.answer_id = s.answer_id"


_NONE = "SELECT NULL AS answer_id WHERE 0"


def _few(db: Database, rows: str, values: Sequence[Any] = ()) -> bool:
    """Whether a SELECT has few rows, without counting more than these."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM ({rows}) LIMIT {FEW + 1})"
    return int(db.execute(sql, list(values)).fetchone()[0]) <= FEW


def _spoken(db: Database, words: list[str]) -> list[str]:
    """The videos in which all of these words are said; at most a few hundred."""
    if not words:
        return []
    texts = " AND ".join(["cues LIKE ? ESCAPE '\\'"] * len(words))
    sql = f"SELECT DISTINCT video FROM transcripts WHERE {texts} LIMIT 300"
    return [str(video) for (video,) in db.execute(sql, [_like(word) for word in words]).fetchall()]


def _like(word: str) -> str:
    for special in "\\%_":
        word = word.replace(special, f"\\{special}")
    return f"%{word}%"


def _day(text: str) -> int:
    """The first number of the list on a day."""
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise FinetuneError(f"{text:.20} is no day; write it as 2025-01-31.") from None
    return max(0, (day - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)) * _TICKS
