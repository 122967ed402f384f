"""Many threads, several processes, and processes that die in the middle: nothing that was acknowledged is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finetune.feedback import Store

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import os, sys
from finetune.feedback import Store
store = Store(sys.argv[1])
talk = store.new_conversation("written by a process")
for n in range(int(sys.argv[2])):
    question = store.add_question(talk.id, f"question {n}", mode="auto")
    answer = store.begin_answer(question.id, mode="auto")
    store.update_answer(answer.id, text="half " * 500)
    store.finish_answer(answer.id, "stop", text="whole " * 1000)
    os.write(1, f"{answer.id}\\n".encode())
"""

ANSWERING = """
import sys, time
from finetune.feedback import Store
store = Store(sys.argv[1])
question = store.add_question(store.new_conversation("q").id, "q", mode="auto")
answer = store.begin_answer(question.id, mode="auto")
store.update_answer(answer.id, text="half of it")
print(answer.id, flush=True)
sys.stdin.read()
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def rows(path: Path, sql: str) -> list[tuple]:
    conn = sqlite3.connect(path)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()


def assert_whole(path: Path) -> None:
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA foreign_key_check") == []


def test_sixteen_threads_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite", busy_seconds=60)
    talk = store.new_conversation("shared")
    acknowledged: list[str] = []
    failures: list[BaseException] = []

    def write(thread: int) -> None:
        try:
            for n in range(10):
                question = store.add_question(talk.id, f"{thread}/{n}", mode="auto")
                answer = store.begin_answer(question.id, mode="auto")
                store.finish_answer(answer.id, "stop", text=f"{thread}/{n}")
                assert question in [q for q, _ in store.turns(talk.id)]
                acknowledged.append(answer.id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert not failures
    assert len(acknowledged) == 160
    assert {row[0] for row in rows(store.path, "SELECT id FROM answers")} == set(acknowledged)
    # Reading the last position and writing the next is one step: none is missing and none is there twice.
    assert [row[0] for row in rows(store.path, "SELECT position FROM questions ORDER BY 1")] == list(range(160))
    joined = "SELECT count(*) FROM answers a JOIN questions q ON q.id = a.question_id WHERE a.text = q.text"
    assert rows(store.path, joined) == [(160,)]
    assert_whole(store.path)


def test_processes_make_and_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    writers = [start(WRITER, path, 30) for _ in range(3)]  # all find no file and race to make it
    acknowledged = [line for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(acknowledged) == 90
    assert {row[0] for row in rows(path, "SELECT id FROM answers WHERE finish = 'stop'")} == set(acknowledged)
    assert_whole(path)


def test_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    acknowledged: list[str] = []
    for few in (1, 40, 10):
        writer = start(WRITER, path, 1_000_000)
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(few)]
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0]
        acknowledged += [line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        kept = {row[0]: row[1:] for row in rows(path, "SELECT id, finish, text FROM answers")}
        assert all(kept.get(one) == ("stop", "whole " * 1000) for one in acknowledged)
        assert_whole(path)
    Store(path).close()
    assert rows(path, "SELECT count(*) FROM answers WHERE finish = 'running'") == [(0,)]


def test_kill_while_the_file_is_being_made(tmp_path: Path) -> None:
    """SIGKILL at each of the first calls that change the file: it opens afterwards and works."""
    program = """
import os, signal, sqlite3, sys
from finetune.feedback import Store
left = int(sys.argv[2])
class Connection(sqlite3.Connection):
    def execute(self, *arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments)
connect = sqlite3.connect
sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)
Store(sys.argv[1])
"""
    dying = [start(program, tmp_path / f"{n}.sqlite", n) for n in (6, 8, 22)]
    assert [one.wait() for one in dying] == [-signal.SIGKILL] * len(dying)
    for one in dying:
        one.communicate()
    for path in sorted(tmp_path.glob("*.sqlite")):
        store = Store(path)
        store.new_conversation("works")
        store.close()
        assert rows(path, "SELECT title FROM conversations") == [("works",)]
        assert_whole(path)


@pytest.mark.parametrize("reaped", [True, False])
def test_answers_of_a_dead_process_are_stopped_and_of_a_living_one_are_not(tmp_path: Path, reaped: bool) -> None:
    path = tmp_path / "s.sqlite"
    dead, living = start(ANSWERING, path), start(ANSWERING, path)
    assert dead.stdout is not None and living.stdout is not None
    ids = [process.stdout.readline().strip() for process in (dead, living)]  # type: ignore[union-attr]
    dead.kill()
    if reaped:
        dead.wait()
    else:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # it is dead and still has its id
    mine = Store(path)
    own = mine.begin_answer(mine.turns(mine.conversations()[0].id)[0][0].id, mode="auto")
    Store(path).close()
    state = {row[0]: row[1:] for row in rows(path, "SELECT id, finish, text FROM answers")}
    assert state[ids[0]] == ("stopped", "half of it")
    assert state[ids[1]] == ("running", "half of it")
    assert state[own.id] == ("running", "")
    dead.communicate()
    living.communicate()


def test_a_process_id_that_is_used_again_does_not_keep_an_answer_running(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    question = store.add_question(store.new_conversation().id, "q", mode="auto")
    store.begin_answer(question.id, mode="auto")
    conn = sqlite3.connect(store.path)
    assert conn.execute("SELECT writer_pid FROM answers").fetchone() == (os.getpid(),)
    conn.execute("UPDATE answers SET writer_started = 'another time'")
    conn.commit()
    conn.close()
    Store(store.path).close()
    assert rows(store.path, "SELECT finish FROM answers") == [("stopped",)]


def test_a_living_writer_that_was_taken_for_dead_still_has_the_last_word(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    question = store.add_question(store.new_conversation().id, "q", mode="auto")
    answer = store.begin_answer(question.id, mode="auto")
    conn = sqlite3.connect(store.path)
    conn.execute("UPDATE answers SET finish = 'stopped'")
    conn.commit()
    conn.close()
    assert store.finish_answer(answer.id, "stop", text="all of it")
    assert rows(store.path, "SELECT finish, text FROM answers") == [("stop", "all of it")]


def _write_in_child(store: Store, inherited: object) -> None:
    store.new_conversation("child")
    os._exit(0 if store._file._connection() is not inherited else 1)


def test_a_forked_child_does_not_use_the_connection_of_its_parent(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.new_conversation("before")
    child = multiprocessing.get_context("fork").Process(target=_write_in_child, args=(store, store._file._connection()))
    child.start()
    child.join()
    assert child.exitcode == 0
    store.new_conversation("after")
    store.close()
    assert rows(store.path, "SELECT title FROM conversations ORDER BY id") == [("before",), ("child",), ("after",)]
    assert_whole(store.path)
