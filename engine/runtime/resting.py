"""A runtime that lies down while the machine is needed for something else, and gets up again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from engine.errors import EngineError
from engine.events import Done, Error, Event
from engine.runtime.base import Decoding, Message, ModelInfo, Runtime, Status

RESTS = "The model rests while it is fine-tuned; pause the run to ask it, or wait for its end."


class Resting:
    """What `make` makes answers, until `rest`; `wake` makes another one. Every method may be called from any thread."""

    def __init__(self, make: Callable[[], Runtime]) -> None:
        self._make = make
        self._runtime: Runtime | None = make()
        self._info: ModelInfo | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        """What only some runtimes can (adapters); EngineError while it rests."""
        return getattr(self._awake(), name)

    @property
    def resting(self) -> bool:
        return self._runtime is None

    def rest(self) -> None:
        """Close the runtime and give its memory back. What is being answered ends first or fails with a sentence."""
        with self._lock:
            runtime, self._runtime = self._runtime, None
            if runtime is None:
                return
            if runtime.status().state == "ready":
                self._info = runtime.info()
            runtime.close()
            del runtime
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def wake(self) -> None:
        """Load it again, in the background."""
        with self._lock:
            if self._runtime is None:
                self._runtime = self._make()
                self._runtime.start()

    def start(self) -> None:
        if (runtime := self._runtime) is not None:
            runtime.start()

    def status(self) -> Status:
        runtime = self._runtime
        return Status("starting", RESTS) if runtime is None else runtime.status()

    def info(self) -> ModelInfo:
        runtime = self._runtime
        if runtime is None and self._info is not None:
            return self._info
        return self._awake().info()

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        runtime = self._runtime
        if runtime is None:
            yield Error(RESTS)
            yield Done(finish="error", text="", model=self._info.name if self._info else "")
            return
        yield from runtime.stream(messages, decoding, stop)

    def close(self) -> None:
        if (runtime := self._runtime) is not None:
            runtime.close()

    def _awake(self) -> Runtime:
        runtime: Runtime | None = self.__dict__.get("_runtime")
        if runtime is None:
            raise EngineError(RESTS)
        return runtime
