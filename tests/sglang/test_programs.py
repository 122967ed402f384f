"""The shell, and programs of the user's own: the examples of the README."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI
from PIL import Image

from engine.__main__ import main
from engine.events import Done
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample
from tests.sglang.conftest import Served
from tests.sglang.test_same_answers import end, run

ROOT = Path(__file__).resolve().parents[2]


def engine(*words: str, key: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KEYE_STUDIO_API_KEY": key, **environment}
    command = [sys.executable, "-m", "engine", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def test_the_shell_says_the_same_on_every_runtime(nano: Served, clip: Path) -> None:
    ask = ("ask", str(clip), "What happens?", "--greedy", "--json", "--max-tokens", "12", "--end", "5")
    there = engine(*ask, "--runtime", nano.url, key=nano.supervisor.api_key)
    here = engine(*ask, "--runtime", "local", "--device", "cpu")
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    first, second = ([json.loads(line) for line in done.stdout.splitlines()] for done in (here, there))
    for field in ("text", "finish", "prompt_tokens", "visual_tokens", "answer_tokens"):
        assert first[-1][field] == second[-1][field], field
    assert {event["type"] for event in second} <= {"progress", "queued", "analysis", "answer", "done"}


def test_what_the_shell_is_told_wrong_is_one_sentence(
    nano: Served, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the interrupt key stays pytest's

    def refused(words: str, *command: str, key: str = "") -> None:
        monkeypatch.setenv("KEYE_STUDIO_API_KEY", key)
        assert main(list(command)) == 2
        told = capsys.readouterr().err
        assert len(told.strip().splitlines()) == 1 and re.search(words, told), told

    refused("API key", "ask", str(clip), "What?", "--runtime", nano.url, key="wrong")
    refused("cannot be reached", "ask", str(clip), "What?", "--runtime", "http://127.0.0.1:9")
    refused("no runtime 'vllm'", "ask", str(clip), "What?", "--runtime", "vllm")
    refused("other machines", "serve", "--host", "0.0.0.0")
    port = nano.url.rpartition(":")[2]
    refused("cannot be used", "serve", "--port", port)
    refused("no model folder", "serve", "--model", "/nowhere")


def client(nano: Served) -> OpenAI:
    return OpenAI(base_url=nano.url + "/v1", api_key=nano.supervisor.api_key)


def say(nano: Served, *content: dict[str, Any]) -> tuple[str, int]:
    answer = client(nano).chat.completions.create(
        model="keye-nano",
        messages=[{"role": "user", "content": list(content)}],  # type: ignore[list-item,misc]
        max_tokens=12,
        temperature=0,
    )
    assert answer.usage is not None
    return answer.choices[0].message.content or "", answer.usage.prompt_tokens


def expected(local: LocalRuntime, *parts: Any) -> tuple[str, int]:
    done: Done = end(run(local, [Message("user", parts)], Decoding(max_tokens=12, greedy=True)))
    return done.text, done.prompt_tokens


def test_a_video_in_every_form_with_its_limits(nano: Served, local: LocalRuntime, clip: Path) -> None:
    question = {"type": "text", "text": "What happens?"}
    data = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    own = local.info().sampling

    def video(url: str, **fields: Any) -> dict[str, Any]:
        return {"type": "video_url", "video_url": {"url": url, **fields}}

    whole = expected(local, sample(Clip(clip), own), "What happens?")
    for url in (str(clip), f"file://{clip}", data):
        assert say(nano, video(url), question) == whole
    limits = own.with_limits(fps=1.0, max_frames=4, budget=60)
    part = expected(local, sample(Clip(clip, 1.5, 6.0), limits), "What happens?")
    for url in (str(clip), f"file://{clip}", data):
        assert say(nano, video(url + "#t=1.5,6&budget=60", fps=1.0, max_frames=4), question) == part
        assert say(nano, video(url + "#t=1.5,6&fps=1&max_frames=4&budget=60"), question) == part
    from_there = expected(local, sample(Clip(clip, 2.0), own), "What happens?")
    assert say(nano, video(f"{clip}#t=2"), question) == from_there
    until = expected(local, sample(Clip(clip, None, 3.0), own), "What happens?")
    assert say(nano, video(f"{clip}#t=,3"), question) == until


def test_a_video_from_the_web(nano: Served, local: LocalRuntime, clip: Path) -> None:
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    handler = functools.partial(Quiet, directory=str(clip.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{clip.name}#t=1,4"
        said = say(nano, {"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What happens?"})
        server.shutdown()
    assert said == expected(local, sample(Clip(clip, 1.0, 4.0), local.info().sampling), "What happens?")


def test_a_picture_in_every_form(nano: Served, local: LocalRuntime, pictures: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(pictures[0]).save(path)
    data = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    wanted = expected(local, pictures[0], "What is it?")
    for url in (str(path), f"file://{path}", data):
        image = {"type": "image_url", "image_url": {"url": url}}
        assert say(nano, image, {"type": "text", "text": "What is it?"}) == wanted


def test_the_examples_of_the_readme_run(nano: Served, clip: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [example] = [code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if "OpenAI(" in code]
    picture = tmp_path / "picture.jpg"
    Image.new("RGB", (96, 64), (200, 30, 30)).save(picture)
    example = example.replace("http://127.0.0.1:30000", nano.url).replace("/videos/holiday.mp4", str(clip))
    example = example.replace("/pictures/beach.jpg", str(picture))
    env = {**os.environ, "KEYE_STUDIO_API_KEY": nano.supervisor.api_key}
    done = subprocess.run([sys.executable, "-c", example], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and len(done.stdout.strip().splitlines()) >= 2, done.stderr
