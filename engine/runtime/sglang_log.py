"""What SGLang writes while it starts, and why it ended, in words for the user."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

_STAGES = (
    (re.compile(r"Load weight begin"), "Loading the weights"),
    (re.compile(r"[Cc]apture.*graph.*begin|Capturing batches"), "Capturing CUDA graphs"),
    (re.compile(r"KV Cache is allocated|Memory pool end"), "Preparing the memory of conversations"),
    (re.compile(r"fired up|Uvicorn running"), "Almost ready"),
)
_SHARDS = re.compile(r"Loading safetensors[^:]*:\s+(\d+)%")

PORT_TAKEN = "The server's port is taken; stop what runs there or take another."

_CAUSES = (
    (
        re.compile(r"OutOfMemoryError|out of memory|Not enough memory|MemoryError|exit ?code[:=] ?-9|can't allocate"),
        "The memory does not hold the model and its conversations: close other programs, lower --mem-fraction-static "
        "or --context-length, add --quantization fp8, or spread it over more GPUs with --tp.",
    ),
    (re.compile(r"[Aa]ddress already in use|EADDRINUSE"), PORT_TAKEN),
    (re.compile(r"No space left on device"), "The disk is full; make room and start again."),
    (
        re.compile(r"^(\[[^\]]*\] )?(ModuleNotFoundError|ImportError): "),
        "SGLang's environment is not complete; remove the folder .venv-sglang and start again.",
    ),
    (re.compile(r"NCCL error|No NVIDIA driver|CUDA driver"), "The GPUs cannot be used; check the driver and --tp."),
)
_USAGE = re.compile(r"error: (unrecognized arguments: .*|argument .*|ambiguous option: .*)")
_HARMLESS = "/freeze_gc"  # asked before the port is open when no warm-up delays it; what it does comes later
_EXCEPTION = re.compile(r"^(?:\[[^\]]*\]\s*)?(?:[\w.]*\.)?(\w*(?:Error|Exception)): (.+)$")


class ServerLog:
    """The last lines of a server's output."""

    def __init__(self, keep: int = 400) -> None:
        self._lines: deque[str] = deque(maxlen=keep)

    def add(self, line: str) -> tuple[str, float | None] | None:
        """Keep a line. The stage of starting that it announces and how much of it is done (0..1), if it does."""
        self._lines.append(line.rstrip("\n")[:2000])
        if shards := _SHARDS.search(line):
            return "Loading the weights", int(shards[1]) / 100
        for pattern, stage in _STAGES:
            if pattern.search(line):
                return stage, None
        return None

    def cause(self, code: int | None) -> str:
        """One sentence on why the server ended with this exit code (negative: a signal)."""
        return cause(list(self._lines), code)


def cause(lines: Iterable[str], code: int | None) -> str:
    """See ServerLog.cause. The first line that explains it counts: what follows is mostly its echo."""
    last = ""
    for line in lines:
        if usage := _USAGE.search(line):
            return f"SGLang does not take these options ({usage[1]:.200}); correct them."
        for pattern, sentence in _CAUSES:
            if pattern.search(line):
                return sentence
        if (exception := _EXCEPTION.match(line)) and _HARMLESS not in line:
            last = exception[2]
    if last:
        return f"SGLang ended: {last.strip():.300}"
    if code == -9:  # without a word: the system took it. With one, SGLang ended its own processes.
        return _CAUSES[0][1]
    return f"SGLang ended without saying why (exit code {code}); run python -m engine serve to see its log."
