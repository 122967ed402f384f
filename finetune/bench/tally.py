"""Counting verdicts: per task, per category, and the headline mean. Holds counts only, however many items come."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.answers.scoring import wilson
from finetune.bench.scorers import Prediction, Verdict

Scoring = Literal["published", "strict"]
SCORINGS: tuple[Scoring, ...] = ("published", "strict")


@dataclass
class Count:
    right: int = 0
    total: int = 0

    def add(self, hit: bool | None) -> None:
        if hit is not None:
            self.right += hit
            self.total += 1

    @property
    def percent(self) -> float | None:
        return 100 * self.right / self.total if self.total else None

    def facts(self) -> dict[str, Any]:
        """right, items, percent and its 95 % interval (Wilson), in percent with two decimals."""
        low, high = wilson(self.right, self.total)
        return {
            "right": self.right,
            "items": self.total,
            "percent": rounded(self.percent),
            "low": round(100 * low, 2),
            "high": round(100 * high, 2),
        }


@dataclass
class TaskCount:
    """Both scorings of one task or category. `not_comparable` counts items that only a substitute rule could score."""

    published: Count = field(default_factory=Count)
    strict: Count = field(default_factory=Count)
    not_comparable: int = 0

    def add(self, verdict: Verdict) -> None:
        self.published.add(verdict.published)
        self.strict.add(verdict.strict)
        self.not_comparable += not verdict.comparable

    def of(self, scoring: Scoring) -> Count:
        return self.published if scoring == "published" else self.strict


@dataclass
class Tally:
    """All tasks of a run. `problems` counts what went wrong, by task and sentence."""

    tasks: dict[str, TaskCount] = field(default_factory=dict)
    categories: dict[str, dict[str, TaskCount]] = field(default_factory=dict)
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    unscored: int = 0

    def add(self, prediction: Prediction, verdict: Verdict) -> None:
        """Count one scored item under the task name it came with. An item that either scoring cannot score counts as
        unscored too."""
        self.tasks.setdefault(prediction.task, TaskCount()).add(verdict)
        self.count_category(prediction.task, prediction.category, verdict)
        if verdict.problem:
            self.problems[prediction.task, verdict.problem] += 1
        self.unscored += verdict.published is None or verdict.strict is None

    def count_category(self, task: str, category: str, verdict: Verdict) -> None:
        """Count an item in a breakdown of its task; nothing where the category has no name."""
        if category:
            self.categories.setdefault(task, {}).setdefault(category, TaskCount()).add(verdict)

    def leave_out(self, task: str, problem: str) -> None:
        """Count an item that cannot be scored at all. Of a problem only what stands before a colon is counted, so that
        a thousand missing files are one problem."""
        self.problems[task, kind(problem)] += 1
        self.unscored += 1

    def macro(self, scoring: Scoring) -> float | None:
        """The headline: the unweighted mean of the tasks' percentages (KC-MMBENCH.md §7)."""
        shares = [p for task in self.tasks.values() if (p := task.of(scoring).percent) is not None]
        return sum(shares) / len(shares) if shares else None

    def macro_interval(self, scoring: Scoring) -> tuple[float, float] | None:
        """The 95 % interval of the headline: the tasks' Wilson intervals combined as those of a sum of independent
        shares (MOVER: Zou and Donner 2008)."""
        counts = [c for task in self.tasks.values() if (c := task.of(scoring)).total]
        mean = self.macro(scoring)
        if mean is None:
            return None
        below = above = 0.0
        for count in counts:
            low, high = wilson(count.right, count.total)
            share = count.right / count.total
            below += (share - low) ** 2
            above += (high - share) ** 2
        return mean - 100 * math.sqrt(below) / len(counts), mean + 100 * math.sqrt(above) / len(counts)

    def all_items(self, scoring: Scoring) -> Count:
        """Every item alike, whatever its task."""
        several = [task.of(scoring) for task in self.tasks.values()]
        return Count(sum(c.right for c in several), sum(c.total for c in several))

    def summary(self) -> dict[str, Any]:
        """What `python -m finetune score` prints: percentages with two decimals; None where nothing could be scored."""
        out: dict[str, Any] = {
            scoring: {name: rounded(task.of(scoring).percent) for name, task in self.tasks.items()}
            | {"macro": rounded(self.macro(scoring))}
            for scoring in SCORINGS
        }
        out["categories"] = {
            task: {
                name: {scoring: rounded(count.of(scoring).percent) for scoring in SCORINGS}
                | {"items": count.published.total}
                for name, count in several.items()
            }
            for task, several in self.categories.items()
        }
        return out | {"unscored": self.unscored}


def kind(problem: str) -> str:
    """What kind of problem a sentence tells of: what it is about comes after a colon."""
    return problem.partition(": ")[0]


def rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)
