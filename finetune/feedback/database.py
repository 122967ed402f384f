"""One SQLite file under many threads and several processes: connections, transactions, opening.

Each thread has a connection of its own (SQLite's transactions belong to connections). Commits are written through
to the disk before they return (synchronous=FULL), because what people give cannot be had again."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from finetune.errors import FinetuneError
from finetune.feedback import problems
from finetune.feedback.schema import STEPS, migrations

_CHECKED_BYTES = 64 * 2**20  # files up to this size are read through at opening, in about 0.05 s
_RETRY_SECONDS = 0.02


class File:
    """The database at `path`, made with its folder if there is none, and brought to the newest schema.

    Every method may be called from any thread and raises FinetuneError when the disk is full, the file cannot be
    written, is damaged, was written by a newer version, or stays locked for `busy_seconds`."""

    def __init__(self, path: str | os.PathLike[str], busy_seconds: float = 10.0) -> None:
        self.path = Path(path).absolute()
        self._busy_seconds = busy_seconds
        self._local = threading.local()
        self._all: weakref.WeakSet[Database] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._inherited: list[Any] = []
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FinetuneError(problems.no_folder(self.path, error)) from error
        with self._told():
            self._open()

    def close(self) -> None:
        """Close every thread's connection. Call it when no thread uses the store any more."""
        with self._lock:
            self._closed = True
            for db in list(self._all):
                db.close()
            self._all.clear()

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Everything in the block is saved, on the disk, when it ends, or nothing is.

        The write lock is taken at the start (BEGIN IMMEDIATE): what the block reads is still true when it writes.
        Inside another transaction of this thread it is a savepoint of that one."""
        with self._told():
            db = self._connection()
            if db.conn.in_transaction:
                with db.atomic():
                    yield db
                return
            db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.conn.execute("COMMIT")
            except BaseException:
                db.conn.rollback()  # does nothing where the error already undid the transaction
                raise

    @contextmanager
    def quick_transaction(self) -> Iterator[Database]:
        """A transaction that outlives a crash of this program, but perhaps not a power cut: it does not wait for
        the disk. For what is written often and can be lost in part, such as the text of a growing answer."""
        with self._told():
            db = self._connection()
            if db.conn.in_transaction:  # the level cannot change within a transaction, and the outer one decides
                with self.transaction():
                    yield db
                return
            db.conn.execute("PRAGMA synchronous=NORMAL")
            try:
                with self.transaction():
                    yield db
            finally:
                db.conn.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def snapshot(self) -> Iterator[Database]:
        """All reads in the block see the same moment, whatever others write meanwhile."""
        with self._told():
            db = self._connection()
            if db.conn.in_transaction:
                yield db
                return
            db.conn.execute("BEGIN")
            try:
                yield db
            finally:
                db.conn.rollback()

    # -- connections --------------------------------------------------------------------------------------------

    def _told(self) -> Any:
        return problems.told(self.path, self._busy_seconds)

    def _connection(self) -> Database:
        if self._closed:
            raise FinetuneError(f"The store {self.path} was closed; start Keye Studio again to go on.")
        kept: tuple[int, Database] | None = getattr(self._local, "kept", None)
        if kept is not None and kept[0] == os.getpid():
            return kept[1]
        if kept is not None:
            # A connection must not cross a fork; not even closed, which would drop the parent's hold on the file.
            self._inherited.append(kept[1])
            self._lock, self._all = threading.Lock(), weakref.WeakSet()
        db = self._connect()
        self._local.kept = (os.getpid(), db)
        with self._lock:
            self._all.add(db)
        return db

    def _connect(self, read_only: bool = False) -> Database:
        # check_same_thread is off only so that close() can close what other threads have opened.
        uri = f"{self.path.as_uri()}?mode={'ro' if read_only else 'rwc'}"
        conn = sqlite3.connect(uri, uri=True, timeout=self._busy_seconds, check_same_thread=False)
        try:
            db = Database(conn, execute_plugins=False)  # what else the user installed has no business in this file
            if not read_only:
                conn.execute("PRAGMA foreign_keys=ON")
                conn.execute("PRAGMA synchronous=FULL")  # reads the file, which may need the mending below
        except BaseException:
            conn.close()
            raise
        return db

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Nothing is written before the file is known to be whole and ours."""
        if self.path.is_file() and self.path.stat().st_size:
            self._inspect()
        db = self._connection()
        self._use_wal(db)
        if migrations.pending(db):
            self._migrate(db)

    def _inspect(self) -> None:
        # Read-only, because a connection that may write copies a left-over log into the file when it closes.
        db = self._connect(read_only=True)
        try:
            self._check(db)
        except sqlite3.OperationalError as error:
            # A crash in the file's first moments left a journal that only a writer may undo.
            if error.sqlite_errorcode not in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY):
                raise
            self._check(self._connection())
        finally:
            db.close()

    def _check(self, db: Database) -> None:
        tables = set(db.table_names())
        ours = _applied(db)
        if tables and not ours:
            raise FinetuneError(problems.foreign(self.path))
        if self.path.stat().st_size <= _CHECKED_BYTES:
            (found,) = db.conn.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise FinetuneError(problems.damaged(self.path, " ".join(found.split())))
        self._refuse_newer(ours)

    def _refuse_newer(self, applied: set[str]) -> None:
        if unknown := sorted(applied.difference(STEPS)):
            raise FinetuneError(problems.newer(self.path, unknown))

    def _use_wal(self, db: Database) -> None:
        """Readers do not wait for the writer. SQLite does not wait for its turn to switch, so this does."""
        deadline = time.monotonic() + self._busy_seconds
        while db.conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                db.conn.execute("PRAGMA journal_mode=WAL").fetchone()
                return  # a file system that cannot share memory keeps the old journal, which works but slower
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    def _migrate(self, db: Database) -> None:
        db.conn.execute("PRAGMA foreign_keys=OFF")  # a step may rebuild a table that others refer to
        try:
            with self.transaction():  # of two processes that open an old file, the second finds nothing to do
                self._refuse_newer(_applied(db))
                migrations.apply(db)
                if broken := db.conn.execute("PRAGMA foreign_key_check").fetchall():
                    raise FinetuneError(problems.damaged(self.path, f"{len(broken)} rows refer to missing ones"))
        finally:
            db.conn.execute("PRAGMA foreign_keys=ON")


def _applied(db: Database) -> set[str]:
    return {step.name for step in migrations.applied(db)}
