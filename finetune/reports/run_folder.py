"""What a run has left in its folder, read so that nothing missing, half-written or foreign stops the reading.

recipe.json machine.json log.jsonl evaluation.json
STAGE[/PART]/done.json evaluation.json answers.jsonl modes.json
STAGE/evaluation.json                      of a stage whose parts were averaged"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.answers.scoring import right
from finetune.errors import FinetuneError

_MOST_BYTES = 256 * 2**20
"""Larger files are not what a run writes."""

Answers = dict[tuple[Any, ...], bool]
"""Whether each question was answered rightly, by what tells it apart from all others."""


@dataclass
class Part:
    """One loop of training and what came of it."""

    stage: str
    name: str  # the stage's own where it has a single part
    kind: str
    numbers: dict[str, Any]  # as the recipe has them
    done: dict[str, Any] | None = None  # None: it has not ended
    log: list[dict[str, Any]] = field(default_factory=list)  # by step, ascending
    evaluation: dict[str, Any] | None = None
    answers: Answers | None = None
    modes: dict[str, Any] | None = None  # what finetune.measuring.modes_table measured

    @property
    def title(self) -> str:
        return self.stage if self.name == self.stage else f"{self.stage}.{self.name}"


@dataclass
class Whole:
    """A stage of several parts: averaged where it is `annealing`, else as its last part left it."""

    stage: str
    kind: str
    evaluation: dict[str, Any] | None
    answers: Answers | None


@dataclass
class RunFolder:
    name: str
    recipe: dict[str, Any]
    machine: dict[str, Any]
    parts: list[Part]
    wholes: dict[str, Whole]  # by stage
    final: dict[str, Any] | None  # the evaluation after the last stage
    problems: list[str]  # one sentence each


def read_run(folder: Path) -> RunFolder:
    """FinetuneError where `folder` holds no run at all; what is wrong with one file is one of `problems`."""
    if not folder.is_dir():
        raise FinetuneError(f"There is no run in {folder}; give the folder that a run wrote to.")
    problems: list[str] = []
    recipe = _json(folder / "recipe.json", problems) or {}
    log = _log(folder / "log.jsonl", problems)
    parts = _parts(folder, recipe, log, problems)
    if not parts and not recipe:
        raise FinetuneError(f"There is no run in {folder}; give the folder that a run wrote to.")
    wholes: dict[str, Whole] = {}
    for part in parts:
        if part.name != part.stage and part.stage not in wholes:
            root = folder / part.stage
            evaluation = _measured(_json(root / "evaluation.json", problems))
            wholes[part.stage] = Whole(part.stage, part.kind, evaluation, _answers(root, problems))
    name = recipe.get("name")
    return RunFolder(
        name=name if isinstance(name, str) and name else folder.resolve().name,
        recipe=recipe,
        machine=_json(folder / "machine.json", problems) or {},
        parts=parts,
        wholes=wholes,
        final=_measured(_json(folder / "evaluation.json", problems)),
        problems=list(dict.fromkeys(problems)),
    )


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: Any) -> int:
    """A count, 0 for anything else."""
    found = number(value)
    return int(found) if found is not None and found >= 0 else 0


def _parts(
    folder: Path, recipe: Mapping[str, Any], log: Mapping[str, list[dict[str, Any]]], problems: list[str]
) -> list[Part]:
    """In the order of the recipe, then what only the log knows of."""
    found: list[Part] = []
    stages = recipe.get("stages")
    for stage in stages if isinstance(stages, list | tuple) else ():
        if not isinstance(stage, Mapping) or not isinstance(name := stage.get("name"), str) or not _plain(name):
            continue
        inner = stage.get("parts")
        names = {k: v for k, v in inner.items() if _plain(k)} if isinstance(inner, Mapping) else {name: {}}
        for part, numbers in names.items():
            numbers = dict(numbers) if isinstance(numbers, Mapping) else {}
            found.append(Part(name, part, str(stage.get("kind", "")), numbers))
    for title in log:
        if title not in {part.title for part in found} and all(map(_plain, title.split("."))):
            stage_name, _, inner_name = title.partition(".")
            found.append(Part(stage_name, inner_name or stage_name, "", {}))
    for part in found:
        root = folder / part.stage if part.name == part.stage else folder / part.stage / part.name
        part.log = log.get(part.title, [])
        part.done = _json(root / "done.json", problems)
        part.evaluation = _measured(_json(root / "evaluation.json", problems))
        part.answers = _answers(root, problems)
        part.modes = _json(root / "modes.json", problems)
    return found


def _plain(name: Any) -> bool:
    """Whether a name is that of a folder inside the run and nothing else."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _log(path: Path, problems: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The lines of each part by step. A part that was resumed has trained again what came after, so that a line takes
    the place of all earlier lines of its step and beyond."""
    found: dict[str, list[dict[str, Any]]] = {}
    bad = 0
    for line in _lines(path, problems):
        if line is None:
            bad += 1
            continue
        name, step = line.get("stage"), number(line.get("step"))
        if not isinstance(name, str) or step is None:
            bad += 1
            continue
        several = found.setdefault(name, [])
        while several and several[-1]["step"] >= step:
            several.pop()
        several.append({**line, "step": step})
    if bad:
        problems.append(f"{bad} {'line' if bad == 1 else 'lines'} of {path.name} cannot be read and were left out.")
    return found


def _answers(root: Path, problems: list[str]) -> Answers | None:
    """Right or wrong by question; the n-th asking of one question about a clip is the n-th everywhere."""
    path = root / "answers.jsonl"
    if not path.is_file():
        return None
    out: Answers = {}
    times: dict[tuple[str, ...], int] = {}
    for line in _lines(path, problems):
        if line is None or not all(isinstance(line.get(k), str) for k in ("kind", "question", "answer", "truth")):
            problems.append(f"{_where(path)} is damaged; differences are of separate questions.")
            return None
        about = (str(line.get("group")), line["kind"], line["question"], line["truth"])
        times[about] = times.get(about, 0) + 1
        out[(*about, times[about])] = right(line["answer"], line["truth"])
    return out


def _measured(facts: dict[str, Any] | None) -> dict[str, Any] | None:
    return facts if facts is not None and isinstance(facts.get("kinds"), Mapping) else None


def _json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{_where(path)} cannot be read ({_brief(error)}) and was left out.")
        return None
    return found


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any] | None]:
    """The objects of a file, None for a line that is none; the last one may be half-written and is left out then."""
    try:
        if not path.is_file():
            return []
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        lines = path.read_text("utf-8", errors="replace").split("\n")
    except (OSError, ValueError) as error:
        problems.append(f"{_where(path)} cannot be read ({_brief(error)}) and was left out.")
        return []
    out: list[dict[str, Any] | None] = []
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) and at == len(lines) - 1:
            continue
        out.append(found if isinstance(found, dict) else None)
    return out


def _where(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _brief(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).split("\n")[0][:120]
