"""One request to a server as a stream of what it answers, with a real end when it is stopped."""

from __future__ import annotations

import base64
import io
import queue
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
from openai import OpenAI
from PIL import Image

from engine.errors import EngineError
from engine.prompt import CONTINUE_TURN, continues
from engine.runtime.base import Decoding, Message, Part
from engine.runtime.endpoint import Endpoint, ask, trusted, wrong_key
from engine.video.address import clip_url
from engine.video.types import Frames

_CONNECT_SECONDS = 10.0
_FIRST_TOKEN_SECONDS = 1800.0  # a long clip before a large model on a processor
_NEXT_TOKEN_SECONDS = 180.0
_LOOK_SECONDS = 0.05  # how often a silent stream looks whether it was stopped
_MOST_FILE_BYTES = 1024**3  # of a video that has to travel with the request

_ROOM = re.compile(r"maximum context length of (\d+) tokens.*?: (\d+) tokens from the input", re.S)
_TOO_LONG = re.compile(r"The input \((\d+) tokens\) is longer than the model's context length \((\d+) tokens\)")


@dataclass(frozen=True)
class Piece:
    """What came: some text, or at the end how it ended and what was counted."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cached_tokens: int = 0


class Gone(Exception):
    """The server went away: nobody listens, or the connection broke. Whether to try again is the caller's choice."""


class Request:
    """One answer. Iterate `pieces`; `abort` may be called from any thread and is repeated harmlessly."""

    def __init__(self, endpoint: Endpoint, adapter: str | None, messages: list[Message], decoding: Decoding) -> None:
        self._endpoint = endpoint
        self._rid = uuid.uuid4().hex
        self._client = OpenAI(
            base_url=endpoint.url + "/v1",
            api_key=endpoint.api_key or "none",
            max_retries=0,  # whether a request may be sent again is decided where it is known what was shown
            timeout=httpx.Timeout(_FIRST_TOKEN_SECONDS, connect=_CONNECT_SECONDS),
            http_client=openai.DefaultHttpxClient(verify=trusted()),
        )
        self._body = _body(endpoint, adapter, messages, decoding, self._rid)
        self._items: queue.Queue[Any] = queue.Queue()
        self._ended = False

    def pieces(self, stop: threading.Event) -> Iterator[Piece]:
        """Pieces until the end, or until `stop` is set.

        Raises EngineError with a sentence where the server refuses, Gone where it went away."""
        reader = threading.Thread(target=self._read, name="sglang-stream", daemon=True)
        reader.start()
        heard, patience = time.monotonic(), _FIRST_TOKEN_SECONDS
        try:
            while not stop.is_set():
                try:
                    item = self._items.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    if time.monotonic() - heard > patience:
                        raise Gone("The server did not go on.") from None
                    continue
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                heard, patience = time.monotonic(), _NEXT_TOKEN_SECONDS
                yield item
        finally:
            self.abort()

    def abort(self) -> None:
        """Make the server stop working on this answer and free its memory. Nothing happens where it has ended."""
        if self._ended:
            return
        self._ended = True
        try:  # by name, because a server notices a closed connection only when it next has something to send
            ask(self._endpoint.url, self._endpoint.api_key, "POST", "/abort_request", {"rid": self._rid})
        except EngineError:
            pass  # it went away, and with it the answer
        finally:
            self._client.close()

    def _read(self) -> None:
        try:
            self._stream()
            self._ended = True
            self._items.put(None)
        except Exception as error:  # handed to the reader of `pieces`, who knows what to make of it
            self._items.put(_told(error, self._endpoint))

    def _stream(self) -> None:
        try:
            stream = self._client.chat.completions.create(**self._body)
        except openai.BadRequestError as error:
            room = _ROOM.search(str(error))
            if room is None or int(room[1]) <= int(room[2]):
                raise
            # As many tokens as the context still holds; only the server knows how long the prompt is.
            self._body["max_tokens"] = int(room[1]) - int(room[2])
            stream = self._client.chat.completions.create(**self._body)
        finish: str | None = None
        for chunk in stream:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    self._items.put(Piece(choice.delta.content))
            if chunk.usage is not None:
                details = chunk.usage.prompt_tokens_details
                # The token that ends an answer is none of its text, and the local runtime does not count it.
                ended = 1 if finish == "stop" else 0
                self._items.put(
                    Piece(
                        finish=finish,
                        prompt_tokens=chunk.usage.prompt_tokens,
                        answer_tokens=max(0, chunk.usage.completion_tokens - ended),
                        cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
                    )
                )
        if finish is None or finish == "abort":
            raise Gone("The stream broke off.")


