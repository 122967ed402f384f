"""Which process wrote a row, and whether that process still runs.

A process id alone is used again, so it is kept together with when the process began."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> tuple[int, str]:
    """The id of this process and when it began; other processes can look both up."""
    pid = os.getpid()
    return pid, _began_once(pid)


def is_running(pid: int, began: str) -> bool:
    """Whether the process with this id that began then is still there. A zombie is not."""
    return (pid, began) == this_process() or (began != "" and _began(pid) == began)


def when_began(pid: int) -> str:
    """When another process began, for `is_running`; "" if there is none."""
    return _began(pid)


@functools.lru_cache(maxsize=4)  # keyed by the id because a forked child inherits the cache
def _began_once(pid: int) -> str:
    return _began(pid)


def _began(pid: int) -> str:
    """When a process began, as text that differs for any two processes with the same id; "" if there is none."""
    if not (_PROC / "self" / "stat").exists():
        return _began_by_ps(pid)
    try:
        # The name, second and in parentheses, may itself hold spaces and parentheses: read behind the last one.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()  # ticks below count from the boot
    except OSError:
        return ""
    state, ticks = fields[0], fields[19]
    return "" if state in (b"Z", b"X") else f"{boot}/{ticks.decode()}"


def _began_by_ps(pid: int) -> str:
    try:
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()
