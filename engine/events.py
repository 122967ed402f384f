"""What a running answer emits. Every event is a plain dataclass; `to_dict` is its JSON form with a `type`.

A stream is any number of events closed by exactly one `Done`; a failure is an `Error` followed by `Done`
with `finish="error"`, so that a reader never waits for an end that does not come."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

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
class Analysis(Event):
    """The next piece of how the model weighs whether to think; only `auto` asks for it."""

    type: ClassVar[str] = "analysis"
    text: str


@dataclass(frozen=True)
class Thought(Event):
    """The next piece of the model's reasoning."""

    type: ClassVar[str] = "thought"
    text: str


@dataclass(frozen=True)
class Retraction(Event):
    """What came as `Answer` so far was reasoning: a closing tag followed it whose opening one is missing.

    Whoever shows the answer moves it into `kind` and starts the answer anew."""

    type: ClassVar[str] = "retraction"
    kind: Literal["analysis", "thought"]


@dataclass(frozen=True)
class ToolCall(Event):
    """A whole tool call as the model wrote it, without the tags around it; it is run where `ToolResult` follows."""

    type: ClassVar[str] = "tool_call"
    text: str
    code: bool = False  # Python for the sandbox, not a structured operation


@dataclass(frozen=True)
class ToolResult(Event):
    """What came of the last tool call. `text` is what the model is told, `image` what it is shown.

    Pictures are uint8 RGB [height, width, 3]. `box` is left, top, right, bottom in pixels of the frame as the model
    saw it; `frame` is that frame with the box drawn on it, `time` its second in the file."""

    type: ClassVar[str] = "tool_result"
    ok: bool
    text: str = ""
    image: np.ndarray | None = field(default=None, compare=False, repr=False)
    frame: np.ndarray | None = field(default=None, compare=False, repr=False)
    time: float | None = None
    box: tuple[int, int, int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Pictures become PNG data URLs."""
        plain = {name: getattr(self, name) for name in ("ok", "text", "time")}
        box = None if self.box is None else list(self.box)
        return {"type": self.type, **plain, "box": box, "image": _png(self.image), "frame": _png(self.frame)}


@dataclass(frozen=True)
class Note(Event):
    """One sentence on what was done to a running answer: a thought cut at its budget, a repetition ended."""

    type: ClassVar[str] = "note"
    message: str


@dataclass(frozen=True)
class Error(Event):
    """One sentence for the user."""

    type: ClassVar[str] = "error"
    message: str


@dataclass(frozen=True)
class Done(Event):
    """The end of the stream. Times are in seconds; `first_token` counts from the request.

    `text` is the answer; where the model was asked in a mode, without its reasoning. `answer_tokens` are all that the
    model wrote, `thought_tokens` those of them that are analysis or thought, `thought_seconds` how long these took."""

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
    mode: str = ""  # as it was asked; empty where a runtime was asked directly
    raw_text: str = ""  # as the model wrote it, with the tags of its reasoning; empty where a runtime was asked
    thought_tokens: int = 0
    thought_seconds: float = 0.0
    tool_calls: int = 0
    notes: tuple[str, ...] = ()


def _png(image: np.ndarray | None) -> str | None:
    """A uint8 RGB picture [height, width, 3] as a PNG data URL."""
    if image is None:
        return None
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
