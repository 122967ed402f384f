"""Which videos are learnt from and which are kept for measuring, and which of them look alike.

    split_of(store, sha)                  # "train" or "held_out"
    set_side(store, sha, "held_out")      # by hand; None leaves it to the rule again
    set_share(store, 0.3)

The rule: a video is held out if its content hash, read as a number between 0 and 1, is below the share. So the side of
a video depends on nothing but its content, and a larger share takes videos from training only. Videos that look alike
(finetune.data.duplicates, the published rule) have one side together, that of the first of them that was looked at."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from sqlite_utils import Database

from engine.errors import EngineError
from finetune.data.duplicates import Bits, Hashes, Index, alike
from finetune.data.items import Medium
from finetune.errors import FinetuneError
from finetune.feedback.rows import clean, now
from finetune.feedback.store import Store

Side = Literal["train", "held_out"]
SHARE = 0.2
"""Of the videos, held out where nobody said another."""

SIDE = "coalesce(k.side, CASE WHEN coalesce(k.kin, {video}) < {edge} THEN 'held_out' ELSE 'train' END)"
"""The side of `{video}` in SQL where `looks` is joined as k; `{edge}` is `edge_of` the share."""

_log = logging.getLogger(__name__)
_looking = threading.Lock()


def split_of(store: Store, sha: str) -> Side:
    """The side of a video. One that was never looked at is looked at first, with all others that wait for it: what
    looks like it decides."""
    with store.snapshot() as db:
        path = db.execute(
            "SELECT path FROM videos v WHERE sha256 = ? AND NOT EXISTS "
            "(SELECT 1 FROM looks k WHERE k.video = v.sha256 AND k.bits IS NOT NULL)",
            [clean(sha)],
        ).fetchone()
    if path is not None and Path(path[0]).is_file():
        look(store)
    with store.snapshot() as db:
        rule = SIDE.format(video="v.sha", edge="?")
        sql = f"SELECT {rule} FROM (SELECT ? AS sha) v LEFT JOIN looks k ON k.video = v.sha"
        (side,) = db.execute(sql, [edge_of(share_in(db)), clean(sha)]).fetchone()
    return "held_out" if side == "held_out" else "train"


def share(store: Store) -> float:
    """Of the videos, the share that is held out where no hand decides, 0..1."""
    with store.snapshot() as db:
        return share_in(db)


def sides(store: Store) -> dict[Side, int]:
    """How many videos are on each side."""
    with store.snapshot() as db:
        rule = SIDE.format(video="v.sha256", edge="?")
        sql = f"SELECT {rule}, count(*) FROM videos v LEFT JOIN looks k ON k.video = v.sha256 GROUP BY 1"
        found = dict(db.execute(sql, [edge_of(share_in(db))]).fetchall())
    return {side: int(found.get(side, 0)) for side in get_args(Side)}


def set_share(store: Store, share: float) -> None:
    """FinetuneError for what is no share."""
    if not 0 <= share <= 1:
        raise FinetuneError(f"The share that is held out is {share:g}; give one from 0 to 1.")
    with store.transaction() as db:
        db.execute("INSERT OR REPLACE INTO split (only, share) VALUES (1, ?)", [float(share)])


def set_side(store: Store, sha: str, side: Side | None) -> int:
    """Put a video, and all that look like it, on a side; None leaves them to the rule again. How many they are.

    FinetuneError if the video is not in the store."""
    if side is not None and side not in get_args(Side):
        raise ValueError(f"there is no side {side!r}")
    with store.transaction() as db:
        if db.execute("SELECT 1 FROM videos WHERE sha256 = ?", [clean(sha)]).fetchone() is None:
            raise FinetuneError("The video is no longer kept, so it is on no side; reload the list.")
        db.execute("INSERT OR IGNORE INTO looks (video, kin, created) VALUES (?, ?, ?)", [clean(sha)] * 2 + [now()])
        sql = "UPDATE looks SET side = ? WHERE kin = (SELECT kin FROM looks WHERE video = ?)"
        return int(db.execute(sql, [side, clean(sha)]).rowcount)


def share_in(db: Database) -> float:
    found = db.execute("SELECT share FROM split").fetchone()
    return SHARE if found is None else float(found[0])


def edge_of(share: float) -> str:
    """The content hashes of a share are those that sort before this text."""
    return "g" if share >= 1 else f"{int(share * 2**32):08x}"


# -- what looks alike -----------------------------------------------------------------------------------------------


def waiting(store: Store) -> int:
    """Videos that were not looked at yet, those whose file is missing among them."""
    with store.snapshot() as db:
        return int(db.execute(f"SELECT count(*) {_UNSEEN}").fetchone()[0])


_UNSEEN = (
    "FROM videos v WHERE NOT EXISTS (SELECT 1 FROM looks k WHERE k.video = v.sha256 AND k.bits IS NOT NULL) "
    "ORDER BY v.created, v.sha256"
)


def look(
    store: Store, told: Callable[[int, int], None] | None = None, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Look at every video that was not looked at yet, oldest first, and note what each one looks like; how many were
    found to look like an earlier one. `told` gets how many are done and how many there are.

    A file that is missing waits for the next time; one that cannot be read looks like nothing."""
    with _looking:
        with store.snapshot() as db:
            unseen = [
                (str(sha), Path(path)) for sha, path in db.execute(f"SELECT v.sha256, v.path {_UNSEEN}").fetchall()
            ]
            unseen = [(sha, path) for sha, path in unseen if path.is_file()]
            seen = db.execute("SELECT video, bits FROM looks WHERE bits IS NOT NULL").fetchall() if unseen else []
        index: Index[str] = Index()
        for video, bits in seen:
            for one in _sets(bits):
                index.add(one, video)
        found = 0
        for done, (sha, path) in enumerate(unseen):
            if stopped():
                break
            if told is not None:
                told(done, len(unseen))
            sets = _looks_of(path)
            twins = alike(index, sets)
            with store.transaction() as db:
                found += _join(db, sha, sets, twins)
            for one in sets:
                index.add(one, sha)
        return found


