"""What the Benchmarks tab shows and does, without the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench import plan_from, progress_html, report_files, result_html
from finetune.bench.background import Background, State
from finetune.bench.open_runtime import open_runtime
from finetune.bench.run import Plan, Progress
from finetune.errors import FinetuneError
from tests.bench import made_up

EVIL = "<script>alert(1)</script>"


def test_progress_says_how_far_how_long_and_what_failed() -> None:
    assert progress_html(State(), "en") == ""
    assert "Reading the data" in progress_html(State(running=True), "en")
    html = progress_html(State(running=True, progress=Progress(1500, 2000, 3, 75.0)), "en")
    assert "1,500 of 2,000 · 1:15 left · 3 failed" in html and "width:75.00%" in html
    assert "1,500 / 2,000 · 还需 1:15 · 3 题失败" in progress_html(
        State(running=True, progress=Progress(1500, 2000, 3, 75.0)), "zh"
    )
    stopping = State(running=True, stopping=True, progress=Progress(1, 2, 0, 9.0))
    assert "Stopping" in progress_html(stopping, "en") and "left" not in progress_html(stopping, "en")
    assert EVIL not in progress_html(State(error=EVIL), "en")


def test_choices_become_a_plan_or_one_sentence(tmp_path: Path) -> None:
    plan = plan_from("kc-mmbench", f" {tmp_path} ", "no_think", 0.0, tmp_path / "out")
    assert (plan.benchmark.name, plan.data, plan.mode, plan.limit) == ("kc-mmbench", tmp_path, "no_think", None)
    assert plan_from("world", "", "auto", 5.0, tmp_path / "out").data == tmp_path / "out" / "clips"
    for which, data, mode, limit in (
        ("kc-mmbench", "", "think", 0),
        ("kc-mmbench", "/nowhere", "think", 0),
        ("imagenet", str(tmp_path), "think", 0),
        ("kc-mmbench", str(tmp_path), "dream", 0),
        ("kc-mmbench", str(tmp_path), "think", -1),
    ):
        with pytest.raises(FinetuneError):
            plan_from(which, data, mode, limit, tmp_path)  # type: ignore[arg-type]


def test_a_run_in_the_background_is_watched_stopped_and_gone_on_with(tmp_path: Path) -> None:
    runtime, background = open_runtime(None), Background()
    data, out = made_up.kc_mmbench(tmp_path / "data", each=10), tmp_path / "out"
    plan: Plan = plan_from("kc-mmbench", str(data), "auto", None, out)
    background.start(plan, runtime, out)
    with pytest.raises(FinetuneError, match="still running"):
        background.start(plan, runtime, out)
    background.close(120)
    state = background.state()
    assert not state.running and state.error == "" and state.facts is not None
    assert state.facts["items"] == 60 and state.facts["answered"] < 60
    background.start(plan, runtime, out)
    assert background._thread is not None
    background._thread.join(120)
    state = background.state()
    assert state.facts is not None and state.facts["answered"] == 60
    assert [path.name for path in report_files(state)] == [
        "report.html",
        "report.json",
        "items.csv",
        "predictions.jsonl",
    ]
    english, chinese = result_html(state, "en"), result_html(state, "zh")
    assert "Mean of tasks" in english and "各任务平均" in chinese and "Mean of tasks" not in chinese
    assert "†" in english and "gradio_api/file=" in english
    runtime.close()


def test_failures_in_the_background_are_a_sentence(tmp_path: Path) -> None:
    runtime, background = open_runtime("/nowhere"), Background()
    data = made_up.kc_mmbench(tmp_path / "data", each=1)
    background.start(plan_from("kc-mmbench", str(data), "auto", 1, tmp_path / "out"), runtime, tmp_path / "out")
    background.close(120)
    assert "/nowhere" in background.state().error and background.state().facts is None
    assert result_html(background.state(), "en") == ""
