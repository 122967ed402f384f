"""Follow-ups, stopping, adapters, and a server that dies: what only shows on a server that runs."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file

from app.config import AppConfig
from app.studio import ClipChoice, Limits, Manner, Studio
from engine.errors import EngineError
from engine.events import Answer, Done, Error, Queued
from engine.keye import KeyeProcessor
from engine.runtime import sglang_client
from engine.runtime.base import Decoding, Message, ModelInfo
from engine.runtime.local import LocalRuntime
from engine.runtime.sglang import SGLangRuntime
from tests.media import make_clip
from tests.sglang.conftest import Served, frames_of
from tests.sglang.test_same_answers import GREEDY, end, run

# Noise, as long as it may be (the fixture `endless`).
LONG = Decoding(max_tokens=1500, temperature=50.0, top_k=0, top_p=1.0, seed=5)


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise draws the end of the turn too, now and then: the server is asked to go on over it."""
    body = sglang_client._body

    def going_on(endpoint: Any, adapter: Any, messages: Any, decoding: Decoding, rid: str) -> dict[str, Any]:
        asked = body(endpoint, adapter, messages, decoding, rid)
        if decoding.temperature == LONG.temperature:
            asked["extra_body"]["ignore_eos"] = True
        return asked

    monkeypatch.setattr(sglang_client, "_body", going_on)


def requests_on(served: Served) -> int:
    """Answers that the server works on or keeps waiting."""
    loads = httpx.get(served.url + "/v1/loads", headers=served.headers, timeout=30).json()["loads"]
    return sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)


def wait_until(true: Any, what: str) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    pytest.fail(f"never: {what}")


# -- follow-ups ---------------------------------------------------------------------------------------------------


