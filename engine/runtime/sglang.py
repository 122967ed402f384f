"""The runtime that asks an SGLang server: our own, supervised, or one at an address."""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.errors import EngineError
from engine.events import Answer, Error, Event, Finish, Progress, Queued
from engine.keye.image_processing import smart_resize
from engine.prompt import continues
from engine.runtime.adapters import check_adapter, differs, idle
from engine.runtime.base import Decoding, Message, ModelInfo, Status
from engine.runtime.endpoint import Endpoint, Server, ask
from engine.runtime.line import Line
from engine.runtime.sglang_client import Gone, Request
from engine.runtime.tally import Tally
from engine.video.types import Frames

_LOOK_SECONDS = 0.2  # how often a waiting request looks whether it was stopped
_TRIES = 3  # of a request of which nothing was shown yet
_PAUSE_SECONDS = 1.0  # before trying again; doubled each time
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


class SGLangRuntime:
    """The same interface as the local runtime, over a server. Several answers are made at once, the rest wait."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._line = Line()
        self._adapter: str | None = None
        self._loaded: dict[str, Path] = {}  # adapters this runtime loaded; a server started anew has forgotten them
        self._epoch = 0
        self._lock = threading.RLock()

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._server.start()

    def status(self) -> Status:
        return self._server.status()

    def info(self) -> ModelInfo:
        endpoint = self._server.endpoint()
        assert endpoint is not None
        return replace(endpoint.info, adapter=self._adapter)

    def close(self) -> None:
        self._server.close()

    def on(self, model: str | None) -> SGLangRuntime:
        """A runtime over another server like this one's, on another model (None: the same), not started yet.

        EngineError where the server is not ours to start."""
        return SGLangRuntime(self._server.on(model))

    def speaking(self, adapter: str | None) -> SGLangRuntime:
        """The same server, line and adapters, always answering with this adapter (None: with the checkpoint alone)."""
        other = copy.copy(self)
        other._adapter = adapter
        return other

    @property
    def model(self) -> str | None:
        """What its server was made for: a folder, a hub id, or None for keye-nano; of a server that is not ours, the
        folder that it names."""
        return self._server.model

    @property
    def start_seconds(self) -> float | None:
        """How long the server took to be ready when it was last started; None where that is not known."""
        return self._server.start_seconds

    # -- answers ------------------------------------------------------------------------------------------------

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        tally = Tally(time.perf_counter(), adapter=self._adapter)
        name = ""
        ticket = self._line.join(again=continues(messages))
        try:
            endpoint = yield from self._ready(stop)
            if endpoint is not None:
                name = endpoint.info.name
                tally.visual_tokens = visual_tokens(messages, endpoint.info.picture_pixels)
                yield from self._turn(ticket, endpoint, stop, tally)
            if endpoint is None or stop.is_set():
                yield tally.done("stopped", name)
                return
            finish = yield from self._answer(endpoint, messages, decoding, stop, tally)
            yield tally.done(finish, name)
        except EngineError as error:
            yield Error(str(error))
            yield tally.done("error", name)
        finally:
            self._line.leave(ticket)

    def _ready(self, stop: threading.Event) -> Generator[Event, None, Endpoint | None]:
        """Wait for the server, saying so; None if `stop` came first."""
        while not stop.is_set():
            endpoint = self._server.endpoint(_LOOK_SECONDS)
            if endpoint is not None:
                self._line.places = endpoint.users
                self._reload(endpoint)
                return endpoint
            yield Progress("loading", self._server.status().fraction)
        return None

    def _turn(self, ticket: object, endpoint: Endpoint, stop: threading.Event, tally: Tally) -> Iterator[Event]:
        told = 0
        while position := self._line.position(ticket, _LOOK_SECONDS):
            if stop.is_set():
                return
            if position != told:
                yield Queued(position)
                told = position
        tally.queue_seconds = tally.elapsed()

    def _answer(
        self, endpoint: Endpoint, messages: list[Message], decoding: Decoding, stop: threading.Event, tally: Tally
    ) -> Generator[Event, None, Finish]:
        """The pieces of the answer; the request is sent again only while nothing of it was shown."""
        yield Progress("prefill")
        pause = _PAUSE_SECONDS
        for last in (*[False] * (_TRIES - 1), True):
            if tally.adapter is not None:
                self._verify_loaded(endpoint, tally.adapter)
            request = Request(endpoint, tally.adapter, messages, decoding)
            try:
                finish = yield from self._pieces(request, stop, tally)
                return finish
            except Gone as error:
                if tally.text:
                    raise EngineError(
                        "The server went away in the middle of the answer; what it wrote is kept: ask again."
                    ) from error
                if last:
                    raise EngineError(f"{endpoint.url} went away ({error!s:.200}); ask again in a moment.") from error
            if stop.wait(pause):
                return "stopped"
            pause *= 2
            again = yield from self._ready(stop)
            if again is None:
                return "stopped"
            endpoint = again
        raise AssertionError("unreachable")

    def _pieces(self, request: Request, stop: threading.Event, tally: Tally) -> Generator[Event, None, Finish]:
        finish: Finish = "stopped"
        for piece in request.pieces(stop):
            if tally.first_token_seconds is None:  # the token that ends an empty answer is one as well
                tally.first_token_seconds = tally.elapsed()
                tally.prepare_seconds = tally.first_token_seconds - tally.queue_seconds
            if piece.text:
                tally.text += piece.text
                tally.answer_tokens += 1  # a guess until the count comes with the end
                yield Answer(piece.text)
            if piece.finish is not None:
                finish = "length" if piece.finish == "length" else "stop"
                tally.prompt_tokens, tally.answer_tokens = piece.prompt_tokens, piece.answer_tokens
                tally.cached_tokens = piece.cached_tokens
        return finish

    # -- adapters -----------------------------------------------------------------------------------------------

    def adapters(self) -> list[str]:
        """Names of the adapters that the server holds now."""
        return _adapters_of(self._connected())

    def load_adapter(self, name: str, folder: Path, idle_too: bool = False) -> None:
        """Bring an adapter (a folder in PEFT's layout, safetensors) to the server and make sure that it answers;
        `idle_too` takes one with which answers stay those of the checkpoint, because it is hardly trained yet.

        Raises EngineError where the folder is none, the server refuses it, or answers stay those of the checkpoint."""
        if not _NAME.fullmatch(name):
            raise EngineError(f"{name!r:.80} is no name for an adapter; use letters, digits, dots and dashes.")
        check_adapter(folder)
        endpoint = self._connected()
        with self._lock:
            if name in _adapters_of(endpoint):
                raise EngineError(f"There is an adapter {name} already; unload it first or take another name.")
            _load(endpoint, name, folder)
            if not idle_too and not differs(endpoint, name):
                ask(endpoint.url, endpoint.api_key, "POST", "/unload_lora_adapter", {"lora_name": name})
                raise idle(name)
            self._loaded[name] = folder

    def unload_adapter(self, name: str) -> None:
        """Take an adapter away; if it was in use, the checkpoint alone answers from now on."""
        endpoint = self._connected()
        with self._lock:
            if name not in _adapters_of(endpoint):
                raise EngineError(f"The server holds no adapter {name}.")
            ask(endpoint.url, endpoint.api_key, "POST", "/unload_lora_adapter", {"lora_name": name})
            self._loaded.pop(name, None)
            if self._adapter == name:
                self._adapter = None

    def use_adapter(self, name: str | None) -> None:
        """Answer with this adapter from now on; None: with the checkpoint alone. EngineError if it is not loaded."""
        if name is not None:
            self._verify_loaded(self._connected(), name)
        self._adapter = name

    def _verify_loaded(self, endpoint: Endpoint, name: str) -> None:
        """The server would quietly load an adapter again that was taken away; here it is an error."""
        if name not in _adapters_of(endpoint):
            with self._lock:
                self._loaded.pop(name, None)  # a server that is started anew must not get it back either
            raise EngineError(f"The adapter {name} is not loaded on the server; load it, or answer without it.")

    def _reload(self, endpoint: Endpoint) -> None:
        """Give a server that was started anew the adapters that it had."""
        with self._lock:
            if endpoint.epoch == self._epoch:
                return
            for name, folder in list(self._loaded.items()):
                if name not in _adapters_of(endpoint):
                    try:
                        _load(endpoint, name, folder)
                    except EngineError:  # its folder is gone: whoever asks for it is told, all others are answered
                        del self._loaded[name]
            self._epoch = endpoint.epoch

    def _connected(self) -> Endpoint:
        endpoint = self._server.endpoint()
        assert endpoint is not None
        self._reload(endpoint)
        return endpoint


def visual_tokens(messages: list[Message], picture_pixels: tuple[int, int]) -> int:
    """What the clips and pictures of a conversation cost; `picture_pixels` are the limits of a picture."""
    total = 0
    least, most = picture_pixels
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, Frames):
            total += part.total_tokens
        elif isinstance(part, np.ndarray):
            height, width = smart_resize(part.shape[0], part.shape[1], 28, least, most)
            total += height * width // 784
    return total


def _adapters_of(endpoint: Endpoint) -> list[str]:
    cards = ask(endpoint.url, endpoint.api_key, "GET", "/v1/models")["data"]
    return [str(card["id"]) for card in cards if card.get("parent")]


def _load(endpoint: Endpoint, name: str, folder: Path) -> None:
    body = {"lora_name": name, "lora_path": str(folder.resolve())}
    ask(endpoint.url, endpoint.api_key, "POST", "/load_lora_adapter", body)
