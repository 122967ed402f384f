"""The store's own format: every table that belongs to a person's data, row by row, nothing lost.

The first line is {"keye_studio": 1, "steps": [...]}, each other one {"table": "answers", "row": {...}}, parents before
what refers to them, so that the same store always gives the same bytes. Left out is what belongs to one machine only:
where a video is kept (its name stands for it), which process wrote an answer, what waits to be trained, and what is
served."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from sqlite_utils import Database

from engine.reasoning.modes import MODE_NAMES
from finetune.data.report import Report
from finetune.feedback.rows import clean
from finetune.feedback.store import Store
from finetune.writing.moderation import Reason

VERSION = 1
TAKEN = (
    "videos",
    "conversations",
    "questions",
    "answers",
    "comparisons",
    "preferences",
    "votes",
    "drafts",
    "comment_rounds",
    "comment_clips",
    "comment_drafts",
    "comment_choices",
    "transcripts",
    "exclusions",
    "split",
    "looks",
    "runs",
    "stages",
    "metrics",
)
"""Tables that are taken along, as far as the store has them."""

OF_THIS_MACHINE = ("launches", "trials", "trial_pairs", "promotions", "listing", "search")
"""Tables that are not: they start processes or name what is served, or are made from the others."""

SHA = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[\w.:-]{1,200}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,7}")
_NAMED = re.compile(r"(?:^|_)id$")  # columns that hold the name of a row

Row = dict[str, Any]


def rows_of(db: Database) -> Iterator[tuple[str, Row]]:
    """(table, row) of everything that is taken along, in the order of its keys."""
    there = set(db.table_names())
    for table in TAKEN:
        if table in there:
            order = ", ".join(db.table(table).pks)
            for row in db.query(f"SELECT * FROM {table} ORDER BY {order}"):
                yield table, _travelling(table, row)


def header(db: Database) -> Row:
    steps = [name for (name,) in db.execute("SELECT name FROM _sqlite_migrations ORDER BY name").fetchall()]
    return {"keye_studio": VERSION, "steps": steps}


def _travelling(table: str, row: Row) -> Row:
    """A row without what holds on this machine only."""
    if table == "videos":
        probe = json.loads(row["probe"])
        if isinstance(probe, dict):
            probe.pop("path", None)
        name = video_name(row["sha256"], row["path"])
        return {**row, "path": name, "probe": json.dumps(probe, ensure_ascii=False)}
    if table == "answers":
        ended = "stopped" if row["finish"] == "running" else row["finish"]
        return {**row, "finish": ended, "writer_pid": 0, "writer_started": ""}
    if table in ("runs", "stages"):
        ended = row["status"] if row["status"] in ("done", "failed") else "stopped"
        row = {**row, "status": ended}
        return {**row, "writer_pid": None, "writer_started": None} if table == "runs" else row
    return row


def video_name(sha: str, path: str) -> str:
    """A kept video's name in its folder: its content and how it ends."""
    suffix = Path(path).suffix.lower()
    return sha + (suffix if _SUFFIX.fullmatch(suffix) else ".video")


# -- reading --------------------------------------------------------------------------------------------------------


class TableReader:
    """Puts rows of such a file into a store, and counts in `report` what is left out. `place` says where the
    file of a video is, or would be, from its content and its name."""

    def __init__(self, store: Store, report: Report, place: Callable[[str, str], str]) -> None:
        self._report, self._place = report, place
        with store.snapshot() as db:
            there = set(db.table_names())
            self._columns = {name: {c.name: c.type for c in db.table(name).columns} for name in TAKEN if name in there}
            self._keys = {name: db.table(name).pks for name in self._columns}

    def take(self, db: Database, where: str, line: Mapping[str, Any]) -> None:
        """One line, inside the transaction of `db`. A row that is there already is not taken twice."""
        table, row = line.get("table"), line.get("row")
        if not isinstance(table, str) or not isinstance(row, dict):
            return self._report.drop(where, "is no row of a table")
        if table not in self._columns:
            return self._report.drop(where, "is of a table that is not taken over", f"{table:.40}")
        row = {name: clean(value) if isinstance(value, str) else value for name, value in row.items()}
        why = self._wrong(table, row)
        if why:
            return self._report.drop(where, why[0], why[1])
        if table == "videos":
            row["path"] = self._place(row["sha256"], row["path"])
        key = " AND ".join(f"{name} = ?" for name in self._keys[table])
        values = [row.get(name) for name in self._keys[table]]
        known = next(iter(list(db.query(f"SELECT * FROM {table} WHERE {key}", values))), None)
        if known is not None:
            same = _travelling(table, known) == _travelling(table, {**known, **row})
            return self._report.drop(where, "was there already" if same else "is there with another content", table)
        marks = ", ".join("?" * len(row))
        try:
            db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        except sqlite3.IntegrityError as error:
            refers = "FOREIGN KEY" in str(error)
            self._report.drop(where, "refers to what is not there" if refers else "is refused by its table", f"{error}")
        except (sqlite3.DataError, OverflowError) as error:
            self._report.drop(where, "is refused by its table", f"{error}")
        else:
            self._report.made += 1

    def _wrong(self, table: str, row: Row) -> tuple[str, str] | None:
        """What a row may not have, although its table would take it."""
        columns = self._columns[table]
        for name, value in row.items():
            if name not in columns:
                return "has a column that is unknown", f"{table}.{name:.40}"
            if value is not None and (isinstance(value, bool) or not isinstance(value, str | int | float)):
                return "has a value that is no text or number", f"{table}.{name}"
            if value is None:
                continue
            if (_NAMED.search(name) or name in ("sha256", "video", "kin")) and not _ID.fullmatch(str(value)):
                return "has an id that is none", f"{table}.{name}"
            if name in ("created", "updated", "revoked") and not _TIME.fullmatch(str(value)):
                return "has a time that is none", f"{table}.{name}: {value!s:.40}"
        if table == "videos" and not _sound_video(row):
            return "names a video in a way that is unknown", f"{row.get('path')!r:.80}"
        if table in ("questions", "answers", "comment_rounds") and row.get("mode") not in MODE_NAMES:
            return "has a mode that is unknown", f"{row.get('mode')!r:.40}"
        if table in ("answers", "runs", "stages"):
            row.update(
                {name: value for name, value in _travelling(table, _filled(table, row)).items() if name in columns}
            )
        return _wrong_json(table, row)


