"""Old skills between new ones: which step is which, and that a run with them can be stopped like any other."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune.__main__ import main
from finetune.loop.replay import Replayed
from finetune.recipe import load_recipe
from finetune.stages.sft import Talks

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"


class Counted:
    """Batches that are their own name and number."""

    def __init__(self, name: str, steps: int = 0) -> None:
        self.name, self.steps = name, steps

    def make(self, number: int) -> Any:
        return f"{self.name}{number}"

    def learnt(self, batch: Any) -> int:
        return 1

    def size(self, batch: Any) -> tuple[int, int]:
        return 1, 1


@pytest.mark.parametrize(
    ("share", "accumulate", "made"),
    [
        (0.5, 1, "n0 o0 n1 o1 n2 o2 n3 o3"),
        (0.25, 1, "n0 n1 n2 o0 n3 n4 n5 o1"),
        (0.5, 2, "n0 n1 o0 o1 n2 n3 o2 o3"),
        (0.0, 1, "n0 n1 n2 n3 n4 n5 n6 n7"),
    ],
)
def test_steps_are_new_or_old_as_a_whole_and_each_source_counts_alone(share: float, accumulate: int, made: str) -> None:
    source = Replayed(Counted("n"), Counted("o"), share, accumulate)
    assert " ".join(source.make(number) for number in range(8)) == made
    assert [source.make(number) for number in (7, 2, 5)] == [made.split()[number] for number in (7, 2, 5)]


def test_an_epoch_of_new_steps_stays_one() -> None:
    assert Replayed(Counted("n", 6), Counted("o"), 0.5, 1).steps == 12
    assert Replayed(Counted("n", 6), Counted("o"), 0.25, 1).steps == 8


def test_a_small_model_follows_what_the_recipe_says_of_small_ones(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "feedback.toml"
    large, small = load_recipe(recipe).stage("sft"), load_recipe(recipe, model=str(NANO)).stage("sft")
    assert large.parts["sft"].lora == 16 and large.parts["sft"].replay_data == ()
    assert small.parts["sft"].lora == 0 and small.parts["sft"].replay_data == ("modes",)
    told = load_recipe(recipe, ["sft.lora=4"], model=str(NANO)).stage("sft")
    assert told.parts["sft"].lora == 4  # what the shell says counts more


@pytest.mark.parametrize("old", ["world", "modes"])
def test_a_run_with_the_world_between_is_stopped_and_gone_on_with(old: str, tmp_path: Path, monkeypatch: Any) -> None:
    rows = []
    for clip in sorted(DEMO.glob("*.mp4"))[:4]:
        turns = [{"role": "user", "content": "<video>Which shelf?"}, {"role": "assistant", "content": "Two."}]
        rows.append({"messages": turns, "videos": [{"path": str(clip), "max_frames": 2, "budget": 24}]})
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def command(out: Path) -> list[str]:
        numbers = ["sft.lora=0", "sft.lr=1e-3", "sft.steps=4", "sft.batch_tokens=200", "threads=1", "sft.replay=0.5"]
        numbers += [f'sft.replay_data=["{old}"]', "sft.things=1", "sft.media=pictures", "sft.recompute=false"]
        where = ["--model", str(NANO), "--data", str(data), "--out", str(out), "--store", str(tmp_path / "s.sqlite")]
        return ["run", str(ROOT / "recipes" / "sft.toml"), *numbers, f"sft.cache={tmp_path / 'frames'}", *where]

    assert main(command(tmp_path / "whole")) == 0
    make = Talks.make

    def interrupted(self: Talks, number: int) -> Any:
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Talks, "make", interrupted)
        assert main(command(tmp_path / "parts")) == 130
    assert main(command(tmp_path / "parts")) == 0
    one, other = (tmp_path / name / "sft" / "model" / "model.safetensors" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes() != (NANO / "model.safetensors").read_bytes()
