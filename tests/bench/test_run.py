"""A run that is killed goes on and gives the same report; memory stays flat; the command and its refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from engine.errors import EngineError
from engine.runtime.base import Runtime
from engine.runtime.source import NANO
from finetune.__main__ import main
from finetune.bench.open_runtime import open_runtime
from finetune.bench.predictions import Predictions
from finetune.bench.registry import benchmark
from finetune.bench.report import write_report
from finetune.bench.run import Plan, Progress, fingerprint, run
from finetune.errors import FinetuneError
from tests.bench import made_up

ROOT = Path(__file__).resolve().parents[2]
FILES = ("report.json", "report.html", "items.csv")


def bench(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "finetune", "bench", *map(str, arguments)]


def test_a_killed_run_goes_on_and_gives_the_same_report(tmp_path: Path, nano: Runtime) -> None:
    data = made_up.kc_mmbench(tmp_path / "data", each=6)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    plan = Plan(benchmark("kc-mmbench"), data, max_tokens=8)
    assert run(plan, nano, whole, parallel=3)
    expected = write_report(plan, nano.info(), whole)

    command = bench("kc-mmbench", "--data", data, "--out", pieces, "--max-tokens", 8, "--parallel", 2)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file = pieces / "predictions.jsonl"
    while not (file.is_file() and file.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = file.read_bytes().count(b"\n")
    with file.open("ab") as torn:  # as if the kill had hit in the middle of a line
        torn.write(b'{"task": "SPU", "index": "0", "outp')
    assert run(plan, nano, pieces, parallel=1)
    assert file.read_bytes().count(b"\n") == expected["items"] and kept >= 5  # nothing was asked twice
    assert write_report(plan, nano.info(), pieces) == expected
    for name in FILES:
        assert (pieces / name).read_bytes() == (whole / name).read_bytes()


def test_stopping_keeps_what_was_answered_and_the_report_says_so(tmp_path: Path, nano: Runtime) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=3), tmp_path / "out"
    plan, stop = Plan(benchmark("kc-mmbench"), data, max_tokens=4), threading.Event()
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.done >= 4:
            stop.set()

    assert not run(plan, nano, out, parallel=2, report=watch, stop=stop)
    facts = write_report(plan, nano.info(), out)
    assert 4 <= facts["answered"] <= 6 and facts["items"] == 18
    assert facts["unscored"] == 18 - facts["answered"]
    assert all(not task["comparable"] for task in facts["tasks"].values())
    assert (seen[0].done, seen[0].total, seen[0].seconds_left) == (0, 18, None)
    assert seen[1].seconds_left is not None and seen[1].seconds_left > 0
    assert [p.done for p in seen] == sorted(p.done for p in seen)

    assert run(plan, nano, out, parallel=2, report=seen.append)
    assert seen[-1].done == seen[-1].total == 18 and seen[-1].seconds_left in (0, 0.0)
    assert write_report(plan, nano.info(), out)["answered"] == 18


def test_a_limit_counts_items_of_each_task_and_can_be_raised(tmp_path: Path, nano: Runtime) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=3), tmp_path / "out"
    for limit, items in ((1, 6), (2, 12)):
        plan = Plan(benchmark("kc-mmbench"), data, limit=limit, max_tokens=2)
        assert run(plan, nano, out)
        facts = write_report(plan, nano.info(), out)
        assert facts["answered"] == items and facts["limit"] == limit


def test_other_settings_are_refused(tmp_path: Path, nano: Runtime) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=1), tmp_path / "out"
    assert run(Plan(benchmark("kc-mmbench"), data, limit=1, max_tokens=2), nano, out)
    for plan in (
        Plan(benchmark("kc-mmbench"), data, mode="no_think", max_tokens=2),
        Plan(benchmark("kc-mmbench"), data, max_tokens=3),
        Plan(benchmark("kc-mmbench"), data, max_tokens=2, max_frames=5),
    ):
        with pytest.raises(FinetuneError, match="another --out"):
            run(plan, nano, out)
    other = tmp_path / "other"
    shutil.copytree(NANO, other)
    before = fingerprint(other)
    weights = {name: t + 1 for name, t in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert before == fingerprint(NANO) != fingerprint(other)  # weights that were trained on are other weights
    assert fingerprint(tmp_path / "nowhere") is None
    with Predictions(out), pytest.raises(FinetuneError, match="Another run"):
        Predictions(out)


def test_damaged_lines_are_asked_again(tmp_path: Path) -> None:
    with Predictions(tmp_path) as predictions:
        for index in "123":
            predictions.add({"task": "SPU", "index": index, "output": "是"})
        predictions.add({"task": "SPU", "index": "3", "output": None, "error": "the model failed: x"})
    lines = (tmp_path / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_bytes(lines[0] + b"\x00\xff\n" + b"[]\n" + b"".join(lines[2:]) + b'{"ta')
    with Predictions(tmp_path) as predictions:
        assert [predictions.is_finished(("SPU", i)) for i in "123"] == [True, False, False]
        predictions.add({"task": "SPU", "index": "2", "output": "否"})
        assert predictions.is_finished(("SPU", "2")) and len(predictions) == 3
        found = predictions.get(("SPU", "2"))
        assert found is not None and found["output"] == "否"


def test_the_model_sees_the_switch_and_greedy_decoding(tmp_path: Path, nano: Runtime) -> None:
    """What reaches the runtime: pictures first, one text with the switch glued on, greedy, at most 2048 tokens."""
    heard: list[tuple[object, object]] = []

    class Listening:
        """The real runtime, overheard."""

        def stream(self, messages, decoding, stop):  # type: ignore[no-untyped-def]
            heard.append((messages, decoding))
            decoding = type(decoding)(max_tokens=1, greedy=True)
            return nano.stream(messages, decoding, stop)

        def __getattr__(self, name: str) -> object:
            return getattr(nano, name)

    data = made_up.kc_mmbench(tmp_path / "data", each=1)
    for mode, switch in (("think", "/think"), ("no_think", "/no_think"), ("auto", "")):
        heard.clear()
        plan = Plan(benchmark("kc-mmbench"), data, mode=mode)  # type: ignore[arg-type]
        assert run(plan, Listening(), tmp_path / mode, parallel=1)  # type: ignore[arg-type]
        messages, decoding = heard[-1]  # SPU: two pictures
        assert decoding.greedy and decoding.max_tokens == 2048
        (message,) = messages
        *pictures, text = message.parts
        assert [p.shape for p in pictures] == [(112, 112, 3)] * 2
        assert text == "同一商品？\n请直接给出结论，回答是或者否，不需要做额外分析，并且不许回答不确定" + switch


FLAT = """
import sys
from pathlib import Path
import psutil
from finetune.bench.open_runtime import open_runtime
from finetune.bench.registry import benchmark
from finetune.bench.run import Plan, run
runtime, me, seen = open_runtime(sys.argv[3]), psutil.Process(), {}
runtime.info()
def watch(progress):
    if progress.done in (250, 1000):
        seen[progress.done] = me.memory_info().rss
