"""An answer in a mode: what the model writes is read as it comes, and where it needs help its turn is begun anew from
what it has written so far (engine.prompt.render).

Help is needed where a tool call was made (its result is put into the running thought), where the thought has spent its
budget or goes round in circles (it is closed, and the model answers), and where the model ends without an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.errors import EngineError
from engine.events import Answer, Done, Event, Finish, Note, Progress, Retraction, ToolCall
from engine.reasoning.guard import Guard
from engine.reasoning.modes import (
    ANALYSIS_CLOSE,
    ANSWER_OPEN,
    RESULT_CLOSE,
    RESULT_OPEN,
    THOUGHT_CLOSE,
    Mode,
    with_switch,
)
from engine.reasoning.parser import Parser, merged
from engine.reasoning.tools import Workbench, with_tools
from engine.runtime.base import Decoding, Message, Part, Runtime

MOST_CALLS = 4
"""Tool calls of one answer that are run."""

_KEPT_FOR_ANSWER = 256  # tokens of the limit that no thought may take, or a quarter of the limit where that is less
_MOST_CLOSINGS = 2  # times that a model is made to conclude before it is let be
_BROKEN = "\ufffd"  # what a runtime gives of a character whose last token is missing

Outcome = Literal["stop", "length", "stopped", "error", "call", "loop"]
"""Why a stretch of the turn ended: as a runtime says it, or at a tool call, or because it repeated itself."""


def reason(
    runtime: Runtime,
    messages: Sequence[Message],
    decoding: Decoding,
    stop: threading.Event,
    mode: Mode,
    *,
    think_budget: int | None = None,
    most_calls: int = MOST_CALLS,
) -> Iterator[Event]:
    """Answer the last user message in `mode`. `decoding.max_tokens` holds for thought and answer together.

    `think_budget`: tokens of analysis and thought after which these are closed and the model answers; without one it
    is what `max_tokens` leaves when some are kept for the answer. The stream ends with one `Done`, as a runtime's
    does. Raises EngineError for a budget below 1."""
    if think_budget is not None and think_budget < 1:
        raise EngineError(
            f"The thinking budget is {think_budget} tokens; give at least 1, or ask in the mode no_think."
        )
    yield from _Answering(runtime, messages, decoding, stop, mode, think_budget, most_calls).run()


def _tool_prompt(runtime: Runtime) -> str | bool:
    """What the checkpoint that answers wants to be told of the tools."""
    try:
        return runtime.info().tool_prompt
    except EngineError:  # it cannot answer either, and says why itself
        return False


class _Stop(threading.Event):
    """Set by us to end a stretch, or by the user to end the answer."""

    def __init__(self, of_user: threading.Event) -> None:
        super().__init__()
        self._of_user = of_user

    def is_set(self) -> bool:
        return super().is_set() or self._of_user.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (until is None or time.monotonic() < until):
            super().wait(0.05)
        return self.is_set()


@dataclass
class _Answering:
    runtime: Runtime
    messages: Sequence[Message]
    decoding: Decoding
    stop: threading.Event
    mode: Mode
    budget: int | None
    most_calls: int
    turn: list[Part] = field(default_factory=list)  # the assistant's, so far
    answer: str = ""
    tokens: int = 0
    thought_tokens: int = 0
    thought_seconds: float = 0.0
    calls: int = 0
    closings: int = 0
    notes: list[str] = field(default_factory=list)
    first: Done | None = None  # what the runtime said at the end of the first stretch
    last: Done | None = None  # and of the last one
    queue_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.began = time.perf_counter()
        self.looked: float | None = None  # when the last piece of text came
        self.asked = with_switch(self.messages, self.mode)
        if self.mode.tools:
            self.asked = with_tools(self.asked, _tool_prompt(self.runtime), self.most_calls)
        self.parser = Parser(self.mode.tools)
        self.guard = Guard()
        self.workbench = Workbench(self.messages)
        self.call: ToolCall | None = None
        total = self.decoding.max_tokens
        rest = total - min(_KEPT_FOR_ANSWER, total // 4)
        self.most_thought = rest if self.budget is None else min(self.budget, rest)

    # -- the whole answer ---------------------------------------------------------------------------------------

    def run(self) -> Iterator[Event]:
        finish: Finish | None = None
        while finish is None:
            limit = self._limit()
            if limit > 0:
                outcome = yield from self._stretch(limit)
                finish = yield from self._after(outcome, limit)
            elif self.tokens < self.decoding.max_tokens:
                finish = yield from self._over_budget()
            else:
                finish = "length"
        yield from self._heard(self.parser.finish())
        yield self._done(finish)

    def _limit(self) -> int:
        """Tokens of the next stretch. Before the answer has begun these are what thinking may still cost."""
        left = self.decoding.max_tokens - self.tokens
        if self.parser.answered or self.closings:
            return left
        return min(left, self.most_thought - self.thought_tokens)

    def _after(self, outcome: Outcome, limit: int) -> Generator[Event, None, Finish | None]:
        """What follows a stretch: how the answer ended, or None when its turn is ready to go on."""
        if self.stop.is_set():
            return "stopped"
        if outcome == "call":
            yield from self._use_tool()
            return "stopped" if self.stop.is_set() else None
        if outcome == "loop":
            if self.parser.answered:
                yield self._note("The answer repeated itself and was ended.")
                return "stop"
            self._forget(self.guard.surplus)
            return (yield from self._conclude("The thought repeated itself and was closed.", "stop"))
        if outcome == "length":
            full = self.last is not None and self.last.answer_tokens < limit  # the context, not the limit
            if self.parser.answered and self.parser.section == "answer":
                return "length" if full or self.tokens >= self.decoding.max_tokens else None
            if full:  # what was thought last makes room for the answer
                self._forget(len(self._newest()) // 4)
            return (yield from self._over_budget())
        if outcome == "stop" and not self.parser.answered and self._newest():
            return (yield from self._conclude("The model ended without an answer and was asked for one.", "stop"))
        return outcome

    def _over_budget(self) -> Generator[Event, None, Finish | None]:
        return (
            yield from self._conclude(
                f"The thought reached its budget of {self.most_thought} tokens and was closed.", "length"
            )
        )

    def _conclude(self, note: str, otherwise: Finish) -> Generator[Event, None, Finish | None]:
        """Close what is open on the model's behalf, so that it can only answer; `otherwise` where that is no use."""
        yield from self._heard(self.parser.finish())
        if self.closings >= _MOST_CLOSINGS or self.tokens >= self.decoding.max_tokens:
            return otherwise
        self.closings += 1
        yield self._note(note)
        closing = {"analysis": ANALYSIS_CLOSE, "thought": THOUGHT_CLOSE, "answer": ""}[self.parser.section]
        self._write(closing + ANSWER_OPEN)
        yield from self._heard(self.parser.push(closing + ANSWER_OPEN))
        self.guard = Guard()
        return None

    # -- one stretch --------------------------------------------------------------------------------------------

    def _stretch(self, limit: int) -> Generator[Event, None, Outcome]:
        """Let the model write until something is to be done, and give on what it writes."""
        messages = [*self.asked, Message("assistant", tuple(self.turn))] if self.turn else list(self.asked)
        stop = _Stop(self.stop)
        ours: Outcome | None = None
        done: Done | None = None
        pieces = thought_pieces = 0
        broken = ""
        for event in self.runtime.stream(messages, replace(self.decoding, max_tokens=limit), stop):
            if isinstance(event, Answer):
                if ours is not None:
                    continue  # written after the call, before it could be stopped
                text = broken + event.text
                broken = text[len(text.rstrip(_BROKEN)) :]
                thinking = self.parser.section != "answer"
                ours = yield from self._read(text.removesuffix(broken))
                thinking = thinking or self.parser.section != "answer"
                pieces += 1
                thought_pieces += thinking
                self._time(thinking)
                if ours is not None:
                    stop.set()
            elif isinstance(event, Done):
                done = event
            elif not isinstance(event, Progress) or self.first is None:
                yield event
        assert done is not None, "a stream ends with Done"
        if broken and done.finish != "length":  # at the limit the turn goes on, and the character with it
            yield from self._read(broken)
        self._count(done, pieces, thought_pieces)
        return ours or done.finish

    def _read(self, text: str) -> Generator[Event, None, Literal["call", "loop"] | None]:
        """Where there are tools character by character, so that a turn goes on right behind its call."""
        events: list[Event] = []
        found: Literal["call"] | None = None
        for at, piece in enumerate(text if self.mode.tools else (text,)):
            new = self.parser.push(piece)
            events += new
            if new and isinstance(new[-1], ToolCall):
                self.call, found, text = new[-1], "call", text[: at + 1]
                break
        self._write(text)
        yield from self._heard(merged(events))
        return found or ("loop" if self.guard.push(text) else None)

    def _heard(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Answer):
                self.answer += event.text
            elif isinstance(event, Retraction):
                self.answer = ""
            yield event

    def _use_tool(self) -> Iterator[Event]:
        assert self.call is not None
        if self.calls < self.most_calls:
            result = self.workbench.run(self.call, self.stop)
        else:
            result = self.workbench.refuse(f"No more calls: {self.most_calls} were made. Close the thought and answer.")
        self.calls += 1
        yield result
        self._write(f"\n{RESULT_OPEN}{result.text}")
        if result.image is not None:
            self.turn.append(result.image)
        self._write(f"{RESULT_CLOSE}\n")
        self._time(self.parser.section != "answer")
        self.guard = Guard()
        if self.calls > self.most_calls + 1 and not self.closings:
            yield from self._conclude(f"The model did not stop calling tools after {self.most_calls} calls.", "stop")

    # -- the turn and the bill ----------------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        if self.turn and isinstance(self.turn[-1], str):
            self.turn[-1] += text
        elif text:
            self.turn.append(text)

    def _newest(self) -> str:
        """The text since the last picture."""
        return self.turn[-1] if self.turn and isinstance(self.turn[-1], str) else ""

    def _forget(self, characters: int) -> None:
        """Take characters off the end of the turn: the model does not read them again. People have seen them."""
        newest = self._newest()
        if 0 < characters < len(newest):
            self.turn[-1] = newest[: len(newest) - characters]

    def _time(self, thinking: bool) -> None:
        now = time.perf_counter()
        if thinking and self.looked is not None:
            self.thought_seconds += now - self.looked
        self.looked = now

    def _count(self, done: Done, pieces: int, thought_pieces: int) -> None:
        self.first = self.first or done
        self.last = done
        self.tokens += done.answer_tokens
        self.queue_seconds += done.queue_seconds
        if pieces:  # a piece is a token, but for characters that took several
            self.thought_tokens += round(done.answer_tokens * thought_pieces / pieces)

    def _note(self, sentence: str) -> Note:
        self.notes.append(sentence)
        return Note(sentence)

    def _done(self, finish: Finish) -> Done:
        assert self.first is not None and self.last is not None, "there was a stretch"
        return replace(
            self.first,
            finish=finish,
            text=self.answer,
            visual_tokens=self.last.visual_tokens,
            answer_tokens=self.tokens,
            queue_seconds=self.queue_seconds,
            total_seconds=time.perf_counter() - self.began,
            mode=self.mode.name,
            raw_text="".join(part if isinstance(part, str) else "[image]" for part in self.turn),
            thought_tokens=self.thought_tokens,
            thought_seconds=self.thought_seconds,
            tool_calls=self.calls,
            notes=tuple(self.notes),
        )
