"""The report of a run: report.json, items.csv and report.html, made anew from the data and the predictions.

Nothing in it depends on when or in how many pieces the run was made, so a resumed run gives the same bytes."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.runtime.base import ModelInfo
from engine.video import Sampling
from finetune.bench.base import Item, rows
from finetune.bench.figures import published_figures
from finetune.bench.html import page
from finetune.bench.lines import to_prediction
from finetune.bench.media import thumbnails
from finetune.bench.predictions import Predictions
from finetune.bench.run import Plan
from finetune.bench.score import item_facts
from finetune.bench.scorers import Prediction, Verdict
from finetune.bench.tally import SCORINGS, Tally, kind, rounded
from finetune.bench.tasks import task_named
from finetune.errors import FinetuneError

_WORST = 12  # examples shown in all
_EXAMPLES = 5  # indices named of one problem
_NOT_ASKED = "the item has not been asked yet"
_COLUMNS = (
    *("task", "index", "category", "answer", "extracted", "published", "extracted_strict", "strict", "comparable"),
    *("problem", "finish", "frames", "visual_tokens", "answer_tokens", "question", "output", "judge_reply"),
)


@dataclass
class _Found:
    """What one pass over the items gathers; a bounded amount, however many there are."""

    tally: Tally = field(default_factory=Tally)
    items: int = 0
    answered: int = 0
    cut: int = 0
    frames: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # videos, fewest, most, sum
    examples: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    wrong: dict[str, list[tuple[Item, dict[str, Any], Verdict]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, task: str, index: str, problem: str) -> None:
        known = self.examples[task, kind(problem)]
        if len(known) < _EXAMPLES:
            detail = problem.partition(": ")[2]
            known.append(f"{index} ({detail})" if detail and index else detail or index)

    def count_frames(self, frames: int | None) -> None:
        if frames is not None:
            videos, fewest, most, total = self.frames
            self.frames = [videos + 1, min(fewest or frames, frames), max(most, frames), total + frames]


def write_report(plan: Plan, info: ModelInfo, out: Path) -> dict[str, Any]:
    """Write the three files into `out` and return what report.json holds.

    Items without an answer, with unreadable media or a broken row are unscored and named. Raises FinetuneError where
    the data cannot be read or `out` cannot be written."""
    found = _Found()
    try:
        with Predictions(out) as predictions, (out / "items.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for row in rows(plan.benchmark, plan.data, plan.limit):
                found.items += 1
                record = predictions.get((row.task, row.index)) if isinstance(row, Item) else None
                problem = _NOT_ASKED if isinstance(row, Item) else row.problem
                if record is not None and isinstance(row, Item):
                    problem = record.get("error") or ""
                if problem:
                    found.tally.leave_out(row.task, problem)
                    found.note(row.task, row.index, problem)
                    writer.writerow(_cells({"task": row.task, "index": row.index, "problem": problem}))
                else:
                    assert isinstance(row, Item) and record is not None
                    writer.writerow(_cells(_score(row, record, found)))
        settings = json.loads((out / "settings.json").read_text("utf-8"))
        facts = _facts(plan, settings, found)
        worst = _worst(found, plan.sampling(info))
        (out / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (out / "report.html").write_text(page(facts, worst), "utf-8")
    except OSError as error:
        raise FinetuneError(f"The report in {out} cannot be written ({error.strerror}); free some space.") from error
    return facts


def _score(item: Item, record: dict[str, Any], found: _Found) -> dict[str, Any]:
    """Score one answered item, count it, and give its line of the CSV. The truth is the data's, not the record's."""
    read = to_prediction({**record, "question": item.question, "answer": item.answer})
    task = task_named(item.task)
    if isinstance(read, str) or task is None:
        found.tally.leave_out(item.task, f"the prediction is damaged: {read}")
        return {"task": item.task, "index": item.index, "problem": f"the prediction is damaged: {read}"}
    prediction = Prediction(**{**vars(read), "category": item.category})
    verdict = task.scorer(prediction)
    found.answered += 1
    found.cut += record.get("finish") == "length"
    found.count_frames(record.get("frames"))
    found.tally.add(prediction, verdict)
    if item.second_category != item.category:  # the same name twice would count twice
        found.tally.count_category(item.task, item.second_category, verdict)
    if verdict.problem:
        found.note(item.task, item.index, verdict.problem)
    if verdict.published is not True and len(found.wrong[item.task]) < _WORST:
        found.wrong[item.task].append((item, record, verdict))
    more = {name: record.get(name) for name in ("finish", "frames", "visual_tokens", "answer_tokens")}
    return {**vars(prediction), **item_facts(verdict), **more}


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """Values as a spreadsheet may open them: a text that it would take for a formula gets an apostrophe."""
    return {
        name: f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        for name, value in row.items()
    }


def _facts(plan: Plan, settings: dict[str, Any], found: _Found) -> dict[str, Any]:
    tally, benchmark = found.tally, plan.benchmark
    videos, fewest, most, total = found.frames
    # A table's tasks come in the benchmark's order, whatever came first.
    tasks = {name: tally.tasks[name] for name in benchmark.tasks if name in tally.tasks}
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "settings": settings,
        "limit": plan.limit,
        "items": found.items,
        "answered": found.answered,
        "unscored": tally.unscored,
        "cut_at_the_token_limit": found.cut,
        "tasks": {
            name: {scoring: count.of(scoring).facts() for scoring in SCORINGS}
            | {"comparable": count.not_comparable == 0 and not _lacks_items(name, found)}
            for name, count in tasks.items()
        },
        "missing_tasks": [name for name in benchmark.tasks if name not in tasks],
        "macro": {scoring: _headline(tally, scoring) for scoring in SCORINGS},
        "all_items": {scoring: tally.all_items(scoring).facts() for scoring in SCORINGS},
        "categories": {
            task: {
                name: {scoring: count.of(scoring).facts() for scoring in SCORINGS}
                for name, count in sorted(several.items())
            }
            for task, several in sorted(tally.categories.items())
        },
        "frames": {"videos": videos, "fewest": fewest, "most": most, "mean": round(total / videos, 1)}
        if videos
        else None,
        "problems": [
            {"task": task, "problem": problem, "items": count, "examples": found.examples[task, problem]}
            for (task, problem), count in sorted(tally.problems.items())
        ],
        "published_figures": published_figures(benchmark.name),
        "notes": list(benchmark.notes),
    }


def _lacks_items(task: str, found: _Found) -> bool:
    """Whether items of a task are missing from its score."""
    return any(name == task and not sentence.startswith(_SCORED) for name, sentence in found.tally.problems)


_SCORED = ("no answer was found", "the judge")
"""How the problems begin that do not keep an item from being scored."""


def _headline(tally: Tally, scoring: Any) -> dict[str, float | None]:
    interval = tally.macro_interval(scoring) or (None, None)
    low, high = map(rounded, interval)
    return {"percent": rounded(tally.macro(scoring)), "low": low, "high": high}


def _worst(found: _Found, sampling: Sampling) -> list[dict[str, Any]]:
    """Wrong answers with their pictures, taken from the tasks in turn, those without any answer first."""
    queues = [sorted(several, key=_gravity) for _, several in sorted(found.wrong.items())]
    chosen: list[tuple[Item, dict[str, Any], Verdict]] = []
    while any(queues) and len(chosen) < _WORST:
        chosen += [queue.pop(0) for queue in queues if queue]
    return [
        {
            "task": item.task,
            "index": item.index,
            "question": item.question,
            "answer": item.answer,
            "output": record.get("output"),
            "judge_reply": record.get("judge_reply"),
            "cut": record.get("finish") == "length",
            "pictures": thumbnails(item.media, sampling),
            **item_facts(verdict),
        }
        for item, record, verdict in chosen[:_WORST]
    ]


def _gravity(one: tuple[Item, dict[str, Any], Verdict]) -> tuple[bool, bool]:
    verdict = one[2]
    return (verdict.strict is True, not verdict.problem)
