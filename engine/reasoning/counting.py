"""Notices a loop that counts: the same words over and over, and only the numbers between them move on.

The text is cut at its numbers. What stands between two numbers must recur word for word, with the same few numbers in
every round (a list has one, "at 0:01 frame 2" has two); each number stays or moves on by the same step. A time such as
1:05 is one number, in seconds, so that a minute that is over does not hide the count.

Where the limits come from is the corpus of ordinary texts in tests/reasoning/texts.py. A list that says the same of
every second of a clip is honest as long as a clip has that many: the longest there go through a minute's 60 seconds
and a year's 52 weeks, so STEADY is 64. A table, a row of measurements or a drawing also repeats its words between
numbers, but its numbers are not a count: for these the limit is ROWS, above the 144 lines of a multiplication table to
12. Numbers with no word between them (1, 2, 3 …) are what somebody asked for: no loop is seen in them."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

STEADY = 64
"""Rounds of a count that is a loop."""

ROWS = 208
"""Rounds with the same words and any numbers that are a loop."""

_NUMBER = re.compile(r"\d+(?:[:.]\d+)*")
_UNFINISHED = re.compile(r"\d[\d:.]*\Z")
_WORD = re.compile(r"[^\W\d_]")
_MOST_NUMBERS = 8  # in one round
_MOST_BETWEEN = 1000  # characters between two numbers of a round


@dataclass
class _Run:
    """How long the text has repeated with so many numbers a round."""

    rows: int = 0  # numbers that follow the same words as one round before
    steady: int = 0  # of these, the newest that also moved on by the same step as one round before
    words: int = 0  # of the rows, the newest since one had a word before it
    rows_from: int = 0  # characters of the text up to where the rows began
    steady_from: int = 0


class Counting:
    """Feed it the text as it comes; `push` says whether it has become a loop that counts."""

    def __init__(self) -> None:
        self.length = 0  # characters of all the text
        self.round = 0  # numbers a round of the loop that was found; 0 while there is none
        self.surplus = 0  # characters at the end of the text that only count on
        self._between = ""  # since the last number
        self._open = ""  # at the end, a number that more text may lengthen
        # Newest last: what stood before a number, the number (None: not to be counted with), where it ended.
        self._numbers: deque[tuple[str, float | None, int]] = deque(maxlen=2 * _MOST_NUMBERS + 1)
        self._runs = {period: _Run() for period in range(1, _MOST_NUMBERS + 1)}

    def push(self, text: str) -> bool:
        """Once True, it stays True."""
        self.length += len(text)
        if self.round:
            return True
        new = self._open + text
        unfinished = _UNFINISHED.search(new)
        until = unfinished.start() if unfinished and len(new) - unfinished.start() <= _MOST_BETWEEN else len(new)
        start = 0
        for number in _NUMBER.finditer(new, 0, until):
            between = self._between + new[start : number.start()]
            self._between, start = "", number.end()
            if self._number(between, number.group(), self.length - len(new) + start):
                return True
        # What is too long is kept as too long, not whole.
        self._between = (self._between + new[start:until])[: _MOST_BETWEEN + 1]
        self._open = new[until:]
        return False

    def _number(self, between: str, written: str, end: int) -> bool:
        before = self._numbers
        value = _value(written)
        before.append((between, value, end))
        fits = len(between) <= _MOST_BETWEEN
        for period, run in self._runs.items():
            if not fits or len(before) <= period or before[-1 - period][0] != between:
                run.rows = run.steady = run.words = 0
                continue
            if not run.rows:
                run.rows_from = before[-1 - period][2]
            run.rows += 1
            run.words = period if _WORD.search(between) else run.words - 1
            if self._moved_on(period, value):
                if not run.steady:
                    run.steady_from = before[-1 - period][2]
                run.steady += 1
            else:
                run.steady = 0
            if run.words > 0 and (run.steady >= STEADY * period or run.rows >= ROWS * period):
                self.round = period
                begun = run.steady_from if run.steady >= STEADY * period else run.rows_from
                self.surplus = self.length - begun
                return True
        return False

    def _moved_on(self, period: int, value: float | None) -> bool:
        """Whether the newest number moved on by the step by which it did one round before."""
        last, oldest = self._numbers[-1 - period][1], None
        if len(self._numbers) > 2 * period:
            oldest = self._numbers[-1 - 2 * period][1]
        if value is None or last is None or oldest is None:
            return False
        return abs((value - last) - (last - oldest)) < 1e-6


def _value(written: str) -> float | None:
    """A number as written; a time such as 1:05 or 1:02:03.5 in seconds. None for what is neither, or too long."""
    if len(written) > 15:
        return None
    try:
        value = 0.0
        for part in written.split(":"):
            value = value * 60 + float(part)
        return value
    except ValueError:
        return None
