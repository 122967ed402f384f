"""Where a benchmark's runtime comes from."""

from __future__ import annotations

from engine.runtime.base import Runtime
from engine.runtime.choose import make_runtime
from engine.runtime.local import LocalRuntime


def open_runtime(model: str | None, runtime: str | None = "local") -> Runtime:
    """A started runtime: `model` is a folder, a hub id or None for keye-nano; `runtime` is local, sglang, the address
    of a server, or None for what suits the machine. Raises EngineError for anything else."""
    opened = make_runtime(runtime, model)
    opened.start()
    return opened


def requests_in_flight(runtime: Runtime) -> int:
    """How many items to ask at once where nobody says: the local runtime answers one at a time, so a second one only
    reads its pictures meanwhile and a conversation on the page does not wait long; a server batches more."""
    return 2 if isinstance(runtime, LocalRuntime) else 8
