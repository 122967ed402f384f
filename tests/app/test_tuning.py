"""Fine-tuning as the page does it: what is filled in becomes a run or a sentence, and what is shown is safe and said in
either language."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.studio import Studio
from app.tuner import Offer, Wish, needed_memory
from app.tuning_views import history_html, offer_html, run_html
from engine.errors import EngineError
from finetune.errors import FinetuneError
from finetune.feedback import Metric, Run, Stage
from finetune.loop.from_feedback import Feedback, Share
from finetune.planning.estimate import Estimate, StageEstimate

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "<video>Which shelf?"}, {"role": "assistant", "content": "Two."}]
    made = [{"messages": turns, "videos": [{"path": str(clip), "max_frames": 2}]} for clip in DEMO.glob("*.mp4")]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture
def still(studio: Studio) -> Studio:
    """A studio whose queue starts nothing by itself."""
    studio.tuner.queue._closed.set()
    studio.tuner.queue._thread.join()  # type: ignore[union-attr]
    return studio


def test_what_is_filled_in_becomes_a_run_in_the_queue(still: Studio, rows: Path) -> None:
    tuner = still.tuner
    wish = Wish("sft", str(NANO), "shelves", "full", str(rows), "", "sft.steps=3 sft.warmup=1")
    offer = tuner.offer(wish)
    assert offer.feedback is None and offer.estimate.stages[0].steps == 3
    run = tuner.begin(wish)
    assert (run.name, run.status, run.model) == ("shelves", "queued", str(NANO))
    part = run.recipe["stages"][0]["parts"]["sft"]
    assert (part["lora"], part["merge"], part["steps"]) == (0, False, 3)
    assert part["lr"] == pytest.approx(2e-5)  # the weights themselves learn at a tenth of an adapter's rate
    assert needed_memory(Path(run.folder)) == pytest.approx(tuner.offer(wish).estimate.memory)
    assert needed_memory(rows.parent / "nowhere") == float("inf")
    assert tuner.bases()[0] == ("scripted", "/models/scripted")


def test_what_makes_no_sense_is_one_sentence_and_no_run(still: Studio, rows: Path, tmp_path: Path) -> None:
    good = Wish("sft", str(NANO), "x", "recipe", str(rows))
    for wish, told in (
        (replace(good, base=" "), "Choose the model"),
        (replace(good, base=str(tmp_path / "gone")), "There is no model folder"),
        (replace(good, base=str(tmp_path)), "no config.json"),
        (replace(good, data=""), "Give the .jsonl file"),
        (replace(good, data=str(tmp_path / "gone.jsonl")), "There is no file"),
        (replace(good, recipe="../x"), "There is no recipe"),
        (replace(good, numbers="sft.lr"), "sets nothing"),
        (replace(good, numbers="sft.lr=fast"), "must be a number"),
        (replace(good, name="n" * 99), "1 to 60 characters"),
    ):
        with pytest.raises((FinetuneError, EngineError), match=told):
            still.tuner.begin(wish)
    assert still.tuner.queue.runs.list() == []


def estimated(seconds: float = 75.0, measured: str | None = None) -> Estimate:
    return Estimate((StageEstimate("sft", 12, 30, 360, seconds, measured),), 2e9, 8e9, 3e9, 9e9, "cpu")


def test_an_offer_says_what_is_learnt_what_is_left_out_and_what_it_takes() -> None:
    shares = (
        Share("sft", "sft", "example", 12, 4, {"correction": 9, "vote": 3}, None, "12 SFT examples are few: it learns "
              "these and little beyond them."),
        Share("mpo", "mpo", "pair", 2, 8, {}, "It needs at least 8 preference pairs; there are 2."),
    )  # fmt: skip
    offer = Offer(Feedback(shares, (), (), 1), estimated(measured=EVIL))
    english, chinese = offer_html(offer, "en"), offer_html(offer, "zh")
    assert "12 SFT examples" in english and "corrections 9" in english and "75 s" in english
    assert "at least 8 preference pairs; there are 2" in english and EVIL not in english
    assert "2.0 GB of 8.0 GB" in english and "Nothing is held out" in english and "kb-warn" not in english
    assert "12 条 SFT 样本" in chinese and "至少需要 8 对偏好，现有 2。" in chinese and "偏少" in chinese
    short = offer_html(Offer(None, replace(estimated(), disk_free=1e9)), "en")
    assert "kb-warn" in short


def a_run(**changes: Any) -> Run:
    recipe = {"stages": [{"name": "sft", "kind": "sft", "parts": {"sft": {"lr": 1e-4, "lora": 0, "data": [EVIL]}}}]}
    when = "2026-01-02T03:04:05.000+00:00"
    made = Run("r1", EVIL, recipe, "/runs/x", "running", None, "/models/a", "abc123", 7, when, when, None)
    return replace(made, **changes)


def figures(step: int, **more: Any) -> Metric:
    told = {"of": 40, "minutes": 0.5 * step / 20, "examples": 3 * step, "loss": 2.0 / step, "lr": 1e-4, **more}
    return Metric("r1", "sft", step, told, "")


def test_a_run_shows_how_far_it_is_and_what_made_it() -> None:
    stage = Stage("r1", "sft", 0, "running", None, 30.0, 60, 900, 20, None, "", "")
    held_out = [{"right": 1, "of": 10}, {"right": 8, "of": 10}]
    metrics = [
        Metric("r1", "sft", 0, {"of": 40, "held_out": held_out[0]}, ""),
        figures(10),
        figures(20, held_out=held_out[1]),
    ]
    asked = {"question": EVIL, "truth": "Two.", "answer": "One.", "right": False}
    told = [
        {"stage": "sft", "step": 0, "held_out": True, "right": 1, "of": 10, "answers": [asked]},
        {"stage": "sft", "step": 20, "held_out": True, "right": 8, "of": 10, "answers": [{**asked, "answer": "Two."}]},
    ]
    lesson = {"use": "example", "source": "correction", "question": "q1", "answer": EVIL, "held_out": False}
    record = {"lessons": [{**lesson, "file": "example.jsonl", "line": 1}], "left_out": {"rl": "It needs more."}}
    html = run_html(a_run(), [stage], metrics, told, record, "/runs/x/sft/model", [EVIL], False, "en")
    assert "step 20 of 40" in html and "2 examples/s" in html and "0:30 left" in html and "Loss 0.100" in html
    assert "8 of 10 right" in html and "1 of 10 right → 8 of 10 right" in html and html.count("<svg") == 3
    assert "example.jsonl:1" in html and "q1" in html and "abc123" in html and "lr = 0.0001" in html and "rl: " in html
    assert 'aria-valuenow="20"' in html and EVIL not in html
    chinese = run_html(a_run(status="paused"), [stage], metrics, told, record, None, [], False, "zh")
    assert "已暂停" in chinese and "第 20 / 40 步" in chinese and "答对 8 / 10" in chinese
    failed = run_html(a_run(status="failed", sentence=EVIL), [], [], [], None, None, [EVIL], False, "en")
    assert EVIL not in failed and "The end of its log" in failed
    assert "starting" in run_html(a_run(status="queued"), [], [], [], None, None, [], True, "en")


def test_all_runs_stand_in_one_picture() -> None:
    several = [a_run(id=f"r{n}", name=f"run {n}", status="done") for n in range(9)]
    metrics = {run.id: [figures(10), figures(20, held_out={"right": 3, "of": 4})] for run in several}
    html = history_html(several, metrics, ["r8"], "en")
    assert html.count("kr-line") + html.count("kr-dot") >= 6 and html.count("<tr>") == 10
    assert "3 of 4 right" in html and "No run yet" in history_html([], {}, [], "en")
