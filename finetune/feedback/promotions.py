"""Which model is served in place of the one that the page was started with: a history that is only added to.

promotions = Store("data/studio.sqlite").promotions
promotions.promote(base, model="runs/evening/sft/model", adapter=None, name="evening-sft", replaced="keye-nano")
promotions.now(base)              # what to serve at the next start
promotions.roll_back(base)        # a further row: what was served before the one in force is served again

`base` tells what the page was started with: another model has a history of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlite_utils import Database

from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.rows import clean, new_id, now


@dataclass(frozen=True)
class Promotion:
    id: str  # sorts by age
    base: str
    action: Literal["promote", "roll_back"]
    model: str | None  # the folder that is served from then on; None: of the base
    adapter: str | None  # the folder of the adapter beside it
    name: str  # as its answers carry it
    run: str | None  # id of the run that made it
    trial: str | None  # id of the comparison that it was promoted from
    replaced: str  # the name of what answered until then
    behind: str | None  # id of the row whose model a roll back would serve again; None: the base
    created: str  # UTC, ISO-8601 with milliseconds

    @property
    def is_base(self) -> bool:
        """Whether it serves nothing but what the page was started with."""
        return self.model is None and self.adapter is None


class Promotions:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do."""

    def __init__(self, file: File) -> None:
        self._file = file

    def promote(
        self,
        base: str,
        *,
        model: str | None,
        adapter: str | None,
        name: str,
        replaced: str,
        run: str | None = None,
        trial: str | None = None,
    ) -> Promotion:
        """Keep that this is served from now on."""
        with self._file.transaction() as db:
            newest = self._newest(db, base)
            row = {"action": "promote", "model": model, "adapter": adapter, "name": name, "run": run, "trial": trial}
            return self._insert(db, base, {**row, "replaced": replaced, "behind": newest.id if newest else None})

    def before(self, base: str) -> Promotion | None:
        """What a roll back would serve again; None for the base itself. FinetuneError if nothing was promoted."""
        with self._file.snapshot() as db:
            return self._before(db, self._in_force(db, base))

    def roll_back(self, base: str, *, name: str) -> Promotion:
        """Keep that what was served before is served again; `name` is the base's. FinetuneError if nothing was
        promoted."""
        with self._file.transaction() as db:
            ended = self._in_force(db, base)
            back = self._before(db, ended)
            row: dict[str, Any] = {"action": "roll_back", "replaced": ended.name, "behind": None, "trial": None}
            if back is None:
                row |= {"model": None, "adapter": None, "name": name, "run": None}
            else:
                row |= {"model": back.model, "adapter": back.adapter, "name": back.name, "run": back.run}
                row["behind"] = back.behind
            return self._insert(db, base, row)

    def now(self, base: str) -> Promotion | None:
        """What is in force; None where nothing was ever promoted over this base."""
        with self._file.snapshot() as db:
            return self._newest(db, base)

    def history(self, base: str, limit: int = 100) -> list[Promotion]:
        """The newest first."""
        with self._file.snapshot() as db:
            sql = "SELECT * FROM promotions WHERE base = ? ORDER BY id DESC LIMIT ?"
            return [promotion_of(row) for row in db.query(sql, [clean(base), max(limit, 0)])]

    def _newest(self, db: Database, base: str) -> Promotion | None:
        rows = list(db.query("SELECT * FROM promotions WHERE base = ? ORDER BY id DESC LIMIT 1", [clean(base)]))
        return promotion_of(rows[0]) if rows else None

    def _in_force(self, db: Database, base: str) -> Promotion:
        newest = self._newest(db, base)
        if newest is None or newest.is_base:
            raise FinetuneError("Nothing was promoted, so there is nothing to roll back.")
        return newest

    def _before(self, db: Database, promotion: Promotion) -> Promotion | None:
        rows = list(db.query("SELECT * FROM promotions WHERE id = ?", [promotion.behind or ""]))
        return promotion_of(rows[0]) if rows else None

    def _insert(self, db: Database, base: str, row: Mapping[str, Any]) -> Promotion:
        whole = {"id": new_id(), "base": base, **row, "created": now()}
        whole = {key: clean(value) if isinstance(value, str) else value for key, value in whole.items()}
        db.table("promotions").insert(whole)
        return promotion_of(whole)


def promotion_of(row: Mapping[str, Any]) -> Promotion:
    return Promotion(**row)
