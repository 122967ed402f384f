"""Two answers of one question: asked together, ended each by itself, chosen between, and shown without harm."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.chat import chat_messages
from app.compare import choose, other_mode, taken
from app.config import AppConfig
from app.errors import AppError
from app.jobs import watch
from app.session import Session
from app.sides import choice, sides_html
from app.studio import ClipChoice, Limits, Manner, Studio
from engine.events import Answer, Done, Error, Event
from engine.reasoning.modes import MODE_NAMES
from engine.runtime.base import Decoding, Message
from finetune.feedback import Comparison
from tests.app.conftest import ScriptedRuntime
from tests.app.test_views import HOSTILE, Tags

BOTH = (Manner("think", 200), Manner("no_think", 200))


class Modes(ScriptedRuntime):
    """Answers by the mode's switch; `meet` holds each back until all have begun."""

    def __init__(self) -> None:
        super().__init__()
        self.said = {"/think": ["<think>", "two and two", "</think>", "four"], "/no_think": ["five"]}
        self.fails = ""
        self.meet: threading.Barrier | None = None

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        self.heard.append(messages)
        last = str(messages[-1].parts[-1])
        switch = next((s for s in sorted(self.said, key=len, reverse=True) if last.endswith(s)), "/no_think")
        if self.meet is not None:
            self.meet.wait(60)
        if self.fails == switch:
            yield Error("The memory ran out: lower the budget.")
            yield Done(finish="error", text="", model="scripted")
            return
        for piece in self.said[switch]:
            yield Answer(piece)
        text = "".join(self.said[switch])
        tokens = len(self.said[switch])
        yield Done(finish="stop", text=text, model="scripted", answer_tokens=tokens, first_token_seconds=0.1)


@pytest.fixture
def runtime() -> Modes:
    return Modes()


@pytest.fixture
def sha(studio: Studio, clip: Path) -> str:
    return studio.add_video(clip, clip.name)[0]


def compared(studio: Studio, sha: str, blind: bool = False, conversation: str | None = None) -> tuple[str, Comparison]:
    conversation, jobs = studio.compare(conversation, "How many?", ClipChoice(sha), Limits(), BOTH, blind)
    for job in jobs:
        job.join(60)
    comparison = studio.turns(conversation)[-1].comparison
    assert comparison is not None
    return conversation, comparison


def test_both_are_asked_at_once_each_in_its_mode(studio: Studio, runtime: Modes, sha: str) -> None:
    runtime.meet = threading.Barrier(2)  # neither begins before the other has
    _, comparison = compared(studio, sha)
    assert {str(m[-1].parts[-1]) for m in runtime.heard} == {"How many?/think", "How many?/no_think"}
    left, right = comparison.left, comparison.right
    assert (left.mode, left.text, right.mode, right.text) == ("think", "four", "no_think", "five")
    assert left.usage is not None and left.usage["thought_tokens"] > 0 and right.usage is not None
    assert left.frames == right.frames and left.finish == right.finish == "stop"


def test_both_are_watched_together(studio: Studio, sha: str) -> None:
    conversation, _ = studio.compare(None, "How many?", ClipChoice(sha), Limits(), BOTH)
    *_, last = watch(studio.jobs(conversation))
    assert [now.done is not None for now in last] == [True, True] and [now.text for now in last] == ["four", "five"]


def test_a_failing_side_leaves_the_other_and_the_conversation_goes_on_from_it(
    studio: Studio, runtime: Modes, sha: str
) -> None:
    runtime.fails = "/think"
    conversation, comparison = compared(studio, sha)
    assert comparison.left.error == "The memory ran out: lower the budget." and comparison.right.text == "five"
    runtime.fails = ""
    with pytest.raises(AppError, match="says nothing"):
        choose(studio.store, conversation, comparison.question, "right")
    studio.ask(conversation, "And now?", ClipChoice(sha), Limits(), Manner("no_think"))[1].join(60)
    assert runtime.heard[-1][1].parts == ("five",)


