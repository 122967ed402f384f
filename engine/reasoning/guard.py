"""Notices that a model repeats itself without end, the main abnormal behaviour that the report names (section 4.2.3).

The rule itself is not published. Here: the newest tokens are one stretch said over and over, word for word. How often
is too often depends on how long the stretch is, since short ones recur in honest texts: rows of zeros, refrains, dotted
lines, table rules. A list, a table or a program differs somewhere in every line and is never such a stretch; neither
is a loop that counts, which engine.reasoning.counting notices.

Text is cut into tokens here, alike for every runtime: a runtime gives text, and two may cut it differently."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from engine.reasoning.counting import Counting

_TOKEN = re.compile(r"[^\W\d_\u2e80-\U0003ffff]{1,4}|\d|\s|.", re.DOTALL)
"""Four letters, a digit, a space, a Chinese character or a mark: about as much as a token of the model's vocabulary.
Words are cut so that one without an end is seen, too."""


@dataclass(frozen=True)
class Limits:
    """How much repetition is too much: at least `times` times the same, and at least `tokens` tokens of it."""

    times: int = 5
    tokens: int = 320
    longest: int = 256  # tokens of the longest stretch that is looked for
    every: int = 32  # tokens between two looks


class Guard:
    """Feed it the text as it comes; it says when to stop."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        most = max(self.limits.tokens, self.limits.times * self.limits.longest)
        self._tokens: deque[str] = deque(maxlen=most)
        self._held = ""  # the last token, which more text may lengthen
        self._since = 0  # tokens since the last look
        self._counting = Counting()
        self.period = 0  # of the repetition that was found, in tokens (in numbers, if it counts); 0 while there is none
        self.surplus = 0  # characters at the end of the text that only say again what was said before

    def push(self, text: str) -> bool:
        """Whether the text so far ends in a repetition. Once True, it stays True."""
        if self.period:
            return True
        cut = _TOKEN.findall(self._held + text)
        if cut:
            self._held = cut.pop()
        for token in cut:
            self._tokens.append(token)
            self._since += 1
            if self._since >= self.limits.every:
                self._since = 0
                if self._look():
                    return True
        if self._counting.push(text):
            self.period, self.surplus = self._counting.round, self._counting.surplus
        return bool(self.period)

    def _look(self) -> bool:
        newest = list(reversed(self._tokens))
        if len(newest) < self.limits.tokens:
            return False
        period, length = _periodic(newest, self.limits)
        if not period:
            return False
        self.period = period
        self.surplus = sum(map(len, newest[: length - period])) + len(self._held)
        return True


def _periodic(newest: list[str], limits: Limits) -> tuple[int, int]:
    """(period, length) of the longest run, from the newest token backwards, that repeats often enough; (0, 0) if none.

    Knuth, Morris and Pratt's failure function of the reversed text gives the smallest period of every run in one pass:
    that of the first n tokens is n minus their longest border."""
    border = [0] * len(newest)
    found = (0, 0)
    k = 0
    for n in range(1, len(newest)):
        while k and newest[n] != newest[k]:
            k = border[k - 1]
        if newest[n] == newest[k]:
            k += 1
        border[n] = k
        period = n + 1 - k
        if period <= limits.longest and n + 1 >= max(limits.tokens, limits.times * period):
            found = (period, n + 1)
    return found
