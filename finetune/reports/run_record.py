"""A run as rows of the store, written by the process that trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from finetune.errors import FinetuneError
from finetune.feedback.runs import Runs
from finetune.recipe import Recipe
from finetune.training.shortage import shortage
from finetune.training.trainer import Stopped


class Record:
    """What a run tells the store; nothing where there is none."""

    def __init__(self, runs: Runs | None, run: str, positions: dict[str, int]) -> None:
        self._runs, self._run, self._positions = runs, run, positions
        self.sentence: str | None = None  # what there is to say of a run that ends well

    def begun(self, part: str, step: int = 0) -> None:
        """A part begins, or goes on after `step` steps: what was noted of later ones is forgotten."""
        if self._runs:
            self._runs.stage_begun(self._run, part, self._positions[part], step=step)

    def figures(self, part: str, step: int, figures: dict[str, Any]) -> None:
        if self._runs:
            self._runs.metric(self._run, part, step, figures)

    def done(self, part: str, folder: Path, measured: Path | None = None) -> None:
        """A part has ended in `folder`, with its model or, where that is all, its adapter; its accuracy is that of the
        folder `measured`, once there is one."""
        if not self._runs:
            return
        account = json.loads((folder / "done.json").read_text("utf-8"))
        file = (measured or folder) / "evaluation.json"
        kinds = json.loads(file.read_text("utf-8"))["kinds"] if file.is_file() else None
        if part not in {stage.name for stage in self._runs.stages(self._run)}:  # it had ended before this store knew
            self.begun(part)
        self._runs.stage_done(
            self._run,
            part,
            folder=folder / ("model" if (folder / "model").exists() else "adapter"),
            seconds=account["seconds"],
            examples=account["examples"],
            tokens=account["tokens"],
            steps=account["steps"],
            accuracy=kinds,
        )


@contextmanager
def recorded(store: Path | None, recipe: Recipe, out: Path) -> Iterator[Record]:
    """A record of the run in the file `store`, and in it how the run ends."""
    names = [p if p == s.name else f"{s.name}.{p}" for s in recipe.stages for p in s.parts]
    positions = {name: i for i, name in enumerate(names)}
    if store is None:
        yield Record(None, "", positions)
        return
    runs = Runs(store)
    try:
        model = recipe.model.get("path")
        whole = recipe.as_json()
        run = runs.begin(recipe.name, whole, out, seed=recipe.seed, code=code_version(), model=model, resume=True)
        record = Record(runs, run.id, positions)
        try:
            yield record
        except Stopped:
            runs.finished(run.id, "stopped", "It was stopped and saved; the same command goes on.")
            raise
        except (FinetuneError, EngineError) as error:
            runs.finished(run.id, "failed", str(error))
            raise
        except (MemoryError, RuntimeError, OSError) as error:
            if (told := shortage(f"{type(error).__name__}: {error}", out)) is None:
                raise
            runs.finished(run.id, "failed", told)
            raise FinetuneError(told) from error
        runs.finished(run.id, "done", record.sentence)
    finally:
        runs.close()


def code_version() -> str:
    """What program it was: the first digits of a hash over its own sources."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("engine", "finetune"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
