"""From a run's result to what is served, with the real keye-nano: compared, judged, promoted, rolled back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.runtime.adapters import adapter_name
from engine.runtime.local import LocalRuntime
from engine.runtime.served import Choice
from engine.runtime.source import NANO
from finetune.errors import FinetuneError
from finetune.feedback import Runs, Store
from finetune.loop.serving import Serving, Source
from finetune.loop.trial import of_lessons, of_world
from tests.media import make_clip
from tests.models import changed_copy, trained_adapter

BASE = str(NANO)


@dataclass(frozen=True)
class Lesson:
    use: str
    question: str
    held_out: bool
    row: dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: one has written a whole model, the other an adapter."""
    folder = tmp_path_factory.mktemp("runs")
    changed_copy(folder / "evening" / "sft" / "model", 0.02)
    trained_adapter(folder / "morning" / "sft" / "adapter", 0.02)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "studio.sqlite")
    yield store
    store.close()


def opened(store: Store, tmp_path: Path, lessons: tuple[Lesson, ...] = (), busy: str = "") -> Serving:
    runtime = LocalRuntime(device="cpu")
    return Serving(store, runtime, BASE, tmp_path / "trials", lessons=lambda store: lessons, busy=lambda: busy)


def done(serving: Serving) -> None:
    serving.join(300)
    assert not serving.state().doing


def test_a_comparison_is_judged_promoted_and_rolled_back(store: Store, tmp_path: Path, runs: Path) -> None:
    serving = opened(store, tmp_path)
    with pytest.raises(FinetuneError, match="nothing to roll back"):
        serving.roll_back()
    serving.compare(runs / "morning" / "sft", Source(world=4), run="r1", seed=11)
    done(serving)
    assert serving.state().error == "" and (serving.state().done, serving.state().total) == (8, 8)
    trial = store.trials.newest()
    assert trial is not None
    name = adapter_name(runs / "morning" / "sft" / "adapter")
    assert (trial.base["model"], trial.base["adapter"], trial.candidate["adapter"]) == ("keye-nano", None, name)
    pairs = store.trials.pairs(trial.id)
    assert len(pairs) == 4 and all(pair.complete and pair.asked.reference for pair in pairs)
    assert all(pair.base["adapter"] is None and pair.candidate["adapter"] == name for pair in pairs)  # type: ignore[index]
    assert all(Path(pair.asked.video or "").is_file() for pair in pairs)
    assert serving.served.info().adapter is None  # comparing serves nothing
    assert serving.judge(trial.id, 0, "candidate").verdict == "candidate"
    serving.promote(trial.id)
    done(serving)
    assert serving.state().error == "" and serving.served.info().adapter == name
    now = serving.promotion()
    assert now is not None and (now.run, now.trial, now.replaced) == ("r1", trial.id, "keye-nano")
    serving.served.close()

    again = opened(store, tmp_path)  # the page is started anew: what was promoted answers
    assert again.served.info().adapter == name
    again.roll_back()
    done(again)
    assert again.served.info().adapter is None
    assert [row.action for row in again.history()] == ["roll_back", "promote"]
    again.served.close()
    assert opened(store, tmp_path).served.current() == Choice()


