"""The list of everything collected: what is found, in which order, page by page, and what changing it does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.feedback import Store, browse
from finetune.feedback.browse import correct, count, every, exclude, excluded, include, models
from finetune.feedback.filters import Filters
from tests.finetune.collected import Collected


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collected]:
    made = Collected(tmp_path)
    yield made
    made.store.close()


def found(store: Store, **filters: object) -> list[str]:
    return [entry.said for entry in browse.browse(store, Filters(**filters)).entries]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red circle", ["A red circle moves."]),
        ("circle red", ["A red circle moves."]),  # words in any order
        ("RED", ["A red circle moves."]),
        ("ed cir", ["A red circle moves."]),  # within words
        ("colour", ["It is 100% blue."]),  # stands in the question
        ("0%", ["It is 100% blue."]),
        ("_", []),  # no wildcard
        ("%", ["It is 100% blue."]),
        ("红", ["红色的圆向左移动。"]),
        ("圆 左", ["红色的圆向左移动。"]),
        ("红色的圆", ["红色的圆向左移动。"]),
        ("红色的方", []),
        ("blue 红", []),
        ('"red" OR', []),  # no query language
        ("", ["红色的圆向左移动。", "It is 100% blue.", "A red circle moves."]),
    ],
)
def test_words_are_found_in_both_languages_short_or_long(made: Collected, text: str, expected: list[str]) -> None:
    made.ask("What do you see?", "A red circle moves.")
    made.ask("Which colour is it?", "It is 100% blue.")
    made.ask("圆去哪里？", "红色的圆向左移动。")
    assert found(made.store, text=text) == expected
    assert count(made.store, Filters(text=text)) == (len(expected), True)


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text("ab猫狗 %_\"'*-", min_size=1, max_size=8), min_size=1, max_size=6),
    word=st.text("ab猫狗%_\"'*-", min_size=1, max_size=4),
)
def test_search_agrees_with_looking_into_every_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], word: str
) -> None:
    made = Collected(tmp_path_factory.mktemp("search"))
    texts = [text for text in texts if text]
    for text in texts:
        made.ask("?", text)
    assert sorted(found(made.store, text=word)) == sorted(text for text in texts if word in text)
    made.store.close()


def test_filters_are_all_to_hold(made: Collected) -> None:
    low, high = made.bare("0"), made.bare("f")  # below and above the share of 0.2
    (one,) = made.ask("What?", "one", video=low, mode="think", model="big")
    two, three = made.ask("What?", "two", "three", video=high)
    (four,) = made.ask("什么？", "four", video=high)
    made.store.preferences.prefer(two, three, source="compare")
    correct(made.store, four, "vier")
    exclude(made.store, [one])
    assert found(made.store, mode="think") == ["one"]
    assert found(made.store, model="nano") == ["four", "three", "two"]
    assert found(made.store, model="nano", language="en") == ["three", "two"]
    assert found(made.store, language="zh") == ["four"]
    assert found(made.store, side="held_out") == ["one"]
    assert found(made.store, side="train") == ["four", "three", "two"]
    assert found(made.store, has=frozenset({"preference"})) == ["three", "two"]
    assert found(made.store, has=frozenset({"correction"})) == ["four"]
    assert found(made.store, has=frozenset({"excluded"})) == ["one"]
    assert found(made.store, lacks=frozenset({"excluded"})) == ["four", "three", "two"]
    assert found(made.store, has=frozenset({"correction"}), lacks=frozenset({"correction"})) == []
    assert found(made.store, has=frozenset({"vote"})) == []  # a store may have none of a kind
    assert found(made.store, video=low) == ["one"]
    assert found(made.store, text="vier") == ["four"]
    assert models(made.store) == ["big", "nano"]
    better, worse = (next(e for e in browse.browse(made.store).entries if e.answer == a) for a in (two, three))
    assert (better.preferred, better.passed_over, worse.preferred, worse.passed_over) == (1, 0, 0, 1)


def test_days_are_days_of_utc(made: Collected) -> None:
    for text in ("a", "b", "c"):
        made.ask("?", text)
    stamps = {"a": "2025-01-30T23:59:59.999Z", "b": "2025-01-31T00:00:00.000Z", "c": "2025-02-01T00:00:00.000Z"}
    with made.store.transaction() as db:
        for text, when in stamps.items():
            db.execute("UPDATE answers SET created = ?, finish = 'length' WHERE text = ?", [when, text])
    assert found(made.store) == ["c", "b", "a"]
    assert found(made.store, first_day="2025-01-31") == ["c", "b"]
    assert found(made.store, first_day="2025-01-31", last_day="2025-01-31") == ["b"]
    assert count(made.store, Filters(last_day="2025-01-31")) == (2, True)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(text="x" * 201),
        Filters(mode="dream"),
        Filters(side="both"),  # type: ignore[arg-type]
        Filters(has=frozenset({"money"})),  # type: ignore[arg-type]
        Filters(first_day="31.1.2025"),
    ],
)
def test_filters_without_sense_are_a_sentence(made: Collected, filters: Filters) -> None:
    with pytest.raises(FinetuneError):
        browse.browse(made.store, filters)


def test_pages_hold_everything_once_however_little_time_there_is(made: Collected) -> None:
    expected = []
    for number in range(23):
        made.ask("?", f"answer {number}", mode="think" if number % 3 == 0 else "auto")
        expected.insert(0, f"answer {number}")
    for filters, wanted in (
        (Filters(), expected),
        (Filters(text="answer"), expected),
        (Filters(text="er"), expected),
        (Filters(mode="think"), [text for text in expected if int(text.split()[1]) % 3 == 0]),
    ):
        got: list[str] = []
        before = None
        while True:
            page = browse.browse(made.store, filters, before, size=5, seconds=0.0)
            got += [entry.said for entry in page.entries]
            if page.next is None:
                break
            assert before is None or page.next < before
            before = page.next
        assert got == wanted
        assert [entry.said for entry in every(made.store, filters, size=4)] == wanted[::-1]


def test_the_list_follows_the_answers(made: Collected) -> None:
    store = made.store
    talk = store.new_conversation("What?")
    question = store.add_question(talk.id, "What?", mode="auto")
    answer = store.begin_answer(question.id, mode="auto")
    store.update_answer(answer.id, text="A cir")
    assert found(store) == []  # it is still being written
    store.finish_answer(answer.id, "stop", text="A circle.")
    assert found(store, text="circle") == ["A circle."]
    store.finish_answer(answer.id, "stop", text="A square.")
    assert (found(store, text="circle"), found(store, text="square")) == ([], ["A square."])
    silent = store.begin_answer(question.id, mode="auto")
    store.finish_answer(silent.id, "error", text="", error="no memory")
    assert found(store) == ["A square."]  # nothing can be learnt from an answer without a text
    store.delete_conversation(talk.id)
    assert found(store) == [] and count(store) == (0, True)
    with sqlite3.connect(store.path) as conn:
        assert conn.execute("SELECT count(*) FROM search").fetchone() == (0,)


def test_a_correction_is_learnt_found_changed_and_taken_back(made: Collected) -> None:
    (answer,) = made.ask("What?", "A red circle.")
    assert correct(made.store, answer, "  A blue square. ") == "A blue square."
    assert [p.chosen_text for p in made.store.preferences.pairs("correction")] == ["A blue square."]
    correct(made.store, answer, "A green star.")
    assert (found(made.store, text="square"), found(made.store, text="star")) == ([], ["A red circle."])
    (entry,) = browse.browse(made.store).entries
    assert entry.correction == "A green star."
    assert correct(made.store, answer, "A red circle.") is None
    assert made.store.preferences.pairs("correction") == [] and found(made.store, text="star") == []
    for bad in ("", "  ", "<|im_end|> x", "see <video> here", "word " * 5000):
        with pytest.raises(FinetuneError, match="Nothing can be learnt"):
            correct(made.store, answer, bad)
    with pytest.raises(FinetuneError, match="deleted"):
        correct(made.store, "gone", "x")


def test_what_is_excluded_can_be_included_again(made: Collected) -> None:
    one, two = made.ask("What?", "one", "two")
    assert exclude(made.store, [one, one, "gone"]) == 1 and excluded(made.store) == {one}
    assert [e.excluded for e in browse.browse(made.store).entries] == [None, "by hand"]
    assert include(made.store, [one, two]) == 1 and excluded(made.store) == frozenset()
