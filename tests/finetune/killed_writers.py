"""Sixteen writers that vote and correct at once and are killed in the middle, again and again. A program of its own:
a fork of a process that has threads may wait for a lock for ever.

    python -m tests.finetune.killed_writers STORE ANSWER...

Prints the id of every row that was acknowledged, a line each, after each round a line `killed`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from finetune.feedback import REASONS, Store

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


def main(path: Path, answers: list[str]) -> None:
    for _ in range(ROUNDS):
        (heard, told), (begin, gate) = os.pipe(), os.pipe()
        writers = [start(path, answers, number, begin, told) for number in range(WRITERS)]
        os.close(told)
        ready = listen(heard, WRITERS)  # all are ready
        assert set(ready.split()) == {b"ready"}
        os.write(gate, b"x" * WRITERS)
        text = listen(heard, EACH_ROUND)
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
        assert [os.waitpid(pid, 0)[1] for pid in writers] == [signal.SIGKILL] * WRITERS
        while piece := os.read(heard, 65536):
            text += piece
        for end in (heard, begin, gate):
            os.close(end)
        print(text.decode() + "killed", flush=True)
        sys.stdin.readline()  # what was acknowledged is looked for before the next round


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
