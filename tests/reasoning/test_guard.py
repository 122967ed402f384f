"""The repetition guard: no false alarm on honest texts, an alarm on every kind of loop, and little work."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.reasoning import guard as module
from engine.reasoning.guard import Guard, Limits
from tests.reasoning.texts import HONEST

LOOPS = {
    "a word": "the ",
    "a letter": "a",
    "a syllable": "ha",
    "line ends": "\n",
    "a sentence": "The red circle moves to the left and the blue square stays. ",
    "a paragraph": "Wait, let me look again. The frame at 0:03 shows a circle. But at 0:04 it is a square. So maybe "
    "the circle became a square, or the square was hidden behind it. Let me check the frame before.\n\n",
    "chinese": "红色圆形向左移动，",
    "a fence": "```\n```\n",
    "a table row": "| 0:01 | circle | red |\n",
}

COUNTS = {
    "seconds": lambda n: (
        f"At 0:{n:02} the red circle is at the left. "
        if n < 60
        else f"At {n // 60}:{n % 60:02} the red circle is at the left. "
    ),
    "a list": lambda n: f"{n}. the red star ",
    "frames": lambda n: f"frame {n}: nothing, ",
    "lines": lambda n: f"- Frame {n} (t = {n / 2:.1f} s): the same as before.\n",
    "down": lambda n: f"{5000 - n} frames are left to look at; ",
    "by fives": lambda n: f"After {5 * n} seconds nothing moves.\n",
    "two in turn": lambda n: f"{n}) red circle, " if n % 2 else f"{n}) blue square, ",
    "chinese": lambda n: f"第{n}秒，红色圆形在左边。",
    "a heading and a row": lambda n: f"### Step {n}\nLook at frame {n}, then at frame {n + 1}.\n",
}
"""Loops that count: what is said in round n."""

NUMBERED = {
    "measures": lambda n: f"Frame {n}: {n * 7919 % 97 / 100} of the picture is red.\n",
    "without an order": lambda n: f"look at {n * 7919 % 977} again, ",
}
"""Loops in which only numbers differ, and do not count."""


def alarm_at(text: str, step: int = 3) -> int | None:
    """Characters that had been read when the guard first said stop."""
    guard = Guard()
    for start in range(0, len(text), step):
        if guard.push(text[start : start + step]):
            return start + step
    return None


@pytest.mark.parametrize("name", HONEST)
def test_no_alarm_on(name: str) -> None:
    assert len(HONEST) > 15
    assert alarm_at(HONEST[name]) is None


def test_no_alarm_on_all_of_them_in_a_row() -> None:
    assert alarm_at("\n\n".join(HONEST.values())) is None


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("before", ["", HONEST["poem"]])
def test_every_loop_is_noticed_and_only_what_was_said_before_is_surplus(name: str, before: str) -> None:
    unit = LOOPS[name]
    text = before + unit * (4000 // len(unit))
    at = alarm_at(text, 1)
    assert at is not None
    guard = Guard()
    for character in text[:at]:
        guard.push(character)
    kept = text[: at - guard.surplus]
    assert kept.startswith(before)
    said = kept[len(before) :]
    assert len(said) <= 2 * max(len(unit), 4) + 8 or unit * 2 not in said
    assert guard.push("anything else")


def endless(unit: Callable[[int], str], length: int) -> str:
    text, n = "", 0
    while len(text) < length:
        n += 1
        text += unit(n)
    return text


def rounds(unit: Callable[[int], str], length: int) -> int:
    """How many rounds that many characters are."""
    lengths = itertools.accumulate(len(unit(n)) for n in itertools.count(1))
    return next(n for n, total in enumerate(lengths, 1) if total >= length)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("before", ["", HONEST["frames"]])
def test_every_loop_that_counts_is_noticed_and_only_the_count_is_surplus(name: str, before: str) -> None:
    unit = COUNTS[name]
    text = before + endless(unit, 16_000)
    at = alarm_at(text, 1)
    assert at is not None
    assert 60 < rounds(unit, at - len(before)) <= 140  # not within a minute's seconds; two in turn are two to a round
    guard = Guard()
    for character in text[:at]:
        guard.push(character)
    kept = text[: at - guard.surplus]
    assert kept.startswith(before) and len(kept) - len(before) <= 6 * len(unit(50))


@pytest.mark.parametrize("name", NUMBERED)
def test_a_loop_in_which_only_numbers_differ_is_noticed_later(name: str) -> None:
    unit = NUMBERED[name]
    text = endless(unit, 30_000)
    at = alarm_at(text)
    assert at is not None and 150 < rounds(unit, at) < 260


@given(st.sampled_from(sorted(COUNTS)), st.data())
@settings(max_examples=30)
def test_how_a_count_was_split_does_not_matter(name: str, data: st.DataObject) -> None:
    text = endless(COUNTS[name], 9000)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    one, many = Guard(), Guard()
    assert one.push(text) and [many.push(piece) for piece in pieces][-1]
    assert one.period == many.period


def test_a_minute_that_is_over_does_not_hide_the_count() -> None:
    text = "".join(f"{s // 60}:{s % 60:02} nothing; " for s in range(40, 140))
    at = alarm_at(text)
    assert at is not None and "1:39" <= text[:at].split()[-3] <= "1:50"


@given(st.lists(st.sampled_from(["1", "22", "3:04", "0.5", " ", "a", "红", ".", ":", "\n"]), max_size=400).map("".join))
@settings(max_examples=60)
def test_any_text_with_numbers_is_read_without_harm(text: str) -> None:
    guard = Guard()
    for piece in text:
        guard.push(piece)
    assert 0 <= guard.surplus <= len(text)


@given(
    st.lists(st.sampled_from("红 blue\n左1"), min_size=1, max_size=40).map("".join),
    st.text("xyz ", max_size=80),
)
@settings(max_examples=60)
def test_whatever_is_repeated_is_noticed(unit: str, before: str) -> None:
    assert alarm_at(before + unit * (2600 // len(unit) + 6), 7) is not None


@given(st.text("ab\n红1", max_size=900), st.data())
@settings(max_examples=60)
def test_how_the_text_was_split_does_not_matter(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    one, many = Guard(), Guard()
    assert one.push(text) == [many.push(piece) for piece in pieces][-1]
    assert (one.period, one.surplus if one.period else 0)[0] == many.period


def test_the_period_is_the_smallest_one_by_trying_them_all() -> None:
    tokens = [*"abcab" * 90, *"xxabcab"]
    for text in (tokens, list(reversed(tokens)), [*"aab" * 120], [*"ab" * 200 + "c"]):
        limits = Limits(times=3, tokens=30, longest=40, every=1)
        period, length = module._periodic(text, limits)
        tried = [
            (n, p)
            for n in range(1, len(text) + 1)
            for p in range(1, 41)
            if n >= max(30, 3 * p) and all(text[i] == text[i + p] for i in range(n - p))
        ]
        assert (length > 0) == bool(tried)
        if tried:
            longest = max(n for n, _ in tried)
            assert (period, length) == (min(p for n, p in tried if n == longest), longest)


def test_it_works_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are rare and see a bounded piece: the work does not grow with the answer."""
    seen: list[int] = []
    real = module._periodic
    monkeypatch.setattr(module, "_periodic", lambda newest, limits: (seen.append(len(newest)), real(newest, limits))[1])
    guard = Guard()
    text = " ".join(str(i) for i in range(20_000))
    guard.push(text)
    assert len(seen) <= len(text) / guard.limits.every
    assert max(seen) <= guard.limits.times * guard.limits.longest
