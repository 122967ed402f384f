"""A benchmark says the same of a model whichever runtime it is asked through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.base import Runtime
from engine.runtime.local import LocalRuntime
from finetune.bench.open_runtime import open_runtime
from finetune.bench.registry import benchmark
from finetune.bench.report import write_report
from finetune.bench.run import Plan, run
from tests.bench.made_up import MAKERS
from tests.sglang.conftest import Served


def outputs(plan: Plan, runtime: Runtime, out: Path) -> tuple[dict[str, Any], dict[Any, Any]]:
    assert run(plan, runtime, out, parallel=4)
    facts = write_report(plan, runtime.info(), out)
    rows = map(json.loads, (out / "predictions.jsonl").read_text("utf-8").splitlines())
    return facts, {(row["task"], row["index"]): row["output"] for row in rows}


@pytest.mark.parametrize("name", [*sorted(MAKERS), "world"])
def test_both_runtimes_answer_alike(name: str, nano: Served, local: LocalRuntime, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if name in MAKERS:
        MAKERS[name](data)
    plan = Plan(benchmark(name), data, mode="no_think", limit=2, max_tokens=8)
    here, said_here = outputs(plan, local, tmp_path / "local")
    there, said_there = outputs(plan, nano.runtime, tmp_path / "sglang")
    assert said_here == said_there and len(said_here) == here["items"] > 0
    for facts in (here, there):
        assert facts["answered"] == facts["items"] and facts["unscored"] == 0
    assert here["tasks"] == there["tasks"] and here["frames"] == there["frames"]


def test_the_address_of_a_server_is_a_runtime(nano: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYE_STUDIO_API_KEY", nano.supervisor.api_key)
    runtime = open_runtime(None, nano.url)
    try:
        assert runtime.info().name == nano.runtime.info().name
    finally:
        runtime.close()
