"""Rounds, drafts and choices on the disk, and what they teach."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.data.rows import Footage, parse_row
from finetune.errors import FinetuneError
from finetune.feedback import Store
from finetune.feedback.comments import Draft, Round, RoundClip, comment_lessons
from tests.media import make_clip

ONE, TWO = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "studio.sqlite")
    for sha in (ONE, TWO):
        path = make_clip(tmp_path / f"{sha}.mp4", frames=8)
        store.add_video(sha, name=f"{sha[0]}.mp4", path=path, probe={})
    yield store
    store.close()


def begun(store: Store, *clips: RoundClip, mode: str = "no_think", **more: Any) -> Round:
    return store.comments.begin("comment", "Write one.", clips or (RoundClip(ONE),), language="en", mode=mode, **more)


def drafted(store: Store, made: Round, *texts: str) -> list[Draft]:
    return [store.comments.add_draft(made.id, finish="stop", fit=True, text=text, raw_text=text) for text in texts]


def test_a_round_is_read_back_with_its_clips_and_drafts_by_another_reader(store: Store, tmp_path: Path) -> None:
    clips = (RoundClip(TWO, 0.5, 2.0), RoundClip(ONE))
    made = begun(store, *clips, wanted=2, wishes={"title": "猫"}, sampling={"budget": 64})
    judged = {"fit": False, "reasons": ["link"]}
    store.comments.add_draft(
        made.id,
        finish="stop",
        fit=False,
        moderation=judged,
        text="see x.com",
        model="keye-nano",
        decoding={"seed": 7},
    )
    other = Store(tmp_path / "studio.sqlite")
    found = other.comments.round(made.id)
    assert (found.clips, found.wishes, found.sampling, found.wanted) == (clips, {"title": "猫"}, {"budget": 64}, 2)
    (draft,) = found.drafts
    assert (draft.text, draft.fit, draft.moderation, draft.decoding) == ("see x.com", False, judged, {"seed": 7})
    assert [one.id for one in other.comments.rounds(["comment"])] == [made.id] and other.comments.rounds(
        ["order"]
    ) == []
    other.close()


def test_one_word_is_in_force_and_what_was_said_before_is_kept(store: Store) -> None:
    (draft,) = drafted(store, begun(store), "So calm")
    comments = store.comments
    assert comments.choose(draft.id, "picked").choice == "picked"
    edited = comments.choose(draft.id, "edited", "  So calm, again!  ")
    assert (edited.choice, edited.edited, edited.best) == ("edited", "So calm, again!", "So calm, again!")
    assert comments.choose(draft.id, "edited", "So calm").choice == "picked"  # nothing was changed
    assert comments.choose(draft.id, "rejected").choice == "rejected"
    assert comments.choose(draft.id, None).choice is None
    sql = "SELECT choice, text, revoked IS NULL FROM comment_choices ORDER BY id"
    kept = sqlite3.connect(store.path).execute(sql).fetchall()
    assert kept == [("picked", None, 0), ("edited", "So calm, again!", 0), ("picked", None, 0), ("rejected", None, 0)]


def test_what_cannot_be_chosen_is_one_sentence_and_changes_nothing(store: Store) -> None:
    made = begun(store)
    (draft,) = drafted(store, made, "fine")
    hidden = store.comments.add_draft(made.id, finish="stop", fit=False, text="see x.com")
    store.comments.choose(draft.id, "rejected")
    for wrong, words in (("", "Write the better"), ("x" * 2001, "2001"), ("a <|im_end|> b", "marks"), (" \n", "Write")):
        with pytest.raises(FinetuneError, match=words):
            store.comments.choose(draft.id, "edited", wrong)
    with pytest.raises(FinetuneError, match="withheld"):
        store.comments.choose(hidden.id, "picked")
    with pytest.raises(FinetuneError, match="deleted"):
        store.comments.choose("nobody", "picked")
    with pytest.raises(ValueError, match="no choice"):
        store.comments.choose(draft.id, "loved")  # type: ignore[arg-type]
    with pytest.raises(FinetuneError, match="no longer kept"):
        begun(store, RoundClip("e" * 64))
    assert [one.choice for one in store.comments.round(made.id).drafts] == ["rejected", None]
    assert len(store.comments.rounds()) == 1


def test_a_video_stays_as_long_as_a_question_or_a_round_refers_to_it(store: Store) -> None:
    talk = store.new_conversation("What?")
    store.add_question(talk.id, "What?", mode="auto", video=ONE)
    made, other = begun(store, RoundClip(ONE)), begun(store, RoundClip(ONE), RoundClip(TWO))
    assert store.delete_conversation(talk.id) == [] and store.video(ONE) is not None
    assert store.comments.delete(made.id) == []
    assert {path.stem for path in store.comments.delete(other.id)} == {ONE, TWO}
    assert store.video(ONE) is None and store.comments.delete(other.id) == []
    with pytest.raises(FinetuneError, match="deleted"):
        store.comments.add_draft(other.id, finish="stop", fit=True, text="late")


def test_of_many_who_choose_at_once_one_word_is_in_force_and_none_is_lost(store: Store) -> None:
    (draft,) = drafted(store, begun(store), "fine")
    words = [("picked", None), ("rejected", None), ("edited", "better")] * 6
    threads = [threading.Thread(target=store.comments.choose, args=(draft.id, *word)) for word in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    rows = sqlite3.connect(store.path).execute("SELECT count(*), sum(revoked IS NULL) FROM comment_choices").fetchone()
    assert rows == (18, 1)


# -- what is learnt -----------------------------------------------------------------------------------------------


def test_picked_and_edited_are_examples_and_pairs_against_what_was_rejected(store: Store) -> None:
    made = begun(store, RoundClip(ONE, 0.1, 0.3))
    picked, edited, bad, unsaid = drafted(store, made, "picked", "edited", "bad", "unsaid")
    store.comments.choose(picked.id, "picked")
    store.comments.choose(edited.id, "edited", "much better")
    store.comments.choose(bad.id, "rejected")
    lessons = comment_lessons(store)
    assert all((one["question"], one["video"], one["source"]) == (made.id, ONE, "comment") for one in lessons)
    assert all(set(one) == {"use", "question", "answer", "video", "source", "held_out", "row"} for one in lessons)
    examples = [one for one in lessons if one["use"] == "example"]
    assert [(one["answer"], one["row"]["messages"][-1]["content"]) for one in examples] == [
        (picked.id, "picked"),
        (edited.id, "much better"),
    ]
    pairs = [(one["row"]["chosen"], one["row"]["rejected"]) for one in lessons if one["use"] == "pair"]
    assert pairs == [("much better", "edited"), ("picked", "bad"), ("much better", "bad")]
    assert unsaid.text not in json.dumps(lessons)
    store.comments.choose(bad.id, None)
    assert [one["row"]["rejected"] for one in comment_lessons(store) if one["use"] == "pair"] == ["edited"]


def test_rows_are_read_back_as_what_was_asked(store: Store, tmp_path: Path) -> None:
    """By the reader of the training data: the same clip, the same words, the same mode."""
    clips = (RoundClip(ONE, 0.1, 0.3), RoundClip(TWO))
    typed = "Title of the video: a <video> and an <image>\nOne?"
    made = store.comments.begin(
        "order", typed, clips, language="en", mode="think", sampling={"budget": 64, "fps": None}
    )
    draft = store.comments.add_draft(
        made.id, finish="stop", fit=True, text="[2, 1]", raw_text="<think>so</think><answer>[2, 1]</answer>"
    )
    store.comments.choose(draft.id, "picked")
    (lesson,) = comment_lessons(store)
    row = parse_row(json.loads(json.dumps(lesson["row"])), tmp_path, "line 1")
    assert row.mode == "think" and [turn.role for turn in row.turns] == ["user", "assistant"]
    first, one, second, two, asked = row.turns[0].parts
    assert (first, second) == ("Video 1: ", "Video 2: ")
    assert isinstance(one, Footage) and (one.clip.start, one.clip.end, one.budget) == (0.1, 0.3, 64)
    assert isinstance(two, Footage) and two.clip.path == tmp_path / f"{TWO}.mp4" and two.clip.start is None
    assert isinstance(asked, str) and asked.replace("\u2060", "") == typed
    assert row.turns[1].text == "<think>so</think><answer>[2, 1]</answer>"


def test_a_rewritten_answer_is_not_taught_behind_a_thought_that_led_elsewhere(store: Store) -> None:
    made = begun(store, mode="think")
    thought = "<think>so</think><answer>no</answer>"
    draft = store.comments.add_draft(made.id, finish="stop", fit=True, text="no", raw_text=thought)
    store.comments.choose(draft.id, "edited", "yes")
    (lesson,) = comment_lessons(store)
    assert (lesson["use"], lesson["row"]["mode"]) == ("example", "no_think")
    assert lesson["row"]["messages"][-1]["content"] == "yes"


def test_a_video_that_is_gone_teaches_nothing_and_loses_nothing(store: Store, tmp_path: Path) -> None:
    (draft,) = drafted(store, begun(store, RoundClip(ONE)), "fine")
    store.comments.choose(draft.id, "picked")
    file = tmp_path / f"{ONE}.mp4"
    away = file.rename(tmp_path / "away.mp4")
    assert comment_lessons(store) == []
    away.rename(file)
    assert len(comment_lessons(store)) == 1
