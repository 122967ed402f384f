"""Stage 3 (report, section 3.2): at a falling rate, on chosen data, once for each of several mixtures; then the
models are merged, because a small model takes after its mixture."""

from pathlib import Path

from finetune.errors import FinetuneError
from finetune.merge import average
from finetune.recipe import Stage
from finetune.stages.reading import world_work as work

__all__ = ["check", "merge", "work"]


def check(stage: Stage) -> None:
    """FinetuneError where a part's rate does not fall."""
    for name, part in stage.parts.items():
        if part.fall == "none":
            raise FinetuneError(f'{stage.name}.{name} must let its rate fall; give fall = "linear" or "cosine".')


def merge(models: list[Path], out: Path) -> Path:
    return average(models, out)
