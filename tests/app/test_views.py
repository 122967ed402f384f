"""What the page shows, and that nothing of it acts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from app import views
from app.i18n import _table, language, say
from engine.runtime.base import Status
from engine.video.types import Clip, Frames, Sampling, VideoInfo

HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize(
    ("seconds", "plain", "fine"),
    [
        (0, "0:00", "0:00.0"),
        (7.04, "0:07", "0:07.0"),
        (59.96, "1:00", "1:00.0"),
        (67.25, "1:07", "1:07.2"),
        (3661, "1:01:01", "1:01:01.0"),
    ],
)
def test_clock(seconds: float, plain: str, fine: str) -> None:
    assert views.clock(seconds) == plain
    assert views.clock(seconds, tenths=True) == fine


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("It appears at 0:07.", {"0:07": 7}),
        ("From 0:01 to 0:02.5, then 00:03", {"0:01": 1, "0:02.5": 2.5, "00:03": 3}),
        ("in 16:9, at 10:99 and 1:2:3", {}),
        ("at 5:00, past the end", {}),
        ("0:04，然后0:05。", {"0:04": 4, "0:05": 5}),
    ],
)
def test_times_become_links(text: str, links: dict[str, float]) -> None:
    made = re.findall(r"\[([^\]]+)\]\(#t=([\d.]+)\)", views.answer_markdown(text, 0.0, 60.0))
    assert {label: float(at) for label, at in made} == links


def test_times_count_from_the_start_of_the_range() -> None:
    assert "[0:02](#t=12)" in views.answer_markdown("at 0:02", 10.0, 20.0)
    assert "#t=" not in views.answer_markdown("at 0:30", 10.0, 20.0)


def test_what_a_model_writes_reaches_nothing_outside_the_page() -> None:
    shown = views.answer_markdown(HOSTILE + " ![x](http://evil.example/a.png) &lt;b&gt;", 0, 60)
    assert "<" not in shown and "![" not in shown


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_titles_and_names_are_escaped(lang: str) -> None:
    shown = Tags(views.conversations_html([("id1", HOSTILE, "now")], "id1", lang))  # type: ignore[arg-type]
    assert {tag for tag, _ in shown.tags} <= {"ul", "li", "button", "span", "small"}
    assert HOSTILE in shown.words
    assert [a["data-open"] for tag, a in shown.tags if "data-open" in a] == ["id1"]


def test_suggestions_and_problems_are_escaped() -> None:
    for made in (views.suggestions_html([views.Suggestion(HOSTILE)], "en"), views.problem_html(HOSTILE)):
        assert not {"img", "script"} & {tag for tag, _ in Tags(made).tags}
    assert views.problem_html("") == "" and views.suggestions_html([], "en") == ""


def frames(kinds: tuple[str, ...] = ("slow", "slow")) -> Frames:
    info = VideoInfo(
        "v.mp4",
        "mp4",
        "h264",
        56,
        28,
        0,
        2.0,
        False,
        1.0,
        2,
        None,
        1,
        np.array([0.0, 0.5]),
        np.array([0.0]),  # type: ignore[arg-type]
    )
    picture = np.zeros((28, 56, 3), np.uint8)
    sampling = Sampling("test", budget=8)
    return Frames(Clip("v.mp4"), info, sampling, (picture, picture), (0.0, 0.5), kinds, 2.0)  # type: ignore[arg-type]


def test_the_strip_shows_times_and_what_is_spent_of_the_budget() -> None:
    shown = Tags(views.strip_html(frames(), ["2 frames <b>"], "en"))
    seeks = [float(a["data-seek"] or -1) for tag, a in shown.tags if "data-seek" in a]
    assert seeks == [0.0, 0.5]
    assert "4 of 8 visual tokens" in shown.words and "2 frames at 2 per second" in shown.words
    meter = next(a for tag, a in shown.tags if a.get("role") == "meter")
    assert (meter["aria-valuenow"], meter["aria-valuemax"]) == ("4", "8")
    assert "slow" not in shown.words and "b" not in {tag for tag, _ in shown.tags}


def test_the_strip_marks_fast_frames_where_there_are_some() -> None:
    words = Tags(views.strip_html(frames(("slow", "fast")), [], "en")).words
    assert "slow" in words and "fast" in words
    assert "快帧" in views.strip_html(frames(("slow", "fast")), [], "zh")


def test_the_model_line_follows_the_status() -> None:
    assert "width:25.0%" in views.model_html(Status("starting", "Downloading", 0.25), None, "en")
    failed = views.model_html(Status("failed", HOSTILE), None, "en")
    assert 'role="alert"' in failed and "<img" not in failed


def test_both_languages_have_every_sentence_with_the_same_values() -> None:
    for key, row in _table().items():
        assert set(row) == {"en", "zh"}, key
        assert set(re.findall(r"{(\w+)", row["en"])) == set(re.findall(r"{(\w+)", row["zh"])), key


def test_the_language_comes_from_the_browser_and_may_be_anything() -> None:
    assert [language(v) for v in ("zh", "en", None, 7, {"a": 1}, "<script>")] == ["zh", "en", "en", "en", "en", "en"]
    assert say("queued", "zh", n=2) == "排队中：前面还有 2 个"
