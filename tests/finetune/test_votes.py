"""Votes, corrections and drafts: one of each in force, nothing that was said is lost, and what follows from them."""

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
from finetune.feedback import Store, export_conversation, standing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "studio.sqlite")
    yield store
    store.close()


def asked(store: Store, *texts: str) -> tuple[str, str, list[str]]:
    """A conversation with one question and finished answers; all but the first are drafts of it."""
    talk = store.new_conversation("What?")
    question = store.add_question(talk.id, "What?", mode="auto")
    made = []
    for text in texts:
        answer = store.begin_answer(question.id, mode="auto")
        store.finish_answer(answer.id, "stop", text=text)
        made.append(answer.id)
    store.drafts.add(made[0], made[1:])
    return talk.id, question.id, made


def kept(store: Store, table: str) -> list[tuple]:
    conn = sqlite3.connect(store.path)
    try:
        return conn.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
    finally:
        conn.close()


def test_a_vote_is_changed_and_taken_back_and_every_word_is_kept(store: Store) -> None:
    talk, _, (answer,) = asked(store, "A red circle.")
    store.votes.vote(answer, "up", moments=[2.0])
    said = store.votes.vote(answer, "down", reasons=["dull", "wrong"], moments=[3.25, 1.0, 3.25])
    assert said.reasons == ("wrong", "dull") and said.moments == (1.0, 3.25)
    assert store.votes.of_conversation(talk) == {answer: said} and store.votes.in_force() == [said]
    assert store.votes.revoke(answer) and not store.votes.revoke(answer)
    assert store.votes.of_conversation(talk) == {}
    rows = kept(store, "votes")
    assert [row[2] for row in rows] == ["up", "down"] and all(row[-1] is not None for row in rows)


def test_votes_are_there_when_the_file_is_opened_again(store: Store) -> None:
    talk, _, (answer,) = asked(store, "A red circle.")
    said = store.votes.vote(answer, "down", reasons=["made_up"], moments=[0.5])
    store.votes.correct(answer, "  A blue star.\n")
    again = Store(store.path)
    assert again.votes.of_conversation(talk) == {answer: said}
    (correction,) = again.preferences.of_conversation(talk)
    assert (correction.chosen, correction.chosen_text, correction.rejected, correction.source) == (
        None,
        "A blue star.",
        answer,
        "correction",
    )
    again.close()


def test_a_good_and_a_bad_answer_of_a_question_are_a_pair_as_long_as_both_votes_stand(store: Store) -> None:
    _, question, (one, two, three) = asked(store, "one", "two", "three")
    pairs = store.preferences.pairs
    store.votes.vote(one, "down", reasons=["wrong"])
    assert pairs() == []
    store.votes.vote(two, "up")
    (pair,) = pairs("vote")
    assert (pair.question, pair.chosen, pair.rejected, pair.reasons) == (question, two, one, ("wrong",))
    store.votes.vote(two, "up", moments=[1.0])  # the pair says the same: it is not made anew
    assert [p.id for p in pairs("vote")] == [pair.id]
    store.votes.vote(one, "down", reasons=["wrong", "dull"])
    assert [(p.chosen, p.rejected, p.reasons) for p in pairs("vote")] == [(two, one, ("wrong", "dull"))]
    store.votes.vote(three, "up")
    assert {(p.chosen, p.rejected) for p in pairs("vote")} == {(two, one), (three, one)}
    store.votes.vote(three, "down")
    assert {(p.chosen, p.rejected) for p in pairs("vote")} == {(two, one), (two, three)}
    store.votes.revoke(two)
    assert pairs() == []


def test_votes_on_answers_of_two_questions_are_no_pair(store: Store) -> None:
    store.votes.vote(asked(store, "one")[2][0], "up")
    store.votes.vote(asked(store, "two")[2][0], "down")
    assert store.preferences.pairs() == []


def test_a_correction_is_changed_and_taken_back(store: Store) -> None:
    _, _, (answer,) = asked(store, "A red circle.")
    store.votes.correct(answer, "A blue star.")
    store.votes.correct(answer, "A blue heart.")
    assert [p.chosen_text for p in store.preferences.pairs("correction")] == ["A blue heart."]
    assert store.votes.uncorrect(answer) and not store.votes.uncorrect(answer)
    assert store.preferences.pairs() == [] and len(kept(store, "preferences")) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" \n", "is empty"),
        (" A red circle. ", "is the answer as it is"),
        ("x" * 8001, "8001 characters; the most is 8000"),
        ("<think>so</think> A star.", "holds the mark <think>"),
        ("A star.</answer>", "holds the mark </answer>"),
    ],
)
def test_a_correction_that_teaches_nothing_is_one_sentence(store: Store, text: str, sentence: str) -> None:
    _, _, (answer,) = asked(store, "A red circle.")
    with pytest.raises(FinetuneError, match=sentence):
        store.votes.correct(answer, text)
    assert kept(store, "preferences") == []


