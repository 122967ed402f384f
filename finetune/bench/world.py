"""The world's own held-out set: the clips and questions of `python -m finetune evaluate`, made when they are asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engine.video.types import Clip
from finetune.bench.base import Benchmark, Item, Row
from finetune.measuring.evaluate import Setting, encode_held_out, held_out_scene

CLIPS = 200


def _read(data: Path) -> Iterator[Row]:
    for number in range(CLIPS):
        setting = held_out_scene(number, seed=0)
        path = data / f"world-{number:03}.mp4"
        for question in setting.questions:
            yield Item(
                task="World",
                index=f"{number}/{question.kind}",
                question=question.text,
                prompt=question.text,
                answer=question.answer,
                media=(Clip(path),),
                category=question.kind,
                prepare=partial(_make, setting, path),
            )


def _make(setting: Setting, path: Path) -> None:
    """Encode the clip unless it is there. Several threads may ask for the same one: the last to finish wins."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file = path.with_suffix(f".{threading.get_ident()}.part.mp4")
        encode_held_out(setting, partial_file)
        os.replace(partial_file, path)


BENCHMARK = Benchmark(
    name="world",
    title="The world's held-out set",
    tasks=("World",),
    read=_read,
    layout="nothing: its clips are made there",
    notes=("Scenes never seen in training; right means every word right, of a box half of both shared.",),
    needs_data=False,
    mode="auto",
)
