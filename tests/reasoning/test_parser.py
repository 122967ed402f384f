"""The stream parser against a plain regular expression, the published extraction's order, and every way to split."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import Analysis, Answer, Event, Retraction, Thought, ToolCall
from engine.reasoning.modes import written
from engine.reasoning.parser import MOST_CALL, Parser, events_of, merged

TAGS = re.compile("</?(?:analysis|think|answer|sandbox_output)>")
MARKS = (
    "<analysis>",
    "</analysis>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<tool_call>",
    "</tool_call>",
    "<sandbox_output>",
    "</sandbox_output>",
    "```python\n",
    "\n```",
    "<",
    "</",
    "```",
    "<th",
    "ink>",
    " ",
    "\n",
    "红",
)
texts = st.lists(st.sampled_from(MARKS) | st.text(max_size=6), max_size=16).map("".join)


def text_of(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Analysis | Thought | Answer | ToolCall))


def shown(events: list[Event]) -> tuple[str, str]:
    """Reasoning and answer as a page would hold them."""
    reasoning = answer = ""
    for event in events:
        match event:
            case Analysis(text) | Thought(text):
                reasoning += text
            case Answer(text):
                answer += text
            case Retraction():
                reasoning, answer = reasoning + answer, ""
    return reasoning, answer


@given(texts, st.data(), st.booleans())
def test_any_chopping_gives_the_same_events(text: str, data: st.DataObject, tools: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    parser, events = Parser(tools), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        events += parser.push(text[start:end])
    assert list(merged([*events, *parser.finish()])) == events_of(text, tools)


@given(texts, st.booleans())
def test_one_character_at_a_time_gives_the_same_events(text: str, tools: bool) -> None:
    parser = Parser(tools)
    events = [event for character in text for event in parser.push(character)]
    assert list(merged([*events, *parser.finish()])) == events_of(text, tools)


@given(texts)
def test_without_tools_only_tags_are_taken_away(text: str) -> None:
    assert text_of(events_of(text)) == TAGS.sub("", text)


@given(st.lists(st.sampled_from(MARKS) | st.just("#"), max_size=30))
def test_no_word_is_lost_or_doubled_among_tools(pieces: list[str]) -> None:
    words = [f"w{i}." if piece == "#" else piece for i, piece in enumerate(pieces)]
    events = events_of("".join(words), tools=True)
    assert re.findall(r"w\d+\.", text_of(events)) == [w for w in words if re.fullmatch(r"w\d+\.", w)]


@given(texts)
def test_the_answer_follows_the_last_closing_tag(text: str) -> None:
    """Steps 1 and 2 of the published extraction, for texts in which nothing is opened after that."""
    rest = re.split("</analysis>|</think>", text)[-1]
    if "<think>" in rest or "<analysis>" in rest:
        return
    assert shown(events_of(text))[1].strip() == TAGS.sub("", rest).strip()


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("A red circle.", "", "A red circle."),
        ("<think>two and two</think><answer>four</answer>", "two and two", "four"),
        ("two and two</think>four", "two and two", "four"),  # the opening tag is part of the prompt, or forgotten
        ("<think>a<think>b</think>c</think>d", "abc", "d"),
        ("<think>a <answer>four</answer>", "a ", "four"),
        ("<think>never closed", "never closed", ""),
        ("four <think>or five?</think>five", "or five?four ", "five"),
        ("<answer>four", "", "four"),
        ("a < b and <thinking> is no tag </", "", "a < b and <thinking> is no tag </"),
        ("<think>a</think>\n", "a", "\n"),
    ],
)
def test_tags_that_are_missing_nested_repeated_or_never_closed(text: str, reasoning: str, answer: str) -> None:
    assert shown(events_of(text)) == (reasoning, answer)


@pytest.mark.parametrize("thought", [None, "7 - 2"])
def test_what_examples_are_written_as_is_read_back(thought: str | None) -> None:
    events = events_of(written("5", analysis="Two steps.", thought=thought))
    switch = "/no_think" if thought is None else "/think"
    assert events[0] == Analysis(f"Two steps. Therefore, {switch} mode is more appropriate.")
    assert events[1:] == [Answer("5")] if thought is None else [Thought("7 - 2"), Answer("5")]


def test_calls_are_one_event_and_only_with_tools() -> None:
    text = '<think>look <tool_call>{"name": "crop"}</tool_call> then ```python\nprint(1)\n``` done'
    assert events_of(text, tools=True) == [
        Thought("look "),
        ToolCall('{"name": "crop"}'),
        Thought(" then "),
        ToolCall("print(1)", code=True),
        Thought(" done"),
    ]
    assert events_of(text) == [Thought(text.removeprefix("<think>"))]


def test_code_that_an_answer_shows_is_not_a_call() -> None:
    text = "Use\n```python\nprint(1)\n```"
    assert events_of(text, tools=True) == [Answer(text)]


def test_a_call_that_never_closes_is_read_as_text() -> None:
    events = events_of("<think>a<tool_call>b</think><answer>c", tools=True)
    assert events == [Thought("ab"), Answer("c")]
    assert events_of("<think>```python\nx</think>y", tools=True) == [Thought("```python\nx"), Answer("y")]


def test_a_runaway_call_does_not_hold_the_stream_back() -> None:
    parser = Parser(tools=True)
    parser.push("<think><tool_call>")
    events = [event for _ in range(MOST_CALL // 10 + 10) for event in parser.push("0123456789")]
    assert len(text_of(events)) > MOST_CALL
    assert not any(isinstance(event, ToolCall) for event in [*events, *parser.push("</tool_call>")])
