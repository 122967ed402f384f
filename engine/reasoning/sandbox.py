"""Runs a model's Python in a process that can reach nothing: bubblewrap's namespaces, a seccomp filter and limits.

The process sees the interpreter and two packages, read-only, and a scratch folder in memory that holds its input
pictures and ends with it. There is no network, no other file, no environment, no descriptor of ours, no /proc, no /dev.
What comes back, text and raw pixels through two pipes, is counted and checked as if it came from an enemy.

The scratch folder is called /mnt/data as in the report's example (figure 11)."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engine.errors import EngineError
from engine.reasoning.seccomp import filter_program

_INSIDE = Path(__file__).with_name("inside.py")
_LOOK_SECONDS = 0.05  # how often a running process is asked about
_GRACE_SECONDS = 0.5  # for a process to end that has closed its pipes
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    seconds: float = 10.0  # by the clock
    cpu_seconds: int = 5
    memory_bytes: int = 1 << 30  # address space
    file_bytes: int = 16 << 20  # one file
    scratch_bytes: int = 64 << 20  # all files
    text_bytes: int = 8192  # printed; more ends the process
    pictures: int = 4  # that are brought back, the newest
    picture_pixels: int = 4 << 20  # of one picture


@dataclass(frozen=True)
class Output:
    """What code left behind. `problem` is a sentence for the model, empty where the code ended by itself."""

    text: str
    pictures: tuple[np.ndarray, ...] = ()  # uint8 RGB [height, width, 3]
    problem: str = ""


@cache
def unavailable() -> str:
    """Why code cannot be run on this machine, one sentence; empty if it can. Tried out once, with real code."""
    if sys.platform != "linux":
        return "Python code of the model is not run: its sandbox needs Linux."
    if shutil.which("bwrap") is None:
        return "Python code of the model is not run: install bubblewrap (apt-get install bubblewrap) for its sandbox."
    if filter_program() is None:
        return "Python code of the model is not run: its sandbox does not know this processor."
    try:
        output = _run("print(6 * 7)", {}, Limits(seconds=120, cpu_seconds=60), None)
    except (OSError, EngineError):
        output = Output("")
    if output.text.strip() == "42":
        return ""
    return "Python code of the model is not run: this machine does not permit the namespaces that its sandbox needs."


def run_code(
    code: str,
    pictures: Mapping[str, np.ndarray],
    limits: Limits | None = None,
    stop: threading.Event | None = None,
) -> Output:
    """Run Python with `pictures` (uint8 RGB [height, width, 3]) as PNG files of those names in its working folder.

    Setting `stop` ends it. Never raises for what the code does; EngineError where there is no sandbox."""
    if reason := unavailable():
        raise EngineError(reason)
    return _run(code, pictures, limits or Limits(), stop)


def _run(code: str, pictures: Mapping[str, np.ndarray], limits: Limits, stop: threading.Event | None) -> Output:
    with contextlib.ExitStack() as stack:
        request = stack.enter_context(tempfile.TemporaryFile())
        _write_request(request, code, pictures, limits)
        rules = stack.enter_context(tempfile.TemporaryFile())
        rules.write(filter_program() or b"")
        rules.seek(0)
        receive, send = os.pipe()
        stack.callback(os.close, receive)
        try:
            process = subprocess.Popen(
                _command(limits, rules.fileno(), send),
                stdin=request,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                pass_fds=(rules.fileno(), send),
                start_new_session=True,
            )
        finally:
            os.close(send)
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        grace = 0.0
        try:
            text, raw, problem = _read(process.stdout.fileno(), receive, limits, stop)
            grace = 0.0 if problem else _GRACE_SECONDS
        finally:
            _end(process, grace)
        if not problem and process.returncode == 1:  # an exception; its line is the last of the text
            problem = "The code failed."
        elif not problem and process.returncode:
            problem = "The code was ended: it used too much processor time or memory, or ended its own process."
        images, malformed = _pictures(raw, limits)
        return Output(text.decode("utf-8", "replace"), images, problem or malformed)


def _write_request(file: BinaryIO, code: str, pictures: Mapping[str, np.ndarray], limits: Limits) -> None:
    head = {
        "code": code.encode("utf-8", "replace").decode("utf-8"),
        "limits": {
            "memory": limits.memory_bytes,
            "cpu": limits.cpu_seconds,
            "file": limits.file_bytes,
            "pixels": limits.picture_pixels,
            "pictures": limits.pictures,
        },
        "pictures": [[name, image.shape[1], image.shape[0]] for name, image in pictures.items()],
    }
    encoded = json.dumps(head).encode()
    file.write(struct.pack("<I", len(encoded)) + encoded)
    for image in pictures.values():
        file.write(np.ascontiguousarray(image, np.uint8).tobytes())
    file.seek(0)


def _command(limits: Limits, rules: int, send: int) -> list[str]:
    """bwrap's arguments. Nothing in them comes from the code."""
    interpreter = os.path.realpath(sys.executable)
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    arguments += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--seccomp", str(rules)]
    for source, target in _system():
        arguments += ["--ro-bind", source, target]
    for link in ("/lib", "/lib64"):
        if os.path.islink(link):
            arguments += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            arguments += ["--ro-bind", link, link]
    arguments += ["--ro-bind", str(_INSIDE), "/inside.py"]
    arguments += ["--size", str(limits.scratch_bytes), "--tmpfs", "/mnt/data"]
    arguments += ["--remount-ro", "/", "--chdir", "/mnt/data"]
    for name, value in (("OPENBLAS_NUM_THREADS", "1"), ("LC_ALL", "C.UTF-8"), ("PYTHONHASHSEED", "0")):
        arguments += ["--setenv", name, value]
    return [*arguments, interpreter, "-I", "-S", "-B", "-X", "utf8", "/inside.py", str(send)]


