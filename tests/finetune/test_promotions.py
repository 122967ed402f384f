"""Promotions and blind comparisons in the store, and what a comparison says."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.feedback import Store
from finetune.feedback.trials import AskedPair, Pair, Trial, drawn_left
from finetune.loop.trial_figures import figures, sign_test
from finetune.loop.trial_preferences import as_preference

BASE = "/models/nano"
FACTS = {"model": "keye-nano", "checkpoint": BASE, "adapter": None, "runtime": "local", "decoding": {"greedy": True}}
NEW = {**FACTS, "adapter": "evening-sft-12345678"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "studio.sqlite")


def promote(store: Store, name: str, replaced: str) -> None:
    folder = f"/runs/{name}/model"
    store.promotions.promote(BASE, model=folder, adapter=None, name=name, replaced=replaced, run=f"run-{name}")


# -- promotions -----------------------------------------------------------------------------------------------------


def test_roll_backs_go_back_one_by_one_to_the_base_and_are_rows_themselves(store: Store, tmp_path: Path) -> None:
    promotions = store.promotions
    assert promotions.now(BASE) is None
    with pytest.raises(FinetuneError, match="nothing to roll back"):
        promotions.roll_back(BASE, name="nano")
    promote(store, "first", "nano")
    promote(store, "second", "first")
    back = promotions.before(BASE)
    assert back is not None and back.name == "first"
    once = promotions.roll_back(BASE, name="first")
    assert (once.model, once.name, once.run, once.replaced) == ("/runs/first/model", "first", "run-first", "second")
    assert promotions.before(BASE) is None  # the base
    twice = promotions.roll_back(BASE, name="nano")
    assert twice.is_base and (twice.name, twice.replaced) == ("nano", "first")
    with pytest.raises(FinetuneError, match="nothing to roll back"):
        promotions.roll_back(BASE, name="nano")
    promote(store, "third", "nano")
    store.close()
    reopened = Store(tmp_path / "studio.sqlite").promotions
    now = reopened.now(BASE)
    assert now is not None and now.name == "third"
    assert [row.name for row in reopened.history(BASE)] == ["third", "nano", "first", "second", "first"]
    assert [row.action for row in reopened.history(BASE)][1:3] == ["roll_back", "roll_back"]
    assert reopened.now("/models/another") is None  # a history of its own
    assert reopened.roll_back(BASE, name="nano").is_base


# -- sides ----------------------------------------------------------------------------------------------------------


def begin(store: Store, asked: list[AskedPair], seed: int = 3) -> Trial:
    return store.trials.begin(asked, seed=seed, base=FACTS, candidate=NEW, model=None, adapter="/a", run=None)


def test_sides_are_drawn_for_each_question_fairly_and_kept(store: Store) -> None:
    trial = begin(store, [AskedPair(f"q{i}", "count") for i in range(60)])
    lefts = [pair.left for pair in store.trials.pairs(trial.id)]
    assert lefts == [pair.left for pair in store.trials.pairs(begin(store, [AskedPair("q", "x")] * 60).id)]
    assert lefts != [pair.left for pair in store.trials.pairs(begin(store, [AskedPair("q", "x")] * 60, 4).id)]
    many = Counter(drawn_left(seed, position) for seed in range(40) for position in range(50))
    assert abs(many["base"] - 1000) < 90  # a fair coin: four standard deviations
    runs = sum(a != b for a, b in itertools.pairwise(lefts))
    assert 15 < runs < 45  # neither side by side nor in turn


def test_what_stands_on_a_side_is_what_that_one_said(store: Store) -> None:
    trial = begin(store, [AskedPair(f"q{i}", "count") for i in range(20)])
    for position in range(20):
        store.trials.answered(trial.id, position, "base", {"text": "old"})
        assert not store.trials.pair(trial.id, position).complete
        store.trials.answered(trial.id, position, "candidate", {"text": "new"})
    for pair in store.trials.pairs(trial.id):
        left, right = pair.side(True), pair.side(False)
        assert left is not None and right is not None
        assert (left["text"], right["text"]) == (("old", "new") if pair.left == "base" else ("new", "old"))


# -- what is said ---------------------------------------------------------------------------------------------------


def test_a_verdict_is_kept_changed_and_taken_back(store: Store) -> None:
    trial = begin(store, [AskedPair("q", "count"), AskedPair("r", "count")])
    with pytest.raises(FinetuneError, match="says nothing"):
        store.trials.judge(trial.id, 0, "base")
    for party in ("base", "candidate"):
        store.trials.answered(trial.id, 0, party, {"text": "two"})  # type: ignore[arg-type]
    assert store.trials.judge(trial.id, 0, "base").verdict == "base"
    assert store.trials.judge(trial.id, 0, "both_good").verdict == "both_good"
    assert store.trials.judge(trial.id, 0, None).judged is None
    with pytest.raises(ValueError):
        store.trials.judge(trial.id, 0, "left")  # type: ignore[arg-type]
    store.trials.reveal(trial.id)
    since = store.trials.one(trial.id).revealed
    store.trials.reveal(trial.id)
    assert since is not None and store.trials.one(trial.id).revealed == since
    with pytest.raises(FinetuneError, match="begin a new one"):
        store.trials.one("gone")


def test_a_judged_pair_of_a_stored_question_is_a_preference_too(store: Store) -> None:
    talk = store.new_conversation("How many?")
    question = store.add_question(talk.id, "How many?", mode="no_think")
    shown = store.begin_answer(question.id, mode="no_think")
    store.finish_answer(shown.id, "stop", text="Three.")
    trial = begin(store, [AskedPair("How many?", "yours", "no_think", "Two.", question.id), AskedPair("x", "count")])
    for position in (0, 1):
        store.trials.answered(trial.id, position, "base", {"text": "Three.", "raw": "Three."})
        store.trials.answered(trial.id, position, "candidate", {"text": "Two.", "raw": "<think>1, 2</think>Two."})

    def judge(position: int, verdict: Any) -> Pair:
        pair = store.trials.judge(trial.id, position, verdict)
        return as_preference(store, store.trials.one(trial.id), pair)

    judge(1, "candidate")  # of no stored question
    assert store.preferences.pairs() == []
    answers = judge(0, "candidate").answers
    assert answers is not None
    [preference] = store.preferences.pairs("compare")
    assert (preference.rejected, preference.chosen) == answers
    kept = store.trials.one(trial.id).conversation
    assert kept is not None
    [turn] = store.conversation(kept).turns
    speakers = {answer.id: (answer.text, answer.raw_text, answer.adapter) for answer in turn.answers}
    assert speakers[answers[0]] == ("Three.", "Three.", None)
    assert speakers[answers[1]] == ("Two.", "<think>1, 2</think>Two.", NEW["adapter"])
    comparison = store.preferences.comparisons(kept)[turn.question.id]
    assert comparison.blind and comparison.left.id == answers[0 if store.trials.pair(trial.id, 0).left == "base" else 1]
    [(_, newest)] = store.turns(talk.id)  # the conversation in which it was asked has not changed
    assert newest is not None and newest.id == shown.id
    judge(0, "base")
    [preference] = store.preferences.pairs("compare")
    assert (preference.chosen, preference.rejected) == answers
    judge(0, "both_bad")
    assert store.preferences.pairs() == []
    assert [p.verdict for p in store.preferences.of_conversation(kept)] == ["both_bad"]
    judge(0, None)
    assert store.preferences.of_conversation(kept) == []
    store.delete_conversation(kept)
    assert judge(0, "candidate").answers != answers  # kept anew
    assert len(store.preferences.pairs()) == 1


# -- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (8, 2), (5, 5), (9, 0), (3, 10)])
def test_the_sign_test_counts_what_coins_do(wins: int, losses: int) -> None:
    """Against all ways in which so many coins can fall."""
    n = wins + losses
    falls = [sum(fall) for fall in itertools.product((0, 1), repeat=n)]
    as_uneven = sum(abs(2 * heads - n) >= abs(wins - losses) for heads in falls)
    assert sign_test(wins, losses) == pytest.approx(as_uneven / 2**n, abs=1e-12)


def test_the_sign_test_of_eight_to_two() -> None:
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)  # worked by hand


def judged(verdicts: str, before: str = "", after: str = "") -> list[Pair]:
    """One letter a pair: w, l, g(ood), b(ad), or - for none; and of both answers r(ight) or f(alse)."""
    words: dict[str, Any] = {"w": "candidate", "l": "base", "g": "both_good", "b": "both_bad", "-": None}
    n = max(len(verdicts), len(before))
    said = {"r": {"text": "Two."}, "f": {"text": "Three."}}
    pairs = []
    for i, (v, b, a) in enumerate(zip(verdicts.ljust(n, "-"), before.ljust(n, "f"), after.ljust(n, "f"), strict=True)):
        asked = AskedPair("How many?", "count", reference="two" if before else None)
        pairs.append(Pair(i, asked, "base", said[b], said[a], words[v], "now" if words[v] else None, None))
    return pairs


def test_figures_are_counted() -> None:
    found = figures(judged("wwlgb--", before="rrffrff", after="rrrffrf"))
    assert (found.judged, found.wins, found.losses, found.both_good, found.both_bad) == (5, 2, 1, 1, 1)
    assert found.preferred is not None and found.preferred.value == pytest.approx(2 / 3)
    assert found.scored == 7 and found.before is not None and found.after is not None and found.change is not None
    assert (found.before.value, found.after.value) == (pytest.approx(3 / 7), pytest.approx(4 / 7))
    assert found.change.value == pytest.approx(1 / 7) and found.change.low < 0 < found.change.high


@pytest.mark.parametrize(
    ("verdicts", "before", "after", "advice", "without_scores"),
    [
        ("", "", "", "more", "more"),
        ("ww", "", "", "more", "more"),
        ("wwwwwwwwl", "", "", "better", "better"),
        ("lllllllll", "", "", "worse", "worse"),
        ("wlwlwlwlgb", "", "", "equal", "equal"),
        ("", "f" * 20, "r" * 15 + "f" * 5, "better", "more"),
        ("", "r" * 20, "r" * 5 + "f" * 15, "worse", "more"),
        ("wwwwwwww", "r" * 20, "r" * 5 + "f" * 15, "disagree", "better"),
        ("", "rf" * 10, "rf" * 10, "equal", "more"),
    ],
)
def test_the_advice_follows_from_what_is_more_than_chance(
    verdicts: str, before: str, after: str, advice: str, without_scores: str
) -> None:
    found = figures(judged(verdicts, before, after))
    assert (found.advice(True), found.advice(False)) == (advice, without_scores)
