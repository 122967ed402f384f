"""What SQLite and the file system complain of, as sentences a user can act on."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.feedback.rows import BROKEN_JSON

# Said by Python, not SQLite, of a row whose bytes were changed on the disk: these have no error code.
_BROKEN = ("Could not decode to UTF-8", BROKEN_JSON)


@contextmanager
def told(path: Path, busy_seconds: float) -> Iterator[None]:
    """Raise FinetuneError for what a user can mend; what is a defect of the program goes through unchanged."""
    try:
        yield
    except sqlite3.Error as error:
        sentence = _sentence(error, path, busy_seconds)
        if sentence is None:
            raise
        raise FinetuneError(sentence) from error


def _sentence(error: sqlite3.Error, path: Path, busy_seconds: float) -> str | None:
    extended = getattr(error, "sqlite_errorcode", None)
    code = sqlite3.SQLITE_CORRUPT if extended is None and str(error).startswith(_BROKEN) else extended
    match None if code is None else code & 0xFF:  # the low byte is the kind, the rest is detail
        case sqlite3.SQLITE_FULL:
            return full(path)
        case sqlite3.SQLITE_IOERR:
            return (
                f"The disk would not read or write {path}; see that it has free space, that no quota or size limit is "
                "reached and that it is still connected, then try again; what was saved before is kept."
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return (
                f"Another program kept {path} locked for more than {busy_seconds:g} s and this was not saved; "
                "close that program or wait until it is done, then try again."
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return unwritable(path, str(error))
    return None


def full(path: Path) -> str:
    return f"The disk that holds {path} is full; free some space and try again; what was saved before is kept."


def damaged(path: Path, detail: str) -> str:
    return (
        f"The store {path} is damaged ({detail}) and was left as it is; put a backup in its place, or move it aside "
        f"together with any {path.name}-wal and {path.name}-shm beside it to start with an empty one."
    )


def foreign(path: Path) -> str:
    return (
        f"{path} is the database of another program and was left as it is; move it aside or choose another place "
        "for the store."
    )


def newer(path: Path, steps: list[str]) -> str:
    return (
        f"The store {path} was written by a newer Keye Studio (it has {', '.join(steps)}) and was left as it is; "
        "update Keye Studio or choose another place for the store."
    )


def unwritable(path: Path, detail: str) -> str:
    return (
        f"The store {path} cannot be opened for writing ({detail}); make it and the folder {path.parent} writable, "
        "or choose another place for the store."
    )


def no_folder(path: Path, error: OSError) -> str:
    """Why the folder of the store could not be made."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(path)
    return unwritable(path, error.strerror or str(error))
