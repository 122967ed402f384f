"""keye-nano's card says how it was made: by which commands, in what time, from what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from finetune.__main__ import main

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"


def run(folder: Path, command: str, stage: str, minutes: int, **model: str) -> Path:
    """A finished run of one stage, as `finetune run` leaves it."""
    part = {"train": ["tower", "projector"]}
    recipe = {"seed": 0, "model": model, "stages": [{"name": stage, "kind": "multitask", "parts": {stage: part}}]}
    done = {"steps": 7, "examples": 1234, "seconds": 30.0 * minutes, "processor_seconds": 60.0 * minutes}
    files = {"recipe.json": recipe, "machine.json": {"cores": 2, "command": command}, f"{stage}/done.json": done}
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value), "utf-8")
    return folder


def test_a_card_tells_of_all_runs_and_of_no_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(shutil.copytree(NANO, tmp_path / "model"))
    first = run(tmp_path / "one", "python -m finetune run a.toml --out /x/one --store /x/s.sqlite", "stage2", 154)
    again = "python -m finetune run b.toml model.former=/x/one/model --out /x/two"
    second = run(tmp_path / "two", again, "cold", 100, former="d")
    assert main(["card", str(model), "--run", str(first), str(second)]) == 0
    card = (model / "README.md").read_text("utf-8")
    training = card.split("## Training")[1].split("## Accuracy")[0]
    assert "`python -m finetune run a.toml`, then `python -m finetune run b.toml model.former=DIR`, seed 0" in training
    assert "254 minutes of processor time, 127 by the clock" in " ".join(training.split())
    assert training.index("| stage2 | tower, projector | 7 | 1,234 | 154.0 |") < training.index("| cold | tower")
    assert "began at random" in training and "/x/" not in card
    assert main(["card", str(model), "--run", str(second)]) == 0
    assert "began at random" not in (model / "README.md").read_text("utf-8")


def test_a_card_without_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(NANO), "--run", str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err
