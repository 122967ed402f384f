"""Whatever a user, a program or a machine can get wrong is one sentence, and the server goes on."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from engine.errors import EngineError
from engine.events import Error
from engine.runtime.base import Message
from engine.runtime.choose import make_runtime
from engine.runtime.endpoint import RemoteServer
from engine.runtime.sglang import SGLangRuntime
from engine.runtime.sglang_log import cause
from engine.runtime.sglang_server import Supervisor
from engine.video import Clip, sample
from engine.video.address import clip_url
from tests.media import make_clip, make_sound
from tests.sglang.conftest import Served, frames_of
from tests.sglang.test_same_answers import end, run


def post(served: Served, content: Any, **changes: Any) -> httpx.Response:
    body = {"model": "x", "messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0}
    url = served.url + "/v1/chat/completions"
    return httpx.post(url, json={**body, **changes}, headers=served.headers, timeout=120)


def video(url: str, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"type": "video_url", "video_url": {"url": url, **fields}},
        {"type": "text", "text": "What happens?"},
    ]


def picture(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def large_picture() -> str:
    """A few kilobytes that would be a picture of 400 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return data_url(buffer.getvalue())


def bad_requests(folder: Path) -> Iterator[tuple[str, Any, str]]:
    clip = make_clip(folder / "good.mp4", frames=25, fps=25)
    sound = make_sound(folder / "sound.m4a")
    (folder / "text.mp4").write_text("hello " * 100)
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    yield "no such file", video("/nowhere/at/all.mp4"), "There is no file"
    yield "a folder", video(str(folder)), "is a folder"
    yield "text", video(str(folder / "text.mp4")), "not a video"
    yield "a playlist of other files", video(str(folder / "list.mp4")), "playlist"
    yield "sound", video(str(sound)), "no pictures"
    yield "a device", video("/dev/zero"), "not an ordinary file"
    yield "a relative path", video("good.mp4"), "absolute path"
    yield "another protocol", video("ftp://example.org/a.mp4"), "no address of a video"
    yield "a shell word", video("|cat /etc/passwd"), "no address of a video"
    yield "a damaged data URL", video("data:video/mp4;base64,@@@"), "data URL is damaged"
    yield "a video that is none", video(data_url(b"hello", "video/mp4")), "not a video"
    yield "nobody there", video("http://127.0.0.1:9/a.mp4"), "cannot be fetched"
    yield "an unknown field", video(f"file://{clip}#t=0,1&speed=2"), "unknown field 'speed'"
    yield "no number", video(f"{clip}#fps=many"), "fps=many"
    yield "an endless number", video(f"{clip}#t=0,inf"), "not a number"
    yield "a negative start", video(f"{clip}#t=-1,2"), "0 or more"
    yield "an end before the start", video(f"{clip}#t=0.9,0.1"), "must come after"
    yield "outside the video", video(f"{clip}#t=50,60"), "only 1.00 s long"
    yield "no budget", video(f"{clip}#budget=0"), "budget"
    yield "too small a budget", video(f"{clip}#budget=1"), "raise the budget"
    yield "fields of other models", video(str(clip), max_image_tokens=5), "into its address"
    yield "a picture that is none", picture(data_url(b"hello")), "cannot be read"
    yield "half a picture", picture(data_url(half_a_picture())), "picture"
    yield "a bomb", picture(large_picture()), "too many pixels"
    yield "no such picture", picture("/nowhere.png"), "cannot be read"
    yield "a picture instead of a video", video(data_url(png(), "video/mp4")), "PNG picture"


def png() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def half_a_picture() -> bytes:
    return png()[:2000]


def test_hostile_media_are_refused_with_a_sentence_and_the_server_lives(nano: Served, tmp_path: Path) -> None:
    wrong = []
    for name, content, words in bad_requests(tmp_path):
        answer = post(nano, content)
        told = answer.json().get("message", "") if answer.status_code == 400 else answer.text
        if answer.status_code != 400 or words not in told or "Traceback" in told or len(told) > 500:
            wrong.append((name, answer.status_code, told[:300]))
    assert wrong == []
    assert post(nano, "Hello").status_code == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "no place for tools"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "role"),
        ({"messages": []}, "essages"),
        ({"chat_template_kwargs": {"chat_template": "{{ cycler }}"}}, "chat_template"),
    ],
)
def test_requests_that_keye_has_no_answer_to(nano: Served, changes: dict[str, Any], words: str) -> None:
    answer = post(nano, "Hello", **changes)
    assert answer.status_code == 400 and words in answer.text, answer.text


