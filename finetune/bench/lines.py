"""Files of one JSON object a line: predictions made here or elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.bench.scorers import Prediction
from finetune.errors import FinetuneError

_TEXTS = ("task", "question", "answer", "output")


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number, object) of every line that is not blank, or (line number, sentence) of a broken one.

    Raises FinetuneError where the file cannot be read at all."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, _object(raw)
    except OSError as error:
        raise FinetuneError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def _object(raw: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "the line is not UTF-8"
    except (ValueError, RecursionError):
        return "the line is not JSON"
    return value if isinstance(value, dict) else "the line is no JSON object"


def to_prediction(row: dict[str, Any]) -> Prediction | str:
    """A line of a predictions file as a prediction, or a sentence that says what is wrong with it.

    Needs task, question, answer and output as texts (an answer may be any JSON value) and index as a text or a
    number; judge_reply and category may be missing. A judge_reply of null counts as missing."""
    texts: dict[str, str] = {}
    for name in _TEXTS:
        value = row.get(name)
        if name == "answer" and value is not None and not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False)
        if not isinstance(value, str):
            return f"{name} is missing or no text"
        texts[name] = clean(value)
    index = row.get("index")
    if isinstance(index, bool) or not isinstance(index, str | int | float):
        return "index is missing or neither text nor number"
    reply, category = row.get("judge_reply"), row.get("category")
    if reply is not None and not isinstance(reply, str):
        return "judge_reply is no text"
    return Prediction(
        task=texts["task"],
        index=clean(str(index)),
        question=texts["question"],
        answer=texts["answer"],
        output=texts["output"],
        judge_reply=None if reply is None else clean(reply),
        category="" if category is None else clean(str(category)),
    )


def clean(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
