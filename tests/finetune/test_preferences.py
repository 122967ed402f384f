"""Comparisons and preferences: one word in force on a pair, nothing that was said is lost, ties teach no order."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.feedback import Store, export_conversation


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "studio.sqlite")
    yield store
    store.close()


def asked(store: Store, answers: int = 2, blind: bool = False) -> tuple[str, str, list[str]]:
    """A conversation with one question and finished answers; the first two are compared."""
    talk = store.new_conversation("What?")
    question = store.add_question(talk.id, "What?", mode="think")
    made = []
    for number in range(answers):
        answer = store.begin_answer(question.id, mode="think")
        store.finish_answer(answer.id, "stop", text=f"answer {number}")
        made.append(answer.id)
    store.preferences.compare(question.id, made[0], made[1], blind=blind)
    return talk.id, question.id, made


def test_a_comparison_keeps_its_sides_and_what_was_chosen(store: Store) -> None:
    talk, question, (left, right) = asked(store, blind=True)
    (found,) = store.preferences.comparisons(talk).values()
    assert (found.question, found.left.id, found.right.id, found.blind) == (question, left, right, True)
    assert found.preference is None and not found.told and found.preferred.id == left
    said = store.preferences.prefer(right, left, source="compare", reasons=["clearer", "更准"])
    found = store.preferences.comparisons(talk)[question]
    assert found.preference == said and found.told and found.preferred.id == right
    assert (said.chosen, said.rejected, said.verdict, said.reasons) == (right, left, "better", ("clearer", "更准"))


def test_another_choice_takes_the_place_of_the_first_and_both_are_kept(store: Store) -> None:
    talk, question, (left, right) = asked(store)
    store.preferences.prefer(left, right, source="compare")
    store.preferences.prefer(right, left, source="compare")
    last = store.preferences.prefer(left, right, source="compare", verdict="both_bad")
    assert [p.id for p in store.preferences.of_conversation(talk)] == [last.id]
    assert store.preferences.pairs() == []  # a tie says nothing about an order
    assert store.preferences.revoke(last.id) and not store.preferences.revoke(last.id)
    found = store.preferences.comparisons(talk)[question]
    assert found.preference is None and found.told
    kept = (
        sqlite3.connect(store.path).execute("SELECT verdict, revoked IS NULL FROM preferences ORDER BY id").fetchall()
    )
    assert kept == [("better", 0), ("better", 0), ("both_bad", 0)]


def test_every_source_has_its_own_word(store: Store) -> None:
    talk, question, (one, two, three) = asked(store, answers=3)
    store.preferences.prefer(one, two, source="compare")
    store.preferences.prefer(two, one, source="vote")
    store.preferences.prefer(three, one, source="draft")
    store.preferences.prefer(three, two, source="draft")
    store.preferences.prefer(None, two, source="correction", text="The heart turns blue.")
    store.preferences.prefer(None, two, source="correction", text="The heart turns green.")
    said = [(p.source, p.chosen, p.chosen_text, p.rejected) for p in store.preferences.pairs()]
    assert said == [
        ("compare", one, None, two),
        ("vote", two, None, one),
        ("draft", three, None, one),
        ("draft", three, None, two),
        ("correction", None, "The heart turns green.", two),
    ]
    assert [p.rejected for p in store.preferences.pairs("draft")] == [one, two]
    preference = store.preferences.comparisons(talk)[question].preference
    assert preference is not None and preference.source == "compare"


def test_a_conversation_goes_on_from_the_side_that_says_something(store: Store) -> None:
    talk, question, (left, right) = asked(store)
    store.finish_answer(left, "error", text="", error="It failed.")
    assert store.preferences.comparisons(talk)[question].preferred.id == right
    store.finish_answer(right, "error", text="", error="It failed.")
    assert store.preferences.comparisons(talk)[question].preferred.id == left


def test_deleting_the_conversation_takes_them_along(store: Store) -> None:
    talk, _, (left, right) = asked(store)
    said = store.preferences.prefer(left, right, source="compare")
    store.delete_conversation(talk)
    assert store.preferences.pairs() == [] and store.preferences.comparisons(talk) == {}
    assert not store.preferences.revoke(said.id)
    with pytest.raises(FinetuneError, match="was deleted"):
        store.preferences.prefer(left, right, source="compare")


def test_what_is_no_pair_is_a_defect(store: Store) -> None:
    _, question, (left, right) = asked(store)
    _, _, (stranger, _) = asked(store)
    for wrong in (
        lambda: store.preferences.prefer(left, stranger, source="vote"),
        lambda: store.preferences.prefer(left, left, source="vote"),
        lambda: store.preferences.prefer(left, right, source="gossip"),  # type: ignore[arg-type]
        lambda: store.preferences.prefer(left, right, source="vote", verdict="worse"),  # type: ignore[arg-type]
        lambda: store.preferences.prefer(None, right, source="correction"),
        lambda: store.preferences.prefer(None, right, source="correction", text="x", verdict="both_bad"),
        lambda: store.preferences.compare(question, left, stranger),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_the_export_holds_what_is_in_force(store: Store) -> None:
    talk, _, (left, right) = asked(store)
    store.preferences.prefer(right, left, source="compare")
    store.preferences.prefer(left, right, source="compare")
    (said,) = json.loads(json.dumps(export_conversation(store, talk)))["preferences"]
    assert (said["chosen"], said["rejected"], said["source"]) == (left, right, "compare")


def test_of_many_who_choose_at_once_one_word_is_in_force(store: Store) -> None:
    talk, _, (left, right) = asked(store)
    threads = [
        threading.Thread(target=store.preferences.prefer, args=pair, kwargs={"source": "compare"})
        for pair in ((left, right), (right, left)) * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.preferences.of_conversation(talk)) == 1


@given(st.lists(st.sampled_from(["left", "right", "both_good", "both_bad", "nothing"]), max_size=8))
@settings(max_examples=30, deadline=None)
def test_the_last_word_is_the_one_in_force(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    store = Store(tmp_path_factory.mktemp("s") / "studio.sqlite")
    talk, question, (left, right) = asked(store)
    for word in words:
        found = store.preferences.comparisons(talk)[question]
        if word == "nothing":
            if found.preference is not None:
                store.preferences.revoke(found.preference.id)
        elif word in ("left", "right"):
            pair = (left, right) if word == "left" else (right, left)
            store.preferences.prefer(*pair, source="compare")
        else:
            store.preferences.prefer(left, right, source="compare", verdict=word)  # type: ignore[arg-type]
    last = store.preferences.comparisons(talk)[question].preference
    if not words or words[-1] == "nothing":
        assert last is None
    elif words[-1] in ("left", "right"):
        assert last is not None and last.verdict == "better"
        assert last.chosen == (left if words[-1] == "left" else right)
    else:
        assert last is not None and last.verdict == words[-1]
    store.close()
