"""How a model came to its answer, step by step, as the page shows it and the store keeps it."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from engine.events import Analysis, Event, Note, Retraction, Thought, ToolCall, ToolResult

_SIDE = 320  # pixels of the longer side of a kept picture
_STRETCH = 160  # small results are shown at least this large

Kind = Literal["analysis", "thought", "call", "result", "note"]


@dataclass(frozen=True)
class Step:
    kind: Kind
    text: str = ""
    began: float = 0.0  # seconds on this process's clock, only for measuring
    seconds: float = 0.0  # how long it took
    ok: bool = True  # of a result
    image: str = ""  # of a result: what the model was shown, a JPEG data URL
    frame: str = ""  # where it looked: the frame with the box, a JPEG data URL
    time: float | None = None  # second of the file, of that frame


Steps = tuple[Step, ...]


def follow(steps: Steps, event: Event, answer: str = "") -> Steps:
    """The steps after an event. `answer` is the answer's text before it, which a `Retraction` moves into a step."""
    now = time.monotonic()
    match event:
        case Analysis(text):
            return _more(steps, "analysis", text, now)
        case Thought(text):
            return _more(steps, "thought", text, now)
        case Retraction(kind):
            return _more(steps, kind, answer, now)
        case ToolCall(text):
            return (*steps, Step("call", text, now))
        case ToolResult():
            began = steps[-1].began if steps else now
            result = Step("result", event.text, began, now - began, event.ok, time=event.time)
            return (*steps, replace(result, image=_jpeg(event.image), frame=_jpeg(event.frame)))
        case Note(message):
            return (*steps, Step("note", message, now))
    return steps


def _more(steps: Steps, kind: Kind, text: str, now: float) -> Steps:
    if steps and steps[-1].kind == kind:
        last = steps[-1]
        return (*steps[:-1], replace(last, text=last.text + text, seconds=now - last.began))
    began = steps[-1].began + steps[-1].seconds if steps else now
    return (*steps, Step(kind, text, began, now - began))


def to_row(steps: Steps) -> dict[str, Any]:
    """For the store."""
    return {"steps": [{key: value for key, value in asdict(step).items() if key != "began"} for step in steps]}


def from_row(row: Mapping[str, Any] | None) -> Steps:
    """From the store; empty for an answer that came without reasoning."""
    known = Step.__dataclass_fields__
    return tuple(Step(**{k: v for k, v in step.items() if k in known}) for step in (row or {}).get("steps", ()))


def _jpeg(image: np.ndarray | None) -> str:
    """A uint8 RGB picture [height, width, 3] as a JPEG data URL of moderate size."""
    if image is None:
        return ""
    height, width = image.shape[:2]
    scale = min(_SIDE / max(height, width), max(1.0, _STRETCH / max(height, width)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