def test_nothing_is_said_of_an_answer_that_is_not_written_or_gone(store: Store) -> None:
    talk, question, (answer,) = asked(store, "A red circle.")
    running = store.begin_answer(question, mode="auto").id
    for one, sentence in ((running, "still being written"), ("nobody", "was deleted")):
        with pytest.raises(FinetuneError, match=sentence):
            store.votes.vote(one, "up")
        with pytest.raises(FinetuneError, match=sentence):
            store.votes.correct(one, "A star.")
    store.votes.vote(answer, "up")
    store.delete_conversation(talk)
    assert store.votes.in_force() == [] and not store.votes.revoke(answer)
    assert kept(store, "votes") == []


def test_what_is_no_vote_is_a_defect(store: Store) -> None:
    _, _, (answer,) = asked(store, "A red circle.")
    for wrong in (
        lambda: store.votes.vote(answer, "sideways"),  # type: ignore[arg-type]
        lambda: store.votes.vote(answer, "down", reasons=["boring"]),
        lambda: store.votes.vote(answer, "up", reasons=["wrong"]),
        lambda: store.votes.vote(answer, "up", moments=[float("nan")]),
        lambda: store.votes.vote(answer, "up", moments=[-1.0]),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(FinetuneError, match="20 marked moments"):
        store.votes.vote(answer, "up", moments=[float(n) for n in range(21)])


def test_a_picked_draft_is_better_than_every_other_and_the_conversation_goes_on_from_it(store: Store) -> None:
    talk, question, (one, two, three) = asked(store, "one", "two", "three")
    (now,) = standing(store, talk)
    assert now.answer is not None and now.answer.text == "one"  # the drafts came later, and nobody chose one
    store.drafts.pick(three)
    assert [(p.chosen, p.rejected) for p in store.preferences.pairs("draft")] == [(three, one), (three, two)]
    store.drafts.pick(two)
    assert [(p.chosen, p.rejected) for p in store.preferences.pairs("draft")] == [(two, one), (two, three)]
    (now,) = standing(store, talk)
    assert now.answer is not None and now.answer.id == two and now.drafts is not None and now.drafts.picked == two
    assert [a.id for a in now.drafts.answers] == [one, two, three]
    assert store.drafts.unpick(question) and not store.drafts.unpick(question)
    (now,) = standing(store, talk)
    assert now.answer is not None and now.answer.id == one and store.preferences.pairs() == []


def test_a_draft_stands_in_for_an_answer_that_failed(store: Store) -> None:
    talk, question, (failed, draft) = asked(store, "", "two")
    (now,) = standing(store, talk)
    assert now.answer is not None and now.answer.id == draft
    with pytest.raises(FinetuneError, match="no other drafts"):
        store.drafts.pick(failed)
    running = store.begin_answer(question, mode="auto")
    store.drafts.add(failed, [running.id])
    store.update_answer(running.id, text="thr")
    with pytest.raises(FinetuneError, match="Wait until every draft"):
        store.drafts.pick(draft)
    (now,) = standing(store, talk)
    assert now.answer is not None and now.answer.id == draft and now.drafts is not None and now.drafts.running
    other = asked(store, "elsewhere")[2][0]
    with pytest.raises(ValueError, match="same question"):
        store.drafts.add(failed, [other])
    with pytest.raises(FinetuneError, match="no other drafts"):
        store.drafts.pick(other)


def test_the_export_holds_votes_and_drafts_in_force(store: Store) -> None:
    talk, question, (one, two) = asked(store, "one", "two")
    store.votes.vote(one, "up")
    store.votes.vote(one, "down", reasons=["repeats"], moments=[1.5])
    found = json.loads(json.dumps(export_conversation(store, talk)))
    (vote,) = found["votes"]
    assert (vote["answer"], vote["value"], vote["reasons"], vote["moments"]) == (one, "down", ["repeats"], [1.5])
    assert found["drafts"] == {question: [one, two]}


def test_of_many_who_vote_at_once_one_word_is_in_force(store: Store) -> None:
    _, _, (one, two) = asked(store, "one", "two")
    calls = [(answer, value) for answer in (one, two) for value in ("up", "down")] * 4
    threads = [threading.Thread(target=store.votes.vote, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    votes = {vote.answer: vote.value for vote in store.votes.in_force()}
    assert len(votes) == 2 and len(kept(store, "votes")) == 16
    expected = {("up", "down"): [(one, two)], ("down", "up"): [(two, one)]}.get((votes[one], votes[two]), [])
    assert [(p.chosen, p.rejected) for p in store.preferences.pairs("vote")] == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["up", "down", "nothing"])), max_size=8))
@settings(max_examples=25, deadline=None)
def test_pairs_are_always_each_good_over_each_bad(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[int, str]]
) -> None:
    store = Store(tmp_path_factory.mktemp("s") / "studio.sqlite")
    _, _, answers = asked(store, "one", "two", "three")
    state: dict[str, str] = {}
    for at, word in words:
        if word == "nothing":
            store.votes.revoke(answers[at])
            state.pop(answers[at], None)
        else:
            store.votes.vote(answers[at], word)  # type: ignore[arg-type]
            state[answers[at]] = word
    good = {a for a, word in state.items() if word == "up"}
    bad = set(state) - good
    found = [(p.chosen, p.rejected) for p in store.preferences.pairs("vote")]
    assert sorted(found) == sorted((a, b) for a in good for b in bad)
    store.close()
