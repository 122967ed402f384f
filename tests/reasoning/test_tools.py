"""Tool calls on a real clip whose frames can be told apart; every wrong call is a sentence."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import ToolCall, ToolResult
from engine.reasoning import tools
from engine.reasoning.sandbox import unavailable
from engine.reasoning.tools import NAMES, Workbench
from engine.runtime.base import Message
from engine.video import Clip, Frames, sample
from engine.video.types import Sampling
from tests.media import index_of, make_clip

NO_STOP = threading.Event()
SMALL = Sampling("small", fps=2, min_frames=4, max_frames=8, min_frame_tokens=4, max_frame_tokens=16, budget=128)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """3 s of 640×480 whose frame i shows i; the model sees it at 112×84 or so."""
    path = tmp_path_factory.mktemp("tools") / "clip.mp4"
    make_clip(path, frames=75, fps=25, size=(640, 480))
    return sample(Clip(path, 0.5, 2.5), SMALL)


@pytest.fixture
def bench(frames: Frames) -> Workbench:
    return Workbench([Message("user", (frames, "What?"))])


def call(bench: Workbench, tool: str, **arguments: Any) -> ToolResult:
    text = json.dumps({"name": tool, "arguments": arguments})
    return bench.run(ToolCall(text), NO_STOP)


def test_the_frame_at_a_time_is_that_of_the_file(bench: Workbench) -> None:
    result = call(bench, "frame", time=1.0)  # 1.5 s of the file
    assert result.ok and result.image is not None
    assert index_of(result.image) == 37 or index_of(result.image) == 38
    assert result.time == pytest.approx(1.5, abs=0.021)


def test_a_crop_shows_the_files_detail_and_where_it_was(bench: Workbench, frames: Frames) -> None:
    height, width = frames.images[0].shape[:2]
    box = [0, 0, width // 4, height // 4]
    result = call(bench, "crop", time=0, box=box)
    assert result.ok and result.image is not None and result.box == tuple(box)
    # A quarter of the seen frame, but with more pixels than were seen there: 160×120 of the file, fitted.
    assert result.image.shape[1] > width // 4
    assert result.image.shape[0] * result.image.shape[1] <= SMALL.max_frame_tokens * 28 * 28
    assert result.frame is not None
    red = (result.frame.astype(int) - (230, 30, 40)).__abs__().sum(-1) < 12
    rows, columns = np.nonzero(red)
    assert (rows.max() + 1) / result.frame.shape[0] == pytest.approx(0.25, abs=0.01)
    assert (columns.max() + 1) / result.frame.shape[1] == pytest.approx(0.25, abs=0.01)


def test_results_can_be_looked_at_again(bench: Workbench) -> None:
    first = call(bench, "zoom", time=0.5, box=[0, 0, 40, 40])
    second = call(bench, "rotate", degrees=90)
    assert first.image is not None and second.image is not None
    assert np.array_equal(second.image, np.rot90(first.image, -1))
    again = call(bench, "rotate", picture=1, degrees=90)
    assert again.image is not None and np.array_equal(again.image, second.image)
    assert second.time is None and second.frame is None


def test_pictures_of_the_question_come_first() -> None:
    picture = np.arange(30 * 30 * 3, dtype=np.uint32).reshape(30, 30, 3).astype(np.uint8)
    bench = Workbench([Message("user", (picture, "What?"))])
    result = call(bench, "crop", picture=1, box=[0, 0, 10, 10])
    assert result.image is not None and np.array_equal(result.image, picture[:10, :10])
    assert "no clip" in call(bench, "frame", time=1).text


def test_a_box_that_sticks_out_is_cut_and_told(bench: Workbench, frames: Frames) -> None:
    height, width = frames.images[0].shape[:2]
    result = call(bench, "crop", time=0, box=[-50, -50, 30, 20])
    assert result.ok and result.box == (0, 0, 30, 20) and "cut to [0, 0, 30, 20]" in result.text
    outside = call(bench, "crop", time=0, box=[width + 1, 0, width + 50, 20])
    assert not outside.ok and f"{width}×{height}" in outside.text and outside.image is None


def test_pixels_are_text(bench: Workbench) -> None:
    result = call(bench, "pixels", time=0, box=[0, 0, 8, 8])
    assert result.ok and result.image is None and result.text.startswith("mean ")


@pytest.mark.parametrize("name", ["contrast", "brightness", "draw_box", "grid", "crop", "zoom", "rotate"])
def test_every_picture_fits_into_a_thought(bench: Workbench, name: str) -> None:
    arguments: dict[str, Any] = {"time": 1}
    if name in ("draw_box", "crop", "zoom"):
        arguments["box"] = [0, 0, 100, 80]
    arguments |= {"contrast": {"factor": 2}, "brightness": {"factor": 2}, "rotate": {"degrees": 33}}.get(name, {})
    arguments |= {"zoom": {"times": 16}}.get(name, {})
    result = call(bench, name, **arguments)
    assert result.ok and result.image is not None
    assert result.image.shape[0] * result.image.shape[1] <= SMALL.max_frame_tokens * 28 * 28


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("crop(1, 2)", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object"),
        ('{"name": "fly"}', "no tool 'fly'"),
        ('{"name": "__class__"}', "no tool"),
        ('{"name": ["crop"]}', "no tool"),
        ('{"name": "crop", "arguments": 3}', "not an object"),
        ('{"name": "crop", "arguments": {"time": 1}}', "needs a box"),
        ('{"name": "crop", "arguments": {"time": 1, "box": [1, 2, 3]}}', "needs a box"),
        ('{"name": "crop", "arguments": {"time": 1, "box": [1, 2, 3, "4"]}}', "must be a number"),
        ('{"name": "crop", "arguments": {"time": 1, "box": [1, 2, 3, NaN]}}', "must be a number"),
        ('{"name": "crop", "arguments": {"time": 1, "box": [5, 5, 5, 9]}}', "holds nothing"),
        ('{"name": "crop", "arguments": {"time": 1, "box": [0, 0, 100, 1]}}', "too thin"),
        ('{"name": "zoom", "arguments": {"time": 1, "box": [0, 0, 9, 9], "times": 1e9}}', "must be from"),
        ('{"name": "zoom", "arguments": {"time": 1, "box": [0, 0, 9, 9], "times": 1%s}}' % ("0" * 400), "number"),
        ('{"name": "rotate", "arguments": {"time": 1}}', "needs degrees"),
        ('{"name": "rotate", "arguments": {"time": true, "degrees": 1}}', "must be a number"),
        ('{"name": "crop", "arguments": {"time": 99, "box": [0, 0, 9, 9]}}', "no frame at 99"),
        ('{"name": "crop", "arguments": {"picture": 3, "box": [0, 0, 9, 9]}}', "must be from|no picture"),
        ('{"name": "crop", "arguments": {"picture": 1, "time": 1, "box": [0, 0, 9, 9]}}', "not both"),
        ('{"name": "crop", "arguments": {"path": "/etc/passwd", "box": [0, 0, 9, 9]}}', "no argument path"),
        ('{"name": "frame", "arguments": {}}', "needs a time"),
        ('{"name": "python", "arguments": {}}', "needs its code"),
    ],
)
def test_a_wrong_call_is_a_sentence_to_the_model(bench: Workbench, text: str, words: str) -> None:
    import re

    result = bench.run(ToolCall(text), NO_STOP)
    assert not result.ok and result.image is None
    assert re.search(words, result.text), result.text
    assert len(result.text) < 400


values = st.none() | st.booleans() | st.floats() | st.integers(-5, 200) | st.text(max_size=4)
boxes = st.lists(st.floats() | st.integers(-50, 200), max_size=5)


@given(
    st.sampled_from(NAMES[:-1]),
    st.dictionaries(st.sampled_from(["time", "picture", "times", "degrees", "factor", "rows", "columns", "x"]), values),
    boxes,
)
def test_no_call_raises(name: str, arguments: dict[str, Any], box: list[float]) -> None:
    bench = Workbench([Message("user", (np.zeros((60, 90, 3), np.uint8), "What?"))])
    result = call(bench, name, **{**arguments, "box": box})
    assert result.ok or result.text


def test_code_gets_the_frames_at_the_files_resolution(bench: Workbench, frames: Frames) -> None:
    if unavailable():
        pytest.skip(unavailable())
    code = "from PIL import Image\nim = Image.open('frame_2.png')\nprint(im.size)\nim.save('out.png')"
    result = bench.run(ToolCall(code, code=True), NO_STOP)
    assert result.ok and result.text == "(640, 480)", result
    assert result.image is not None and index_of(result.image) == round(frames.times[1] * 25)
    again = bench.run(ToolCall(json.dumps({"name": "python", "arguments": {"code": "1 / 0"}})), NO_STOP)
    assert not again.ok and "ZeroDivisionError" in again.text


def test_where_code_is_off_the_model_is_told_what_there_is(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "unavailable", lambda: "Python code of the model is not run: no sandbox.")
    result = bench.run(ToolCall("print(1)", code=True), NO_STOP)
    assert not result.ok and "crop, zoom" in result.text
    assert call(bench, "crop", time=0, box=[0, 0, 50, 50]).ok


def test_a_result_can_be_sent_as_json(bench: Workbench) -> None:
    plain = json.loads(json.dumps(call(bench, "crop", time=0, box=[0, 0, 50, 50]).to_dict()))
    assert plain["image"].startswith("data:image/png;base64,") and plain["box"] == [0, 0, 50, 50]
    assert json.loads(json.dumps(call(bench, "fly").to_dict()))["image"] is None
