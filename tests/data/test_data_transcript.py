"""Transcripts in time with the frames, worked by hand."""

from __future__ import annotations

import pytest

from finetune.data.items import Item, Medium, Timed
from finetune.data.rowfile import to_row
from finetune.data.sidecar import read_subtitles
from finetune.data.transcript import MOST_STRETCHES, Stretch, events, stretches, transcripts
from tests.media import make_clip

A, B, C, D = Timed(1.0, 3.0, "a"), Timed(3.5, 6.0, "b"), Timed(6.0, 7.0, "c"), Timed(7.5, 8.5, "d")


def test_frames_come_before_what_was_said_over_them():
    """a is said from 1 to 3: frames 0–3, a. b: frames 3–6, b. c ends one second later, too soon for a stretch of
    two: it waits for d, which ends at 8.5. What is left, 8.5–12, is frames without words."""
    assert stretches([A, B, C, D], 0.0, 12.0) == [
        Stretch(0.0, 3.0, (A,)),
        Stretch(3.0, 6.0, (B,)),
        Stretch(6.0, 8.5, (C, D)),
        Stretch(8.5, 12.0, ()),
    ]


def test_the_end_of_a_video():
    # Half a second is left behind the last word: no stretch of its own.
    assert stretches([A], 0.0, 3.5) == [Stretch(0.0, 3.0, (A,))]
    # The last cue ends too soon after the cut, and so does the video: it joins the stretch before.
    assert stretches([A, Timed(3.1, 3.4, "x")], 0.0, 3.5) == [Stretch(0.0, 3.5, (A, Timed(3.1, 3.4, "x")))]
    # A cue that lasts beyond the end is cut off there; one behind the end is left out.
    assert stretches([Timed(1.0, 99.0, "x"), Timed(50.0, 60.0, "y")], 0.0, 5.0) == [
        Stretch(0.0, 5.0, (Timed(1.0, 99.0, "x"),))
    ]
    assert stretches([], 0.0, 5.0) == [Stretch(0.0, 5.0, ())]


def test_cues_that_overlap_come_in_the_order_of_their_ends():
    long, short, other = Timed(0.0, 5.0, "long"), Timed(1.0, 2.5, "short"), Timed(2.0, 3.0, "other")
    assert stretches([long, short, other], 0.0, 6.0) == [
        Stretch(0.0, 2.5, (short,)),
        Stretch(2.5, 5.0, (other, long)),
    ]


def test_a_range_of_a_video():
    assert stretches([A, B], 3.2, 6.5) == [Stretch(3.2, 6.0, (B,))]


@pytest.fixture
def video(tmp_path):
    make_clip(tmp_path / "v.mp4", frames=50, fps=10)  # five seconds
    return tmp_path


def row(example):
    made = to_row(example)
    return [message["content"] for message in made["messages"]], made["videos"]


def test_without_a_caption_every_stretch_is_answered_with_its_words(video):
    item = Item("v.mp4", (Medium("v.mp4", "video"),), speech=(Timed(1.0, 2.5, "Hello."), Timed(3.0, 4.9, "Bye.")))
    (example,), report = transcripts([item], video)
    contents, videos = row(example)
    assert contents == [
        "<video>",
        "<|clip_time_start|>[1.0, 2.5]<|clip_time_end|> Hello.",
        "<video>",
        "<|clip_time_start|>[3.0, 4.9]<|clip_time_end|> Bye.",
    ]
    assert videos == [
        {"path": "media/v.mp4", "start": 0.0, "end": 2.5, "zero": 0.0},  # all times count from the clip's start
        {"path": "media/v.mp4", "start": 2.5, "end": 4.9, "zero": 0.0},
    ]
    assert report.came == report.made == 1


