"""Exchanging what a real server serves: an adapter at once, a whole model by starting it again."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.events import Answer, Done, Error
from engine.runtime.adapters import adapter_name
from engine.runtime.base import Runtime
from engine.runtime.served import Choice, Served
from engine.runtime.sglang import SGLangRuntime
from engine.runtime.sglang_server import Supervisor
from engine.runtime.source import name_of
from tests.models import changed_copy, trained_adapter
from tests.sglang.conftest import Served as Server
from tests.sglang.test_same_answers import end, run
from tests.sglang.test_serving import LONG, QUESTION, endless  # noqa: F401  # a fixture


def said(runtime: Runtime) -> Done:
    events = run(runtime, QUESTION)
    assert not [event for event in events if isinstance(event, Error)], events
    return end(events)


def test_an_adapter_is_swapped_in_while_the_server_answers_and_back(nano: Server, tmp_path: Path) -> None:
    served = Served(nano.runtime)
    adapter = trained_adapter(tmp_path / "evening" / "sft" / "adapter")
    name = adapter_name(adapter)
    process, before = nano.supervisor.pid, said(served)
    stream = served.stream(QUESTION, LONG, threading.Event())
    while not isinstance(next(stream), Answer):
        pass
    with served.held() as held:
        served.serve(None, adapter)
        assert (said(held).adapter, said(held).text) == (None, before.text)  # begun with the checkpoint alone
    during = said(served)
    assert during.text != before.text
    assert during.adapter == served.info().adapter == name and nano.runtime.adapters() == [name]
    rest = list(stream)
    assert isinstance(rest[-1], Done) and rest[-1].adapter is None
    with served.candidate(None) as base:  # the checkpoint beside its own adapter, at the same time
        assert said(base).text == before.text and said(served).text == during.text
    with pytest.raises(EngineError, match="exactly as without it"):
        served.serve(None, trained_adapter(tmp_path / "idle", 0.0))
    assert said(served).adapter == name
    served.serve(None)
    after = said(served)
    assert (after.text, after.adapter) == (before.text, None)
    assert nano.runtime.adapters() == [] and nano.supervisor.pid == process  # one process all the time


def test_a_whole_model_starts_the_server_again_and_the_old_one_comes_back(tmp_path: Path) -> None:
    served = Served(SGLangRuntime(Supervisor(options=["--dtype", "float32", "--random-seed", "1"])))
    try:
        before = said(served)
        changed = changed_copy(tmp_path / "evening" / "sft" / "model")
        assert not served.fits_beside(changed) and (served.start_seconds or 0) > 0
        broken = tmp_path / "broken"
        shutil.copytree(changed, broken)
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        with pytest.raises(EngineError, match="not a whole safetensors file"):
            served.serve(broken)
        assert served.current() == Choice() and said(served).text == before.text
        with served.candidate(changed) as second:  # in the place of what is served, which comes back
            during = said(second)
            assert during.model == name_of(changed) and during.text != before.text
        assert served.current() == Choice() and said(served).text == before.text
    finally:
        served.close()
