"""Rows that cannot be learnt from, counted by what is wrong with them: nothing is left out silently."""

from __future__ import annotations

from typing import Any, Literal

Reason = Literal[
    "is not a JSON object of at most 64 MB",
    "has no list of messages or conversations",
    "has a role that is unknown",
    "has its roles out of order",
    "has an empty question or answer",
    "has another number of marks than of pictures or videos",
    "names a picture or video in a way that is unknown",
    "names a file that is missing",
    "names a path outside of the file's folder",
    "names a video that cannot be read",
    "names a picture that cannot be read",
    "has control tokens in an answer",
    "has a mode that is unknown",
    "does not say which answers are learnt",
    "has no chosen and rejected answer",
    "has two answers that are the same",
    "has no reference answer",
    "has a reward that is unknown",
    "has a reference that its reward cannot read",
    "is longer than fits",
    "does not show one picture or clip",
    "is a clip, and frames of two sizes are no one picture",
]

SHOWN = 5
"""Examples that are kept of each reason."""


class BadRow(Exception):
    """A row that is left out. `detail` says what about it, in a few words."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason
        self.detail = detail


class Problems:
    """How many rows each reason cost, and the first of them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[tuple[str, str]]] = {}  # where the row stands, and its detail

    def add(self, where: str, problem: BadRow) -> None:
        self.counts[problem.reason] = self.counts.get(problem.reason, 0) + 1
        shown = self.examples.setdefault(problem.reason, [])
        if len(shown) < SHOWN:
            shown.append((where, problem.detail))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """One line for each reason, the commonest first."""
        out = []
        for reason, count in sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])):
            shown = "; ".join(f"{where}{f' ({detail})' if detail else ''}" for where, detail in self.examples[reason])
            more = "; …" if count > len(self.examples[reason]) else ""
            who = f"{count:,} rows, each" if count > 1 else "1 row"
            out.append(f"{who} {reason}: {shown}{more}")
        return out

    def as_json(self) -> dict[str, Any]:
        return {"counts": self.counts, "examples": self.examples}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Problems:
        out = cls()
        out.counts = {str(k): int(v) for k, v in data["counts"].items()}
        out.examples = {str(k): [(str(w), str(d)) for w, d in v] for k, v in data["examples"].items()}
        return out
