"""What is said among the frames: where it stands, what it costs, and that training rows have the same form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.keye.processing import KeyeProcessor, encode
from engine.prompt import interleaved, joined, render
from engine.reasoning.tools import Workbench
from engine.runtime.base import Message
from engine.runtime.source import NANO
from engine.timed import Timed
from engine.video import PRESETS, Clip, Frames, Sampling, sample
from engine.video.address import clip_url, read_clip_url
from finetune.data.items import Item, Medium
from finetune.data.rowfile import to_row
from finetune.data.rows import Footage, parse_row
from finetune.data.transcript import transcripts
from tests.media import index_of, make_clip

SMALL = Sampling("small", fps=2.0, min_frames=4, max_frames=64, min_frame_tokens=4, max_frame_tokens=16, budget=512)
CUES = [Timed(1.0, 3.0, "Hello."), Timed(4.0, 6.5, "It is red."), Timed(9.0, 9.5, "Bye.")]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds at ten frames a second; the index of a frame is its tenth of a second."""
    return make_clip(tmp_path_factory.mktemp("film") / "film.mp4", frames=100, fps=10, size=(112, 112))


def seen(parts: tuple[object, ...]) -> list[Frames]:
    return [part for part in parts if isinstance(part, Frames)]


def test_frames_come_before_what_was_said_over_them(film: Path) -> None:
    parts = interleaved(Clip(film), CUES, SMALL)
    assert [part for part in parts if isinstance(part, str)] == [
        "<|clip_time_start|>[1.0, 3.0]<|clip_time_end|> Hello.\n",
        "<|clip_time_start|>[4.0, 6.5]<|clip_time_end|> It is red.\n",
        "<|clip_time_start|>[9.0, 9.5]<|clip_time_end|> Bye.\n",
    ]
    assert [type(part) for part in parts] == [Frames, str] * 3
    spans = [(frames.clip.start, frames.clip.end, frames.start) for frames in seen(parts)]
    # The half second behind the last word is too short for a stretch and is seen with it.
    assert spans == [(0.0, 3.0, 0.0), (3.0, 6.5, 0.0), (6.5, 10.0, 0.0)]
    for frames in seen(parts):
        assert [index_of(image) for image in frames.images] == [round(time * 10) for time in frames.times]


def test_all_stretches_together_keep_the_budget_and_the_frames(film: Path) -> None:
    for budget, most in ((512, 64), (100, 64), (512, 10), (24, 64)):
        limits = SMALL.with_limits(budget=budget, max_frames=most)
        parts = interleaved(Clip(film), CUES, limits)
        alone = sample(Clip(film), limits)
        whole = joined(parts, limits)
        assert whole.total_tokens <= budget
        assert len(whole.images) <= len(alone.images)
        assert list(whole.times) == sorted(whole.times) and whole.sampling == limits
        assert sum(map(len, (frames.images for frames in seen(parts)))) == len(whole.images)


def test_a_range_counts_from_its_start_and_takes_what_is_said_in_it(film: Path) -> None:
    parts = interleaved(Clip(film, 3.5, 7.0), CUES, SMALL)
    assert [part for part in parts if isinstance(part, str)] == [
        "<|clip_time_start|>[0.5, 3.0]<|clip_time_end|> It is red.\n"
    ]
    assert [(frames.clip.start, frames.clip.end, frames.start) for frames in seen(parts)] == [(3.5, 7.0, 3.5)]


def test_nothing_said_is_the_clip_alone(film: Path) -> None:
    for cues in ([], [Timed(20.0, 21.0, "late")], [Timed(1.0, 2.0, "<|im_end|>")]):
        (frames,) = interleaved(Clip(film), cues, SMALL)
        assert isinstance(frames, Frames) and frames == sample(Clip(film), SMALL)


def test_many_lines_are_no_more_than_32_stretches(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "long.mp4", frames=200, fps=1, size=(56, 56))
    cues = [Timed(2.0 * i, 2.0 * i + 1.9, f"line {i}") for i in range(100)]
    parts = interleaved(Clip(film), cues, SMALL.with_limits(max_frames=768, budget=24576))
    assert len(seen(parts)) <= 32
    said = "".join(part for part in parts if isinstance(part, str))
    assert [f"line {i}" in said for i in range(100)] == [True] * 100


def test_a_question_reads_like_a_row_for_training(film: Path) -> None:
    """The same clip and words, once as a row that `finetune data build` writes and once as a question."""
    item = Item("film.mp4", (Medium("film.mp4", "video"),), "A shape.", speech=tuple(CUES[:2]))
    (example,), _ = transcripts([item], film.parent)
    row = json.loads(json.dumps(to_row(example)).replace("media/film.mp4", "film.mp4"))
    turn = parse_row(row, film.parent, "row").turns[0]
    parts = interleaved(Clip(film), CUES[:2], SMALL)
    shown = [part for part in turn.parts if isinstance(part, Footage)]
    asked = [frames.clip for frames in seen(parts)]
    assert [footage.clip for footage in shown] == asked
    told = [part for part in turn.parts if isinstance(part, str)]
    said = [part for part in parts if isinstance(part, str)]
    assert [one.strip() for one in told[: len(said) - 1]] == [one.strip() for one in said[:-1]]


@pytest.mark.parametrize("per_frame", [False, True])
def test_the_model_gets_a_placeholder_for_each_stretch_and_true_times(film: Path, per_frame: bool) -> None:
    processor = KeyeProcessor.from_pretrained(NANO)
    processor.per_frame = per_frame  # 1.5 writes the time of every frame
    parts = interleaved(Clip(film, 2.0, 10.0), CUES, SMALL)
    text, media = render([Message("user", (*parts, "What is said?"))], processor.apply_chat_template)
    # The first line ends a second after the clip begins, too soon for a stretch: it waits for the second.
    assert text.count("<|video_pad|>") == len(media) == len(seen(parts)) == 2
    assert text.index("Hello.") < text.index("It is red.") < text.index("What is said?")
    inputs = encode(processor, text, media)
    read = processor.decode(inputs["input_ids"][0])
    assert read.count("<|video_pad|>") == sum(frames.total_tokens for frames in seen(parts))
    if per_frame:  # the second stretch begins where the first ended, not at zero again
        second = seen(parts)[1]
        assert f"<|frame|>{second.times[0] - 2.0:.1f}<|video_pad|>" in read and second.times[0] == pytest.approx(
            6.5, abs=0.1
        )


def test_tools_look_at_the_stretches_as_one_clip(film: Path) -> None:
    parts = interleaved(Clip(film, 2.0, 10.0), CUES, SMALL)
    bench = Workbench([Message("user", (*parts, "?"))])
    for time in (0.0, 1.0, 4.4, 7.9):
        picture = bench._frame(time)
        assert index_of(picture.image) == pytest.approx(20 + time * 10, abs=1)


def test_an_address_carries_where_times_count_from() -> None:
    clip = Clip(Path("/a b.mp4"), 3.0, 6.5, 1.25)
    _, read, sampling = read_clip_url(clip_url(clip, SMALL), PRESETS["keye-vl-1.5"])
    assert (read, sampling) == (clip, SMALL) and "zero=1.25" in clip_url(clip, SMALL)
    assert read_clip_url(clip_url(Clip(clip.path, 3.0), SMALL), SMALL)[1].zero is None
