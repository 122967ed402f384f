"""Where a benchmark's runtime comes from."""

from __future__ import annotations

from engine.runtime.base import Runtime
from engine.runtime.local import LocalRuntime
from finetune.errors import FinetuneError


def open_runtime(model: str | None, runtime: str = "local") -> Runtime:
    """A started runtime: `model` is a folder, a hub id or None for keye-nano; `runtime` says what runs it.

    Raises FinetuneError for a runtime that is not known."""
    if runtime != "local":
        raise FinetuneError(f"The runtime {runtime!r} is not known; use --runtime local.")
    opened = LocalRuntime(model)
    opened.start()
    return opened


def requests_in_flight(runtime: Runtime) -> int:
    """How many items to ask at once where nobody says: the local runtime answers one at a time, so a second one only
    reads its pictures meanwhile and a conversation on the page does not wait long; a server batches more."""
    return 2 if isinstance(runtime, LocalRuntime) else 8