def test_a_prompt_with_more_places_than_media_is_refused(nano: Served) -> None:
    body = {"text": "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>", "image_data": [data_url(png())]}
    answer = httpx.post(nano.url + "/generate", json=body, headers=nano.headers, timeout=60)
    assert answer.status_code == 400 and "1 were given" in answer.text


@pytest.mark.parametrize("path", ["/v1/models", "/keye_info", "/server_info"])
def test_without_the_key_nothing_is_told(nano: Served, path: str) -> None:
    assert httpx.get(nano.url + path, timeout=60).status_code == 401


def test_the_key_is_not_on_the_command_line(nano: Served) -> None:
    leader = nano.supervisor.pid
    words = Path(f"/proc/{leader}/cmdline").read_bytes()
    assert words and nano.supervisor.api_key.encode() not in words


def test_a_clip_that_vanished_is_one_sentence(nano: Served, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "gone.mp4", frames=25, fps=25)
    frames = sample(Clip(path), nano.runtime.info().sampling, cache=None)
    path.unlink()
    events = run(nano.runtime, [Message("user", (frames, "What?"))])
    assert isinstance(events[-2], Error) and "There is no file" in events[-2].message


# -- servers of somebody else -------------------------------------------------------------------------------------


def test_a_server_that_already_runs_answers_the_same(nano: Served, clip: Path) -> None:
    remote = SGLangRuntime(RemoteServer(nano.url, nano.supervisor.api_key))
    info = remote.info()
    assert (info.name, info.sampling, info.runtime) == ("keye-nano", nano.runtime.info().sampling, nano.url)
    messages = [Message("user", (frames_of(clip, remote), "What happens?"))]
    assert end(run(remote, messages)).text == end(run(nano.runtime, messages)).text


def test_a_server_without_our_disk_gets_the_file_itself(
    nano: Served, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RemoteServer(nano.url, nano.supervisor.api_key)
    endpoint = remote.endpoint()
    assert endpoint is not None and endpoint.same_disk
    import dataclasses

    remote._endpoint = dataclasses.replace(endpoint, same_disk=False)
    runtime = SGLangRuntime(remote)
    messages = [Message("user", (frames_of(clip, runtime, start=1.0, end=5.0), "What happens?"))]
    assert end(run(runtime, messages)).text == end(run(nano.runtime, messages)).text


def test_a_wrong_key_is_one_sentence(nano: Served) -> None:
    runtime = SGLangRuntime(RemoteServer(nano.url, "wrong"))
    events = run(runtime, [Message("user", ("Hello",))])
    assert isinstance(events[-2], Error) and "KEYE_STUDIO_API_KEY" in events[-2].message
    assert end(events).finish == "error"


class Broken(BaseHTTPRequestHandler):
    """Answers /v1/models like a server and everything else as `reply` says."""

    reply: tuple[int, bytes] = (500, b"")

    def do_GET(self) -> None:
        card = {"data": [{"id": "m", "max_model_len": 2048}]}
        self._send(*((200, json.dumps(card).encode()) if self.path == "/v1/models" else (404, b"{}")))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(*self.reply)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((500, b'{"message": "out of order"}'), "could not answer \\(500: out of order\\)"),
        ((200, b"<html>"), "ask again"),
        ((503, b"{}"), "went away"),
        ((401, b"{}"), "API key"),
        ((400, b'{"message": "No."}'), "No."),
    ],
)
def test_a_server_that_answers_with_an_error(
    monkeypatch: pytest.MonkeyPatch, reply: tuple[int, bytes], words: str
) -> None:
    monkeypatch.setattr("engine.runtime.sglang._PAUSE_SECONDS", 0.01)
    handler = type("Handler", (Broken,), {"reply": reply})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        runtime = SGLangRuntime(RemoteServer(f"http://127.0.0.1:{server.server_address[1]}"))
        events = run(runtime, [Message("user", ("Hello",))])
        server.shutdown()
    import re

    assert isinstance(events[-2], Error) and re.search(words, events[-2].message), events
    assert end(events).finish == "error"


