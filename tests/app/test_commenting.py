"""Rounds behind the page: what is asked and drawn, what is withheld, and that nothing is lost when something fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.commenting import Commenter
from app.errors import AppError
from app.studio import Studio
from engine.events import Answer, Done, Error, Event
from engine.runtime.base import Decoding, Message, ModelInfo
from engine.video import Frames
from finetune.errors import FinetuneError
from finetune.feedback.comments import Round, RoundClip, comment_lessons
from finetune.writing.skills import Given
from finetune.writing.wishes import Wishes
from tests.app.conftest import ScriptedRuntime
from tests.media import make_clip


class Writer(ScriptedRuntime):
    """Writes the next of `drafts` where a comment is asked for and says `verdict` where it is asked to judge one; a
    draft that is an exception is a failure. Keeps how each was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drafts: list[str] = []
        self.verdict = "yes"
        self.fails = ""
        self.demonstration = False
        self.decodings: list[Decoding] = []
        self.hold = threading.Semaphore(10_000)

    def info(self) -> ModelInfo:
        return replace(super().info(), demonstration=self.demonstration, decoding=Decoding(greedy=True))

    def asked(self) -> list[str]:
        return [str(messages[-1].parts[-1]) for messages in self.heard]

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        self.heard.append(messages)
        self.decodings.append(decoding)
        judging = "Is it fit to be shown" in self.asked()[-1]
        if self.fails and not judging:
            yield Error(self.fails)
            yield Done(finish="error", text="", model="scripted")
            return
        words = (self.verdict if judging else self.drafts.pop(0)).split(" ")
        text = ""
        for number, word in enumerate(words):
            while not self.hold.acquire(timeout=0.02):
                if stop.is_set():
                    break
            if stop.is_set():
                yield Done(finish="stopped", text=text, model="scripted", answer_tokens=number)
                return
            piece = word if not number else f" {word}"
            text += piece
            yield Answer(piece)
        yield Done(finish="stop", text=text, model="scripted", answer_tokens=len(words), first_token_seconds=0.1)


@pytest.fixture
def runtime() -> Writer:
    return Writer()


@pytest.fixture
def sha(studio: Studio, clip: Path) -> str:
    return studio.add_video(clip, clip.name)[0]


def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


def ended(commenter: Commenter, made: Round) -> Round:
    until(lambda: not commenter.now(made.id).running)  # type: ignore[union-attr]
    return commenter.store.comments.round(made.id)


def test_comments_are_drawn_one_after_the_other_each_with_its_seed_and_judged(
    studio: Studio, runtime: Writer, sha: str
) -> None:
    runtime.drafts = ["So calm!", "see www.shop.com now", "so calm", "What a twist at the end"]
    wishes = Wishes("funny", "short", "en", title="A ball")
    made = studio.comments.write(RoundClip(sha, 0.5, 2.0), wishes, 4)
    assert studio.store.comments.round(made.id).prompt == wishes.prompt  # on the disk before it is asked
    found = ended(studio.comments, made)
    assert [(draft.text, draft.fit) for draft in found.drafts] == [
        ("So calm!", True),
        ("see www.shop.com now", False),
        ("so calm", False),
        ("What a twist at the end", True),
    ]
    facts = [draft.moderation or {} for draft in found.drafts]
    assert [fact["reasons"] for fact in facts] == [[], ["link"], ["repeat"], []]
    assert [fact["said"] for fact in facts] == ["yes", None, None, "yes"]  # what breaks a rule is not asked about
    seeds = [(draft.decoding or {})["seed"] for draft in found.drafts]
    assert len(set(seeds)) == 4 and all(not (draft.decoding or {})["greedy"] for draft in found.drafts)
    written = [decoding for decoding in runtime.decodings if not decoding.greedy]
    assert [decoding.seed for decoding in written] == seeds
    assert [asked == f"{wishes.prompt}/no_think" for asked in runtime.asked()] == [True, False, True, True, True, False]
    assert "Comment: So calm!\n" in runtime.asked()[1]
    frames = runtime.heard[0][0].parts[0]
    assert isinstance(frames, Frames) and (frames.clip.start, frames.clip.end) == (0.5, 2.0)
    assert {draft.model for draft in found.drafts} == {"scripted"}


def test_a_model_that_says_no_or_nothing_withholds_and_a_demonstration_does_not(
    studio: Studio, runtime: Writer, sha: str
) -> None:
    for verdict, demonstration, fit, reasons in (
        ("No.", False, False, ["model"]),
        ("a red circle", False, False, ["unclear"]),
        ("No.", True, True, []),
    ):
        runtime.drafts, runtime.verdict, runtime.demonstration = ["Fine!"], verdict, demonstration
        (draft,) = ended(studio.comments, studio.comments.write(RoundClip(sha), Wishes(), 1)).drafts
        assert draft.fit is fit and draft.moderation is not None
        assert (draft.moderation["reasons"], draft.moderation["said"]) == (reasons, verdict)
        assert draft.moderation["rules_only"] is demonstration


def test_stop_ends_a_round_within_a_token_and_keeps_what_is_whole(studio: Studio, runtime: Writer, sha: str) -> None:
    runtime.drafts, runtime.hold = ["One!", "Two is never written to its end"], threading.Semaphore(0)
    made = studio.comments.write(RoundClip(sha), Wishes(), 2)
    runtime.hold.release(2 + 2)  # the first comment, its judgement, and two words of the second
    until(lambda: (studio.comments.now(made.id).number, studio.comments.now(made.id).pieces) == (2, 2))  # type: ignore
    assert studio.comments.now(made.id).doing == "writing"  # type: ignore[union-attr]
    studio.comments.stop(made.id)
    found = ended(studio.comments, made)
    assert [draft.text for draft in found.drafts] == ["One!"]
    assert studio.comments.now(made.id).error == ""  # type: ignore[union-attr]
    assert len(runtime.heard) == 3