def _system() -> Iterator[tuple[str, str]]:
    """What is bound read-only: the interpreter, the system's libraries, Pillow and NumPy."""
    import PIL

    prefix = os.path.realpath(sys.base_prefix)
    yield prefix, prefix
    if prefix != "/usr":
        for folder in ("/usr/lib", "/usr/lib64"):
            if os.path.isdir(folder):
                yield folder, folder
    for module in (PIL, np):
        home = Path(str(module.__file__)).parent
        yield str(home), f"/packages/{home.name}"
        libraries = home.parent / f"{'pillow' if module is PIL else 'numpy'}.libs"  # a wheel's own shared libraries
        if libraries.is_dir():
            yield str(libraries), f"/packages/{libraries.name}"


def _read(printed: int, received: int, limits: Limits, stop: threading.Event | None) -> tuple[bytes, bytes, str]:
    """What the two pipes gave until both were closed or something was too much: text, raw pictures, the problem."""
    most = {printed: limits.text_bytes, received: limits.pictures * (limits.picture_pixels * 3 + 8)}
    got = {printed: bytearray(), received: bytearray()}
    deadline = time.monotonic() + limits.seconds
    problem = ""
    with selectors.DefaultSelector() as selector:
        for pipe in got:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and not problem:
            for key, _ in selector.select(_LOOK_SECONDS):
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fd)
                got[key.fd] += data
            if stop is not None and stop.is_set():
                problem = "The code was stopped."
            elif time.monotonic() > deadline:
                problem = f"The code was ended after {limits.seconds:g} seconds; do less."
            elif len(got[printed]) > most[printed]:
                problem = f"The code was ended: it printed more than {limits.text_bytes} bytes."
            elif len(got[received]) > most[received]:
                problem = "The code was ended: it gave back too much."
    return bytes(got[printed][: limits.text_bytes]), bytes(got[received]), problem


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Leave nothing running: with bwrap dies the first process of the namespace, and with that one all of them."""
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _pictures(raw: bytes, limits: Limits) -> tuple[tuple[np.ndarray, ...], str]:
    """The pictures in what was received, up to the first thing that is none."""
    images: list[np.ndarray] = []
    at = 0
    while at < len(raw) and len(images) < limits.pictures:
        if len(raw) - at < 8:
            return tuple(images), "The code gave back something that is not a picture."
        width, height = struct.unpack_from("<II", raw, at)
        size = width * height * 3
        if not width or not height or width * height > limits.picture_pixels or len(raw) - at - 8 < size:
            return tuple(images), "The code gave back something that is not a picture."
        images.append(np.frombuffer(raw, np.uint8, size, at + 8).reshape(height, width, 3))
        at += 8 + size
    return tuple(images), ""
