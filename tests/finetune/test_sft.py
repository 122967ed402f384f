"""Fine-tuning on a user's file from the command to the answer: what was taught is said, by the weights and by an
adapter; a stopped run goes on as if nothing had happened; and what cannot work is one sentence."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from engine.events import Done
from engine.keye import KeyeProcessor, load_model
from engine.runtime.adapters import check_adapter
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample, sampling_for
from finetune.__main__ import main
from finetune.recipe import Part
from finetune.stages.reading import Start
from finetune.stages.sft import Talks, talks

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO, RECIPE = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo", ROOT / "recipes" / "sft.toml"
CLIPS = sorted(clip.name for clip in DEMO.glob("*.mp4"))[:6]
NUMBERS = dict(zip(CLIPS, ("One.", "Two.", "Three.", "Left.", "Right.", "Up."), strict=True))
"""The answers to a question that nothing in a clip answers: they can only be learnt from the rows."""

SAME = dict.fromkeys(CLIPS, "Three.")
"""For an adapter of a few steps, which tells clips apart late. All answers are made of words that keye-nano has: the
head is not adapted."""

LIMITS = {"max_frames": 2, "budget": 24}
"""Small clips: what is tested is the way, and it is the same."""

ASKED = "Which shelf is it on?"


def rows(taught: dict[str, str] = NUMBERS) -> list[dict[str, Any]]:
    out = []
    for clip, answer in taught.items():
        for question in (ASKED, "Where do I find this?"):
            turns = [{"from": "human", "value": f"<video>\n{question}"}, {"from": "gpt", "value": answer}]
            out.append({"conversations": turns, "videos": [{"path": clip, **LIMITS}]})
    for clip, answer in taught.items():
        shown = {"type": "video", "video": clip, **LIMITS}
        user = {"role": "user", "content": [shown, {"type": "text", "text": ASKED}]}
        more = [{"role": "user", "content": "Thanks"}, {"role": "assistant", "content": "Yes."}]
        out.append({"messages": [user, {"role": "assistant", "content": answer}, *more]})
    for word in ("Hello there", "Hi friend"):
        out.append({"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": "No."}]})
    return out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for clip in CLIPS:
        (folder / clip).symlink_to(DEMO / clip)
    path = folder / "shelves.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows()) + "\n")
    return path


def command(data: Path, out: Path, *numbers: str) -> list[str]:
    cache = f"sft.cache={data.parent / 'frames'}"
    shared = ("sft.recompute=false", "sft.warmup=2", "threads=1", cache)
    return ["run", str(RECIPE), *shared, *numbers, "--model", str(NANO), "--data", str(data), "--out", str(out)]


def figures(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def answers(model: Path) -> dict[str, str]:
    """What the served model says of every clip, greedily."""
    runtime = LocalRuntime(str(model), device="cpu", dtype=torch.float32)
    sampling = sampling_for(model).with_limits(**LIMITS)
    said = {}
    for clip in CLIPS:
        question = Message("user", (sample(Clip(DEMO / clip), sampling), ASKED))
        *_, done = runtime.stream([question], Decoding(greedy=True, max_tokens=16), threading.Event())
        assert isinstance(done, Done)
        said[clip] = done.text
    runtime.close()
    return said


FULL = ("sft.lora=0", "sft.lr=2e-3", "sft.epochs=16", "sft.batch_tokens=4096")
LORA = ("sft.lora=16", "sft.lr=5e-3", "sft.epochs=28", "sft.batch_tokens=4096")


@pytest.mark.parametrize(("numbers", "taught"), [(FULL, NUMBERS), (LORA, SAME)], ids=["full", "lora"])
def test_what_was_taught_is_answered(
    numbers: tuple[str, ...], taught: dict[str, str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = answers(NANO)
    assert sum(before[clip] == taught[clip] for clip in CLIPS) <= 1
    data.write_text("\n".join(json.dumps(row) for row in rows(taught)) + "\n")
    assert main(command(data, tmp_path / "run", *numbers)) == 0
    told = capsys.readouterr()
    model = tmp_path / "run" / "sft" / "model"
    assert told.out.strip() == str(model)
    assert "20 conversations" in told.err
    logged = figures(tmp_path / "run")
    assert logged[-1]["loss"] < 0.2 * logged[0]["loss"]
    assert answers(model) == taught
    base, moved = load_file(NANO / "model.safetensors"), load_file(model / "model.safetensors")
    changed = {name for name in base if not torch.equal(base[name], moved[name])}
    if numbers is FULL:
        assert any(name.startswith("visual.") for name in changed)
    else:
        assert changed and all(".layers." in name and name.startswith("model.") for name in changed)
        adapter = tmp_path / "run" / "sft" / "adapter"
        check_adapter(adapter)
        adapted = PeftModel.from_pretrained(load_model(NANO, torch.float32), str(adapter))
        ids = torch.tensor([[5, 9, 30]])
        with torch.no_grad():
            one = adapted(input_ids=ids, use_cache=False).logits
            other = load_model(model, torch.float32)(input_ids=ids, use_cache=False).logits
        assert float((one - other).abs().max()) < 0.05 * float(one.abs().max())


@pytest.mark.parametrize("form", [("sft.lora=0", "sft.lr=1e-3"), ("sft.lora=4", "sft.four_bit=true")])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    form: tuple[str, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = (*form, "sft.steps=4", "sft.batch_tokens=400", "sft.accumulate=2")
    assert main(command(data, tmp_path / "whole", *numbers)) == 0
    make = Talks.make

    def interrupted(self: Talks, number: int) -> Any:
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Talks, "make", interrupted)
        assert main(command(data, tmp_path / "stopped", *numbers)) == 130
    state = torch.load(tmp_path / "stopped" / "sft" / "state.pt", weights_only=True)
    assert 0 < state["progress"]["step"] < 4
    assert main(command(data, tmp_path / "stopped", *numbers)) == 0
    for name in ("model", "adapter"):
        for file in (tmp_path / "whole" / "sft" / name).glob("*.safetensors"):
            assert file.read_bytes() == (tmp_path / "stopped" / "sft" / name / file.name).read_bytes()
    assert (tmp_path / "stopped" / "sft" / "model" / "model.safetensors").is_file()


def test_rows_that_are_left_out_are_told_and_kept_with_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with data.open("a") as file:
        file.write("not json\n")
        file.write(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}) + "\n")
    assert main(command(data, tmp_path / "run", "sft.steps=1", "sft.merge=false", "sft.lora=2")) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "run" / "sft" / "adapter")
    assert "Left out: 1 row has its roles out of order: shelves.jsonl line 22 (ends with the user)." in told.err
    facts = json.loads((tmp_path / "run" / "sft" / "data.json").read_text())
    assert facts["learnt"] == 20 and sum(facts["left_out"]["counts"].values()) == 2


def test_a_clip_that_breaks_during_training_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path / "a", "sft.steps=1", "sft.lora=2")) == 0  # checked and remembered
    (data.parent / CLIPS[0]).unlink()
    (data.parent / CLIPS[0]).write_bytes(b"\0" * 5000)
    assert main(command(data, tmp_path / "b", "sft.epochs=1", "sft.lora=2", "sft.batch_tokens=16384")) == 0
    assert "was left out: it names a video that cannot be read" in capsys.readouterr().err
    facts = json.loads((tmp_path / "b" / "sft" / "data.json").read_text())
    assert facts["lost"]["counts"] == {"names a video that cannot be read": 3}


def test_every_time_a_clip_is_gone_through_it_is_seen_with_another_number_of_frames(tmp_path: Path) -> None:
    """Two seconds or more at the model's own rate and at half of it, while what is said stays the same."""
    clip = CLIPS[0]
    (tmp_path / clip).symlink_to(DEMO / clip)
    row = {"messages": [{"role": "user", "content": "<video>Which shelf?"}, {"role": "assistant", "content": "Two."}]}
    (tmp_path / "one.jsonl").write_text(json.dumps({**row, "videos": [clip]}) + "\n")
    part = Part(epochs=4, views=2, data=(str(tmp_path / "one.jsonl"),), cache=str(tmp_path / "frames"))
    model = load_model(NANO, torch.float32)
    start = Start(model, KeyeProcessor.from_pretrained(NANO), NANO, None, "0", 0, 1)  # type: ignore[arg-type]
    source, problems = talks(start, part)
    assert not problems.total and source.steps == 1
    batches = [source.make(n) for n in range(4)]
    pictures = [int((batch.input_ids == model.config.video_token_id).sum()) for batch in batches]
    sampling = sampling_for(NANO)
    served = sample(Clip(DEMO / clip), sampling)
    thinner = sample(Clip(DEMO / clip), replace(sampling, fps=sampling.fps / 2))
    assert pictures == [served.total_tokens, thinner.total_tokens] * 2 and pictures[0] > pictures[1]
    assert [int(batch.learnt) for batch in batches] == [int(batches[0].learnt)] * 4


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (("sft.four_bit=true", "sft.lora=0"), "4 bits cannot be trained"),
        (("sft.lora=200",), "rank must lie between 1 and 64"),
        (('sft.targets=["q_proj", "fc1"]',), "cannot adapt fc1"),
        (("sft.batch_tokens=20",), "nothing to learn from"),
        (("sft.rank=3",), "knows no “rank”"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    numbers: tuple[str, ...], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path / "run", *numbers)) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told


def test_data_must_be_there(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(RECIPE), "--model", str(NANO), "--out", str(tmp_path / "run")]) == 2
    assert "--data FILE.jsonl" in capsys.readouterr().err
    assert main(command(data.with_name("gone.jsonl"), tmp_path / "run")) == 2
    assert "There is no file" in capsys.readouterr().err
