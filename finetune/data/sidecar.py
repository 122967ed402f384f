"""Files beside a medium that say what it shows: .txt, .json, .srt, .vtt, and the lines of a captions.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.sound.subtitles import read_subtitles
from finetune.bench.lines import clean, read_lines
from finetune.data.items import Item, Problems, read_facts
from finetune.errors import FinetuneError

SUFFIXES = (".txt", ".json", ".srt", ".vtt")
LARGEST = 16 << 20
"""Bytes of a sidecar that is read."""


def read_sidecar(path: Path, item: Item, tell: Problems) -> Item:
    """`item` with what the file `path` says of it; what cannot be used is told and left out."""
    try:
        text = read_text(path)
    except FinetuneError as error:
        tell(str(error))
        return item
    if path.suffix.lower() == ".txt":
        return dataclasses.replace(item, text=text.strip() or item.text)
    if path.suffix.lower() == ".json":
        facts = _object(text)
        if isinstance(facts, str):
            tell(facts)
            return item
        return read_facts(item, facts, tell)
    cues = read_subtitles(text, path.suffix.lower().lstrip("."))
    if not cues:
        tell("no cue with a time and a text was found")
        return item
    return dataclasses.replace(item, speech=cues)


def read_text(path: Path) -> str:
    """A text file in UTF-8. Raises FinetuneError with a few words where it is none or is larger than LARGEST."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise FinetuneError(f"the file cannot be read ({error.strerror})") from error
    if len(raw) > LARGEST:
        raise FinetuneError(f"the file has more than {LARGEST >> 20} MiB")
    try:
        return clean(raw.decode("utf-8-sig")).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise FinetuneError("the file is not UTF-8") from error


def _object(text: str) -> dict[str, Any] | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "the file is not JSON"
    return value if isinstance(value, dict) else "the file holds no JSON object"


def read_captions(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number, object) of a captions.jsonl, or (line number, what is wrong with the line)."""
    if path.stat().st_size > 64 * LARGEST:
        yield 0, f"the file has more than {LARGEST >> 14} MiB"
        return
    yield from read_lines(path)
