"""A runtime that says what a test tells it to, and property tests that a busy machine does not fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from hypothesis import settings

from engine.events import Answer, Done, Event, Finish, Progress
from engine.runtime.base import Decoding, Message, ModelInfo, Status
from engine.video import PRESETS

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class Scripted:
    """Each call of `stream` says the next script, a piece a token, and keeps the limits of the protocol.

    The last script is said again and again where there are more calls than scripts."""

    def __init__(self, *scripts: Sequence[str]) -> None:
        self.scripts = scripts
        self.tool_prompt: str | bool = False
        self.heard: list[list[Message]] = []
        self.limits: list[int] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def status(self) -> Status:
        return Status("ready")

    def info(self) -> ModelInfo:
        return ModelInfo(
            name="scripted",
            path="/models/scripted",
            architecture="Keye",
            parameters=1,
            device="cpu",
            dtype="float32",
            context=4096,
            demonstration=False,
            sampling=PRESETS["keye-vl-preview"],
            decoding=Decoding(),
            tool_prompt=self.tool_prompt,
        )

    def begun(self, call: int = -1) -> str:
        """What the turn was begun with at a call; [image] for a picture."""
        last = self.heard[call][-1]
        if last.role != "assistant":
            return ""
        return "".join(part if isinstance(part, str) else "[image]" for part in last.parts)

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        script = self.scripts[min(len(self.heard), len(self.scripts) - 1)]
        self.heard.append(messages)
        self.limits.append(decoding.max_tokens)
        yield Progress("prefill")
        finish: Finish = "stop"
        said: list[str] = []
        for piece in script:
            if stop.is_set():
                finish = "stopped"
                break
            said.append(piece)
            yield Answer(piece)
            if len(said) >= decoding.max_tokens:
                finish = "length"
                break
        yield Done(
            finish=finish,
            text="".join(said),
            model="scripted",
            prompt_tokens=10 * len(self.heard),
            visual_tokens=7,
            answer_tokens=len(said),
            first_token_seconds=0.5,
        )