def test_the_conversation_goes_on_from_the_better_answer(studio: Studio, runtime: Modes, sha: str) -> None:
    conversation, comparison = compared(studio, sha)
    choose(studio.store, conversation, comparison.question, "right")
    studio.ask(conversation, "And now?", ClipChoice(sha), Limits(), Manner("no_think"))[1].join(60)
    assert runtime.heard[-1][1].parts == ("five",)
    conversation, comparison = compared(studio, sha, conversation=conversation)
    assert [turn.comparison is not None for turn in studio.turns(conversation)] == [True, False, True]


def test_a_choice_is_made_changed_and_taken_back(studio: Studio, sha: str) -> None:
    conversation, comparison = compared(studio, sha)

    def now() -> str | None:
        found = studio.turns(conversation)[0].comparison
        assert found is not None
        return choice(found)

    for verdict in ("left", "both_good", "right", "both_bad", "left"):
        choose(studio.store, conversation, comparison.question, verdict)
        assert now() == verdict
    choose(studio.store, conversation, comparison.question, "left")
    assert now() is None


def test_what_cannot_be_compared_or_chosen_is_one_sentence(studio: Studio, runtime: Modes, sha: str) -> None:
    with pytest.raises(AppError, match="two different"):
        studio.compare(None, "How many?", ClipChoice(sha), Limits(), (BOTH[0], BOTH[0]))
    assert studio.conversations() == []
    conversation, comparison = compared(studio, sha)
    for question, verdict in ((comparison.question, "best"), ("nobody", "left"), (HOSTILE, HOSTILE)):
        with pytest.raises(AppError, match="no two answers"):
            choose(studio.store, conversation, question, verdict)
    other, _ = compared(studio, sha)
    with pytest.raises(AppError, match="no two answers"):  # of another conversation
        choose(studio.store, other, comparison.question, "left")
    runtime.meet = threading.Barrier(3)
    conversation, jobs = studio.compare(None, "How many?", ClipChoice(sha), Limits(), BOTH)
    running = studio.turns(conversation)[0].comparison
    assert running is not None
    with pytest.raises(AppError, match="Wait until"):
        choose(studio.store, conversation, running.question, "left")
    with pytest.raises(AppError, match="still being written"):
        studio.ask(conversation, "And?", ClipChoice(sha), Limits())
    runtime.meet.wait(60)
    for job in jobs:
        job.join(60)


def test_blind_sides_are_drawn(studio: Studio, sha: str) -> None:
    drawn = [compared(studio, sha, blind=True)[1].left.mode for _ in range(24)]
    assert set(drawn) == {"think", "no_think"}  # all on one side once in eight million times
    assert {turn.question.mode for c, _, _ in studio.conversations() for turn in studio.turns(c)} == {"think"}


def test_an_ended_process_leaves_two_stopped_sides(studio: Studio, runtime: Modes, sha: str, tmp_path: Path) -> None:
    runtime.meet = threading.Barrier(3)
    conversation, jobs = studio.compare(None, "How many?", ClipChoice(sha), Limits(), BOTH, blind=True)
    seen = Studio(AppConfig(data=tmp_path / "data"), runtime).turns(conversation)[0].comparison
    assert seen is not None and seen.blind and {seen.left.finish, seen.right.finish} == {"running"}
    runtime.meet.wait(60)
    for job in jobs:
        job.join(60)


# -- what is shown ----------------------------------------------------------------------------------------------

SPAN = (0.0, 60.0)


def shown(comparison: Comparison, lang: str = "en") -> Tags:
    return Tags(sides_html(comparison, (), SPAN, lang))  # type: ignore[arg-type]


def test_each_side_has_its_mode_thought_time_and_tokens(studio: Studio, sha: str) -> None:
    conversation, comparison = compared(studio, sha)
    words = shown(comparison).words
    assert words.index("Think") < words.index("two and two") < words.index("four") < words.index("Direct")
    assert "4 tokens" in words and re.search(r"1 token(?!s)", words) and len(re.findall(r"\d\.\d s · ", words)) == 2
    _, message = chat_messages(studio.turns(conversation), (), "en")
    assert message["content"].value == sides_html(comparison, (), SPAN, "en")


