"""Tool calls of a model: what they say, on which picture they work, and what comes of them.

A structured call is a JSON object within <tool_call>, as the model family writes them:
{"name": "zoom", "arguments": {"time": 2.5, "box": [10, 20, 60, 50]}}. Everything a model says here is distrusted: an
unknown name, a wrong type or a box outside the picture is a sentence back to the model, never an exception further up.

Boxes are in pixels of the frame as the model saw it; the detail comes from the file at its full resolution."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.events import ToolCall, ToolResult
from engine.prompt import joined
from engine.reasoning import operations as op
from engine.reasoning.modes import CALL_CLOSE, CALL_OPEN, CODE_CLOSE, CODE_OPEN, RESULT_CLOSE, RESULT_OPEN
from engine.reasoning.operations import Box, ToolError, fitted, within
from engine.reasoning.sandbox import run_code, unavailable
from engine.runtime.base import Message
from engine.video.decode import frames_at
from engine.video.types import TOKEN_SIDE, Frames

_DEFAULT = "You are a helpful assistant."  # the system prompt that the published chat template puts where there is none
MOST_TEXT = 2000  # characters of a result that the model is told
_MOST_RATIO = 20  # of the sides of a picture; the image processor refuses 200
_CODE_PIXELS = 24_000_000  # of all frames that code gets, together
_SHOWN_PIXELS = 640 * 640  # of the frame with the box that people are shown
_PICTURE_PIXELS = 448 * 448  # of a result where there is no clip to go by


@dataclass(frozen=True)
class _Number:
    least: float
    most: float
    default: float | None = None  # None: it must be given


_OPERATIONS: dict[str, tuple[bool, dict[str, _Number]]] = {  # needs a box; its numbers
    "crop": (True, {}),
    "zoom": (True, {"times": _Number(0.1, 16, 2)}),
    "rotate": (False, {"degrees": _Number(-3600, 3600)}),
    "contrast": (False, {"factor": _Number(0, 100)}),
    "brightness": (False, {"factor": _Number(0, 100)}),
    "draw_box": (True, {}),
    "grid": (False, {"columns": _Number(1, 64, 4), "rows": _Number(1, 64, 4)}),
    "frame": (False, {}),
    "pixels": (True, {}),
}
NAMES = (*_OPERATIONS, "python")
_ABOUT = {
    "crop": "the part of the picture in the box",
    "zoom": "that part, enlarged so many times",
    "rotate": "the picture turned clockwise",
    "contrast": "more contrast with a factor above 1, less below",
    "brightness": "brighter with a factor above 1, darker below",
    "draw_box": "the picture with the box drawn on it",
    "grid": "the picture cut into equal cells by lines",
    "frame": "the frame at a time",
    "pixels": "the colours in the box, as text",
}


@dataclass(frozen=True)
class _Picture:
    image: np.ndarray  # at full resolution
    size: tuple[int, int]  # width and height in which boxes on it are given
    time: float | None = None  # second in the file, of a frame of the clip
    seen: np.ndarray | None = None  # that frame as the model saw it


def instructions(most_calls: int, code: bool) -> str:
    """What a model is told that never learnt which tools there are: their names and arguments, and how they are called.
    `code`: whether it may write Python. How the published model was told is not public (section 4.2.1)."""
    example = '{"name": "zoom", "arguments": {"time": 2.5, "box": [10, 20, 60, 50], "times": 2}}'
    tools = []
    for name, (needs_box, numbers) in _OPERATIONS.items():
        arguments = ["box"] if needs_box else ["time"] if name == "frame" else []
        arguments += [
            key if spec.default is None else f"{key} (else {spec.default:g})" for key, spec in numbers.items()
        ]
        tools.append(f"- {name}: {', '.join(arguments) or 'no arguments'}; {_ABOUT[name]}")
    text = (
        "While you think, you may look closer at what you are shown. To do so, write one call within your thought:\n"
        f"{CALL_OPEN}{example}{CALL_CLOSE}\n"
        f"What comes of it, a picture or text, follows at once in {RESULT_OPEN}…{RESULT_CLOSE}; then go on thinking. "
        f"At most {most_calls} calls are run.\n\n"
        f"Tools and their arguments:\n{chr(10).join(tools)}\n\n"
        'A call also says on which picture it works: "time", in seconds from the beginning of the video, or '
        '"picture", its number, where 1 is the first picture of the question and each result has the next number. '
        "Without either it is the newest result. A box is [left, top, right, bottom] in pixels of the picture as you "
        "see it."
    )
    if code:
        text += (
            f"\n\nYou may also write Python within your thought, as {CODE_OPEN.strip()} … {CODE_CLOSE.strip()}. It "
            "finds the frames as frame_1.png, frame_2.png … and the pictures as picture_1.png …; what it prints, and "
            "the last picture that it saves, are shown to you."
        )
    return text


def with_tools(messages: Sequence[Message], wanted: str | bool, most_calls: int) -> list[Message]:
    """`messages` with a system prompt that tells of the tools: ours where `wanted` is True, a checkpoint's own where it
    is a text, none where it is False. A system prompt that is there already stays in front of it."""
    if wanted is False:
        return list(messages)
    told = wanted if isinstance(wanted, str) else instructions(most_calls, not unavailable())
    if messages and messages[0].role == "system":
        return [Message("system", (*messages[0].parts, f"\n\n{told}")), *messages[1:]]
    return [Message("system", (f"{_DEFAULT}\n\n{told}",)), *messages]


class Workbench:
    """Runs the calls of one answer. Pictures are numbered from 1: those of the question, then the results."""

    def __init__(self, messages: Sequence[Message]) -> None:
        media = [part for message in messages if message.role == "user" for part in message.parts]
        clips = [part for part in media if isinstance(part, Frames)]
        # A clip between whose frames stands what is said comes in parts; they are looked at as one.
        parts = [one for one in clips if one.clip.path == clips[-1].clip.path and one.start == clips[-1].start]
        whole = bool(clips) and clips[-1].clip.zero is not None
        self._frames = (joined(parts) if whole else clips[-1]) if clips else None
        self._pictures = [part for part in media if isinstance(part, np.ndarray)]
        # A picture in a thought costs at most what a frame of the clip may cost.
        tokens = self._frames.sampling.max_frame_tokens if self._frames else 0
        self._most = tokens * TOKEN_SIDE**2 or _PICTURE_PIXELS

    def run(self, call: ToolCall, stop: threading.Event) -> ToolResult:
        try:
            if call.code:
                return self._python(call.text, stop)
            name, arguments = _parsed(call.text)
            if name == "python":
                code = arguments.get("code")
                if not isinstance(code, str):
                    raise ToolError('python needs its code: {"name": "python", "arguments": {"code": "…"}}.')
                return self._python(code, stop)
            return self._operation(name, arguments)
        except (ToolError, EngineError) as error:
            return ToolResult(ok=False, text=str(error)[:MOST_TEXT])

    @staticmethod
    def refuse(reason: str) -> ToolResult:
        """The result of a call that is not run."""
        return ToolResult(ok=False, text=reason)

    # -- structured operations ----------------------------------------------------------------------------------

    def _operation(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        needs_box, numbers = _OPERATIONS[name]
        known = {"time", "picture", *(("box",) if needs_box else ()), *numbers}
        if unknown := sorted(set(arguments) - known):
            raise ToolError(f"{name} has no argument {unknown[0][:40]}; it has {', '.join(sorted(known))}.")
        values = {key: _number(name, key, arguments.get(key, spec.default), spec) for key, spec in numbers.items()}
        if name == "frame" and "time" not in arguments:
            raise ToolError("frame needs a time in seconds.")
        source = self._source(arguments)
        box, note = None, ""
        if needs_box:
            asked = _box(name, arguments.get("box"))
            box = within(asked, *source.size)
            if any(abs(a - b) >= 1 for a, b in zip(asked, box, strict=True)):
                note = f"The box was cut to {list(box)}."
        if name == "pixels":
            assert box is not None
            text = op.pixels(source.image, self._full(box, source))
            return ToolResult(ok=True, text=f"{note}\n{text}".strip(), **self._where(source, box))
        image = self._changed(name, source, box, values)
        image = self._kept(image)
        return ToolResult(ok=True, text=note, image=image, **self._where(source, box))

    def _changed(self, name: str, source: _Picture, box: Box | None, values: dict[str, float]) -> np.ndarray:
        image = source.image
        if box is not None:
            full = self._full(box, source)
            if name == "crop":
                return op.crop(image, full)
            if name == "zoom":
                # No larger than can be kept: a factor must not become a picture that fills the memory.
                area = (full[2] - full[0]) * (full[3] - full[1])
                return op.zoom(image, full, min(values["times"], max(1.0, (self._most / area) ** 0.5)))
            return op.draw_box(fitted(image, self._most), op.scaled(box, source.size, _size(fitted(image, self._most))))
        image = fitted(image, self._most)
        if name == "grid":
            return op.grid(image, int(values["columns"]), int(values["rows"]))
        if name == "frame":
            return image
        change: Callable[[np.ndarray, float], np.ndarray] = getattr(op, name)
        (value,) = values.values()
        return change(image, value)

    @staticmethod
    def _full(box: Box, source: _Picture) -> Box:
        return op.scaled(box, source.size, _size(source.image))

    def _kept(self, image: np.ndarray) -> np.ndarray:
        """The picture at a size that may go into the thought, numbered for the calls to come."""
        if max(_size(image)) > _MOST_RATIO * min(_size(image)):
            raise ToolError("The picture is {}×{} pixels, too thin to be looked at.".format(*_size(image)))
        image = fitted(image, self._most)
        self._pictures.append(image)
        return image

    @staticmethod
    def _where(source: _Picture, box: Box | None) -> dict[str, Any]:
        """The part of a result that says where the model looked."""
        if source.time is None or source.seen is None:
            return {}
        if box is None:
            return {"time": source.time}
        shown = fitted(source.image, _SHOWN_PIXELS)
        return {"time": source.time, "box": box, "frame": op.draw_box(shown, op.scaled(box, source.size, _size(shown)))}

    # -- pictures -----------------------------------------------------------------------------------------------

    def _source(self, arguments: dict[str, Any]) -> _Picture:
        """The picture a call names: by `time` (seconds from the start of the clip), by its number, or else the last
        result, or else the first frame."""
        if "time" in arguments and "picture" in arguments:
            raise ToolError("Name a time or a picture, not both.")
        if "time" in arguments:
            return self._frame(_number("the call", "time", arguments["time"], _Number(-1e9, 1e9)))
        if "picture" in arguments or self._pictures:
            last = len(self._pictures)
            spec = _Number(1, max(1, last))
            number = int(_number("the call", "picture", arguments.get("picture", last), spec))
            if number > last:
                raise ToolError("There is no picture yet; name a time.")
            image = self._pictures[number - 1]
            return _Picture(image, _size(image))
        return self._frame(None)

    def _frame(self, time: float | None) -> _Picture:
        """The frame of the clip that is shown at `time`, seconds from the clip's start, decoded anew in full."""
        frames = self._frames
        if frames is None:
            raise ToolError("There is no clip; name a picture.")
        at = frames.times[0] if time is None else frames.start + time
        shown = frames.info.frame_times
        end = frames.clip.end if frames.clip.end is not None else float(shown[-1]) + 1
        if not frames.start - 0.5 <= at <= end + 0.5:
            raise ToolError(f"There is no frame at {time:g} s; the clip lasts {end - frames.start:.1f} s.")
        index = int(np.abs(shown - at).argmin())
        seen = frames.images[int(np.abs(np.array(frames.times) - at).argmin())]
        for _, when, image in frames_at(frames.info, (index,), index, lambda _, rgb: np.ascontiguousarray(rgb), None):
            return _Picture(image, _size(seen), when, seen)
        nearest = int(np.abs(np.array(frames.times) - at).argmin())  # damaged there: what the model saw is whole
        return _Picture(seen, _size(seen), frames.times[nearest], seen)

    # -- code ---------------------------------------------------------------------------------------------------

    def _python(self, code: str, stop: threading.Event) -> ToolResult:
        if reason := unavailable():
            raise ToolError(f"{reason} Use one of {', '.join(_OPERATIONS)}.")
        output = run_code(code, self._files(), stop=stop)
        text = output.text.strip()
        if len(text) > MOST_TEXT:
            text = f"{text[:MOST_TEXT]}… (cut)"
        if output.problem:
            return ToolResult(ok=False, text=f"{text}\n{output.problem}".strip())
        image = None
        for picture in output.pictures:
            image = self._kept(picture)
        if not text and image is None:
            text = "The code printed nothing and saved no picture."
        return ToolResult(ok=True, text=text, image=image)

    def _files(self) -> dict[str, np.ndarray]:
        """frame_1.png … in the order of the frames that the model saw, at the file's resolution as far as that is
        possible together, and picture_1.png …"""
        files: dict[str, np.ndarray] = {}
        if (frames := self._frames) is not None:
            each = _CODE_PIXELS // len(frames.times)
            shown = frames.info.frame_times
            indices = tuple(int(np.abs(shown - time).argmin()) for time in frames.times)
            for slot, image in enumerate(frames.images):
                files[f"frame_{slot + 1}.png"] = image
            if len(set(indices)) == len(indices) and indices == tuple(sorted(indices)):
                for slot, _, image in frames_at(
                    frames.info, indices, indices[-1], lambda _, rgb: fitted(rgb, each), None
                ):
                    files[f"frame_{slot + 1}.png"] = image
        for number, image in enumerate(self._pictures, 1):
            files[f"picture_{number}.png"] = image
        return files


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a structured call. Raises ToolError, saying how a call is written."""
    example = 'write {"name": "crop", "arguments": {"time": 1.5, "box": [left, top, right, bottom]}}'
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        raise ToolError(f"The call is not JSON; {example}.") from None
    if not isinstance(call, dict):
        raise ToolError(f"The call is not an object; {example}.")
    name, arguments = call.get("name"), call.get("arguments", {})
    if name not in NAMES or not isinstance(name, str):
        raise ToolError(f"There is no tool {str(name)[:40]!r}; there are {', '.join(NAMES)}.")
    if not isinstance(arguments, dict):
        raise ToolError(f"The arguments are not an object; {example}.")
    return name, arguments


def _number(name: str, key: str, value: Any, spec: _Number) -> float:
    if value is None:
        raise ToolError(f"{name} needs {key}.")
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:  # no NaN either
        raise ToolError(f"{key} must be a number.")
    if not spec.least <= value <= spec.most:
        raise ToolError(f"{key} is {value:g}; it must be from {spec.least:g} to {spec.most:g}.")
    return float(value)


def _box(name: str, value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise ToolError(f"{name} needs a box: [left, top, right, bottom] in pixels.")
    return [_number(name, "box", side, _Number(-1e9, 1e9)) for side in value]
