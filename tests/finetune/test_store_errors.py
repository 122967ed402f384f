"""What a user can run into comes out as one sentence that says what to do, and takes nothing away."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.feedback import Store

ROOT = Path(__file__).resolve().parents[2]
COUNT = 40


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed store with a few conversations."""
    store = Store(tmp_path / "s.sqlite")
    with store.transaction():
        for n in range(COUNT):
            talk = store.new_conversation(f"talk {n}")
            question = store.add_question(talk.id, "why " * 500, mode="auto")
            store.begin_answer(question.id, mode="auto", text="because " * 300)
    store.close()
    return store.path


def count(path: Path) -> int:
    conn = sqlite3.connect(path)
    try:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return conn.execute("SELECT count(*) FROM conversations").fetchone()[0]
    finally:
        conn.close()


def one_sentence(error: FinetuneError, path: Path) -> bool:
    return "\n" not in str(error) and str(error).endswith(".") and str(path) in str(error)


def test_full_disk_says_so_and_keeps_what_was_saved(filled: Path) -> None:
    store = Store(filled)
    with store.transaction() as db:
        (pages,) = db.conn.execute("PRAGMA page_count").fetchone()
    store._file._connection().conn.execute(f"PRAGMA max_page_count={pages + 4}")
    saved = COUNT
    with pytest.raises(FinetuneError, match="full; free some space") as caught:
        for _ in range(200):
            store.new_conversation("more " * 2000)
            store.add_question(store.conversations(1)[0].id, "more " * 2000, mode="auto")
            saved += 1
    assert one_sentence(caught.value, filled)
    store._file._connection().conn.execute("PRAGMA max_page_count=1000000")
    store.new_conversation("there is space again")
    store.close()
    assert count(filled) - saved in (1, 2)  # the conversation whose question did not fit may be there


