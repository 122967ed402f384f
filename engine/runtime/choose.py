"""Which runtime answers: in this process, a server of our own, or a server at an address."""

from __future__ import annotations

import os

import torch

from engine.errors import EngineError
from engine.runtime.base import Runtime

KEY_VARIABLE = "KEYE_STUDIO_API_KEY"
"""Environment variable with the key of a server that is already running."""


def make_runtime(kind: str | None, model: str | None = None, device: str | None = None) -> Runtime:
    """`kind` is local, sglang, http://host:port of a server, or None: sglang where there is a GPU, else local.

    Nothing is started yet. EngineError for anything else, and for a model beside an address."""
    if kind is None:
        kind = "sglang" if torch.cuda.is_available() and device != "cpu" else "local"
    if kind == "local":
        from engine.runtime.local import LocalRuntime

        return LocalRuntime(model, device=device)
    from engine.runtime.sglang import SGLangRuntime

    if kind == "sglang":
        from engine.runtime.sglang_server import Supervisor

        return SGLangRuntime(Supervisor(model, device=device))
    if "://" in kind:
        from engine.runtime.endpoint import RemoteServer

        if model or device:
            raise EngineError(f"What {kind} serves was chosen when it was started; leave --model and --device out.")
        return SGLangRuntime(RemoteServer(kind, os.environ.get(KEY_VARIABLE)))
    raise EngineError(f"There is no runtime {kind!r:.80}; take local, sglang or http://host:port.")
