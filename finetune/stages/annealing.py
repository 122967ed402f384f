"""Stage 3 (report, section 3.2): at a falling rate, on chosen data, once for each of several mixtures; then the
models are merged, because a small model takes after its mixture."""

from pathlib import Path

from finetune.errors import FinetuneError
from finetune.recipe import Stage
from finetune.stages import sft
from finetune.stages.sft import load, work
from finetune.training.merge import average

__all__ = ["check", "load", "merge", "work"]


def check(stage: Stage) -> None:
    """FinetuneError where a part cannot be run as it is written, or its rate does not fall."""
    sft.check(stage)
    for name, part in stage.parts.items():
        if part.fall == "none":
            raise FinetuneError(f'{stage.name}.{name} must let its rate fall; give fall = "linear" or "cosine".')


def merge(models: list[Path], out: Path) -> Path:
    return average(models, out)
