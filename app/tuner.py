"""Fine-tuning as the page does it, without the page: what may be begun, what it would take, and the queue of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from engine.runtime.served import Served
from finetune.errors import FinetuneError
from finetune.feedback import Run, Store
from finetune.loop.from_feedback import USES, Feedback, refuse_nothing, wants_feedback, weigh
from finetune.loop.queue import Order, Queue
from finetune.planning.estimate import Estimate, estimate
from finetune.recipe import FEEDBACK, Recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"feedback": ROOT / "recipes" / "feedback.toml", "sft": ROOT / "recipes" / "sft.toml"}

Form = Literal["recipe", "lora", "full"]
"""As the recipe says; adapters beside the weights; the weights themselves."""

RANK = 16
LORA_RATE = 10.0
"""An adapter learns at ten times the rate of the weights themselves (recipes/sft.toml)."""

MOST_ROWS = 20_000
"""Rows of a file that are looked at for an estimate."""


@dataclass(frozen=True)
class Wish:
    """What was filled in."""

    recipe: str = "feedback"  # one of RECIPES
    base: str = ""  # a model folder
    name: str = ""
    form: Form = "recipe"
    data: str = ""  # a JSONL file, for sft
    replay: str = ""  # a JSONL file of old skills
    numbers: str = ""  # stage.field=value, separated by blanks

    def order(self) -> Order:
        """FinetuneError or EngineError where it makes no sense."""
        if not self.base.strip():
            raise FinetuneError("Choose the model to begin with.")
        if self.recipe not in RECIPES:
            raise FinetuneError(f"There is no recipe {self.recipe:.40}; choose one of those shown.")
        if self.recipe == "sft" and not self.data.strip():
            raise FinetuneError("Give the .jsonl file of conversations to learn from.")
        base = Path(self.base.strip()).expanduser().absolute()
        if not base.is_dir():
            raise FinetuneError(f"There is no model folder {base}; choose another one to begin with.")
        files = [_file(text) for text in (self.data if self.recipe == "sft" else "", self.replay)]
        order = Order(
            RECIPES[self.recipe],
            str(base),
            self.name.strip() or self.recipe,
            data=tuple(filter(None, files[:1])),
            replay=tuple(filter(None, files[1:])),
        )
        return replace(order, numbers=(*_formed(order.resolved(), self.form), *self.numbers.split()))


def _file(text: str) -> str:
    if not text.strip():
        return ""
    path = Path(text.strip()).expanduser().absolute()
    if not path.is_file():
        raise FinetuneError(f"There is no file {path}; give a .jsonl file of conversations.")
    return str(path)


def _formed(recipe: Recipe, form: Form) -> list[str]:
    """The numbers that make every stage of a recipe train in this form, where it does not anyway."""
    out = []
    for stage in recipe.stages:
        for part in stage.parts.values():
            if form == "lora" and not part.lora:
                rate = part.lr * LORA_RATE
                out += [f"{stage.name}.lora={RANK}", f"{stage.name}.merge=true", f"{stage.name}.lr={rate:g}"]
            elif form == "full" and part.lora:
                rate = part.lr / LORA_RATE
                out += [f"{stage.name}.lora=0", f"{stage.name}.merge=false", f"{stage.name}.lr={rate:g}"]
    return out


@dataclass(frozen=True)
class Offer:
    """What a wish comes to."""

    feedback: Feedback | None  # None: it learns from a file
    estimate: Estimate


class Tuner:
    """One per program. Every method may be called from any thread."""

    def __init__(self, data: Path, store: Store, runtime: Served) -> None:
        self.store, self.runtime = store, runtime
        gpu = torch.cuda.is_available()
        self.queue = Queue(store.path, data / "runs", _Runtime(runtime) if gpu else None, lower_priority=not gpu)
        self.shares_gpu = gpu
        self.queue.start()

    def close(self) -> None:
        """What trains goes on; the next start of the page finds it."""
        self.queue.close()

    def bases(self) -> list[tuple[str, str]]:
        """Names and folders of what a run may begin with: the model that answers, then what runs have made."""
        out: list[tuple[str, str]] = []
        if self.runtime.status().state == "ready":
            info = self.runtime.info()
            out.append((info.name, info.path))
        for run in self.queue.runs.list(50):
            made = self.queue.runs.result(run.id) if run.status == "done" else None
            if made is not None and (made / "config.json").is_file():
                out.append((run.name, str(made)))
        return out

    def offer(self, wish: Wish) -> Offer:
        """What it would learn from, and what that would take. Starts nothing. FinetuneError or EngineError where it
        cannot be run."""
        recipe = wish.order().resolved()
        if not wants_feedback(recipe):
            return Offer(None, estimate(recipe, _rows_of_files(recipe), self.queue.folder, self.queue.runs))
        feedback = weigh(recipe, self.store)
        refuse_nothing(recipe, feedback)
        left = replace(recipe, stages=tuple(s for s in recipe.stages if s.name not in feedback.left_out))
        rows = {
            stage.name: [lesson.row for lesson in feedback.lessons if lesson.use == USES.get(stage.kind)]
            for stage in left.stages
            if any(part.data == FEEDBACK for part in stage.parts.values())
        }
        return Offer(feedback, estimate(left, rows, self.queue.folder, self.queue.runs))

    def begin(self, wish: Wish) -> Run:
        """Put it into the queue. FinetuneError or EngineError where that makes no sense; nothing is left then."""

        def check(recipe: Recipe, out: Path) -> None:
            found = estimate(recipe, _rows_of_files(recipe), self.queue.folder, self.queue.runs)
            found.refuse()
            facts = {"memory": found.memory, "disk": found.disk, "seconds": found.seconds}
            (out / "estimate.json").write_text(json.dumps(facts) + "\n", "utf-8")

        return self.queue.add(wish.order(), check)


class _Runtime:
    """The model that answers, on the GPU that trains: it rests unless both fit."""

    def __init__(self, runtime: Served) -> None:
        self._runtime = runtime

    def claim(self, run: Path) -> None:
        if needed_memory(run) > torch.cuda.mem_get_info()[0]:
            self._runtime.rest()

    def release(self) -> None:
        self._runtime.wake()


def needed_memory(run: Path) -> float:
    """Bytes that a run was estimated to take; more than there is where nobody knows."""
    try:
        return float(json.loads((run / "estimate.json").read_text("utf-8"))["memory"])
    except (OSError, ValueError, KeyError, TypeError):
        return float("inf")


def _rows_of_files(recipe: Recipe) -> dict[str, Sequence[dict[str, object]]]:
    """The rows of each stage that learns from files, as they stand there; what is no object is left out."""
    out: dict[str, Sequence[dict[str, object]]] = {}
    for stage in recipe.stages:
        rows: list[dict[str, object]] = []
        files = {file for part in stage.parts.values() for file in part.data if file != "world"}
        for file in sorted(files):
            try:
                with Path(file).open("rb") as lines:
                    for line in lines:
                        row = _object(line)
                        if row is not None:
                            rows.append(row)
                        if len(rows) >= MOST_ROWS:
                            break
            except OSError as error:
                raise FinetuneError(f"{file} cannot be read ({error.strerror}); give another file.") from error
        out[stage.name] = rows
    return out


def _object(line: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
