"""What a model writes, split anywhere, as events: analysis, thought, tool calls, answer.

Models forget, repeat and nest tags. The rules, chosen so that the answer agrees with the published extraction
(what follows the last </analysis> and the last </think>) although a stream does not know the end:

* An opening tag begins its section wherever it stands; <answer> ends a thought that was never closed.
* </analysis> and </think> begin the answer. Answer text that came before was reasoning: a `Retraction` says so. That is
  the missing opening tag, what follows the first </think> of nested thoughts, and thinking again after answering.
* </answer> leaves everything as it is; so do the tags of tool results, which only the loop may write.
* With tools, <tool_call> … </tool_call> and, within a thought, a ```python fence are one event once they are closed.
  One that is never closed, or holds more than MOST_CALL characters, is read again as ordinary text.
* Every character that is not one of these marks comes out in exactly one event, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal

from engine.events import Analysis, Answer, Event, Retraction, Thought, ToolCall
from engine.reasoning.modes import (
    ANALYSIS_CLOSE,
    ANALYSIS_OPEN,
    ANSWER_CLOSE,
    ANSWER_OPEN,
    CALL_CLOSE,
    CALL_OPEN,
    CODE_CLOSE,
    CODE_OPEN,
    RESULT_CLOSE,
    RESULT_OPEN,
    THOUGHT_CLOSE,
    THOUGHT_OPEN,
)

Section = Literal["analysis", "thought", "answer"]

MOST_CALL = 20_000
"""Characters between the marks of a tool call; a longer one is a runaway, not a call."""

_TAGS = (
    ANALYSIS_OPEN,
    ANALYSIS_CLOSE,
    THOUGHT_OPEN,
    THOUGHT_CLOSE,
    ANSWER_OPEN,
    ANSWER_CLOSE,
    RESULT_OPEN,
    RESULT_CLOSE,
)
_CALL_TAGS = (CALL_OPEN, CALL_CLOSE)
_CLOSES = {CALL_OPEN: CALL_CLOSE, CODE_OPEN: CODE_CLOSE}


class Parser:
    """Feed it text with `push`, then call `finish`. `tools`: tool calls are events, not text."""

    def __init__(self, tools: bool = False) -> None:
        self.section: Section = "answer"  # what the next text belongs to
        self.answered = False  # the answer so far is more than white space
        self._tools = tools
        self._held = ""  # what may be the beginning of a mark, or is inside a call
        self._call = ""  # the mark that opened the call; empty outside of calls

    def push(self, text: str) -> list[Event]:
        """The events that this text completes."""
        self._held += text
        return list(self._read(last=False))

    def finish(self) -> list[Event]:
        """The events of what was held back. More may be pushed: it goes on in the same section."""
        return list(self._read(last=True))

    def _marks(self) -> tuple[str, ...]:
        if not self._tools:
            return _TAGS
        # An answer may show code; only a thought runs it.
        return (*_TAGS, *_CALL_TAGS, CODE_OPEN) if self.section == "thought" else (*_TAGS, *_CALL_TAGS)

    def _read(self, last: bool) -> Iterator[Event]:
        while self._held:
            if self._call:
                close = _CLOSES[self._call]
                at = self._held.find(close)
                if 0 <= at <= MOST_CALL:
                    call = ToolCall(self._held[:at], code=self._call == CODE_OPEN)
                    self._held, self._call = self._held[at + len(close) :], ""
                    yield call
                    continue
                if at < 0 and not last and len(self._held) < MOST_CALL + len(close):
                    return
                opened, self._call = self._call, ""
                if opened == CODE_OPEN:  # a fence is text, a tag is not
                    yield from self._text(opened)
            marks = self._marks()
            found = _pattern(marks).search(self._held)
            if found is None:
                keep = 0 if last else _beginning(self._held, marks)
                text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
                yield from self._text(text)
                return
            text, self._held = self._held[: found.start()], self._held[found.end() :]
            yield from self._text(text)
            yield from self._mark(found.group())
        if last and self._call:  # opened at the very end
            opened, self._call = self._call, ""
            if opened == CODE_OPEN:
                yield from self._text(opened)

    def _text(self, text: str) -> Iterator[Event]:
        if not text:
            return
        if self.section == "analysis":
            yield Analysis(text)
        elif self.section == "thought":
            yield Thought(text)
        else:
            self.answered = self.answered or bool(text.strip())
            yield Answer(text)

    def _mark(self, mark: str) -> Iterator[Event]:
        if mark in _CLOSES:
            self._call = mark
        elif mark == ANALYSIS_OPEN:
            self.section = "analysis"
        elif mark == THOUGHT_OPEN:
            self.section = "thought"
        elif mark == ANSWER_OPEN:
            self.section = "answer"
        elif mark in (ANALYSIS_CLOSE, THOUGHT_CLOSE):
            if self.answered:
                yield Retraction("analysis" if mark == ANALYSIS_CLOSE else "thought")
            self.section, self.answered = "answer", False


def events_of(text: str, tools: bool = False) -> list[Event]:
    """A whole text as events; neighbours of one kind are one event."""
    parser = Parser(tools)
    return list(merged([*parser.push(text), *parser.finish()]))


def merged(events: Iterable[Event]) -> Iterator[Event]:
    """`events` with neighbouring pieces of text of one kind joined: what does not depend on how a text was split."""
    last: Event | None = None
    for event in events:
        match last, event:
            case (Answer(a), Answer(b)):
                last = Answer(a + b)
            case (Thought(a), Thought(b)):
                last = Thought(a + b)
            case (Analysis(a), Analysis(b)):
                last = Analysis(a + b)
            case _:
                if last is not None:
                    yield last
                last = event
    if last is not None:
        yield last


@cache
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks)))


def _beginning(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a mark."""
    longest = max(map(len, marks)) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(mark.startswith(tail) for mark in marks):
            return length
    return 0
