"""The predictions of a run: one append-only file, so that a killed run loses at most the items in flight."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError

Key = tuple[str, str]
"""Task and index."""


class Predictions:
    """predictions.jsonl in `folder`: one JSON object an item, in the form that `python -m finetune score` reads. Of
    several lines about one item the last one counts. Only the places of the lines are held in memory.

    One process at a time may have it open. Raises FinetuneError where it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.jsonl"
        self._places: dict[Key, int] = {}
        self._finished: set[Key] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise FinetuneError(f"Another run is writing to {folder}; wait for it or name another --out.") from error
        except OSError as error:
            raise FinetuneError(f"{folder} cannot be written ({error.strerror}); name another --out.") from error
        self._scan()

    def _scan(self) -> None:
        """Find every whole line; a line torn by a kill is cut off, so that the next one starts afresh."""
        self._file.seek(0)
        end = 0
        for raw in self._file:
            if not raw.endswith(b"\n"):
                break
            row = _object(raw)
            if row is not None:
                self._note(row, end)
            end += len(raw)
        self._file.truncate(end)

    def _note(self, row: dict[str, Any], place: int) -> None:
        key = (str(row.get("task")), str(row.get("index")))
        self._places[key] = place
        if row.get("error") or row.get("judge_error"):
            self._finished.discard(key)
        else:
            self._finished.add(key)

    def get(self, key: Key) -> dict[str, Any] | None:
        """The newest record of an item; None where there is none."""
        place = self._places.get(key)
        if place is None:
            return None
        with self.path.open("rb") as file:
            file.seek(place)
            return _object(file.readline())

    def is_finished(self, key: Key) -> bool:
        """Whether the item was answered without a failure; one that failed is asked again."""
        return key in self._finished

    def add(self, row: dict[str, Any]) -> None:
        """Append a record; it is on its way to the disk when this returns. Only one thread may call this."""
        raw = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(raw)
            self._file.flush()
        except OSError as error:
            raise FinetuneError(
                f"{self.path} cannot be written ({error.strerror}); free some space and run the same command again."
            ) from error
        self._note(row, place)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(raw)
    except ValueError:  # a damaged line is as good as none: the item is asked again
        return None
    return row if isinstance(row, dict) else None
