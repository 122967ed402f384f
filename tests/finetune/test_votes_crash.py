"""Sixteen processes vote and correct at once and are killed in the middle, again and again: what was acknowledged is
there, and the file is whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from finetune.feedback import Store
from tests.finetune.killed_writers import EACH_ROUND, ROUNDS
from tests.finetune.test_store_crash import ROOT, assert_whole, rows


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
    command = [sys.executable, "-m", "tests.finetune.killed_writers", str(path), *answers]
    writers = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writers.stdin is not None and writers.stdout is not None
    for _ in range(ROUNDS):
        while (line := writers.stdout.readline().strip()) != "killed":
            assert line, "the writers ended"
            acknowledged.add(line)
        kept = {row[0] for row in rows(path, "SELECT id FROM votes UNION SELECT id FROM preferences")}
        assert acknowledged <= kept
        assert_whole(path)
        writers.stdin.write("go on\n")
        writers.stdin.flush()
    assert writers.wait(60) == 0
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