def test_a_failure_is_one_sentence_and_ends_the_round(studio: Studio, runtime: Writer, sha: str) -> None:
    runtime.fails = "The memory ran out: lower the budget."
    made = studio.comments.write(RoundClip(sha), Wishes(), 3)
    found = ended(studio.comments, made)
    assert studio.comments.now(made.id).error == runtime.fails  # type: ignore[union-attr]
    assert [(draft.finish, draft.error, draft.fit) for draft in found.drafts] == [("error", runtime.fails, False)]
    runtime.fails, runtime.drafts = "", ["Fine!"]
    assert len(ended(studio.comments, studio.comments.write(RoundClip(sha), Wishes(), 1)).drafts) == 1


def test_a_video_that_is_gone_says_so_before_and_while_it_is_asked_about(
    studio: Studio, runtime: Writer, sha: str
) -> None:
    studio.library.remove(sha)
    with pytest.raises(AppError, match=r"holiday\.mp4 is no longer on the disk"):
        studio.comments.write(RoundClip(sha), Wishes(), 1)
    with pytest.raises(AppError, match="no longer on the disk"):
        studio.comments.ask("likes", [RoundClip(sha)], Given(), "en", "auto")
    assert studio.store.comments.rounds() == [] and runtime.heard == []


def test_what_cannot_be_asked_is_refused(studio: Studio, sha: str) -> None:
    for wrong in (
        lambda: studio.comments.write(RoundClip(sha), Wishes(), 0),
        lambda: studio.comments.write(RoundClip(sha), Wishes(), 9),
        lambda: studio.comments.ask("order", [RoundClip(sha)], Given(), "en", "auto"),
        lambda: studio.comments.ask("attributes", [RoundClip(sha)], Given(), "en", "auto"),
    ):
        with pytest.raises((AppError, FinetuneError)):
            wrong()
    assert studio.store.comments.rounds() == []


def test_several_clips_are_one_message_and_share_the_budget(
    studio: Studio, runtime: Writer, sha: str, tmp_path: Path
) -> None:
    other = make_clip(tmp_path / "other.mp4", frames=50, fps=25, size=(112, 112), colour=lambda index: (0, 0, 255))
    second, _ = studio.add_video(other, other.name)
    runtime.drafts = ["[Video 2, Video 1]"]
    clips = [RoundClip(sha), RoundClip(second)]
    made = studio.comments.ask("order", clips, Given("a title"), "en", "no_think")
    (draft,) = ended(studio.comments, made).drafts
    assert draft.text == "[Video 2, Video 1]" and draft.fit and draft.moderation is None
    (message,) = runtime.heard[0]
    first, one, then, two, asked = message.parts
    assert (first, then) == ("Video 1: ", "Video 2: ") and str(asked).endswith("single word or phrase./no_think")
    assert isinstance(one, Frames) and isinstance(two, Frames)
    assert one.total_tokens + two.total_tokens <= runtime.info().sampling.budget
    assert one.sampling.budget == two.sampling.budget == runtime.info().sampling.budget // 2
    drawn = draft.decoding or {}
    assert (drawn["greedy"], drawn["max_tokens"]) == (True, 2048)  # as published, KC-MMBENCH.md §2
    studio.store.comments.choose(draft.id, "picked")
    (lesson,) = comment_lessons(studio.store)
    assert [video["budget"] for video in lesson["row"]["videos"]] == [one.sampling.budget] * 2


def test_an_answer_that_thinks_is_kept_with_its_thought(studio: Studio, runtime: Writer, sha: str) -> None:
    runtime.drafts = ["<think>many will</think><answer>yes</answer>"]
    (draft,) = ended(studio.comments, studio.comments.ask("likes", [RoundClip(sha)], Given(), "en", "think")).drafts
    assert (draft.text, draft.raw_text) == ("yes", "<think>many will</think><answer>yes</answer>")


def test_a_stopped_answer_stays_stopped_with_its_text(studio: Studio, runtime: Writer, sha: str) -> None:
    runtime.drafts, runtime.hold = ["yes because of the dog"], threading.Semaphore(0)
    made = studio.comments.ask("likes", [RoundClip(sha)], Given(), "en", "no_think")
    runtime.hold.release(2)
    until(lambda: studio.comments.now(made.id).text == "yes because")  # type: ignore[union-attr]
    studio.comments.stop(made.id)
    (draft,) = ended(studio.comments, made).drafts
    assert (draft.text, draft.finish, draft.fit) == ("yes because", "stopped", False)


def test_deleting_a_round_ends_it_and_removes_videos_nobody_refers_to(
    studio: Studio, runtime: Writer, sha: str
) -> None:
    runtime.drafts, runtime.hold = ["never written"], threading.Semaphore(0)
    made = studio.comments.write(RoundClip(sha), Wishes(), 1)
    until(lambda: len(runtime.heard) == 1)
    studio.comments.delete(made.id)
    assert studio.library.find(sha) is None and studio.store.comments.rounds() == []
    assert studio.comments.now(made.id) is None
