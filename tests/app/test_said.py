"""What is thought of answers on the page: kept before it is shown, shown as it is kept, and drafts to choose from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio.components.chatbot import ComponentMessage

from app.chat import chat_messages
from app.errors import AppError
from app.i18n import say
from app.jobs import watch
from app.studio import ClipChoice, Limits, Manner, Studio, Turn
from app.votes import DRAFTS, TEMPERATURE, VotesPane
from engine.events import Answer, Done, Event
from engine.runtime.base import Decoding, Message
from finetune.errors import FinetuneError
from finetune.feedback import REASONS, Store
from tests.app.conftest import ScriptedRuntime
from tests.app.test_views import HOSTILE, Tags

Wait = Callable[[Studio, str], None]


class Numbered(ScriptedRuntime):
    """Says something else each time, and notes how it was to be drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Decoding] = []
        self.lock = threading.Lock()
        self.same = False

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        with self.lock:
            self.heard.append(messages)
            self.drawn.append(decoding)
            text = f"answer {1 if self.same else len(self.drawn)}"
        if self.gate is not None:
            self.gate.wait(30)
        yield Answer(text)
        yield Done(finish="stop", text=text, model="scripted", answer_tokens=2, first_token_seconds=0.1)


@pytest.fixture
def runtime() -> Numbered:
    return Numbered()


class Page:
    """One conversation as somebody clicks through it."""

    def __init__(self, studio: Studio, clip: Path, wait: Wait) -> None:
        self.studio, self.pane, self.wait = studio, VotesPane(studio), wait
        self.clip = ClipChoice(studio.add_video(clip, clip.name)[0])
        self.id = ""

    def ask(self, text: str = "What?") -> str:
        self.id, _ = self.studio.ask(self.id or None, text, self.clip, Limits(max_frames=4), Manner("auto", 99))
        self.wait(self.studio, self.id)
        answer = self.turn.answer
        assert answer is not None
        return answer.id

    @property
    def turn(self) -> Turn:
        return self.studio.turns(self.id)[-1]

    def say(self, what: str, answer: str, value: Any = "") -> None:
        self.pane.say(self.id, self.clip, {"say": what, "answer": answer, "value": value})

    def again(self, answer: str) -> list[str]:
        jobs = self.pane.again(self.id, {"answer": answer})
        *_, last = watch(jobs)
        return [now.answer for now in last]

    def shown(self, lang: Any = "en") -> Tags:
        content = chat_messages(self.studio.turns(self.id), (), lang)[-1]["content"]
        assert isinstance(content, ComponentMessage)
        return Tags(str(content.value))

    def pressed(self) -> list[tuple[str | None, str | None]]:
        return [(a["data-say"], a.get("data-value")) for _, a in self.shown().tags if a.get("aria-pressed") == "true"]


@pytest.fixture
def page(studio: Studio, clip: Path, wait: Wait) -> Page:
    return Page(studio, clip, wait)


def test_a_vote_is_kept_changed_and_undone_and_a_fresh_page_finds_it(page: Page, tmp_path: Path) -> None:
    answer = page.ask()
    assert page.pressed() == []
    page.say("up", answer)
    assert page.pressed() == [("up", None)]
    page.say("down", answer)
    page.say("reason", answer, "wrong_time")
    page.say("reason", answer, "wrong")
    page.say("mark", answer, "1.25")
    page.say("mark", answer, "0.5")
    assert page.pressed() == [("down", None), ("reason", "wrong"), ("reason", "wrong_time")]
    again = Store(tmp_path / "data" / "studio.sqlite")  # as another process, or after a restart
    vote = again.votes.of_conversation(page.id)[answer]
    assert (vote.value, vote.reasons, vote.moments) == ("down", ("wrong", "wrong_time"), (0.5, 1.25))
    again.close()
    page.say("reason", answer, "wrong")
    page.say("unmark", answer, "0.5")
    assert page.pressed() == [("down", None), ("reason", "wrong_time")]
    assert [a["data-seek"] for _, a in page.shown().tags if "data-seek" in a] == ["1.25"]
    page.say("down", answer)
    assert page.pressed() == [] and page.studio.store.votes.in_force() == []


def test_the_page_says_what_it_will_be_used_for(page: Page) -> None:
    answer = page.ask()
    assert "Kept" not in page.shown().words
    page.say("down", answer)
    assert say("use_later", "en") in page.shown().words
    page.say("correct", answer, "A blue star.")
    assert "training example · preference pair · question for reinforcement" in page.shown().words
    assert "训练样例 · 偏好对 · 强化学习题目" in page.shown("zh").words
    page.say("uncorrect", answer)
    page.say("up", answer)
    assert "used as: training example · question for reinforcement" in page.shown().words
    page.studio.library.remove(page.clip.sha256)
    assert "the video is no longer on the disk" in page.shown().words


def test_every_reason_can_be_said(page: Page) -> None:
    answer = page.ask()
    for name in REASONS:
        page.say("reason", answer, name)
    assert [value for what, value in page.pressed() if what == "reason"] == list(REASONS)


