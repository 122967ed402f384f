"""Reading and captioning by the real keye-nano, on clips of the world; and that no answer is asked for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.base import Runtime
from finetune.bench.open_runtime import open_runtime
from finetune.data.ask import Asking, is_nothing, merge, ocr, recaption
from finetune.data.build import Plan, build
from finetune.data.items import Item, Medium, Timed
from finetune.errors import FinetuneError
from finetune.world.clips import encode_clip
from finetune.world.scene import make_scene

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="module")
def nano() -> Iterator[Runtime]:
    runtime = open_runtime(None)
    runtime.info()
    yield runtime
    runtime.close()


def test_equal_readings_that_follow_each_other_become_one():
    """Frames at 0, 1, … 7 of a clip that ends at 7.5."""
    said = ["GO", "GO ", "There is no text.", "GO", "STOP", "STOP", "", "STOP"]
    assert merge(list(enumerate(said)), 1.0, 7.5) == (
        Timed(0, 2.0, "GO"),
        Timed(3, 4.0, "GO"),
        Timed(4, 6.0, "STOP"),
        Timed(7, 7.5, "STOP"),
    )
    assert merge([], 1.0, 5.0) == ()
    # Frames whose true times lie closer than the step: no reading lasts beyond the next frame.
    assert merge([(0.0, "A"), (0.4, "B")], 0.5, 5.0) == (Timed(0.0, 0.4, "A"), Timed(0.4, 0.9, "B"))


def test_what_counts_as_no_text():
    for said in ("", " ", "None.", "There is no text.", "没有文字。", "a<|im_end|>"):
        assert is_nothing(said)
    for said in ("GO", "NO", "nonetheless"):
        assert not is_nothing(said)


def test_a_word_is_read_in_a_clip_and_a_broken_file_is_named(nano, tmp_path):
    demo = ASSETS / "demo" / "word-on-screen.mp4"  # shows COOL from its first to its last frame, 4 seconds
    (tmp_path / "word.mp4").write_bytes(demo.read_bytes())
    (tmp_path / "broken.mp4").write_bytes(b"x" * 500)
    items = [Item(name, (Medium(name, "video"),)) for name in ("broken.mp4", "word.mp4")]
    found, report = ocr(items, tmp_path, Asking(nano, tmp_path / "asked"))
    assert found[0].screen == ()
    assert report.reasons["a video cannot be read"].examples[0].startswith("broken.mp4: broken.mp4 is")
    # keye-nano's weights change: that it read something of this clip's length, not what, is looked at.
    assert found[1].screen == () or (found[1].screen[0].start == 0.0 and found[1].screen[-1].end <= 4.0)
    rows = [json.loads(line) for line in (tmp_path / "asked" / "predictions.jsonl").read_text().splitlines()]
    assert ["error" in row for row in rows] == [True, False]


class Counting:
    """A runtime that counts what it is asked and passes it on."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self.asked = runtime, 0

    def info(self):
        return self._runtime.info()

    def stream(self, messages, decoding, stop):
        self.asked += 1
        return self._runtime.stream(messages, decoding, stop)


def test_a_clip_is_captioned_at_each_rate_once(nano, tmp_path):
    encode_clip(make_scene(23, "test", 4.0), tmp_path / "a.mp4", (112, 112), fps=10)
    items = [Item("a.mp4", (Medium("a.mp4", "video"),)), Item("b.mp4", (Medium("a.mp4", "video"),), "It has one.")]
    counting = Counting(nano)
    asking = Asking(counting, tmp_path / "asked", rates=(0.5, 2.0))
    first, report = recaption(items, tmp_path, asking)
    assert [caption.fps for caption in first[0].captions] == [0.5, 2.0]
    assert all(caption.text and caption.by == "keye-nano" for caption in first[0].captions)
    assert first[1].captions == () and report.made == 2
    assert counting.asked == 2
    again, _ = recaption(items, tmp_path, asking)
    assert again == first and counting.asked == 2
    # Another question, another rate or another file is another answer; only what is missing is asked.
    recaption(items, tmp_path, Asking(counting, tmp_path / "asked", rates=(0.5, 1.0, 2.0)))
    assert counting.asked == 3
    recaption(items, tmp_path, Asking(counting, tmp_path / "asked", rates=(1.0,), caption_question="Describe it."))
    assert counting.asked == 4
    os.utime(tmp_path / "a.mp4", (1, 1))
    recaption(items, tmp_path, Asking(counting, tmp_path / "asked", rates=(1.0,)))
    assert counting.asked == 5


