"""TempCompass (arXiv 2403.00476): action, direction, speed, order and change, asked in three forms.

The fourth form, captioning, is scored by a language model alone and is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.video.types import Clip
from finetune.bench.base import Benchmark, Flaw, Item, Row, guarded, inside
from finetune.bench.tables import json_file, text_of
from finetune.errors import FinetuneError

_ASK = {
    "multi-choice": "\nPlease directly give the best option:",
    "yes_no": "\nPlease answer yes or no:",
    "caption_matching": "\nPlease directly give the best option:",
}


def _read(data: Path) -> Iterator[Row]:
    files = {form: data / "questions" / f"{form}.json" for form in _ASK}
    if not any(path.is_file() for path in files.values()):
        raise FinetuneError(f"{data} holds no questions of TempCompass; it must hold {BENCHMARK.layout}.")
    for form, path in files.items():
        task = f"TempCompass {form}"
        if not path.is_file():
            yield Flaw(task, "", f"the table is missing: {path.name}")
            continue
        yield from guarded(task, _table(task, form, path, data))


def _table(task: str, form: str, path: Path, data: Path) -> Iterator[Row]:
    videos = json_file(path)
    if not isinstance(videos, dict):
        raise FinetuneError(f"{path} must map videos to questions; download it again.")
    for video, aspects in videos.items():
        yield from _items(task, _ASK[form], video, aspects, data)


def _items(task: str, suffix: str, video: str, aspects: object, data: Path) -> Iterator[Row]:
    if not isinstance(aspects, dict):
        yield Flaw(task, video, "the video has no aspects")
        return
    path = inside(data / "videos", f"{video}.mp4")
    for aspect, questions in aspects.items():
        for number, row in enumerate(questions if isinstance(questions, list) else [None]):
            index = f"{video}/{aspect}/{number}"
            question = text_of(row, "question") if isinstance(row, dict) else None
            answer = text_of(row, "answer") if isinstance(row, dict) else None
            if not (question and answer):
                yield Flaw(task, index, "question or answer is missing")
            elif isinstance(path, str):
                yield Flaw(task, index, path)
            else:
                yield Item(task, index, question, question + suffix, answer, (Clip(path),), aspect)


BENCHMARK = Benchmark(
    name="tempcompass",
    title="TempCompass",
    tasks=tuple(f"TempCompass {form}" for form in _ASK),
    read=_read,
    layout="questions/*.json (multi-choice, yes_no, caption_matching) and videos/",
    notes=("Its own matching rules without a language model; the captioning form, which needs one, is left out.",),
)
