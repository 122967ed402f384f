"""What a check finds: every kind of fault once, and nothing where nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.feedback.browse import browse, exclude, exclude_found, excluded
from finetune.feedback.checks import check
from tests.finetune.collected import Collected
from tests.finetune.test_splits import DEMOS, copied
from tests.media import make_clip


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collected]:
    made = Collected(tmp_path)
    yield made
    made.store.close()


def test_each_fault_is_found_of_the_answer_that_has_it(made: Collected, tmp_path: Path) -> None:
    clip = made.video(DEMOS[0])
    copy = made.video(copied(DEMOS[0], tmp_path / "copy.mkv"))
    tiny = made.video(make_clip(tmp_path / "tiny.mp4", frames=5, fps=10, size=(32, 32)))
    gone = made.bare("a")
    answers = {
        "good": made.ask("What?", "A red circle.", video=clip),
        "another": made.ask("What?", "Nothing at all.", video=clip),  # two answers to one question are no duplicates
        "part": made.ask("What?", "A red circle.", video=clip, start=0.5),
        "the same was there before": made.ask("what? ", "a red  circle.", video=clip),
        "looks like another one": made.ask("What?", "A blue one.", video=copy),
        "new question": made.ask("Why?", "Because.", video=copy),
        "a text is garbled": made.ask("What?", "ThÃ©Ã¢tre franÃ§ais â€œ", video=clip),
        "a text holds a control token": made.ask("Now?", "x <|im_end|>", video=clip),
        "a text repeats itself": made.ask("And?", "over and over " * 60, video=clip),
        "the resolution is too low": made.ask("What?", "Small.", video=tiny),
        "the video is no longer there": made.ask("What?", "Gone.", video=gone),
        "a text is not in the language it is marked with": made.ask(
            "这是什么颜色？", "It is a red circle that moves to the left.", video=clip
        ),
    }
    faults = {why for why in answers if " " in why and why != "new question"}
    assert check(made.store) == dict.fromkeys(faults, 1)
    found = {entry.answer: entry.finding for entry in browse(made.store).entries}
    assert found == {one: why if why in faults else None for why, (one,) in answers.items()}
    assert check(made.store) == dict.fromkeys(faults, 1)  # looking again finds the same
    assert exclude_found(made.store) == len(faults)
    assert excluded(made.store) == {answers[why][0] for why in faults}


def test_of_what_was_excluded_the_next_like_it_stays(made: Collected) -> None:
    clip = made.video(DEMOS[0])
    (one,) = made.ask("What?", "The same.", video=clip)
    (two,) = made.ask("What?", "The same.", video=clip)
    exclude(made.store, [one])
    assert check(made.store) == {}
    assert {entry.answer: entry.finding for entry in browse(made.store).entries} == {one: None, two: None}
