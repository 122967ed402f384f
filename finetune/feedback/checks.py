"""What is wrong with what was collected: the filters that training data goes through (finetune.data.quality,
finetune.data.duplicates), over answers and their videos. Nothing is taken away: what is found stands in the list, to be
looked at and excluded."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from finetune.data.quality import MediaLimits, TextLimits, wrong_size, wrong_with
from finetune.feedback.splits import look
from finetune.feedback.store import Store

REPEATED = "the same was there before"
ALIKE = "looks like another one"
GONE = "the video is no longer there"

_BATCH = 500
_TELLING = 20  # characters from which on a text tells its language

Told = Callable[[str, int, int], None]
"""What is done ("videos", "answers"), how much of it is done, how much there is."""


def check(store: Store, told: Told | None = None, stopped: Callable[[], bool] = lambda: False) -> dict[str, int]:
    """Look through all videos and answers; how many answers each thing was found of. What was excluded before counts
    for nothing: the next like it stays.

    Of answers to one question about videos that look alike, those about the first such video stay. The same answer to
    the same question about the same clip is learnt from once."""
    look(store, None if told is None else lambda done, of: told("videos", done, of), stopped)
    found: Counter[str] = Counter()
    judge = _Judge()
    with store.snapshot() as db:
        (total,) = db.execute("SELECT count(*) FROM listing").fetchone()
    done, place = 0, -1
    while not stopped():
        with store.transaction() as db:
            rows = list(db.query(_ROWS, [place, _BATCH]))
            for row in rows:
                why = judge.wrong_with(row)
                if why:
                    found[why] += 1
                if why != (row["finding"] or ""):
                    db.execute("UPDATE listing SET finding = ? WHERE n = ?", [why or None, row["n"]])
        if not rows:
            break
        place, done = rows[-1]["n"], done + len(rows)
        if told is not None:
            told("answers", done, total)
    return dict(found)


_ROWS = """
    SELECT l.n, l.finding, l.language, q.text AS asked, coalesce(nullif(t.c2, ''), a.text) AS said,
        coalesce(q.video, '') AS video, q.clip_start, q.clip_end, coalesce(k.kin, q.video, '') AS kin, v.path, v.probe,
        EXISTS (SELECT 1 FROM exclusions e WHERE e.answer_id = a.id) AS excluded
    FROM listing l JOIN answers a ON a.id = l.answer_id JOIN questions q ON q.id = a.question_id
        JOIN search_content t ON t.id = l.n LEFT JOIN videos v ON v.sha256 = q.video
        LEFT JOIN looks k ON k.video = q.video
    WHERE l.n > ? ORDER BY l.n LIMIT ?"""


class _Judge:
    """Sees the answers from the oldest on. Remembers hashes, since there may be a million."""

    def __init__(self) -> None:
        self._said: set[int] = set()
        self._first: dict[int, int] = {}  # of a question about videos that look alike: the first of these videos

    def wrong_with(self, row: dict[str, Any]) -> str:
        language = row["language"] if len(row["said"]) >= _TELLING else ""
        why = wrong_with(row["said"], TextLimits(shortest=1), language)
        if not why and row["video"]:
            why = _wrong_video(row["path"], row["probe"])
        if why or row["excluded"]:
            return why or (row["finding"] or "")
        asked, said = (" ".join(row[key].casefold().split()) for key in ("asked", "said"))
        text = hash((row["video"], row["clip_start"], row["clip_end"], asked, said))
        if text in self._said:
            return REPEATED
        if row["kin"]:
            video = hash(row["video"])
            if self._first.setdefault(hash((row["kin"], asked)), video) != video:
                return ALIKE
        self._said.add(text)
        return ""


def _wrong_video(path: str, probe: str) -> str:
    if not os.path.isfile(path):
        return GONE
    facts = json.loads(probe)
    height, width = facts.get("height"), facts.get("width")
    return wrong_size(height, width, MediaLimits()) if isinstance(height, int) and isinstance(width, int) else ""
