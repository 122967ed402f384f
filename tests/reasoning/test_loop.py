"""Answers in a mode: how they are asked for, continued and ended, with a runtime that follows a script and with the
model that ships."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.events import Analysis, Answer, Done, Event, Note, Progress, Retraction, Thought, ToolCall, ToolResult
from engine.reasoning.loop import MOST_CALLS, reason
from engine.reasoning.modes import MODES, ModeName
from engine.runtime.base import Decoding, Message, Runtime
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample
from tests.media import make_clip
from tests.reasoning.conftest import Scripted

PICTURE = np.arange(60 * 80 * 3, dtype=np.uint32).reshape(60, 80, 3).astype(np.uint8)
ASKED = [Message("user", (PICTURE, "What is written?"))]
CROP = '<tool_call>{"name": "crop", "arguments": {"picture": 1, "box": [0, 0, 20, 30]}}</tool_call>'


def words(text: str) -> list[str]:
    """A script of one word a token."""
    return [word if at == 0 else f" {word}" for at, word in enumerate(text.split(" "))]


def ask(
    runtime: Runtime, mode: ModeName = "think", limit: int = 400, stop: threading.Event | None = None, **options: Any
) -> list[Event]:
    decoding = Decoding(max_tokens=limit)
    return list(reason(runtime, ASKED, decoding, stop or threading.Event(), MODES[mode], **options))


def end(events: list[Event]) -> Done:
    done = events[-1]
    assert isinstance(done, Done) and sum(isinstance(event, Done) for event in events) == 1
    return done


def text(events: list[Event], kind: type[Analysis] | type[Thought] | type[Answer]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


# -- modes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_is_asked_for_and_said(mode: ModeName) -> None:
    runtime = Scripted(words("It is red."))
    done = end(ask(runtime, mode))
    assert runtime.heard[0][0].parts[1] == f"What is written?{MODES[mode].switch}"
    assert (done.mode, done.text, done.finish, done.answer_tokens) == (mode, "It is red.", "stop", 3)
    assert (done.thought_tokens, done.thought_seconds, done.notes) == (0, 0.0, ())
    assert len(runtime.heard) == 1


def test_analysis_thought_and_answer_are_told_apart() -> None:
    script = ["<ana", "lysis>easy", "</analysis><think>", "red", " left", "</think><an", "swer>", "red", "</answer>"]
    events = ask(Scripted(script), "auto")
    done = end(events)
    assert (text(events, Analysis), text(events, Thought), text(events, Answer)) == ("easy", "red left", "red")
    assert done.text == "red" and done.raw_text == "".join(script)
    assert done.answer_tokens == 9 and 5 <= done.thought_tokens <= 7


def test_a_model_that_thinks_unasked_still_answers() -> None:
    events = ask(Scripted(words("<think> so so </think> red")), "no_think")
    assert end(events).text.strip() == "red" and "so so" in text(events, Thought)


def test_reasoning_without_an_opening_tag_does_not_stay_the_answer() -> None:
    events = ask(Scripted(words("so so</think> red")))
    assert Retraction("thought") in events
    assert end(events).text.strip() == "red"


# -- the budget -------------------------------------------------------------------------------------------------


def test_a_thought_at_its_budget_is_closed_and_the_model_answers() -> None:
    runtime = Scripted(["<think>", *words("one two three four five six seven")], words("it is red</answer>"))
    events = ask(runtime, think_budget=5)
    done = end(events)
    assert text(events, Thought) == "one two three four"
    assert runtime.begun() == "<think>one two three four</think><answer>"
    assert (done.text, done.finish, done.thought_tokens, done.answer_tokens) == ("it is red", "stop", 5, 8)
    assert any("budget of 5" in note for note in done.notes) and Note(done.notes[0]) in events
    assert done.raw_text == "<think>one two three four</think><answer>it is red</answer>"


def test_a_thought_within_its_budget_is_left_alone_and_the_answer_may_be_long() -> None:
    first = ["<think>", "so", "</think>", "a", "b", "c"]
    runtime = Scripted(first, ["d", "e"])
    done = end(ask(runtime, think_budget=5))
    assert runtime.limits[0] == 5 and runtime.begun() == "<think>so</think>ab"
    assert done.text == "abde" and not done.notes


def test_an_analysis_counts_as_thought() -> None:
    runtime = Scripted(["<analysis>", "a", "b", "c"], ["red"])
    done = end(ask(runtime, "auto", think_budget=3))
    assert runtime.begun() == "<analysis>ab</analysis><answer>" and done.text == "red"


def test_without_a_budget_a_thought_that_never_closes_leaves_room_for_an_answer() -> None:
    runtime = Scripted(["<think>", *(f"{i} " for i in range(10_000))], ["red"])
    done = end(ask(runtime, limit=100))
    assert done.text == "red" and done.thought_tokens == 75 and done.answer_tokens <= 100


def test_a_model_that_ends_in_its_thought_is_asked_for_the_answer() -> None:
    for script, begun in (
        (["<think>", "so"], "<think>so</think><answer>"),
        (["<think>", "so", "</think>"], "<think>so</think><answer>"),
        (["<think>", "so", "<answer>red</answer>", "</think>"], "<think>so<answer>red</answer></think><answer>"),
    ):
        runtime = Scripted(script, ["red"])
        done = end(ask(runtime))
        assert (runtime.begun(), done.text, done.finish) == (begun, "red", "stop")
        assert "without an answer" in done.notes[0]


def test_a_model_that_never_answers_is_let_be() -> None:
    runtime = Scripted(["<think>", "so"])
    done = end(ask(runtime))
    assert done.finish == "stop" and done.text == "" and len(runtime.heard) == 3


def test_a_character_cut_at_the_budget_is_written_whole() -> None:
    runtime = Scripted(["<think>", "红", "\ufffd"], ["红"])
    events = ask(runtime, think_budget=3)
    assert text(events, Thought) == "红" and "\ufffd" not in runtime.begun()


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="at least 1"):
        ask(Scripted(["red"]), think_budget=0)


# -- repetition -------------------------------------------------------------------------------------------------


def test_a_thought_in_a_loop_is_closed_and_the_model_answers() -> None:
    loop = words("wait, let me look at the circle again. " * 2000)
    runtime = Scripted(["<think>", "At first. ", *loop], ["red"])
    done = end(ask(runtime, limit=5000))
    assert done.text == "red" and done.answer_tokens < 1500
    assert "repeated itself" in done.notes[0]
    assert runtime.begun().startswith("<think>At first. wait") and runtime.begun().count("wait") <= 2


def test_an_answer_in_a_loop_is_ended_and_marked() -> None:
    runtime = Scripted(words("the red circle and " * 2000))
    done = end(ask(runtime, "no_think", limit=5000))
    assert done.finish == "stop" and "repeated itself" in done.notes[0]
    assert done.answer_tokens < 1500 and len(runtime.heard) == 1


# -- tools ------------------------------------------------------------------------------------------------------


def test_the_result_of_a_call_is_put_into_the_running_thought() -> None:
    runtime = Scripted(["<think>", "closer: ", CROP[:40], CROP[40:] + " and", " never said"], ["I see", "</think>A"])
    events = ask(runtime, "think_with_image")
    done = end(events)
    assert [type(e) for e in events if isinstance(e, ToolCall | ToolResult)] == [ToolCall, ToolResult]
    (result,) = [e for e in events if isinstance(e, ToolResult)]
    assert result.ok and result.image is not None and np.array_equal(result.image, PICTURE[:30, :20])
    assert runtime.begun() == f"<think>closer: {CROP}\n<sandbox_output>[image]</sandbox_output>\n"
    shown = runtime.heard[1][-1].parts[1]
    assert isinstance(shown, np.ndarray) and np.array_equal(shown, PICTURE[:30, :20])
    assert text(events, Thought) == "closer: I see" and done.text == "A" and done.tool_calls == 1
    assert done.raw_text == runtime.begun() + "I see</think>A"
    assert sum(isinstance(event, Progress) for event in events) == 1


def test_a_wrong_call_goes_back_as_text() -> None:
    runtime = Scripted(["<think>", '<tool_call>{"name": "fly"}</tool_call>'], ["</think>A"])
    events = ask(runtime, "think_with_image")
    assert "no tool 'fly'" in runtime.begun() and runtime.begun().endswith("</sandbox_output>\n")
    assert end(events).text == "A"


def test_other_modes_run_nothing() -> None:
    runtime = Scripted(["<think>", CROP, "</think>", "A"])
    events = ask(runtime, "think")
    assert not any(isinstance(event, ToolCall | ToolResult) for event in events)
    assert CROP in text(events, Thought) and len(runtime.heard) == 1


def test_a_model_that_calls_without_end_is_told_and_then_made_to_answer() -> None:
    runtime = Scripted(["<think>", CROP], *[[CROP]] * 5, ["A"])
    events = ask(runtime, "think_with_image", limit=1000)
    results = [event for event in events if isinstance(event, ToolResult)]
    assert [result.ok for result in results] == [True] * MOST_CALLS + [False] * 2
    assert "No more calls" in results[-1].text
    done = end(events)
    assert done.text == "A" and "did not stop" in done.notes[0]
    assert runtime.begun().endswith("</think><answer>")


def test_stopping_before_a_call_runs_nothing() -> None:
    stop = threading.Event()
    events: list[Event] = []
    for event in reason(Scripted(["<think>", CROP]), ASKED, Decoding(), stop, MODES["think_with_image"]):
        events.append(event)
        if isinstance(event, ToolCall):
            stop.set()
    assert end(events).finish == "stopped" and not any(isinstance(event, ToolResult) for event in events)


def test_stopping_ends_within_a_token() -> None:
    stop = threading.Event()
    events: list[Event] = []
    for event in reason(Scripted(["<think>", "a", "b", "c", "d"]), ASKED, Decoding(), stop, MODES["think"]):
        events.append(event)
        if text(events, Thought) == "ab":
            stop.set()
    assert end(events).finish == "stopped" and text(events, Thought) == "ab"


# -- whatever a model writes ------------------------------------------------------------------------------------

TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<analysis>", "</analysis>", "<tool_call>", "</tool_call>"]
pieces = st.sampled_from([*TAGS, CROP, "red ", "left ", "\ufffd", "\n", "<", "[image]", "<sandbox_output>"])


@given(
    st.lists(st.lists(pieces, max_size=12), min_size=1, max_size=5),
    st.sampled_from(list(MODES)),
    st.integers(1, 40),
    st.none() | st.integers(1, 20),
)
@settings(max_examples=300)
def test_every_answer_ends_once_within_its_limit(
    scripts: list[list[str]], mode: ModeName, limit: int, budget: int | None
) -> None:
    runtime = Scripted(*scripts)
    events = ask(runtime, mode, limit, think_budget=budget)
    done = end(events)
    assert done.answer_tokens <= limit and done.thought_tokens <= done.answer_tokens
    assert done.finish in ("stop", "length")
    answer = ""
    for event in events:
        if isinstance(event, Answer):
            answer += event.text
        elif isinstance(event, Retraction):
            answer = ""
    assert done.text == answer


# -- the model that ships ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano() -> LocalRuntime:
    runtime = LocalRuntime()
    runtime.start()
    return runtime


class Begun:
    """A real runtime whose first turn is begun by the test: the model itself need not know how to call."""

    def __init__(self, runtime: LocalRuntime, begin: str) -> None:
        self.runtime, self.begin = runtime, begin
        self.heard: list[list[Message]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Any:
        self.heard.append(messages)
        if self.begin:
            begin, self.begin = self.begin, ""
            yield Answer(begin)
            yield Done(finish="stopped", text=begin, model="keye-nano", answer_tokens=1)
            return
        yield from self.runtime.stream(messages, decoding, stop)


def test_the_real_model_goes_on_after_a_call(nano: LocalRuntime, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", frames=50, fps=25, size=(224, 224))
    frames = sample(Clip(tmp_path / "clip.mp4"), nano.info().sampling)
    call = json.dumps({"name": "zoom", "arguments": {"time": 1.0, "box": [0, 0, 40, 40]}})
    runtime = Begun(nano, f"<think>Closer. <tool_call>{call}</tool_call>")
    asked = [Message("user", (frames, "How many shapes are there?"))]
    decoding = Decoding(max_tokens=40, greedy=True)
    events = list(reason(runtime, asked, decoding, threading.Event(), MODES["think_with_image"]))
    result = next(event for event in events if isinstance(event, ToolResult))
    done = end(events)
    assert result.ok and result.image is not None and result.time == pytest.approx(1.0, abs=0.021)
    assert done.finish in ("stop", "length") and done.tool_calls >= 1 and done.model == "keye-nano"
    (_, after, *_) = runtime.heard
    direct = list(nano.stream(after, Decoding(max_tokens=8, greedy=True), threading.Event()))[-1]
    assert isinstance(direct, Done)
    wrote = done.raw_text.split("</sandbox_output>\n", 1)[1]
    assert wrote.startswith(direct.text.rstrip("\ufffd"))  # what it wrote on is what it writes there by itself
    assert direct.visual_tokens > frames.total_tokens


@pytest.mark.parametrize("mode", MODES)
def test_the_real_model_answers_in_every_mode(nano: LocalRuntime, mode: ModeName) -> None:
    decoding = Decoding(max_tokens=24, temperature=50.0, top_k=0, top_p=1.0, seed=3)  # noise: whatever it may write
    events = list(reason(nano, ASKED, decoding, threading.Event(), MODES[mode], think_budget=6))
    done = end(events)
    assert done.mode == mode and 0 < done.answer_tokens <= 24 and done.finish in ("stop", "length")
