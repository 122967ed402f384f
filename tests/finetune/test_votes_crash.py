"""Sixteen processes vote and correct at once and are killed in the middle, again and again: what was acknowledged is
there, and the file is whole."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from finetune.feedback import REASONS, Store
from tests.finetune.test_store_crash import assert_whole, rows

WRITERS, ROUNDS, EACH_ROUND = 16, 20, 51
PATIENCE = 120  # seconds: only how long a broken test takes to fail


def write(path: Path, answers: list[str], writer: int, begin: int, told: int) -> None:
    """Say something of one answer after the other without end; tell each row's id once the store has returned."""
    store, said = Store(path, busy_seconds=PATIENCE), 0
    os.write(told, b"ready\n")
    os.read(begin, 1)
    while True:
        answer, said = answers[(writer + said) % len(answers)], said + 1
        if said % 3:
            value = "up" if said % 3 == 1 else "down"
            reasons = [REASONS[said % len(REASONS)]] if value == "down" else []
            row = store.votes.vote(answer, value, reasons=reasons, moments=[said / 10]).id
        else:
            row = store.votes.correct(answer, f"{writer} says {said}").id
        os.write(told, f"{row}\n".encode())  # short enough to arrive as one


def start(path: Path, answers: list[str], writer: int, begin: int, told: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            write(path, answers, writer, begin, told)
        finally:
            os._exit(1)
    return pid


def listen(heard: int, lines: int) -> bytes:
    """What the writers tell, at least so many lines of it."""
    text, began = b"", time.monotonic()
    while text.count(b"\n") < lines:
        piece = os.read(heard, 65536)
        assert piece and time.monotonic() - began < PATIENCE, "the writers ended"
        text += piece
    return text


def test_no_acknowledged_word_is_lost_when_sixteen_writers_are_killed_twenty_times(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = Store(path)
    talk = store.new_conversation("What?").id
    questions = [store.add_question(talk, "What?", mode="auto").id for _ in range(7)]
    answers = [store.begin_answer(question, mode="auto").id for question in questions for _ in "ab"]
    for answer in answers:
        store.finish_answer(answer, "stop", text="an answer")
    store.close()
    acknowledged: set[str] = set()
    for _ in range(ROUNDS):
        (heard, told), (begin, gate) = os.pipe(), os.pipe()
        writers = [start(path, answers, number, begin, told) for number in range(WRITERS)]
        os.close(told)
        listen(heard, WRITERS)  # all are ready
        os.write(gate, b"x" * WRITERS)
        text = listen(heard, EACH_ROUND)
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
        assert [os.waitpid(pid, 0)[1] for pid in writers] == [signal.SIGKILL] * WRITERS
        while piece := os.read(heard, 65536):
            text += piece
        for end in (heard, begin, gate):
            os.close(end)
        acknowledged |= set(text.decode().split())
        kept = {row[0] for row in rows(path, "SELECT id FROM votes UNION SELECT id FROM preferences")}
        assert acknowledged <= kept
        assert_whole(path)
    assert len(acknowledged) >= ROUNDS * EACH_ROUND > 1000
    # Of all that was said, one vote and one correction an answer are in force, and pairs are those of the votes.
    again = Store(path)
    votes = {vote.answer: vote.value for vote in again.votes.in_force()}
    assert set(votes) == set(answers)
    found = sorted((pair.chosen or "", pair.rejected) for pair in again.preferences.pairs("vote"))
    sides = [one for a, b in zip(answers[::2], answers[1::2], strict=True) for one in ((a, b), (b, a))]
    assert found == sorted((a, b) for a, b in sides if (votes[a], votes[b]) == ("up", "down"))
    corrected = [pair.rejected for pair in again.preferences.pairs("correction")]
    assert len(corrected) == len(set(corrected)) and set(corrected) <= set(answers)
    again.close()
