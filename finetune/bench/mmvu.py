"""MMVU (arXiv 2501.12380), validation split: expert questions about videos of 27 subjects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engine.video.types import Clip
from finetune.bench.base import Benchmark, Flaw, Item, Row, inside
from finetune.bench.tables import json_file, text_of
from finetune.errors import FinetuneError

_ASK = {
    "multiple-choice": "Question: {}\n\nDo not generate any intermediate reasoning process. Answer directly with the "
    "option letter from the given choices.",
    "open-ended": "Question: {}\n\nDo not generate any intermediate reasoning process. Directly output the final short "
    "answer.",
}
_TASKS = {"multiple-choice": "MMVU", "open-ended": "MMVU open"}


def _read(data: Path) -> Iterator[Row]:
    path = next((p for p in (data / "validation.json", data / "data" / "validation.json") if p.is_file()), None)
    if path is None:
        raise FinetuneError(f"{data} holds no questions of MMVU; it must hold {BENCHMARK.layout}.")
    questions = json_file(path)
    if not isinstance(questions, list):
        raise FinetuneError(f"{path} must hold a list of questions; download it again.")
    for number, row in enumerate(questions, 1):
        yield _item(number, row if isinstance(row, dict) else {}, data)


def _item(number: int, row: dict[str, object], data: Path) -> Row:
    index, kind = text_of(row, "id") or f"row {number}", text_of(row, "question_type") or ""
    task = _TASKS.get(kind, "MMVU")
    question, video, answer = text_of(row, "question"), text_of(row, "video", "video_path"), text_of(row, "answer")
    if not (question and video and answer and kind in _TASKS):
        return Flaw(task, index, "question, video, answer or question_type is missing")
    # The table names the video by its address on the hub; its last three parts are videos/SUBJECT/NAME.
    parts = unquote(urlsplit(video).path).strip("/").split("/")
    path = inside(data, "/".join(parts[-3:]))
    if isinstance(path, str):
        return Flaw(task, index, path)
    asked = question
    if kind == "multiple-choice":
        choices = row.get("choices")
        if not isinstance(choices, dict) or not all(isinstance(c, str) for c in choices.values()):
            return Flaw(task, index, "choices are missing")
        asked = "\n".join([question, *(f"{letter}: {choice}" for letter, choice in choices.items() if choice)])
    facts = row.get("metadata")
    subject = text_of(facts, "subject") if isinstance(facts, dict) else None
    return Item(task, index, asked, _ASK[kind].format(asked), answer, (Clip(path),), subject or "")


BENCHMARK = Benchmark(
    name="mmvu",
    title="MMVU (validation)",
    tasks=("MMVU", "MMVU open"),
    read=_read,
    layout="validation.json and videos/SUBJECT/",
    notes=(
        "The direct prompts of its authors. They score every answer by a language model; here the letter decides for "
        "multiple choice, and open-ended questions need a judge or every word right, which cannot be compared.",
    ),
)