plan = Plan(benchmark("kc-mmbench"), Path(sys.argv[1]), max_tokens=1)
run(plan, runtime, Path(sys.argv[2]), parallel=2, report=watch)
print((seen[1000] - seen[250]) / 1e6)
"""


def one_layer(folder: Path) -> Path:
    """keye-nano with the first layer only of its tower and its decoder: it says nothing sensible, four times faster."""
    shutil.copytree(NANO, folder)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = config["vision_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in weights.items() if not re.search(r"layers\.[1-9]", name)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_thousand_items_keep_memory_flat(tmp_path: Path) -> None:
    """In a process of its own, so that its memory is the run's. A picture here takes 0.1 MB once it is decoded: to
    hold a quarter of them would show."""
    for number in range(20):
        made_up.picture(tmp_path / "images" / f"{number}.png", number, (200, 170))
    rows = [[n, f"{n % 20}.png", "同一商品？", "是", str(n % 7)] for n in range(1000)]
    made_up.table(tmp_path / "subsets" / "SPU.tsv", made_up.KC_HEADING, rows)
    process = subprocess.run(
        [sys.executable, "-c", FLAT, str(tmp_path), str(tmp_path / "out"), str(one_layer(tmp_path / "model"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert float(process.stdout) < 18.0  # megabytes
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes().count(b"\n") == 1000


def test_the_command_prints_scores_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=1), tmp_path / "out"
    command = ["bench", "kc-mmbench", "--data", str(data), "--out", str(out), "--max-tokens", "2", "--mode", "no_think"]
    told = []
    for _ in range(2):
        assert main(command) == 0
        told.append(capsys.readouterr())
        assert "mean of tasks" in told[-1].out and "6 of 6" in told[-1].err
    assert told[0].out == told[1].out
    assert json.loads((out / "settings.json").read_text())["mode"] == "no_think"


def test_interrupting_the_command_keeps_what_was_answered(tmp_path: Path) -> None:
    data, out = made_up.kc_mmbench(tmp_path / "data", each=60), tmp_path / "out"
    command = [*bench("kc-mmbench", "--data", data, "--out", out, "--mode", "auto")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    file = out / "predictions.jsonl"
    while not (file.is_file() and file.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate()
    assert process.returncode == 130 and "Traceback" not in errors and "goes on from here" in errors
    assert "unscored" in printed
    facts = json.loads((out / "report.json").read_text("utf-8"))
    assert 3 <= facts["answered"] < facts["items"] == 360


def heed_interrupts() -> None:
    """A shell that starts tests in the background lets them ignore interrupts: the command must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "no benchmark"),
        (("kc-mmbench",), "--data"),
        (("kc-mmbench", "--data", "/nowhere"), "no folder"),
        (("kc-mmbench", "--data", ".", "--limit", "0"), "at least 1"),
        (("kc-mmbench", "--data", ".", "--runtime", "cloud"), "runtime"),
        (("kc-mmbench", "--data", ".", "--judge", "ftp://x"), "judge"),
        (("kc-mmbench", "--data", ".", "--model", "/nowhere"), "/nowhere"),
    ],
)
def test_refusals_are_one_sentence(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err and len(told.err.strip().splitlines()) == 1 and told.out == ""


def test_only_known_runtimes() -> None:
    with pytest.raises(EngineError, match="local, sglang or http"):
        open_runtime(None, "cloud")
