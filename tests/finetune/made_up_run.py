"""A folder as a run of recipes/nano.toml leaves it, with figures that are made up and always the same."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from finetune.answers.scoring import wilson
from finetune.recipe import Part, Recipe, load_recipe, write_resolved

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "motion": (0.35, 84, 0.98), "colour": (0.17, 128, 0.94), "shape": (0.21, 132, 0.92), "count": (0.41, 200, 0.93),
    "where": (0.27, 89, 0.96), "exists": (0.54, 168, 0.92), "event": (0.29, 124, 0.96), "when": (0.56, 106, 0.89),
    "text": (0.17, 102, 0.75), "list": (0.03, 200, 0.72), "caption": (0.01, 200, 0.69), "which": (0.09, 109, 0.64),
    "left_at_the_end": (0.42, 200, 0.94),
}  # fmt: skip
"""By kind: most frequent answer, questions, accuracy at the end."""
GROUPS = {
    "video": 1280, "unseen": 340, "unseen triple": 330, "long": 160, "chinese": 260, "picture": 300, "talk": 50,
}  # fmt: skip


def evaluation(level: float, seed: str, blind: bool) -> dict[str, Any]:
    """Counts as they might be when the model is `level` (0 to 1) of the way."""
    rng = random.Random(seed)

    def row(floor: float, total: int, end: float) -> dict[str, Any]:
        chance = floor + (end - floor) * level
        hits = min(total, max(0, round(total * chance + rng.gauss(0, math.sqrt(total * chance * (1 - chance) / 2)))))
        low, high = wilson(hits, total)
        return {
            "questions": total, "right": hits, "accuracy": round(hits / total, 4), "low": round(low, 4),
            "high": round(high, 4), "blind": round(0.75 * floor, 4) if blind else 0.0, "floor": floor,
        }  # fmt: skip

    kinds = {kind: row(*numbers) for kind, numbers in KINDS.items()}
    groups = {name: row(0.1, total, 0.94 - 0.02 * i) for i, (name, total) in enumerate(GROUPS.items())}
    chinese = {"kinds": {kind: row(floor, total // 3, 0.95 * end) for kind, (floor, total, end) in KINDS.items()}}
    asked = ["video", "unseen", "unseen triple", "long", "picture"] if blind else []
    facts = {"kinds": kinds, "mean_of_kinds": {}, "groups": groups, "chinese": chinese}
    return {"clips": 60, "seed": 0, **facts, "asked_blind": asked}


def answers(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Lines of answers.jsonl that give just these counts."""
    lines = []
    for kind, row in facts["kinds"].items():
        for n in range(row["questions"]):
            said = "yes" if n < row["right"] else "no"
            lines.append({"group": "video", "kind": kind, "question": f"{kind} {n}?", "answer": said, "truth": "yes"})
    return lines


def log_lines(title: str, part: Part, first: float, last: float, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    rng = random.Random(title)
    lines = []
    for step in range(25, part.steps + 1, 25):
        done = step / part.steps
        loss = last + (first - last) * math.exp(-5 * done) + rng.gauss(0, 0.03 * (0.2 + first - last))
        rises = {kind: min(1.0, max(0.0, 1 - math.exp(-3 * done * (1 + i / 3)))) for i, kind in enumerate(kinds)}
        lines.append(
            {
                "stage": title, "step": step, "of": part.steps, "minutes": round(step / 40, 2),
                "processor_minutes": round(step / 20.5, 2), "examples": step * 150, "tokens": step * 7_000,
                "loss": round(max(0.02, loss), 4), "lr": part.lr * (1 - done), "norm": 1.0, "skipped": 0,
                "right": {kind: round(share, 3) for kind, share in rises.items()},
            }
        )  # fmt: skip
    return lines


def made_up_run(folder: Path, *, paired: bool = True) -> Recipe:
    """A finished run in `folder`; with `paired` every evaluation has kept its answers."""
    recipe = load_recipe(ROOT / "recipes" / "nano.toml")
    folder.mkdir(parents=True)
    write_resolved(recipe, folder / "recipe.json")
    machine = {
        "python": "3.11.9", "torch": "2.13.0+cpu", "transformers": "5.19.0", "processor": "x86_64", "cores": 2,
        "gpus": [], "code": "0.1.0 (19a3f63)", "command": "python -m finetune run recipes/nano.toml",
    }  # fmt: skip
    (folder / "machine.json").write_text(json.dumps(machine), "utf-8")
    titles = [
        (stage, name, stage.name if name == stage.name else f"{stage.name}.{name}")
        for stage in recipe.stages
        for name in stage.parts
    ]
    lines, level = [], 0.0
    for stage, name, title in titles:
        part, root = stage.parts[name], folder / title.replace(".", "/")
        root.mkdir(parents=True, exist_ok=True)
        first = {"vision": 7.0, "alignment": 6.5}.get(stage.kind, 3.0 * (1 - level) + 0.3)
        kinds = (
            ("patch colour", "patch shape", "picture to text") if stage.kind == "vision" else (*KINDS, "token colour")
        )
        lines += log_lines(title, part, first, first / 4, kinds)
        account = {"seconds": part.steps * 1.5, "processor_seconds": part.steps * 2.9, "steps": part.steps}
        account |= {"examples": part.steps * 150, "tokens": part.steps * 7_000, "skipped": 0}
        (root / "done.json").write_text(json.dumps(account), "utf-8")
        if stage.kind == "vision":
            continue
        level = min(0.96, level + {"alignment": 0.02}.get(stage.kind, 0.165))
        if stage.kind == "annealing":
            measure(root, evaluation(level, title, False), paired)
        elif name == list(stage.parts)[-1]:
            measure(folder / stage.name, evaluation(level, title, False), paired)
        if title == "stage3.time":
            measure(root.parent, evaluation(1.0, "merged", True), paired)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return recipe


def measure(root: Path, facts: dict[str, Any], keep: bool) -> None:
    (root / "evaluation.json").write_text(json.dumps(facts), "utf-8")
    if keep:
        (root / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers(facts)), "utf-8")
