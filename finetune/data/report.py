"""What a step did: how many came in, how many it kept, and what it left out, why, with examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""Examples that are kept of each reason."""


@dataclass
class Reason:
    count: int = 0
    examples: list[str] = field(default_factory=list)  # the name of the file or item, and after a colon what it has


@dataclass
class Report:
    """Of one step. `unit` says what is counted: a caption may be left out while its picture stays."""

    step: str
    unit: str = "items"
    came: int = 0
    made: int = 0  # kept, or newly made
    reasons: dict[str, Reason] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # one sentence each

    @property
    def left_out(self) -> int:
        return sum(reason.count for reason in self.reasons.values())

    def drop(self, name: str, why: str, detail: str = "", examples: int = EXAMPLES) -> None:
        """Count one that was left out."""
        reason = self.reasons.setdefault(why, Reason())
        reason.count += 1
        if len(reason.examples) < examples:
            reason.examples.append(f"{name}: {detail}" if detail else name)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def to_json(self) -> dict[str, Any]:
        dropped = [
            {"why": why, "count": reason.count, "examples": reason.examples}
            for why, reason in sorted(self.reasons.items(), key=lambda pair: -pair[1].count)
        ]
        return {
            "step": self.step,
            "unit": self.unit,
            "came": self.came,
            "made": self.made,
            "left_out": dropped,
            "notes": self.notes,
        }
