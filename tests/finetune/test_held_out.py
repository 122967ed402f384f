"""What is kept for measuring: asked as the served model is asked, and without a trace in what is learnt."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.events import Done
from engine.keye import KeyeProcessor, load_model
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample, sampling_for
from finetune.__main__ import main
from finetune.feedback import Runs
from finetune.measuring.held_out import HeldOut, answer, samples

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"
CLIPS = sorted(DEMO.glob("*.mp4"))
QUESTION = "How many shapes are there?"


def row(clip: Path, said: str, question: str = QUESTION) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"<video>{question}"}, {"role": "assistant", "content": said}]
    return {"messages": turns, "videos": [{"path": str(clip), "max_frames": 4, "budget": 128}]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def served(clip: Path) -> str:
    """What the runtime that serves answers says."""
    runtime = LocalRuntime(str(NANO), device="cpu", dtype=torch.float32)
    frames = sample(Clip(clip), sampling_for(NANO).with_limits(max_frames=4, budget=128))
    decoding = Decoding(greedy=True, max_tokens=64)
    *_, done = runtime.stream([Message("user", (frames, QUESTION))], decoding, threading.Event())
    assert isinstance(done, Done)
    return done.text


def test_a_model_in_memory_says_what_the_served_one_says(tmp_path: Path) -> None:
    truths = {clip: served(clip) for clip in CLIPS[:3]}
    rows = [row(clip, truth) for clip, truth in truths.items()] + [row(CLIPS[3], "A purple elephant.")]
    write(tmp_path / "data" / "held_out.jsonl", [*rows, {"broken": 1}])
    questions = HeldOut(tmp_path)
    model, processor = load_model(NANO, torch.float32), KeyeProcessor.from_pretrained(NANO)
    model.train()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    figures = questions.look(model, processor, NANO, "sft", None, 0)
    assert model.training and torch.equal(torch.get_rng_state(), before)
    assert (figures["held_out"]["right"], figures["held_out"]["of"]) == (3, 4)
    assert figures["held_out"]["low"] == pytest.approx(0.3006, abs=1e-3)  # Wilson's interval of 3 of 4
    (told,) = samples(tmp_path)
    assert [one["answer"] for one in told["answers"][:3]] == list(truths.values())
    assert told["answers"][3]["right"] is False and told["answers"][3]["question"] == QUESTION
    assert answer(model, processor, [Message("user", ("Hello",))], 1).count(" ") == 0


def test_what_is_held_out_is_measured_and_changes_nothing(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [row(clip, "Two.", "Which shelf?") for clip in CLIPS[:4]])
    held_out = [row(clip, served(clip)) for clip in CLIPS[4:6]]
    store = tmp_path / "studio.sqlite"

    def run(name: str) -> Path:
        numbers = ["sft.lora=0", "sft.lr=1e-4", "sft.steps=3", "sft.batch_tokens=600", "threads=1", "sft.look=2"]
        where = ["--model", str(NANO), "--data", str(data), "--out", str(tmp_path / name), "--store", str(store)]
        recipe = str(ROOT / "recipes" / "sft.toml")
        cache = f"sft.cache={tmp_path / 'frames'}"
        assert main(["run", recipe, *numbers, "sft.recompute=false", cache, *where]) == 0
        return tmp_path / name / "sft" / "model" / "model.safetensors"

    alone = run("alone")
    write(tmp_path / "asked" / "data" / "held_out.jsonl", held_out)
    asked = run("asked")
    assert alone.read_bytes() == asked.read_bytes()
    told = samples(tmp_path / "asked")
    assert [one["step"] for one in told] == [0, 2, 3]
    assert told[0]["right"] == told[0]["of"] == 2
    runs = Runs(store)
    run_id = next(one.id for one in runs.list() if one.folder.endswith("asked"))
    assert [m.step for m in runs.metrics(run_id) if "held_out" in m.figures] == [0, 2, 3]
    assert runs.result(run_id) == tmp_path / "asked" / "sft" / "model"
    runs.close()


def test_answers_that_were_half_written_are_left_out_and_later_ones_count(tmp_path: Path) -> None:
    assert samples(tmp_path) == []
    one = {"question": "q", "truth": "t", "answer": "a", "right": False}
    line = {"stage": "sft", "step": 2, "held_out": True, "right": 0, "of": 1, "answers": [one]}
    again = {**line, "right": 1}
    text = "\n".join([json.dumps(line), "{}", "[]", json.dumps(again), json.dumps(line)[:40]])
    (tmp_path / "samples.jsonl").write_text(text)
    assert [found["right"] for found in samples(tmp_path)] == [1]
