"""What a running answer emits. Every event is a plain dataclass; `to_dict` is its JSON form with a `type`.

A stream is any number of events closed by exactly one `Done`; a failure is an `Error` followed by `Done`
with `finish="error"`, so that a reader never waits for an end that does not come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

Finish = Literal["stop", "length", "stopped", "error"]
"""How an answer ended: by itself, at the token limit, stopped by the user, or by an error."""


@dataclass(frozen=True)
class Event:
    type: ClassVar[str] = "event"

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, **asdict(self)}


@dataclass(frozen=True)
class Queued(Event):
    """Others are being answered first: `position` 1 is next."""

    type: ClassVar[str] = "queued"
    position: int


@dataclass(frozen=True)
class Progress(Event):
    """Work before the first token: `stage` is loading, decoding or prefill; `fraction` 0..1, None if unknown."""

    type: ClassVar[str] = "progress"
    stage: str
    fraction: float | None = None


@dataclass(frozen=True)
class Answer(Event):
    """The next piece of the answer's text."""

    type: ClassVar[str] = "answer"
    text: str


@dataclass(frozen=True)
class Error(Event):
    """One sentence for the user."""

    type: ClassVar[str] = "error"
    message: str


@dataclass(frozen=True)
class Done(Event):
    """The end of the stream. Times are in seconds; `first_token` counts from the request."""

    type: ClassVar[str] = "done"
    finish: Finish
    text: str
    model: str
    prompt_tokens: int = 0
    visual_tokens: int = 0
    answer_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, which the runtime remembered and did not read again
    adapter: str | None = None  # the adapter that was verified to answer; None is the checkpoint alone
    queue_seconds: float = 0.0
    prepare_seconds: float = 0.0
    first_token_seconds: float | None = None
    total_seconds: float = 0.0