def test_a_stop_leaves_the_rest_for_the_next_time(nano, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        encode_clip(make_scene(23, "test", 2.0), tmp_path / name, (112, 112), fps=10)
    items = [Item(name, (Medium(name, "video"),)) for name in ("a.mp4", "b.mp4")]
    stop = threading.Event()
    asking = Asking(nano, tmp_path / "asked", stop, rates=(1.0,), tell=lambda done, total, failed: done and stop.set())
    found, report = recaption(items, tmp_path, asking)
    assert [len(item.captions) for item in found] == [1, 0]
    assert report.reasons["it was not asked about before the stop"].examples == ["b.mp4"]
    counting = Counting(nano)
    found, _ = recaption(items, tmp_path, Asking(counting, tmp_path / "asked", rates=(1.0,)))
    assert [len(item.captions) for item in found] == [1, 1]
    assert counting.asked == 1


def test_an_answer_that_does_not_end_is_named(nano, tmp_path):
    encode_clip(make_scene(23, "test", 2.0), tmp_path / "a.mp4", (112, 112), fps=10)
    item = Item("a.mp4", (Medium("a.mp4", "video"),))
    asking = Asking(nano, tmp_path / "asked", rates=(1.0,), max_tokens=1)
    (found,), report = recaption([item], tmp_path, asking)
    assert found.captions == ()
    assert list(report.reasons) == ["an answer was cut at the token limit"]


@pytest.mark.parametrize("wrong", [{"rates": ()}, {"rates": (0.0,)}, {"read_fps": float("nan")}, {"max_tokens": 0}])
def test_numbers_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(FinetuneError):
        Asking(None, tmp_path, **wrong)


PROGRAM = """
import argparse, sys
from finetune.data.cli import add_commands
parser = argparse.ArgumentParser()
add_commands(parser.add_subparsers())
args = parser.parse_args()
sys.exit(args.act(args))
"""


def test_a_killed_run_goes_on_where_it_was(nano, tmp_path):
    """Killed once the first answer is on the disk. The second run asks for the others only and ends like one that was
    never killed."""
    folder, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    for at in range(5):
        encode_clip(make_scene(at, "test", 2.0), folder / f"{at}.mp4", (112, 112), fps=10)
    given = [str(folder), "--runtime", "local", "--caption-fps", "1,2", "--out", str(out)]
    asked = out / "asked" / "predictions.jsonl"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, "data", "recaption", *given], **quiet)
    while first.poll() is None and not (asked.is_file() and asked.read_bytes().count(b"\n")):
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = asked.read_bytes().split(b"\n")[:-1]
    with asked.open("ab") as file:
        file.write(b'{"task": "recaption", "ind')  # as a kill in the middle of a line leaves it
    counting = Counting(nano)
    for place in (out, whole):
        asking = Asking(counting, place / "asked", rates=(1.0, 2.0))
        build(Plan(folder, place, ("recaption", "caption"), asking=asking))
    after = asked.read_bytes().splitlines()
    assert after[: len(before)] == before and before  # nothing lost …
    assert len(after) == len(set(after)) == 10  # … and nothing asked twice
    assert counting.asked == (10 - len(before)) + 10
    for name in ("rows-video.jsonl", "items.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
