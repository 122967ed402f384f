"""The model that answers is exchanged while it answers: real keye-nano, a changed copy of it, and a real adapter."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import EngineError
from engine.events import Answer, Done, Error
from engine.runtime import placement
from engine.runtime.adapters import adapter_name, base_of
from engine.runtime.base import Decoding, Message, Runtime
from engine.runtime.local import LocalRuntime
from engine.runtime.served import Choice, Served, hold
from engine.runtime.source import NANO, name_of
from finetune.training.adapters import merge_adapter
from tests.models import changed_copy, trained_adapter

GREEDY = Decoding(max_tokens=24, greedy=True)
QUESTION = [Message("user", ("What do you know?",))]
LONG = Decoding(max_tokens=400, temperature=50.0, top_k=0, top_p=1.0, seed=5)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed_copy(tmp_path_factory.mktemp("evening") / "sft" / "model")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_adapter(tmp_path_factory.mktemp("morning") / "sft" / "adapter")


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(LocalRuntime(device="cpu"))
    served.info()
    yield served
    served.close()


def said(runtime: Runtime) -> Done:
    events = list(runtime.stream(QUESTION, GREEDY, threading.Event()))
    assert isinstance(events[-1], Done), events
    assert not [event for event in events if isinstance(event, Error)]
    return events[-1]


def logits(folder: Path) -> torch.Tensor:
    runtime = LocalRuntime(str(folder), device="cpu")
    return runtime.first_token()


def test_each_answers_for_itself_and_a_roll_back_is_bit_for_bit(served: Served, changed: Path, adapter: Path) -> None:
    with served.held() as runtime:
        assert isinstance(runtime, LocalRuntime)
        before, first = said(served), runtime.first_token()
    assert (before.model, before.adapter) == ("keye-nano", None)
    served.serve(changed)
    other = said(served)
    assert other.text != before.text
    assert (other.model, served.info().name, served.info().path) == ("-".join(changed.parts[-3:-1]),) * 2 + (
        str(changed),
    )
    served.serve(None, adapter)
    third = said(served)
    assert third.text not in (before.text, other.text)
    assert third.adapter == served.info().adapter == adapter_name(adapter)
    assert served.info().path == str(NANO.resolve())
    served.serve(None)
    assert said(served).text == before.text and served.info().adapter is None
    with served.held() as runtime:
        assert isinstance(runtime, LocalRuntime) and torch.equal(runtime.first_token(), first)


def test_an_adapter_answers_as_the_model_into_which_it_was_merged(
    served: Served, adapter: Path, tmp_path: Path
) -> None:
    merged = merge_adapter(NANO, adapter, tmp_path / "merged")  # rounded to the type of keye-nano's folder
    served.serve(None, adapter)
    with served.held() as runtime:
        assert isinstance(runtime, LocalRuntime)
        difference = (runtime.first_token() - logits(merged)).abs().max()
    apart = (logits(NANO) - logits(merged)).abs().max()
    assert difference < 0.02 * apart


def test_what_was_begun_ends_with_the_model_that_began_it(served: Served, changed: Path) -> None:
    whole = [e.text for e in served.stream(QUESTION, LONG, threading.Event()) if isinstance(e, Answer)]
    stream = served.stream(QUESTION, LONG, threading.Event())
    pieces = []
    for event in stream:
        if isinstance(event, Answer):
            pieces.append(event.text)
            if len(pieces) == 3:
                break
    with hold(served) as held:
        served.serve(changed)
        assert said(held).model == "keye-nano"  # an answer of several parts stays with one
        assert said(served).model == name_of(changed)
    rest = list(stream)
    pieces += [event.text for event in rest if isinstance(event, Answer)]
    assert isinstance(rest[-1], Done) and rest[-1].model == "keye-nano"
    assert pieces == whole


def damage(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.full_like(weights["lm_head.weight"], float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut, "not a whole safetensors file|not a readable"),
        (damage, "computes no numbers"),
        (lambda folder: shutil.rmtree(folder), "no model folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    ],
    ids=["cut", "nan", "moved", "config"],
)
@pytest.mark.parametrize("room", [True, False], ids=["beside", "alone"])
def test_a_candidate_that_cannot_answer_leaves_what_is_served(
    served: Served, changed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm, words: str, room: bool
) -> None:
    before = said(served).text
    broken = tmp_path / "broken"
    shutil.copytree(changed, broken)
    harm(broken)
    if not room:
        no_room_for_two(monkeypatch)
    with pytest.raises(EngineError, match=words):
        served.serve(broken)
    assert served.current() == Choice() and served.status().state == "ready"
    assert said(served).text == before


def test_adapters_that_change_nothing_or_belong_elsewhere_are_refused(
    served: Served, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="exactly as without it"):
        served.serve(None, trained_adapter(tmp_path / "idle", 0.0))
    foreign = tmp_path / "foreign"
    shutil.copytree(adapter, foreign)
    weights = load_file(foreign / "adapter_model.safetensors")
    wide = {name: torch.cat((tensor, tensor), 1) if "lora_A" in name else tensor for name, tensor in weights.items()}
    save_file(wide, foreign / "adapter_model.safetensors")
    with pytest.raises(EngineError, match="does not fit"):
        served.serve(None, foreign)
    with pytest.raises(EngineError, match="no adapter_config"):
        served.serve(None, tmp_path)
    assert said(served).adapter is None


def no_room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine with so little memory left that only one model fits; loading itself is told of enough."""
    monkeypatch.setattr(placement, "_free", lambda on_cuda: 10.0)
    place = placement.place

    def enough(*args: object, **more: object) -> placement.Placement:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(placement, "_free", lambda on_cuda: 1e12)
            return place(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.runtime.local.place", enough)


def test_without_room_for_two_the_old_one_goes_first_and_questions_wait(
    served: Served, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for_two(monkeypatch)
    assert not served.fits_beside(changed)
    before = said(served).text
    with served.held() as old:
        swap = threading.Thread(target=served.serve, args=(changed,))
        swap.start()
        asked: list[Done] = []
        while served.status().state == "ready":  # until the gate is closed
            time.sleep(0.01)
        waiting = threading.Thread(target=lambda: asked.append(said(served)))
        waiting.start()
        assert said(old).text == before  # what was begun is not taken away
        assert not asked and swap.is_alive()
        assert served.info().name == "keye-nano"  # the page need not wait to show what it showed
    swap.join(120)
    waiting.join(120)
    assert asked[0].model == name_of(changed) and asked[0].text != before
    with pytest.raises(EngineError):
        old.info()  # it is closed


def test_a_candidate_answers_beside_and_is_gone_afterwards(
    served: Served, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = said(served).text
    with served.candidate(changed) as second:
        assert said(second).model == name_of(changed)
        assert said(served).text == before
        with pytest.raises(EngineError, match="wait until that has ended"):
            served.serve(changed)
    with pytest.raises(EngineError):
        second.info()
    no_room_for_two(monkeypatch)
    with served.candidate(changed) as second:
        assert said(second).model == name_of(changed)
        assert served.status().state == "starting"
    assert said(served).text == before and served.current() == Choice()


def test_what_was_promoted_answers_from_the_start(changed: Path) -> None:
    served = Served(LocalRuntime(device="cpu"), Choice(changed))
    assert served.info().name == name_of(changed) and said(served).model == name_of(changed)
    assert served.note == "" and served.current() == Choice(changed)
    served.serve(None)
    assert said(served).model == "keye-nano"
    served.close()


def test_where_what_was_promoted_is_gone_the_base_answers_and_says_so(tmp_path: Path) -> None:
    served = Served(LocalRuntime(device="cpu"), Choice(tmp_path / "gone"))
    served.start()
    assert said(served).model == "keye-nano"
    assert "the model that this was started with answers" in served.info().note and "gone" in served.note
    served.close()


def test_names_tell_whose_folder_it_is(tmp_path: Path, adapter: Path) -> None:
    assert name_of(tmp_path / "evening" / "sft" / "model") == "evening-sft"
    assert name_of(tmp_path / "evening" / "release") == "evening"
    assert name_of(NANO) == "keye-nano"
    assert adapter_name(adapter).rpartition("-")[0] == "-".join(adapter.parts[-3:-1])
    copy = tmp_path / "sft" / "adapter"
    shutil.copytree(adapter, copy)
    weights = load_file(copy / "adapter_model.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, copy / "adapter_model.safetensors")
    assert adapter_name(copy)[-8:] != adapter_name(adapter)[-8:]  # trained again in the same place


def test_an_adapter_names_its_base_where_that_is_there(adapter: Path, tmp_path: Path) -> None:
    assert base_of(adapter) == NANO.resolve()
    copy = tmp_path / "moved"
    shutil.copytree(adapter, copy)
    config = json.loads((copy / "adapter_config.json").read_text())
    for wrong in ("/nowhere/model", "relative/model", 7, ""):
        (copy / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": wrong}))
        assert base_of(copy) is None


def test_a_runtime_that_cannot_exchange_its_model_says_so() -> None:
    class Other(SimpleNamespace):
        def start(self) -> None: ...

    local = LocalRuntime(device="cpu")
    served = Served(Other(info=local.info, status=local.status, stream=local.stream, close=local.close))
    with pytest.raises(EngineError, match="cannot be exchanged"):
        served.serve(None)
    assert said(served).model == "keye-nano"
