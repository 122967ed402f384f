"""Fine-tuning by several processes, from the command: weights that are divided among them end as whole ones do,
whoever starts the processes, and a stopped run goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"
CLIPS = sorted(clip.name for clip in DEMO.glob("*.mp4"))
STEPS = 8
FORMS = {
    "full": ("sft.lora=0", "sft.lr=1e-3", f"sft.steps={STEPS}"),
    "lora": ("sft.lora=4", "sft.lr=1e-3", f"sft.steps={STEPS}"),
}
NAMES = {"full": "model", "lora": "adapter"}
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


Undisturbed = Callable[[str], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for n, clip in enumerate(CLIPS):
        (folder / clip).symlink_to(DEMO / clip)
        turns = [{"role": "user", "content": "<video>Which shelf?"}, {"role": "assistant", "content": f"{n}."}]
        rows.append({"messages": turns, "videos": [{"path": clip, "max_frames": 2, "budget": 24}]})
        rows.append({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "No."}]})
    path = folder / "shelves.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def command(data: Path, out: Path, *numbers: str) -> list[str]:
    numbers = (*numbers, "sft.recompute=false", "sft.warmup=2", "sft.batch_tokens=120", "sft.accumulate=2", "threads=1")
    where = [f"sft.cache={data.parent / 'frames'}", "--model", str(NANO), "--data", str(data), "--out", str(out)]
    return ["run", str(ROOT / "recipes" / "sft.toml"), *numbers, *where]


def weights(out: Path, name: str) -> dict[str, torch.Tensor]:
    (file,) = (out / "sft" / name).glob("*.safetensors")
    return load_file(file)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What a form ends with in two processes that nothing disturbs, its weights divided."""

    @cache
    def made(form: str) -> dict[str, torch.Tensor]:
        out = tmp_path_factory.mktemp(form)
        assert main(command(data, out, *FORMS[form], "processes=2")) == 0
        return weights(out, NAMES[form])

    return made


@pytest.mark.parametrize("form", list(FORMS))
def test_divided_weights_end_as_whole_ones_and_survive_a_stop(
    form: str, undisturbed: Undisturbed, data: Path, tmp_path: Path
) -> None:
    numbers, name = (*FORMS[form], "processes=2"), NAMES[form]
    assert main(command(data, tmp_path / "whole", *numbers, "sft.shard=false")) == 0
    whole, divided = weights(tmp_path / "whole", name), undisturbed(form)
    assert whole.keys() == divided.keys()
    for key, wanted in whole.items():
        torch.testing.assert_close(divided[key].float(), wanted.float(), rtol=2**-7, atol=2e-4)  # one step of bfloat16

    arguments = [sys.executable, "-m", "finetune", *command(data, tmp_path / "stopped", *numbers)]
    running = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "stopped" / "log.jsonl").is_file():  # after the first step
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(240) in (0, 130)
    if (tmp_path / "stopped" / "sft" / "state.pt").is_file():
        state = torch.load(tmp_path / "stopped" / "sft" / "state.pt", weights_only=True)
        assert 1 <= state["progress"]["step"] < STEPS
        assert main(command(data, tmp_path / "stopped", *numbers)) == 0
    stopped = weights(tmp_path / "stopped", name)
    assert all(torch.equal(stopped[key], value) for key, value in divided.items())


def test_a_launcher_may_start_the_processes(undisturbed: Undisturbed, data: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, *LAUNCHER, "-m", "finetune", *command(data, tmp_path / "launched", *FORMS["lora"])]
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    own, launched = undisturbed("lora"), weights(tmp_path / "launched", "adapter")
    assert all(torch.equal(launched[key], value) for key, value in own.items())


def test_muon_needs_whole_matrices(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(data, tmp_path / "run", "sft.lora=0", "sft.muon_lr=0.01")) == 2
    assert "give muon_lr = 0, or shard = false" in capsys.readouterr().err
