"""A model that lies down while the machine is needed, and gets up again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.events import Done, Error
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.runtime.served import RESTS, Served

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"
HELLO = [Message("user", ("Hello",))]


def ask(runtime: Served) -> Done:
    *_, done = runtime.stream(HELLO, Decoding(greedy=True, max_tokens=8), threading.Event())
    assert isinstance(done, Done)
    return done


def test_it_answers_rests_with_a_sentence_and_answers_the_same_again() -> None:
    first = LocalRuntime(str(NANO), device="cpu")
    runtime = Served(first)
    runtime.start()
    info, before = runtime.info(), ask(runtime)
    assert before.text and not runtime.resting
    runtime.rest()
    runtime.rest()
    assert runtime.resting and first._loaded is None  # its memory is given back
    told, done = runtime.stream(HELLO, Decoding(), threading.Event())
    assert told == Error(RESTS) and isinstance(done, Done) and done.finish == "error" and done.model == info.name
    assert runtime.info() == info and runtime.status().message == RESTS
    with pytest.raises(EngineError, match="rests while it is fine-tuned"), runtime.held():
        pass
    with pytest.raises(EngineError, match="wait until that has ended"):
        runtime.serve(NANO)
    runtime.wake()
    runtime.wake()
    assert ask(runtime).text == before.text and not runtime.resting
    runtime.rest()
    runtime.close()


def test_what_is_being_answered_ends_before_it_rests() -> None:
    runtime = Served(LocalRuntime(str(NANO), device="cpu"))
    runtime.info()
    with runtime.held() as speaker:
        resting = threading.Thread(target=runtime.rest)
        resting.start()
        while not runtime.resting:
            time.sleep(0.01)
        *_, done = speaker.stream(HELLO, Decoding(greedy=True, max_tokens=8), threading.Event())
        assert isinstance(done, Done) and done.text and resting.is_alive()
    resting.join(30)
    assert not resting.is_alive()
    runtime.close()


def test_a_model_that_cannot_be_loaded_rests_too_and_says_why_afterwards() -> None:
    runtime = Served(LocalRuntime("/nowhere", device="cpu"))
    runtime.rest()
    with pytest.raises(EngineError, match="rests"):
        runtime.info()
    runtime.wake()
    with pytest.raises(EngineError, match="nowhere"):
        runtime.info()
    runtime.close()
