"""LongVideoBench (arXiv 2407.15754), validation split, frames only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.video.types import Clip
from finetune.bench.base import Benchmark, Flaw, Item, Row, inside, with_options
from finetune.bench.tables import json_file, text_of, texts_of
from finetune.errors import FinetuneError

_ASK = "Question: {}\nAnswer with the option's letter from the given choices directly."
TASK = "LongVideoBench"


def _read(data: Path) -> Iterator[Row]:
    path = data / "lvb_val.json"
    if not path.is_file():
        raise FinetuneError(f"{data} holds no questions of LongVideoBench; it must hold {BENCHMARK.layout}.")
    questions = json_file(path)
    if not isinstance(questions, list):
        raise FinetuneError(f"{path} must hold a list of questions; download it again.")
    for number, row in enumerate(questions, 1):
        yield _item(number, row if isinstance(row, dict) else {}, data / "videos")


def _item(number: int, row: dict[str, object], videos: Path) -> Row:
    index = text_of(row, "id") or f"row {number}"
    question, video, options = text_of(row, "question"), text_of(row, "video_path"), texts_of(row, "candidates")
    right = row.get("correct_choice")
    if not (question and video and options) or isinstance(right, bool) or not isinstance(right, int):
        return Flaw(TASK, index, "question, video_path, candidates or correct_choice is missing")
    if not 0 <= right < len(options):
        return Flaw(TASK, index, "correct_choice is none of the candidates")
    path = inside(videos, video)
    if isinstance(path, str):
        return Flaw(TASK, index, path)
    asked = with_options(question, options)
    group = row.get("duration_group")
    return Item(
        task=TASK,
        index=index,
        question=asked,
        prompt=_ASK.format(asked),
        answer=chr(ord("A") + right),
        media=(Clip(path),),
        category="" if group is None else f"up to {group} s",
    )


BENCHMARK = Benchmark(
    name="longvideobench",
    title="LongVideoBench (validation, frames only)",
    tasks=(TASK,),
    read=_read,
    layout="lvb_val.json and videos/",
    notes=("Frames only: the subtitles that the benchmark can weave in are not shown to the model.",),
)
