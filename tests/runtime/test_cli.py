"""The two commands, in a process of their own; what they refuse also within this one, where it costs no start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.__main__ import main
from tests.media import make_clip, make_sound

ROOT = Path(__file__).resolve().parents[2]


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same as `engine`, in this process."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = main(list(arguments))
        told = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, told.out, told.err)

    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "a clip.mp4"
    make_clip(path, frames=75, fps=25, size=(160, 120))
    return path


def test_probe_tells_what_was_made(clip: Path) -> None:
    run = engine("probe", str(clip), "--json", "--max-frames", "6")
    facts = json.loads(run.stdout)
    assert run.returncode == 0
    assert (facts["video"]["codec"], facts["video"]["width"], facts["video"]["height"]) == ("h264", 160, 120)
    assert facts["video"]["fps"] == pytest.approx(25) and facts["video"]["duration"] == pytest.approx(3.0)
    assert len(facts["frames"]) == 6
    assert facts["tokens"] == sum(frame["tokens"] for frame in facts["frames"]) <= facts["budget"]
    assert "160×120" in engine("probe", str(clip)).stdout


def test_ask_streams_events_and_ends_with_done(clip: Path) -> None:
    run = engine("ask", str(clip), "How many shapes are there?", "--json", "--max-tokens", "5", "--greedy")
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0
    assert [e["type"] for e in events].count("done") == 1 and events[-1]["type"] == "done"
    assert "".join(e["text"] for e in events if e["type"] == "answer") == events[-1]["text"]
    assert events[-1]["finish"] in ("stop", "length") and events[-1]["visual_tokens"] > 0


@pytest.mark.parametrize("mode", ["think", "think_with_image"])
def test_a_mode_streams_and_says_which_it_was(clip: Path, mode: str) -> None:
    flags = ("--mode", mode, "--think-budget", "5", "--max-tokens", "20", "--json")
    run = engine("ask", str(clip), "How many shapes are there?", *flags)
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0
    done = events[-1]
    assert done["type"] == "done" and done["mode"] == mode and done["answer_tokens"] <= 20
    assert {"thought_tokens", "thought_seconds", "raw_text", "tool_calls", "notes"} <= set(done)


def test_ask_in_words(clip: Path) -> None:
    run = engine("ask", str(clip), "Hello", "--mode", "no_think", "--max-tokens", "3", "--end", "2.5", "--budget", "64")
    assert run.returncode == 0 and run.stdout.strip()
    assert "visual tokens" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p, "no such file|There is no|does not exist"),
        (lambda p: (p.touch(), p)[1], "empty"),
        (lambda p: (p.write_text("hello " * 100), p)[1], "not a video|cannot be read|no video"),
        (lambda p: make_sound(p.with_suffix(".m4a")), "no picture|no video|sound only|audio"),
    ],
)
def test_bad_files_are_one_sentence_and_exit_code_2(tmp_path: Path, make, words: str, here) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "bad.mp4")
    for command in (("probe", str(path)), ("ask", str(path), "What?")):
        run = here(*command)
        assert run.returncode == 2 and run.stdout == ""
        assert "Traceback" not in run.stderr and len(run.stderr.strip().splitlines()) == 1
        assert re.search(words, run.stderr), run.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--model", "/nowhere"),
        ("--start", "9", "--end", "10"),
        ("--budget", "0"),
        ("--max-tokens", "0"),
        ("--fps", "nan"),
        ("--max-frames", "-3"),
        ("--mode", "deep"),
        ("--think-budget", "0"),
    ],
)
def test_bad_flags_are_one_sentence_in_json_too(
    clip: Path, flags: tuple[str, ...], here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = here("ask", str(clip), "What?", "--json", *flags)
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert [e["type"] for e in events][-2:] == ["error", "done"] and events[-1]["finish"] == "error"


def test_an_empty_question_is_refused(clip: Path) -> None:
    run = engine("ask", str(clip), "  ")
    assert run.returncode == 2 and "question is empty" in run.stderr