def test_the_choice_is_pressed_and_marks_the_better_side(studio: Studio, sha: str) -> None:
    conversation, comparison = compared(studio, sha)
    assert {a["aria-pressed"] for tag, a in shown(comparison).tags if tag == "button"} == {"false"}
    for verdict, classes in (
        ("right", ["ks-worse", "ks-better"]),
        ("both_good", ["ks-better", "ks-better"]),
        ("both_bad", ["ks-worse", "ks-worse"]),
    ):
        choose(studio.store, conversation, comparison.question, verdict)
        found = studio.turns(conversation)[0].comparison
        assert found is not None
        tags = shown(found).tags
        pressed = [a["data-verdict"] for tag, a in tags if tag == "button" and a["aria-pressed"] == "true"]
        sides = [(a["class"] or "").split()[1] for tag, a in tags if tag == "article"]
        assert pressed == [verdict] and sides == classes


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_blind_says_nothing_of_the_modes_before_the_choice(studio: Studio, sha: str, lang: str) -> None:
    conversation, comparison = compared(studio, sha, blind=True)
    hidden = sides_html(comparison, (), SPAN, lang)  # type: ignore[arg-type]
    for told in ("Think", "Direct", "思考", "直接", "two and two", "<details", "ks-facts"):
        assert told not in hidden.replace("之后会显示方式、思考和用时。", "")
    assert "four" in hidden and "five" in hidden
    choose(studio.store, conversation, comparison.question, "both_good")
    for _ in range(2):  # the second time it is taken back: what was seen stays seen
        found = studio.turns(conversation)[0].comparison
        assert found is not None and "two and two" in shown(found).words
        choose(studio.store, conversation, comparison.question, "both_good")


def test_blind_hides_what_was_done_to_a_thought_but_not_that_a_side_failed(
    studio: Studio, runtime: Modes, sha: str
) -> None:
    runtime.said["/think"] = ["<think>", *["on and on "] * 300, "</think>", "four"]
    _, comparison = compared(studio, sha, blind=True)
    assert "⚠" not in sides_html(comparison, (), SPAN, "en")
    runtime.fails = "/no_think"
    _, comparison = compared(studio, sha, blind=True)
    assert "The memory ran out" in shown(comparison).words
    assert "Think" in shown(comparison).words  # nothing to choose: nothing is left to hide


def test_what_a_model_writes_reaches_nothing_outside_the_page(studio: Studio, runtime: Modes, sha: str) -> None:
    bad = HOSTILE + " ![x](http://evil.example/a.png) [y](javascript:alert(1)) <b> ${alert(3)} {{value}}"
    runtime.said = {"/think": ["<think>", bad, "</think>", bad], "/no_think": [bad]}
    _, comparison = compared(studio, sha)
    tags = shown(comparison).tags
    assert not [a for tag, a in tags if tag in ("img", "script") or any(name.startswith("on") for name in a)]
    assert not [a for tag, a in tags if tag == "a" and not (a["href"] or "").startswith(("http", "#t="))]


def test_links_leave_the_page_and_times_seek(studio: Studio, runtime: Modes, sha: str) -> None:
    runtime.said["/no_think"] = ["[a page](https://example.com) at 0:01"]
    _, comparison = compared(studio, sha)
    links = {a["href"]: a.get("target") for tag, a in shown(comparison).tags if tag == "a"}
    assert links == {"https://example.com": "_blank", "#t=1": None}


def test_the_controls_always_ask_for_two_different_modes() -> None:
    for mode in MODE_NAMES:
        assert other_mode(mode) != mode
        for against in (None, *MODE_NAMES):
            session = taken(Session(), mode, True, against, True)
            assert session.mode == mode and session.against not in (None, mode) and session.blind
            assert against in (None, mode) or session.against == against
    off = taken(replace(Session(), against="think", blind=True), "auto", False, "think", True)
    assert off.against is None and not off.blind