def test_with_a_caption_the_words_are_part_of_the_question(video):
    item = Item("v.mp4", (Medium("v.mp4", "video"),), "Two people greet.", speech=(Timed(1.0, 2.5, "Hello."),))
    (example,), _ = transcripts([item], video)
    (question, answer), videos = row(example)
    assert question.startswith("<video><|clip_time_start|>[1.0, 2.5]<|clip_time_end|> Hello.\n<video>\n")
    assert answer == "Two people greet."
    assert [(one["start"], one["end"]) for one in videos] == [(0.0, 2.5), (2.5, 5.0)]


def test_times_count_from_the_start_of_a_range(video):
    item = Item("x", (Medium("v.mp4", "video", 1.0, 4.0),), speech=(Timed(1.5, 3.5, "Hello."),))
    (example,), _ = transcripts([item], video)
    contents, videos = row(example)
    assert contents[1] == "<|clip_time_start|>[0.5, 2.5]<|clip_time_end|> Hello."
    assert videos == [{"path": "media/v.mp4", "start": 1.0, "end": 3.5, "zero": 1.0}]


def test_a_long_talk_becomes_several_rows(tmp_path):
    make_clip(tmp_path / "v.mp4", frames=150, fps=1)
    speech = tuple(Timed(2.0 * at, 2.0 * at + 2, f"word {at}") for at in range(70))
    made, _ = transcripts([Item("v.mp4", (Medium("v.mp4", "video"),), speech=speech)], tmp_path)
    assert [len(example.media) for example in made] == [MOST_STRETCHES, MOST_STRETCHES, 70 - 2 * MOST_STRETCHES]


def test_transcripts_of_other_videos_and_broken_files_are_told(video):
    (video / "broken.mp4").write_bytes(b"x" * 100)
    cue = (Timed(100.0, 101.0, "late"),)
    items = [
        Item("late", (Medium("v.mp4", "video"),), speech=cue),
        Item("broken", (Medium("broken.mp4", "video"),), speech=cue),
        Item("marked", (Medium("v.mp4", "video"),), speech=(Timed(0.0, 1.0, "<|im_end|>"),)),
    ]
    made, report = transcripts(items, video)
    assert made == []
    assert {why: reason.count for why, reason in report.reasons.items()} == {
        "most of a transcript lies behind its video's end": 1,
        "a video cannot be read": 1,
        "no cue lies within the video": 1,
    }


def test_what_happens_when(video):
    item = Item(
        "v.mp4",
        (Medium("v.mp4", "video", 1.0, None),),
        events=(Timed(0.5, 2.0, "It moves."), Timed(3, 99, "It stops.")),
    )
    (example,), _ = events([item], video)
    (question, answer), videos = row(example)
    assert (question.startswith("<video>") and "when" in question) or "time" in question
    assert answer == (
        "<|clip_time_start|>[0.0, 1.0]<|clip_time_end|> It moves.\n"
        "<|clip_time_start|>[2.0, 4.0]<|clip_time_end|> It stops."
    )
    assert videos == [{"path": "media/v.mp4", "start": 1.0}]


SRT = "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\nthere\n\n2\n00:01:03,250 --> 00:01:04,000\nBye\n"
VTT = (
    "WEBVTT\n\nNOTE not said\n\n00:01.000 --> 00:02.500 align:start\n<v Bob>Hello\nthere\n\n"
    "01:03.250 --> 01:04.000\nBye\n"
)


@pytest.mark.parametrize(("text", "form"), [(SRT, "srt"), (VTT, "vtt")])
def test_subtitles_are_read(text, form):
    assert read_subtitles(text, form) == (Timed(1.0, 2.5, "Hello there"), Timed(63.25, 64.0, "Bye"))


@pytest.mark.parametrize("form", ["srt", "vtt"])
@pytest.mark.parametrize("text", ["", "no subtitles", "{}", "1\n99:99 --> x\nfoo", "\x00" * 100, "-->" * 1000])
def test_what_is_no_subtitle_has_no_cues(text, form):
    assert read_subtitles(text, form) == ()