def _looks_of(path: Path) -> tuple[Bits, ...]:
    try:
        return Hashes(path.parent).of(Medium(path.name, "video"))
    except (EngineError, FinetuneError, OSError) as error:
        _log.info("%s looks like nothing: %s", path.name, error)
        return ()


def _sets(bits: str) -> list[Bits]:
    return [frozenset(one) for one in json.loads(bits)]


def _join(db: Database, sha: str, sets: tuple[Bits, ...], twins: list[str]) -> bool:
    """Note a video among those that look like it: all of them get the name and the side of the oldest of them."""
    if db.execute("SELECT 1 FROM videos WHERE sha256 = ?", [sha]).fetchone() is None:
        return False  # deleted meanwhile
    row = [sha, sha, json.dumps([sorted(one) for one in sets]), now()]
    db.execute(
        "INSERT INTO looks (video, kin, bits, created) VALUES (?, ?, ?, ?) ON CONFLICT (video) DO UPDATE SET bits = "
        "excluded.bits",
        row,
    )
    if not twins:
        return False
    marks = ", ".join("?" * len(twins))
    kins = db.execute(
        f"SELECT kin, min(created), max(side) FROM looks WHERE kin IN (SELECT kin FROM looks WHERE video IN ({marks})) "
        "GROUP BY kin ORDER BY 2, 1",
        twins,
    ).fetchall()
    kin = kins[0][0]
    own = db.execute("SELECT side FROM looks WHERE video = ?", [sha]).fetchone()[0]
    side = next((said for _, _, said in kins if said is not None), own)
    for other in [sha, *(name for name, _, _ in kins)]:
        db.execute("UPDATE looks SET kin = ?, side = ? WHERE kin = ?", [kin, side, other])
    return True
