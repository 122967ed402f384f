"""A studio over a scripted runtime: what is tested here is the page's own work, not the model's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.config import AppConfig
from app.studio import Studio
from engine.events import Answer, Done, Event
from engine.runtime.base import Decoding, Message, ModelInfo, Status
from engine.video import PRESETS
from tests.media import make_clip


class ScriptedRuntime:
    """Says what a test tells it to. `gate` must be set before each piece where a test wants to look in between."""

    def __init__(self) -> None:
        self.pieces: list[str] = ["A red circle ", "moves left ", "at 0:01."]
        self.failure: Exception | None = None
        self.gate: threading.Event | None = None
        self.heard: list[list[Message]] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def status(self) -> Status:
        return Status("ready")

    def info(self) -> ModelInfo:
        return ModelInfo(
            name="scripted",
            path="/models/scripted",
            architecture="Keye",
            parameters=8_700_000_000,
            device="cpu",
            dtype="float32",
            context=4096,
            demonstration=False,
            sampling=PRESETS["keye-vl-preview"],
            decoding=Decoding(),
        )

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        self.heard.append(messages)
        text = ""
        for piece in self.pieces:
            if self.gate is not None:
                self.gate.wait(30)
                self.gate.clear()
            if stop.is_set():
                yield Done(finish="stopped", text=text, model="scripted")
                return
            if self.failure is not None:
                raise self.failure
            text += piece
            yield Answer(piece)
        yield Done(
            finish="stop", text=text, model="scripted", visual_tokens=7, answer_tokens=3, first_token_seconds=0.5
        )


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime()


@pytest.fixture
def studio(tmp_path: Path, runtime: ScriptedRuntime) -> Iterator[Studio]:
    studio = Studio(AppConfig(data=tmp_path / "data"), runtime)
    yield studio
    studio.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.mp4"
    make_clip(path, frames=75, fps=25, size=(112, 112))
    return path


@pytest.fixture
def wait() -> Callable[[Studio, str], None]:
    def wait(studio: Studio, conversation: str) -> None:
        job = studio.job(conversation)
        assert job is not None
        job.join(60)
        assert job.snapshot().done is not None

    return wait