def test_the_same_seed_asks_the_same_and_the_same_model_is_no_candidate(store: Store, tmp_path: Path) -> None:
    one, other = ([item.asked() for item in of_world(6, seed, tmp_path)] for seed in (5, 5))
    assert one == other != [item.asked() for item in of_world(6, 6, tmp_path)]
    serving = opened(store, tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(NANO, copy)
    serving.compare(copy, Source(world=2))
    done(serving)
    assert "exactly as what is served" in serving.state().error
    trial = store.trials.newest()
    assert trial is not None and trial.sentence == serving.state().error
    serving.served.close()


def test_what_cannot_be_compared_or_promoted_is_told_and_changes_nothing(
    store: Store, tmp_path: Path, runs: Path
) -> None:
    serving = opened(store, tmp_path)
    with pytest.raises(FinetuneError, match="holds no model and no adapter"):
        serving.compare(tmp_path, Source(world=2))
    with pytest.raises(FinetuneError, match="no held-out questions"):
        serving.compare(runs / "evening" / "sft", Source(yours=5))
    moved = tmp_path / "moved"
    shutil.copytree(runs / "evening" / "sft", moved)
    serving.compare(moved, Source(world=1))
    done(serving)
    trial = store.trials.newest()
    assert trial is not None and serving.state().error == ""
    shutil.rmtree(moved)
    serving.promote(trial.id)
    done(serving)
    assert "no model folder" in serving.state().error
    assert serving.promotion() is None and serving.served.info().name == "keye-nano"
    with pytest.raises(EngineError, match="no model folder"):
        serving.served.serve(moved / "model")
    serving.served.close()
    busy = opened(store, tmp_path, busy="A benchmark measures the served model; stop it or wait for its end.")
    with pytest.raises(FinetuneError, match="A benchmark measures"):
        busy.promote(trial.id)
    busy.served.close()


def test_a_comparison_that_is_stopped_keeps_what_was_answered(store: Store, tmp_path: Path, runs: Path) -> None:
    serving = opened(store, tmp_path)
    serving.compare(runs / "evening" / "sft", Source(world=40))
    while serving.state().done < 2:
        assert serving.state().doing
        time.sleep(0.01)
    serving.stop()
    done(serving)
    trial = store.trials.newest()
    assert trial is not None and trial.sentence == "It was stopped before both had answered."
    answered = [pair for pair in store.trials.pairs(trial.id) if pair.base is not None]
    assert 2 <= len(answered) < 40
    serving.served.close()


def test_results_are_those_that_are_still_there(store: Store, tmp_path: Path, runs: Path) -> None:
    serving = opened(store, tmp_path)
    record = Runs(store.path)
    for name, ends in (("evening", True), ("morning", True), ("gone", True), ("night", False)):
        folder = runs / name
        run = record.begin(name, {}, folder, seed=0, code="1")
        record.stage_begun(run.id, "sft", 0)
        if ends:
            record.stage_done(run.id, "sft", folder=folder / "sft" / "model")
            record.finished(run.id, "done")
    record.close()
    assert [Path(result.folder).parent.name for result in serving.results()] == ["morning", "evening"]
    assert serving.choice(runs / "evening" / "sft") == Choice(runs / "evening" / "sft" / "model")
    assert serving.choice(runs / "morning" / "sft") == Choice(None, runs / "morning" / "sft" / "adapter")
    assert not serving.pauses(runs / "evening" / "sft")
    serving.served.close()


def test_lessons_that_are_held_out_are_asked_once_with_what_is_right(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=25, fps=25, size=(56, 56))
    user = {"role": "user", "content": "<video>How many?"}
    video = {"path": str(clip), "start": 0.2, "end": 0.8}

    def row(**more: Any) -> dict[str, Any]:
        return {"messages": [user], "videos": [video], "mode": "think", **more}

    learnt = row(messages=[user, {"role": "assistant", "content": "<think>1, 2</think><answer>Two.</answer>"}])
    lessons = [
        Lesson("pair", "q1", True, row(chosen="<think>a</think><answer>Two.</answer>", rejected="Three.")),
        Lesson("question", "q1", True, row(reference="two")),
        Lesson("example", "q2", True, {**learnt, "mode": "no_think"}),
        Lesson("example", "q3", False, learnt),
        Lesson("question", "q4", True, {**row(reference="x"), "videos": [str(tmp_path / "gone.mp4")]}),
        Lesson("question", "q5", True, {"messages": "broken", "reference": "x"}),
        Lesson("question", "q6", True, row(reference="two")),  # the same question once more
    ]
    asked = [item.asked() for item in of_lessons(lessons)]
    assert [(one.question, one.text, one.reference, one.mode) for one in asked] == [
        ("q1", "How many?", "two", "think"),
        ("q2", "How many?", None, "no_think"),  # a text that was liked is not the only right one
    ]
    assert [(one.video, one.start, one.end) for one in asked] == [(str(clip), 0.2, 0.8)] * 2


def test_held_out_questions_of_ones_own_are_answered_from_their_clips(store: Store, tmp_path: Path, runs: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=25, fps=25, size=(56, 56))
    row = {"messages": [{"role": "user", "content": "<video>Describe it."}], "videos": [str(clip)], "mode": "no_think"}
    lesson = Lesson("question", "q1", True, {**row, "reference": "Nothing moves."})
    serving = opened(store, tmp_path, (lesson,))
    assert serving.held_out() == 1
    serving.compare(runs / "evening" / "sft", Source(yours=9))
    done(serving)
    trial = store.trials.newest()
    assert trial is not None and serving.state().error == ""
    [pair] = store.trials.pairs(trial.id)
    assert pair.complete and pair.asked.question == "q1" and pair.asked.video == str(clip)
    serving.served.close()