def test_nobody_at_the_address() -> None:
    with pytest.raises(EngineError, match="cannot be reached"):
        SGLangRuntime(RemoteServer("http://127.0.0.1:9")).info()


@pytest.mark.parametrize("kind", ["vllm", "ftp://x", "http://", "http:/x", ""])
def test_runtimes_that_there_are_not(kind: str) -> None:
    with pytest.raises(EngineError, match=r"no runtime|no address"):
        make_runtime(kind)


# -- servers of our own that do not start -------------------------------------------------------------------------


def failing(**options: Any) -> str:
    supervisor = Supervisor(**options)
    try:
        with pytest.raises(EngineError) as told:
            supervisor.endpoint()
        assert supervisor.status().state == "failed"
        return str(told.value)
    finally:
        supervisor.close()


def test_a_taken_port_is_told_before_anything_is_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        supervisor = Supervisor(port=taken.getsockname()[1])
        with pytest.raises(EngineError, match="--port"):
            supervisor.endpoint()
        assert supervisor.pid is None


def test_a_wrong_folder_is_told_before_anything_is_started(tmp_path: Path) -> None:
    assert "config.json" in failing(model=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "Keye-VL checkpoint" in failing(model=str(tmp_path))


def test_a_server_that_dies_at_start_is_not_started_again() -> None:
    lines: list[str] = []
    message = failing(options=("--no-such-option", "1"), echo=lines.append)
    assert "does not take these options" in message and "--no-such-option" in message
    assert sum("usage:" in line for line in lines) <= 1


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."], 1, "--mem-fraction-static"),
        (["[2026-01-01] RuntimeError: Not enough memory. Please try to increase"], 1, "--quantization fp8"),
        ([], -9, "memory"),
        (["OSError: [Errno 98] address already in use"], 1, "port is taken"),
        (["OSError: [Errno 28] No space left on device"], 1, "disk is full"),
        (["ModuleNotFoundError: No module named 'zmq'"], 1, "remove the folder .venv-sglang"),
        (
            ["something", "ValueError: The checkpoint lacks the tensor x; download the model again."],
            1,
            "lacks the tens",
        ),
        (["AssertionError: ranks should be smaller than nodes", "kill_process_tree called"], -9, "ranks should be"),
        (["something"], 3, "exit code 3"),
    ],
)
def test_the_last_lines_are_put_into_words(lines: list[str], code: int, words: str) -> None:
    assert words in cause(lines, code)


def test_no_process_is_left_when_the_supervisor_is_killed() -> None:
    """The guard inside the server: the pipe from the supervisor closes, and the whole group ends."""
    program = (
        "import subprocess, sys, engine.sglang_plugin.launch as l;"
        "child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); l._end_with_supervisor()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdin is not None and server.stdout is not None
    child = int(server.stdout.readline())
    server.stdin.close()
    assert server.wait(60) == -signal.SIGTERM
    for _ in range(600):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:4]:
            return  # ended; nobody collected it
        time.sleep(0.1)
    pytest.fail("the server's child lives on")


def test_addresses_of_clips_survive_the_way() -> None:
    from engine.video import PRESETS
    from engine.video.address import read_clip_url

    for sampling in PRESETS.values():
        clip = Clip(Path("/a b/#1 ü&%.mp4"), 0.1, 7.3000000000000007)
        where, read, back = read_clip_url(clip_url(clip, sampling), PRESETS["keye-vl-preview"])
        assert (read, back) == (clip, sampling) and where.startswith("file:///")
    where, read, _ = read_clip_url("/videos/no #1.mp4", PRESETS["keye-vl-1.5"])
    assert where == "/videos/no #1.mp4" and read == Clip(Path(where))


def test_a_port_that_another_program_was_faster_to_take_is_not_the_end() -> None:
    """The port on which the server's processes meet is held while it starts, and given back when it has failed."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        supervisor = Supervisor(options=("--dtype", "float32", "--nccl-port", str(held.getsockname()[1])))
        try:
            assert supervisor.endpoint(0) is None
            deadline = time.monotonic() + 300
            while "started again" not in supervisor.status().message:
                assert supervisor.status().state == "starting" and time.monotonic() < deadline, supervisor.status()
                time.sleep(0.05)
            assert "port is taken" in supervisor.status().message
            held.close()
            assert supervisor.endpoint() is not None
        finally:
            supervisor.close()
