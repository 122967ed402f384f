"""Reasoning as the chat shows it: folded from events, kept in the store, closed when it ends, and harmless."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from app.chat import chat_messages, mode_hint, ran_as, thought_messages
from app.errors import AppError
from app.i18n import say
from app.steps import Steps, follow, from_row, to_row
from app.studio import ClipChoice, Limits, Manner, Studio
from engine.errors import EngineError
from engine.events import Analysis, Answer, Event, Note, Retraction, Thought, ToolCall, ToolResult
from tests.app.conftest import ScriptedRuntime

Wait = Callable[[Studio, str], None]
SPAN = (0.0, 60.0)
PICTURE = np.full((20, 30, 3), 200, np.uint8)
CALL = '{"name": "zoom", "arguments": {"time": 0.5, "box": [0, 0, 40, 40]}}'


def folded(*events: Event) -> Steps:
    steps: Steps = ()
    text = ""
    for event in events:
        steps = follow(steps, event, text)
        text = text + event.text if isinstance(event, Answer) else "" if isinstance(event, Retraction) else text
    return steps


LOOKED = folded(
    Analysis("Two steps."),
    Thought("First "),
    Thought("at 0:02."),
    ToolCall(CALL),
    ToolResult(ok=True, text="", image=PICTURE, frame=PICTURE, time=2.0),
    Thought("I see."),
    Note("The thought reached its budget of 9 tokens and was closed."),
)


def test_pieces_become_steps_and_survive_the_store() -> None:
    assert [step.kind for step in LOOKED] == ["analysis", "thought", "call", "result", "thought", "note"]
    assert LOOKED[1].text == "First at 0:02."
    again = from_row(json.loads(json.dumps(to_row(LOOKED))))
    assert [(s.kind, s.text, s.image, s.frame, s.time, s.ok) for s in again] == [
        (s.kind, s.text, s.image, s.frame, s.time, s.ok) for s in LOOKED
    ]
    assert from_row(None) == () and again[3].image.startswith("data:image/jpeg;base64,")


def test_retracted_answer_text_becomes_a_step() -> None:
    (step,) = folded(Answer("so "), Answer("so"), Retraction("thought"), Answer("red"))
    assert (step.kind, step.text) == ("thought", "so so")


def test_calls_and_what_follows_are_nested_in_the_thought() -> None:
    analysis, root, call, more = thought_messages(LOOKED, False, SPAN, "en", "t0")
    assert "parent_id" not in analysis["metadata"] and "parent_id" not in root["metadata"]
    assert call["metadata"]["parent_id"] == more["metadata"]["parent_id"] == root["metadata"]["id"]
    assert call["metadata"]["title"] == "Tool: zoom" and call["content"].count("](data:image/jpeg;base64,") == 2
    assert "[0:02.0](#t=2)" in call["content"] and "[0:02](#t=2)" in root["content"]
    ids = [block["metadata"]["id"] for block in (analysis, root, call, more)]
    assert len(set(ids)) == 4


def test_only_a_running_thought_is_open() -> None:
    open_ones = [b["metadata"]["status"] for b in thought_messages(LOOKED, True, SPAN, "en", "t0")]
    assert open_ones == ["done", "pending", "done", "pending"]
    assert {b["metadata"]["status"] for b in thought_messages(LOOKED, False, SPAN, "en", "t0")} == {"done"}


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)> ![x](http://evil.example/a)", "``` \n</code>", "`````"])
def test_what_a_model_thinks_or_calls_reaches_nothing_outside_the_page(text: str) -> None:
    steps = folded(Thought(text), ToolCall(text), ToolResult(ok=False, text=text))
    thought, call = thought_messages(steps, False, SPAN, "en", "t0")
    assert "<" not in thought["content"] and "![" not in thought["content"]
    fence, *_, rest = call["content"].split("\n")[0], call["content"]
    inside, after = rest.split("\n", 1)[1].rsplit(f"\n{fence}", 1)
    assert fence not in inside and set(fence) == {"`"}
    assert "<" not in after and "![" not in after


def test_the_mode_that_auto_chose_is_named() -> None:
    assert ran_as("auto", LOOKED, "en") == "Auto → Think"
    assert ran_as("auto", folded(Analysis("easy")), "en") == "Auto → Direct"
    assert ran_as("auto", (), "en") == "Auto" and ran_as("think", LOOKED, "zh") == "思考"


def test_the_page_says_why_code_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.chat.unavailable", lambda: "The code was stopped.")
    assert "The code was stopped." in mode_hint("think_with_image", "en")
    assert "代码已停止" in mode_hint("think_with_image", "zh")
    assert "stopped" not in mode_hint("think", "en")


def test_an_answer_keeps_its_mode_its_steps_and_its_words(
    studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait
) -> None:
    runtime.pieces = ["<think>", "two and ", "two", "</think><answer>", "four", "</answer>"]
    sha, _ = studio.add_video(clip, clip.name)
    conversation, _ = studio.ask(None, "How many?", ClipChoice(sha), Limits(), Manner("think", 200, 50))
    wait(studio, conversation)
    assert runtime.heard[0][-1].parts[-1] == "How many?/think"
    (turn,) = studio.turns(conversation)
    answer = turn.answer
    assert answer is not None and turn.question.mode == answer.mode == "think" and turn.question.text == "How many?"
    assert answer.text == "four" and answer.raw_text == "<think>two and two</think><answer>four</answer>"
    assert answer.usage is not None and answer.usage["thought_tokens"] > 0
    assert answer.decoding is not None and answer.decoding["think_budget"] == 50
    _, thought, last, _ = chat_messages(studio.turns(conversation), (), "en")
    assert thought["content"] == "two and two" and thought["metadata"]["status"] == "done"
    assert last["content"].startswith("four") and "Think" in last["content"] and "thought for" in last["content"]
    studio.ask(conversation, "And now?", ClipChoice(sha), Limits(), Manner("no_think"))
    wait(studio, conversation)
    assert runtime.heard[-1][1].parts == ("four",)  # earlier thoughts are not read again
    assert runtime.heard[-1][-1].parts == ("And now?/no_think",)


def test_a_thought_that_is_stopped_is_closed(studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait) -> None:
    runtime.pieces = ["<think>two ", "and ", "two"]
    runtime.gate = threading.Event()
    sha, _ = studio.add_video(clip, clip.name)
    conversation, job = studio.ask(None, "How many?", ClipChoice(sha), Limits(), Manner("think"))
    runtime.gate.set()
    for now in job.watch():
        if now.steps:
            break
    _, thought = chat_messages(studio.turns(conversation), (now,), "en")
    assert thought["metadata"]["status"] == "pending"
    job.stop()
    runtime.gate.set()
    wait(studio, conversation)
    _, thought, last, _ = chat_messages(studio.turns(conversation), (), "en")
    assert thought["metadata"]["status"] == "done" and say("finish_stopped", "en") in last["content"]


def test_a_mode_that_does_not_exist_is_refused_before_anything_is_kept(studio: Studio, clip: Path) -> None:
    sha, _ = studio.add_video(clip, clip.name)
    with pytest.raises((AppError, EngineError), match="no mode"):
        studio.ask(None, "How many?", ClipChoice(sha), Limits(), Manner("deep"))  # type: ignore[arg-type]
    assert studio.conversations() == []


def test_html_in_the_chat_is_what_the_chat_makes_of_a_component(
    studio: Studio, runtime: ScriptedRuntime, clip: Path, wait: Wait
) -> None:
    sha, _ = studio.add_video(clip, clip.name)
    conversation, _ = studio.ask(None, "How many?", ClipChoice(sha), Limits(), Manner("think"))
    wait(studio, conversation)
    *_, said = chat_messages(studio.turns(conversation), (), "en")
    with gr.Blocks():
        chat = gr.Chatbot()
    component = gr.HTML(said["content"].value, apply_default_css=False)
    own = chat.postprocess([{"role": "assistant", "content": component}])
    assert "data-" in said["content"].value
    assert chat.postprocess([said]).model_dump() == own.model_dump()