def test_a_follow_up_reads_only_what_is_new_and_decodes_nothing(nano: Served, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "own.mp4", frames=250, fps=25, size=(112, 112))
    frames = frames_of(path, nano.runtime, fps=4.0, max_frames=40, budget=700)
    first = end(run(nano.runtime, [Message("user", (frames, "What happens?"))]))
    assert first.cached_tokens < 0.2 * first.prompt_tokens
    # The file is replaced by noise that looks unchanged from outside: whoever decodes it now fails.
    stat = path.stat()
    path.write_bytes(os.urandom(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    conversation = [
        Message("user", (frames, "What happens?")),
        Message("assistant", (first.text,)),
        Message("user", ("Where?",)),
    ]
    second = end(run(nano.runtime, conversation))
    assert second.finish in ("stop", "length")
    assert second.cached_tokens >= 0.95 * second.prompt_tokens, second


# -- stopping and waiting -----------------------------------------------------------------------------------------


def test_stopping_frees_the_server(nano: Served) -> None:
    stop, pieces = threading.Event(), []
    for event in nano.runtime.stream([Message("user", ("Tell me more.",))], LONG, stop):
        if isinstance(event, Answer):
            pieces.append(event.text)
            if len(pieces) == 2:
                assert requests_on(nano) == 1
                stop.set()
    assert isinstance(event, Done) and event.finish == "stopped" and event.text == "".join(pieces)
    wait_until(lambda: requests_on(nano) == 0, "the aborted request left the server")


def test_a_reader_that_goes_away_frees_the_server(nano: Served) -> None:
    stream = nano.runtime.stream([Message("user", ("Tell me more.",))], LONG, threading.Event())
    while not isinstance(next(stream), Answer):
        pass
    stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: requests_on(nano) == 0, "the abandoned request left the server")


def test_more_than_the_server_takes_at_once_wait_in_a_line_that_is_seen(nano: Served) -> None:
    endpoint = nano.supervisor.endpoint()
    assert endpoint is not None
    stop = threading.Event()
    running = [
        nano.runtime.stream([Message("user", (f"Tell me more, {i}.",))], LONG, stop) for i in range(endpoint.users)
    ]
    for stream in running:
        while not isinstance(next(stream), Answer):
            pass
    waiting = nano.runtime.stream([Message("user", ("Me too.",))], GREEDY, threading.Event())
    assert next(waiting) == Queued(1)
    stop.set()
    for stream in running:
        list(stream)
    assert end(list(waiting)).finish in ("stop", "length")


def test_an_answer_that_does_not_fit_gets_the_room_there_is(nano: Served, local: LocalRuntime) -> None:
    tokenizer = KeyeProcessor.from_pretrained(nano.folder).tokenizer
    words = "red circle " * ((local.info().context - 60) * 100 // len(tokenizer.encode("red circle " * 100)))
    greedy = Decoding(max_tokens=100_000, greedy=True)
    here, there = (end(run(r, [Message("user", (words,))], greedy)) for r in (local, nano.runtime))
    assert there.finish == here.finish and there.prompt_tokens == here.prompt_tokens


def test_a_conversation_past_the_context_is_one_sentence(nano: Served) -> None:
    words = "red circle " * nano.runtime.info().context
    events = run(nano.runtime, [Message("user", (words,))])
    assert isinstance(events[-2], Error) and "start a new conversation" in events[-2].message
    assert end(events).finish == "error"


# -- adapters -----------------------------------------------------------------------------------------------------


def make_adapter(folder: Path, strength: float, rank: int = 4, **changes: Any) -> Path:
    """A LoRA adapter of nano's decoder with random weights, as PEFT saves it."""
    modules = {"self_attn.q_proj": (192, 192), "self_attn.v_proj": (192, 64), "mlp.down_proj": (512, 192)}
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in range(4):
        for module, (wide, high) in modules.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, wide, generator=generator) / wide**0.5
            tensors[f"{name}.lora_B.weight"] = strength * torch.randn(high, rank, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": [module.partition(".")[2] for module in modules],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


QUESTION = [Message("user", ("What do you know?",))]


def test_an_adapter_changes_the_answer_is_recorded_and_goes(nano: Served, tmp_path: Path) -> None:
    runtime = nano.runtime
    before = end(run(runtime, QUESTION))
    runtime.load_adapter("noise", make_adapter(tmp_path / "noise", strength=6.0))
    assert runtime.adapters() == ["noise"]
    assert end(run(runtime, QUESTION)).text == before.text  # loaded is not in use
    runtime.use_adapter("noise")
    assert runtime.info().adapter == "noise"
    during = end(run(runtime, QUESTION))
    assert during.text != before.text and (before.adapter, during.adapter) == (None, "noise")
    # Taken away behind the runtime's back, the server would load it again without a word.
    body = {"lora_name": "noise"}
    httpx.post(nano.url + "/unload_lora_adapter", json=body, headers=nano.headers, timeout=60).raise_for_status()
    events = run(runtime, QUESTION)
    assert isinstance(events[-2], Error) and "not loaded" in events[-2].message
    assert runtime.adapters() == []
    runtime.use_adapter(None)
    after = end(run(runtime, QUESTION))
    assert (after.text, after.adapter) == (before.text, None)


def test_an_adapter_that_changes_nothing_is_refused(nano: Served, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="exactly as without it"):
        nano.runtime.load_adapter("idle", make_adapter(tmp_path / "idle", strength=0.0))
    assert nano.runtime.adapters() == []


def test_folders_that_are_no_adapter_are_refused(nano: Served, tmp_path: Path) -> None:
    def refused(words: str, folder: Path, name: str = "x") -> None:
        with pytest.raises(EngineError, match=words):
            nano.runtime.load_adapter(name, folder)

    refused("no adapter_config.json", tmp_path)
    refused("no name for an adapter", tmp_path, "../x:y")
    refused("rank 65", make_adapter(tmp_path / "wide", 1.0, r=65))
    refused("up to rank", make_adapter(tmp_path / "other", 1.0, peft_type="IA3"))
    pickled = make_adapter(tmp_path / "pickled", 1.0)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    refused("no .bin file", pickled)
    with pytest.raises(EngineError, match="holds no adapter"):
        nano.runtime.unload_adapter("x")
    with pytest.raises(EngineError, match="not loaded"):
        nano.runtime.use_adapter("x")


# -- a server that dies -------------------------------------------------------------------------------------------


def test_a_killed_server_loses_nothing_and_comes_back(nano: Served, tmp_path: Path, clip: Path) -> None:
    """As the page does it: the question is kept, the failure is told, and asking again is answered."""
    runtime: SGLangRuntime = nano.runtime
    runtime.load_adapter("kept", make_adapter(tmp_path / "kept", strength=6.0))
    studio = Studio(AppConfig(data=tmp_path / "data"), runtime)
    sha, _ = studio.add_video(clip, "clip.mp4")
    plain = SGLangRuntime.info

    def noisy(self: SGLangRuntime) -> ModelInfo:  # the model's own decoding ends too soon to be killed in the middle
        return replace(plain(self), decoding=LONG)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SGLangRuntime, "info", noisy)
        conversation, job = studio.ask(None, "What happens?", ClipChoice(sha), Limits(), Manner(max_tokens=1500))
        wait_until(lambda: job.snapshot().text, "the answer began")
        leader = nano.supervisor.pid
        assert leader is not None
        os.killpg(leader, signal.SIGKILL)
        job.join(120)
    done = job.snapshot().done
    assert done is not None and done.finish == "error"
    assert "went away in the middle" in job.snapshot().error
    [turn] = studio.turns(conversation)
    assert turn.question.text == "What happens?"
    assert turn.answer is not None and turn.answer.error == job.snapshot().error
    _, again = studio.ask(conversation, "What happens?", ClipChoice(sha), Limits(), Manner(max_tokens=8))
    again.join(300)
    answered = again.snapshot().done
    assert answered is not None and answered.finish in ("stop", "length"), again.snapshot()
    assert nano.supervisor.pid != leader
    assert runtime.adapters() == ["kept"]  # the server that came back was given what the first one had
    runtime.unload_adapter("kept")
