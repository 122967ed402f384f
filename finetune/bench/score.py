"""python -m finetune score predictions.jsonl [--items FILE]: score predictions that were made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.bench.lines import read_lines, to_prediction
from finetune.bench.scorers import Prediction, Verdict
from finetune.bench.tally import Tally
from finetune.bench.tasks import task_named, task_names
from finetune.errors import FinetuneError

BROKEN = "(broken lines)"


def score_file(path: Path, items: Path | None = None) -> Tally:
    """Count the verdicts of a predictions file; with `items` also write one JSON object per line of the input.

    Lines that are broken, name an unknown task or repeat a task and index are counted as unscored and named, never
    scored. Raises FinetuneError where a file cannot be read or written, or nothing in it is a prediction."""
    tally, any_line = Tally(), False
    try:
        with items.open("w", encoding="utf-8") if items is not None else nullcontext() as out:
            for number, row in _verdicts(path, tally):
                any_line = True
                if out is not None:
                    out.write(json.dumps({"line": number, **row}, ensure_ascii=False) + "\n")
    except OSError as error:
        raise FinetuneError(f"{items} cannot be written ({error.strerror}); name another file.") from error
    if not any_line:
        raise FinetuneError(f"{path} holds no predictions; give one JSON object a line.")
    return tally


def _verdicts(path: Path, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    names: dict[str, str] = {}  # the first spelling of each task, under which all its items are counted
    seen: set[tuple[str, str]] = set()
    for number, row in read_lines(path):
        read = row if isinstance(row, str) else to_prediction(row)
        if isinstance(read, str):
            tally.leave_out(BROKEN, read)
            yield number, {"problem": read}
            continue
        task = task_named(read.task)
        key = (task.name if task else read.task, read.index)
        problem = ""
        if task is None:
            problem = f"the task is unknown; known are {', '.join(task_names())}"
        elif key in seen:
            problem = "the index was there before"
        if problem or task is None:
            tally.leave_out(read.task, problem)
            yield number, {"task": read.task, "index": read.index, "problem": problem}
            continue
        seen.add(key)
        verdict = task.scorer(read)
        tally.add(_renamed(read, names.setdefault(task.name, read.task)), verdict)
        yield number, {"task": read.task, "index": read.index, **item_facts(verdict)}


def item_facts(verdict: Verdict) -> dict[str, Any]:
    """What was extracted and whether it is right under each scoring (null: cannot be said)."""
    return {
        "extracted": verdict.extracted,
        "published": verdict.published,
        "extracted_strict": verdict.extracted_strict,
        "strict": verdict.strict,
        "comparable": verdict.comparable,
        "problem": verdict.problem or None,
    }


def _renamed(prediction: Prediction, name: str) -> Prediction:
    return prediction if prediction.task == name else replace(prediction, task=name)


def notes(tally: Tally) -> list[str]:
    """What the percentages alone do not say, one sentence each."""
    out = [f"{task}: {count} × {problem}" for (task, problem), count in sorted(tally.problems.items())]
    out += [
        f"{name}: {count.not_comparable} items had no judge and were compared exactly; not comparable with published "
        "scores"
        for name, count in tally.tasks.items()
        if count.not_comparable
    ]
    return out