def test_drafts_are_drawn_afresh_as_the_question_was_asked(page: Page, runtime: Numbered) -> None:
    first = page.ask()
    made = page.again(first)
    assert len(made) == DRAFTS and len(runtime.heard) == 1 + DRAFTS
    assert [[m.parts[-1] for m in heard] for heard in runtime.heard] == [["What?"]] * (1 + DRAFTS)
    assert [(d.greedy, d.temperature, d.seed) for d in runtime.drawn[1:]] == [(False, TEMPERATURE, None)] * DRAFTS
    frames = {heard[0].parts[0].times for heard in runtime.heard}  # type: ignore[union-attr]
    assert len(frames) == 1
    turn = page.turn
    assert turn.drafts is not None and [a.id for a in turn.drafts.answers] == [first, *made]
    assert [(a.mode, (a.decoding or {})["max_tokens"]) for a in turn.drafts.answers] == [("auto", 99)] * (1 + DRAFTS)
    assert turn.answer is not None and turn.answer.id == first
    words = page.shown().words
    assert all(f"answer {number}" in words for number in range(1, 2 + DRAFTS))


def test_the_conversation_goes_on_from_the_draft_that_was_picked(page: Page, runtime: Numbered) -> None:
    first = page.ask()
    _, second = page.again(first)
    page.say("pick", second)
    assert page.turn.answer is not None and page.turn.answer.id == second
    assert page.pressed() == [("pick", None)]
    said = page.turn.answer.text
    page.ask("And then?")
    assert runtime.heard[-1][1].parts == (said,)
    page.say("pick", second)  # taken back
    assert page.studio.store.preferences.pairs() == []
    page.ask("And now?")
    assert runtime.heard[-1][1].parts == ("answer 1",)


def test_an_earlier_question_is_answered_again_without_what_came_after(page: Page, runtime: Numbered) -> None:
    first = page.ask()
    page.ask("And then?")
    made = page.again(first)
    assert [[m.parts[-1] for m in heard] for heard in runtime.heard[2:]] == [["What?"]] * DRAFTS
    early, late = page.studio.turns(page.id)
    assert early.drafts is not None and [a.id for a in early.drafts.answers[1:]] == made and late.drafts is None


def test_a_good_and_a_bad_draft_are_a_pair(page: Page) -> None:
    first = page.ask()
    second, _ = page.again(first)
    page.say("down", first)
    page.say("up", second)
    assert [(p.chosen, p.rejected) for p in page.studio.store.preferences.pairs("vote")] == [(second, first)]
    assert "preference pair" in page.shown().words


def test_drafts_are_shown_as_they_grow_and_cannot_be_chosen_before_their_end(page: Page, runtime: Numbered) -> None:
    first = page.ask()
    runtime.gate = threading.Event()
    jobs = page.pane.again(page.id, {"answer": first})
    now = [job.snapshot() for job in jobs]
    *_, message = chat_messages(page.studio.turns(page.id), now, "en")
    tags = Tags(str(message["content"].value))
    assert say("drafts_wait", "en") in tags.words
    assert not [a for _, a in tags.tags if a.get("data-say") == "pick"]
    with pytest.raises(AppError, match="still being written"):
        page.pane.again(page.id, {"answer": first})
    with pytest.raises(FinetuneError, match="Wait until"):
        page.say("pick", first)
    runtime.gate.set()
    for job in jobs:
        job.join(60)
    assert page.turn.drafts is not None and not page.turn.drafts.running


def test_what_cannot_be_kept_is_one_sentence_and_nothing_is_lost(page: Page) -> None:
    answer = page.ask()
    with pytest.raises(AppError, match="Vote on the answer first"):
        page.say("mark", answer, "1")
    page.say("up", answer)
    for value in ("nan", "None", "-1", "1e9", HOSTILE):
        with pytest.raises(AppError, match="no video to mark"):
            page.say("mark", answer, value)
    with pytest.raises(AppError, match="another video"):
        page.pane.say(page.id, ClipChoice("0" * 64), {"say": "mark", "answer": answer, "value": "1"})
    for data in (None, [], {}, {"say": "up"}, {"say": "up", "answer": HOSTILE}):
        with pytest.raises(AppError, match="no such answer"):
            page.pane.say(page.id, page.clip, data)
    with pytest.raises(AppError, match="no such answer"):
        page.pane.say(None, None, {"say": "up", "answer": answer})
    with pytest.raises(FinetuneError, match="is the answer as it is"):
        page.say("correct", answer, "answer 1")
    for _ in range(3):
        page.again(answer)
    with pytest.raises(AppError, match="There are 7 answers"):
        page.again(answer)
    later = page.ask("And then?")
    page.studio.library.remove(page.clip.sha256)
    with pytest.raises(AppError, match="no longer on the disk"):
        page.again(later)
    assert [vote.value for vote in page.studio.store.votes.in_force()] == ["up"]


def test_what_was_written_reaches_nothing_outside_the_page(page: Page) -> None:
    answer = page.ask()
    bad = HOSTILE + "</textarea><script>x</script>"
    page.say("correct", answer, bad)
    page.again(answer)
    tags = page.shown().tags
    assert not [t for t, a in tags if t in ("img", "script") or any(name.startswith("on") for name in a)]
    assert [t for t, _ in tags].count("textarea") == 1


def test_drafts_that_say_the_same_are_said_to(page: Page, runtime: Numbered) -> None:
    first = page.ask()
    runtime.same = True
    page.again(first)
    assert say("drafts_same", "en") in page.shown().words


def test_a_comparison_has_its_own_choice(page: Page) -> None:
    both = (Manner("think", 50), Manner("no_think", 50))
    page.id, jobs = page.studio.compare(None, "What?", page.clip, Limits(), both)
    for job in jobs:
        job.join(60)
    comparison = page.turn.comparison
    assert comparison is not None
    with pytest.raises(AppError, match="no such answer"):
        page.say("up", comparison.left.id)
    assert len(chat_messages(page.studio.turns(page.id), (), "en")) == 2
