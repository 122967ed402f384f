"""What a run would take, against counts made by hand and against a speed that was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.keye.loading import load_config
from finetune.errors import FinetuneError
from finetune.feedback import Runs
from finetune.planning.costs import parameters
from finetune.planning.estimate import estimate
from finetune.recipe import Recipe, load_recipe
from finetune.run import machine

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO, RECIPE = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo", ROOT / "recipes" / "sft.toml"
FULL = ("sft.lora=0", "sft.recompute=false")


def rows(count: int) -> dict[str, list[dict[str, Any]]]:
    clips = sorted(DEMO.glob("*.mp4"))[:6]
    turns = [{"role": "user", "content": "<video>Which shelf?"}, {"role": "assistant", "content": "Two."}]
    made: list[dict[str, Any]] = []
    for at in range(count):
        video = {"path": str(clips[at % len(clips)]), "max_frames": 2, "budget": 24}
        made.append({"messages": turns, "videos": [video]})
    return {"sft": made}


def recipe(*numbers: str) -> Recipe:
    import dataclasses

    return dataclasses.replace(load_recipe(RECIPE, numbers), model={"path": str(NANO)})


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    runs = Runs(tmp_path / "studio.sqlite")
    yield runs
    runs.close()


def test_rows_make_steps_and_steps_make_time(runs: Runs, tmp_path: Path) -> None:
    one = estimate(recipe(*FULL, "sft.epochs=3", "sft.batch_tokens=100000"), rows(6), tmp_path, runs)
    (stage,) = one.stages
    assert (stage.rows, stage.steps, stage.examples, stage.measured) == (6, 3, 18, None)
    twice = estimate(recipe(*FULL, "sft.epochs=3", "sft.batch_tokens=100000"), rows(12), tmp_path, runs)
    assert twice.seconds == pytest.approx(2 * one.seconds)  # as many again of the same clips
    fixed = estimate(recipe(*FULL, "sft.steps=30", "sft.batch_tokens=100000"), rows(6), tmp_path, runs)
    assert fixed.stages[0].examples == 180 and fixed.seconds == pytest.approx(10 * one.seconds)


def test_memory_and_disk_follow_from_the_model(runs: Runs, tmp_path: Path) -> None:
    held, stored = parameters(load_config(NANO)).built, (NANO / "model.safetensors").stat().st_size
    full = estimate(recipe(*FULL, "sft.epochs=1"), rows(6), tmp_path, runs)
    assert full.memory > 16 * held  # weight, gradient, and two moments of each, four bytes each
    assert full.disk == pytest.approx(1.2 * (stored + 24 * held))
    lora = estimate(recipe("sft.lora=4", "sft.merge=false", "sft.epochs=1"), rows(6), tmp_path, runs)
    assert lora.memory < full.memory and lora.disk < 0.2 * full.disk


def test_a_speed_that_was_measured_here_takes_the_place_of_the_formula(runs: Runs, tmp_path: Path) -> None:
    wanted = recipe(*FULL, "sft.epochs=1", "sft.batch_tokens=100000")
    told = rows(6)
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "machine.json").write_text(json.dumps(machine()))
    run = runs.begin("earlier", wanted.as_json(), folder, seed=0, code="x", model=str(NANO))
    runs.stage_begun(run.id, "sft", 0)
    runs.stage_done(run.id, "sft", folder=folder, seconds=10.0, examples=1, tokens=100, steps=5)
    runs.finished(run.id, "done")
    (stage,) = estimate(wanted, told, tmp_path, runs).stages
    assert stage.measured == "earlier"
    tokens = stage.seconds * 10  # it was ten tokens a second
    assert tokens == pytest.approx(round(tokens)) and 6 * 20 < tokens < 6 * 80
    (lora,) = estimate(recipe("sft.epochs=1"), told, tmp_path, runs).stages
    assert lora.measured is None  # that was another kind of training
    (folder / "machine.json").write_text(json.dumps({"processor": "another", "cores": 999}))
    assert estimate(wanted, told, tmp_path, runs).stages[0].measured is None


def test_what_does_not_fit_is_refused(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    found = estimate(recipe(*FULL, "sft.epochs=1"), rows(6), tmp_path, runs)
    found.refuse()
    with pytest.raises(FinetuneError, match=r"needs about .* on the disk and 1 MB are free; make room"):
        dataclasses.replace(found, disk_free=1e6).refuse()
    with pytest.raises(FinetuneError, match="choose LoRA, 4 bits or a smaller batch_tokens"):
        dataclasses.replace(found, memory_free=1e6).refuse()


def test_rows_that_cannot_be_read_do_not_stop_it(runs: Runs, tmp_path: Path) -> None:
    broken: list[dict[str, Any]] = [{"messages": 3}, {}, {"messages": [], "videos": ["/nowhere.mp4"]}]
    (stage,) = estimate(recipe(*FULL, "sft.epochs=1"), {"sft": broken}, tmp_path, runs).stages
    assert stage.rows == 0
