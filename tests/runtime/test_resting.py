"""A runtime that lies down while the machine is needed, and gets up again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.events import Done, Error
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.runtime.resting import RESTS, Resting

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"
HELLO = [Message("user", ("Hello",))]


def ask(runtime: Resting) -> Done:
    *_, done = runtime.stream(HELLO, Decoding(greedy=True, max_tokens=8), threading.Event())
    assert isinstance(done, Done)
    return done


def test_it_answers_rests_with_a_sentence_and_answers_the_same_again() -> None:
    made: list[LocalRuntime] = []

    def make() -> LocalRuntime:
        made.append(LocalRuntime(str(NANO), device="cpu"))
        return made[-1]

    runtime = Resting(make)
    runtime.start()
    info, before = runtime.info(), ask(runtime)
    assert before.text and not runtime.resting
    runtime.rest()
    runtime.rest()
    assert runtime.resting and made[0]._loaded is None  # its memory is given back
    told, done = runtime.stream(HELLO, Decoding(), threading.Event())
    assert told == Error(RESTS) and isinstance(done, Done) and done.finish == "error" and done.model == info.name
    assert runtime.info() == info and runtime.status().message == RESTS
    with pytest.raises(EngineError, match="rests while it is fine-tuned"):
        runtime.load_adapter("x", NANO)
    runtime.wake()
    runtime.wake()
    assert len(made) == 2 and ask(runtime).text == before.text
    runtime.close()


def test_before_it_was_ever_ready_it_says_why_it_knows_nothing() -> None:
    runtime = Resting(lambda: LocalRuntime("/nowhere", device="cpu"))
    runtime.rest()
    with pytest.raises(EngineError, match="rests"):
        runtime.info()