def test_a_size_limit_in_the_middle_of_writing(filled: Path) -> None:
    program = """
import resource, sys
from finetune.errors import FinetuneError
from finetune.feedback import Store
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
saved = 0
try:
    while saved < 1000:
        store.new_conversation("more " * 1000, model="x" * 5000)
        saved += 1
except FinetuneError as error:
    print(saved, error)
assert len(store.conversations(2000)) == int(sys.argv[2]) + saved
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.new_conversation("there is space again")
"""
    run = subprocess.run([sys.executable, "-c", program, filled, str(COUNT)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    saved, sentence = run.stdout.split(" ", 1)
    assert "free space" in sentence and str(filled) in sentence and sentence.count("\n") == 1
    assert int(saved) > 0 and count(filled) == COUNT + int(saved) + 1


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "not a database":
        data[:] = b"This is a letter, not a database. " * 100
    elif how == "header":
        data[0:16] = os.urandom(16)
    elif how == "schema page":
        data[100:4096] = b"\xff" * 3996
    elif how == "pages":
        data[4096 * 4 :] = b"\xa5" * (len(data) - 4096 * 4)
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "a few bytes":
        data[4096 * 3 : 4096 * 3 + 8] = b"\xff" * 8
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["not a database", "header", "schema page", "pages", "cut", "a few bytes"])
@pytest.mark.parametrize("log", [False, True])
def test_a_damaged_file_is_named_left_alone_and_can_be_set_aside(filled: Path, how: str, log: bool) -> None:
    beside = filled.with_name("s.sqlite-wal")
    left_over = b""
    if log:  # what a crash leaves behind, and SQLite would copy into the file when it closes it
        store = Store(filled)
        store.rename(store.conversations()[0].id, "in the log")
        left_over = beside.read_bytes()
        store.close()
    damage(filled, how)
    if log:
        beside.write_bytes(left_over)
    before = filled.read_bytes()
    with pytest.raises(FinetuneError, match=r"is damaged .* left as it is; put a backup .* move it aside") as caught:
        Store(filled)
    assert one_sentence(caught.value, filled)
    assert filled.read_bytes() == before
    assert not log or beside.read_bytes() == left_over
    for piece in filled.parent.glob("s.sqlite*"):
        piece.rename(piece.with_name(f"aside.{piece.name}"))
    Store(filled).close()
    assert count(filled) == 0


def test_a_damaged_row_does_not_take_the_others_along(filled: Path) -> None:
    conn = sqlite3.connect(filled)
    conn.execute("PRAGMA ignore_check_constraints=ON")
    conn.execute("UPDATE answers SET text = CAST(x'ff' AS TEXT) WHERE rowid = 1")
    conn.execute("UPDATE questions SET sampling = '{' WHERE rowid = 2")
    conn.commit()
    talks = [row[0] for row in conn.execute("SELECT conversation_id FROM questions ORDER BY rowid LIMIT 3")]
    conn.close()
    store = Store(filled)
    for talk in talks[:2]:
        with pytest.raises(FinetuneError, match="damaged"):
            store.conversation(talk)
    assert len(store.conversation(talks[2]).turns) == 1


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE conversations (id)")
    conn.close()
    before = path.read_bytes()
    with pytest.raises(FinetuneError, match="another program") as caught:
        Store(path)
    assert one_sentence(caught.value, path)
    assert path.read_bytes() == before


def test_locked_by_another_program(filled: Path) -> None:
    store = Store(filled, busy_seconds=0.05)
    other = sqlite3.connect(filled, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for attempt in (lambda: store.new_conversation("x"), lambda: Store(filled, busy_seconds=0.05)):
        with pytest.raises(
            FinetuneError, match=r"locked for more than 0\.05 s and this was not saved; close"
        ) as caught:
            attempt()
        assert one_sentence(caught.value, filled)
    assert len(store.conversations(1000)) == COUNT  # reading goes on
    other.execute("ROLLBACK")
    store.new_conversation("now it works")
    store.close()
    assert count(filled) == COUNT + 1


def test_ten_seconds_is_the_patience_unless_told_otherwise(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    with store.transaction() as db:
        assert db.conn.execute("PRAGMA busy_timeout").fetchone() == (10_000,)
        assert db.conn.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_partial_text_does_not_lower_the_care_for_what_follows(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    question = store.add_question(store.new_conversation().id, "q", mode="auto")
    store.update_answer(store.begin_answer(question.id, mode="auto").id, text="part")
    with store.transaction() as db:
        assert db.conn.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_path_that_is_a_folder_or_lies_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "file" / "s.sqlite", tmp_path / "file" / "deep" / "s.sqlite"):
        with pytest.raises(FinetuneError, match="choose another place") as caught:
            Store(path)
        assert one_sentence(caught.value, path)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own belong to this one alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("existing", [True, False])
def test_a_folder_that_cannot_be_written(public: Path, existing: bool) -> None:
    """Run as an unprivileged user, since nothing is read-only for root."""
    path = public / "s.sqlite"
    if existing:
        Store(path).close()
    public.chmod(0o555)
    program = """
import os, sys
from finetune.errors import FinetuneError
from finetune.feedback import Store
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    Store(sys.argv[1])
except FinetuneError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"make it and the folder {public} writable" in run.stdout and run.stdout.count("\n") == 1


def test_unusual_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("with space?mode=memory#x%20.sqlite", "猫/データ.sqlite", ":memory:", "file:x.sqlite"):
        store = Store(name)
        store.new_conversation(name)
        store.close()
        assert count(tmp_path / name) == 1


def test_a_crash_that_left_a_rollback_journal_is_undone(filled: Path) -> None:
    """Before the log is switched on, or where it cannot be, a crash leaves a journal only a writer may undo."""
    program = """
import os, signal, sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
assert conn.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
conn.execute("PRAGMA cache_size=1")
conn.execute("BEGIN IMMEDIATE")
conn.execute("DELETE FROM conversations")
conn.execute("UPDATE answers SET text = text || 'never committed'")
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program, filled])
    assert run.returncode == -signal.SIGKILL
    assert filled.with_name("s.sqlite-journal").stat().st_size > 0
    store = Store(filled)
    assert len(store.conversations(1000)) == COUNT
    store.close()
    assert count(filled) == COUNT
