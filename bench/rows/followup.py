"""The first word of a follow-up question on the same clip, against that of the first question."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from bench.clips import clip
from bench.figures import Line, Row, Run, Size, at_most, not_measured, seconds
from bench.worker import ROOT
from engine.errors import EngineError
from engine.events import Answer, Done, Error
from engine.runtime.base import Decoding, Message, Runtime
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample

SHARE = 5.0  # %
GREEDY = Decoding(max_tokens=24, greedy=True)


def measure(size: Size) -> list[Line]:
    path = clip(2, 320, 180) if size.tiny else clip(30, 1280, 720)
    lines = [_line("local", LocalRuntime(device="cpu"), path, size)]
    if size.tiny:
        return lines
    name = "sglang, without a GPU plain PyTorch"
    if not (ROOT / ".venv-sglang" / ".ready").exists():
        return [*lines, not_measured(name, "SGLang is not installed (make setup-sglang)", at_most(SHARE))]
    from engine.runtime.sglang import SGLangRuntime
    from engine.runtime.sglang_server import Supervisor

    try:
        return [*lines, _line(name, SGLangRuntime(Supervisor(None)), path, size)]
    except EngineError as error:
        return [*lines, not_measured(name, str(error), at_most(SHARE))]


def _line(name: str, runtime: Runtime, path: Path, size: Size) -> Line:
    try:
        runtime.info()
        first, second = [], []
        for run in range(size.runs + 1):  # the first of all warms up
            one, other = _conversation(runtime, path, run / 100)
            first.append(one)
            second.append(other)
    finally:
        runtime.close()
    ours, theirs = seconds(second[1:]), seconds(first[1:])
    figure = 100 * ours.median / theirs.median
    return Line(f"{name}: seconds to the first word", "s", ours, theirs, figure, "%", at_most(SHARE))


def _conversation(runtime: Runtime, path: Path, start: float) -> tuple[Run, Run]:
    """Two questions about the clip from `start` on: another start is another clip, which nothing remembers."""
    first, text = _first_word(runtime, path, start, [], "What happens?")
    earlier = ["What happens?", text]
    second, _ = _first_word(runtime, path, start, earlier, "How many shapes are there?")
    return first, second


def _first_word(runtime: Runtime, path: Path, start: float, earlier: list[str], question: str) -> tuple[Run, str]:
    """Seconds from the question to the first piece of its answer, with the reading of the clip, and the answer."""
    began, cpu = time.perf_counter(), time.process_time()
    frames = sample(Clip(path, start), runtime.info().sampling)
    opening = earlier[0] if earlier else question
    messages = [Message("user", (frames, opening))]
    if earlier:
        messages += [Message("assistant", (earlier[1],)), Message("user", (question,))]
    run: Run | None = None
    text = ""
    for event in runtime.stream(messages, GREEDY, threading.Event()):
        if isinstance(event, Answer | Done) and run is None:
            run = Run(time.perf_counter() - began, time.process_time() - cpu)
        if isinstance(event, Error):
            raise EngineError(event.message)
        if isinstance(event, Done):
            text = event.text
    assert run is not None
    return run, text or "Nothing."


ROW = Row(
    name="followup",
    what="a follow-up question on the same clip, time to the first word",
    against="the first question",
    goal="at most 5 % of it, on both runtimes",
    how="30 s of 720p30; every run another range of it, so that nothing is known of the clip, then a second question "
    "in the same conversation. From the question to the first piece of text, with the reading of the clip, as the page "
    "does it: frames that were read are kept, and the prompt goes on from the keys and values of the last one.",
    measure=measure,
)
