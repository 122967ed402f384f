"""One interface for everything that turns messages into a stream of text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from engine.events import Event
from engine.video.types import Frames, Sampling

Role = Literal["system", "user", "assistant"]
Part = str | Frames | np.ndarray
"""A piece of a message: text, the frames of a clip, or one picture (uint8 RGB [height, width, 3])."""


@dataclass(frozen=True)
class Message:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen. The defaults are the published generation_config.json."""

    max_tokens: int = 1024
    greedy: bool = False
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    seed: int | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What answers: shown on the page, stored with every answer."""

    name: str  # the checkpoint folder's name (engine.runtime.source.name_of)
    path: str
    architecture: str  # Keye or KeyeVL1_5
    parameters: int
    device: str
    dtype: str
    context: int  # most tokens, prompt and answer together
    demonstration: bool  # keye-nano: the page says plainly what it cannot do
    sampling: Sampling  # how this checkpoint wants its clips sampled
    decoding: Decoding  # the defaults of its generation_config.json
    picture_pixels: tuple[int, int] = (3136, 1003520)  # least and most of a still picture as it sees it
    note: str = ""  # what to expect of it on this machine, one sentence
    runtime: str = "local"  # local, sglang, or the address of a server
    adapter: str | None = None  # the adapter that answers with it
    tool_prompt: str | bool = (
        True  # how it is told of the tools: a text of its own; True: as here; False: it needs none
    )


def speaker(model: str, adapter: str | None) -> str:
    """Who speaks, as people read it: the checkpoint, and the adapter beside it."""
    return f"{model} + {adapter}" if adapter else model


@dataclass(frozen=True)
class Status:
    """Where a runtime stands. `message` is a sentence for the user, `fraction` 0..1 or None if unknown."""

    state: Literal["starting", "ready", "failed"]
    message: str = ""
    fraction: float | None = None


class Runtime(Protocol):
    def start(self) -> None:
        """Begin to load in the background; returns at once. `status` tells how far it is."""
        ...

    def status(self) -> Status: ...

    def info(self) -> ModelInfo:
        """What will answer. Waits until the runtime is ready; EngineError if it failed to start."""
        ...

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        """Answer the last user message. Setting `stop` ends the stream within one token.

        If the last message is the assistant's, its turn is continued from there (engine.prompt.render): text and
        pictures of it are the beginning of the turn, and only what comes after them is emitted and counted. What of
        the prompt was read before need not be read again. A reader may close the iterator instead of setting `stop`;
        the model is then free at once.

        The stream ends with `Done`; it does not raise for what a user can cause."""
        ...

    def close(self) -> None: ...
