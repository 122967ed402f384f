"""Where a server answers, and a server that somebody else runs."""

from __future__ import annotations

import contextlib
import ssl
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from engine.errors import EngineError
from engine.runtime.base import Decoding, ModelInfo, Status
from engine.video import PRESETS, Sampling

_SECONDS = 10.0
_USERS = 64  # sent to a server that does not say how many it takes at once


@dataclass(frozen=True)
class Endpoint:
    url: str  # http://host:port
    api_key: str | None
    info: ModelInfo
    users: int  # answered at once; others wait in line
    same_disk: bool  # the server can open the paths of this machine
    epoch: int  # how often the server was started: what it was told before is forgotten


class Server(Protocol):
    """Whatever stands behind an address: our own process, or somebody else's."""

    def start(self) -> None: ...

    def status(self) -> Status: ...

    def endpoint(self, wait_seconds: float | None = None) -> Endpoint | None:
        """Waits at most `wait_seconds` for the server; None if it is not ready then, EngineError if it failed."""
        ...

    def on(self, model: str | None) -> Server:
        """Another one like it for another model (None: the same), not started yet. EngineError where that cannot be."""
        ...

    @property
    def model(self) -> str | None:
        """What it was made for: a folder, a hub id, or None for keye-nano."""
        ...

    @property
    def start_seconds(self) -> float | None:
        """How long it took to be ready when it was last started; None where that is not known."""
        ...

    def close(self) -> None: ...


class RemoteServer:
    """A server at an address: SGLang started with `python -m engine serve`, or a router before several of them."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url, self._api_key = _checked(url), api_key
        self._status = Status("starting", f"Asking {self.url} what it serves.")
        self._endpoint: Endpoint | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._try, name="remote-server", daemon=True).start()

    def status(self) -> Status:
        return self._status

    def endpoint(self, wait_seconds: float | None = None) -> Endpoint | None:
        with self._lock:
            if self._endpoint is None:
                try:
                    self._endpoint = self._ask()
                    self._status = Status("ready")
                except EngineError as error:
                    self._status = Status("failed", str(error))
                    raise
            return self._endpoint

    start_seconds: float | None = None

    @property
    def model(self) -> str | None:
        endpoint = self.endpoint()
        assert endpoint is not None
        return endpoint.info.path

    def on(self, model: str | None) -> Server:
        raise EngineError(
            f"The server at {self.url} is not ours to start again; start it on that model, or take an adapter."
        )

    def close(self) -> None:
        """Nothing: the server is not ours."""

    def _try(self) -> None:
        with contextlib.suppress(EngineError):  # the status says it, and the next question asks again
            self.endpoint()

    def _ask(self) -> Endpoint:
        models = ask(self.url, self._api_key, "GET", "/v1/models")
        try:
            base = next(card for card in models["data"] if not card.get("parent"))
            name, context = str(base["id"]), int(base.get("max_model_len") or 0)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise EngineError(f"{self.url} answers, but it is no SGLang server; check the address.") from error
        known = self._facts("/keye_info")
        general = self._facts("/model_info") if not known else {}
        architecture = str(known.get("architecture") or general.get("model_type") or "Keye")
        preset = PRESETS["keye-vl-1.5" if architecture == "KeyeVL1_5" else "keye-vl-preview"]
        try:
            info = ModelInfo(
                name=name,
                path=str(known.get("path") or general.get("model_path") or name),
                architecture=architecture,
                parameters=int(known.get("parameters", 0)),
                device=str(known.get("device", "server")),
                dtype=str(known.get("dtype", "")),
                context=context or int(known.get("context", 0)) or 32768,
                demonstration=bool(known.get("demonstration", False)),
                sampling=Sampling(**known["sampling"]) if "sampling" in known else preset,
                decoding=Decoding(**known["decoding"]) if "decoding" in known else Decoding(),
                picture_pixels=_two_counts(known.get("picture_pixels", ModelInfo.picture_pixels)),
                runtime=self.url,
                tool_prompt=_text_or_bool(known.get("tool_prompt", True)),
            )
        except (TypeError, ValueError) as error:
            raise EngineError(f"{self.url} runs another version of Keye Studio; update one of the two.") from error
        return Endpoint(
            url=self.url,
            api_key=self._api_key,
            info=info,
            users=int(known.get("users", 0)) or _USERS,
            same_disk=(urlsplit(self.url).hostname or "") in ("127.0.0.1", "localhost", "::1")
            and Path(info.path).exists(),
            epoch=1,
        )

    def _facts(self, path: str) -> dict[str, Any]:
        """What the server says of itself there; nothing where it does not have the page, as behind a router."""
        try:
            answer = ask(self.url, self._api_key, "GET", path)
        except EngineError:
            return {}
        return answer if isinstance(answer, dict) else {}


@lru_cache(maxsize=1)
def trusted() -> ssl.SSLContext:
    """The authorities that https is checked against. Reading them takes 25 ms, and every client reads them anew, also
    one that speaks http only."""
    return httpx.create_ssl_context()


def ask(url: str, api_key: str | None, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One call of a server's own API; the JSON it answers. EngineError in one sentence for whatever goes wrong."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        patience = _SECONDS * (6 if body else 1)
        answer = httpx.request(method, url + path, headers=headers, json=body, timeout=patience, verify=trusted())
    except httpx.TimeoutException as error:
        raise EngineError(f"{url} does not answer in time; it may be overloaded: try again later.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EngineError(f"{url} cannot be reached; start the server or check the address.") from error
    if answer.status_code in (401, 403):
        raise EngineError(wrong_key(url))
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.status_code >= 400:
        told = content.get("error_message") or content.get("message") if isinstance(content, dict) else None
        raise EngineError(f"{url} refuses ({answer.status_code}): {told or 'no reason given'!s:.300}")
    return content


def _two_counts(value: Any) -> tuple[int, int]:
    least, most = value
    return int(least), int(most)


def _text_or_bool(value: Any) -> str | bool:
    if not isinstance(value, str | bool):
        raise TypeError(f"{value!r} is neither a text nor true or false")
    return value


def wrong_key(url: str) -> str:
    return f"{url} wants another API key; set KEYE_STUDIO_API_KEY to the one that the server was started with."


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EngineError(f"{url!r:.100} is no address of a server; write http://host:port.")
    return url.rstrip("/").removesuffix("/v1")