def _told(error: Exception, endpoint: Endpoint) -> Exception:
    """The library's exception as ours."""
    url = endpoint.url
    if isinstance(error, EngineError | Gone):
        return error
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return EngineError(wrong_key(url))
    if isinstance(error, openai.APIStatusError):
        message = _message(error)
        if long := _TOO_LONG.search(message) or _ROOM.search(message):
            needed, holds = sorted((int(long[1]), int(long[2])), reverse=True)
            return EngineError(
                f"The conversation needs {needed} tokens and the model holds {holds}: "
                "start a new conversation, or lower the visual token budget."
            )
        if error.status_code == 400:
            return EngineError(message)
        if error.status_code in (502, 503, 504):
            return Gone(message)
        return EngineError(f"{url} could not answer ({error.status_code}: {message:.300}); try again.")
    if isinstance(error, openai.APIConnectionError | httpx.HTTPError | ConnectionError):
        return Gone(str(error))
    if isinstance(error, openai.APIError):  # an error that came inside the stream
        return EngineError(f"{url} could not go on ({error.message:.300}); ask again.")
    return EngineError(f"The answer of {url} cannot be read ({type(error).__name__}: {error!s:.200}); ask again.")


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error")
        told = body.get("message") or (inner.get("message") if isinstance(inner, dict) else inner)
        if told:
            return str(told)[:1000]
    return error.message[:1000]


def _body(
    endpoint: Endpoint, adapter: str | None, messages: list[Message], decoding: Decoding, rid: str
) -> dict[str, Any]:
    # Everything that chooses a token is said: what is left out, the server takes from generation_config.json, where
    # there may be penalties that the local runtime does not know.
    chosen: dict[str, Any] = {"rid": rid, "repetition_penalty": 1.0, "min_p": 0.0}
    body: dict[str, Any] = {"temperature": 0.0}
    if not decoding.greedy:
        body = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed}
        chosen["top_k"] = decoding.top_k if decoding.top_k > 0 else -1
    if continues(messages):
        chosen["chat_template_kwargs"] = {CONTINUE_TURN: True}
    name = endpoint.info.name
    return {
        # An adapter's name alone would silently get the base model's answer.
        "model": f"{name}:{adapter}" if adapter else name,
        "messages": [{"role": m.role, "content": _content(m.parts, endpoint)} for m in messages],
        "max_tokens": decoding.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": chosen,
        **body,
    }


def _content(parts: tuple[Part, ...], endpoint: Endpoint) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        elif isinstance(part, Frames):
            source = None if endpoint.same_disk else _file_url(Path(part.clip.path))
            content.append({"type": "video_url", "video_url": {"url": clip_url(part.clip, part.sampling, source)}})
        else:
            content.append({"type": "image_url", "image_url": {"url": _picture_url(part)}})
    return content


def _picture_url(picture: np.ndarray) -> str:
    """A picture as a PNG in a data URL: every pixel arrives as it is."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _file_url(file: Path) -> str:
    """A video as a data URL, for a server that cannot open this machine's files."""
    try:
        if file.stat().st_size > _MOST_FILE_BYTES:
            raise EngineError(f"{file.name} is too large to send to another machine (over 1 GB); cut or shrink it.")
        return "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise EngineError(f"{file.name} cannot be read ({error.strerror}); give a video file.") from None