def _filled(table: str, row: Row) -> Row:
    return {"finish": "stopped", **row} if table == "answers" else {"status": "stopped", **row}


def _sound_video(row: Row) -> bool:
    sha, path, probe = row.get("sha256"), row.get("path"), row.get("probe")
    if not (isinstance(sha, str) and SHA.fullmatch(sha) and isinstance(path, str) and path == video_name(sha, path)):
        return False
    found = _json(probe)
    return isinstance(found, dict) and len(str(probe)) < 100_000


_NUMBERS = {
    "sampling": ((), ("fps", "max_frames", "budget")),
    "usage": (("visual_tokens", "answer_tokens", "thought_tokens"), None),
    "timings": (("total",), None),
}
"""Of JSON columns with numbers: what must be there, and all that may be; what the page reads of them."""


def _wrong_json(table: str, row: Row) -> tuple[str, str] | None:
    for name in ("reasons", "moments", "bits", "cues"):
        if row.get(name) is not None and not _sound_list(name, _json(row[name])):
            return "has facts in a form that is unknown", f"{table}.{name}: {row[name]!s:.60}"
    if table not in ("questions", "answers", "comment_rounds", "comment_drafts"):
        return None
    for name in ("sampling", "decoding", "frames", "usage", "timings", "reasoning", "wishes", "moderation"):
        if row.get(name) is None:
            continue
        found = _json(row[name])
        if not isinstance(found, dict) or not _sound(name, found):
            return "has facts in a form that is unknown", f"{table}.{name}: {row[name]!s:.60}"
    return None


def _sound_list(name: str, found: Any) -> bool:
    if not isinstance(found, list):
        return False
    if name == "cues":
        return all(isinstance(cue, list) and len(cue) == 3 and all(map(_is_number, cue[:2])) for cue in found)
    return name != "bits" or all(
        isinstance(one, list) and all(type(bit) is int and 0 <= bit < 64 for bit in one) for one in found
    )


def _sound(name: str, found: Row) -> bool:
    if name == "reasoning":
        return _sound_steps(found.get("steps", []))
    if name == "frames":
        times = found.get("times", [])
        return isinstance(times, list) and all(map(_is_number, times))
    if name == "wishes":
        return all(value is None or isinstance(value, str | int | float) for value in found.values())
    if name == "moderation":
        reasons = found.get("reasons", [])
        return isinstance(reasons, list) and all(reason in get_args(Reason) for reason in reasons)
    if name not in _NUMBERS:
        return True
    needed, allowed = _NUMBERS[name]
    good = all(value is None or _is_number(value) for value in found.values())
    return good and set(needed) <= set(found) and (allowed is None or set(found) <= set(allowed))


def _sound_steps(steps: Any) -> bool:
    kinds = ("analysis", "thought", "call", "result", "note")
    return isinstance(steps, list) and all(
        isinstance(step, dict)
        and step.get("kind") in kinds
        and isinstance(step.get("text", ""), str)
        and _is_number(step.get("seconds", 0.0))
        and isinstance(step.get("ok", True), bool)
        and all(
            re.fullmatch(r"(data:image/jpeg;base64,[\w+/=]*)?", str(step.get(key, ""))) for key in ("image", "frame")
        )
        and (step.get("time") is None or _is_number(step["time"]))
        for step in steps
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
