"""Training rows as files: one JSONL per category, with the media they name beside them.

A row is {"messages": [...], "images": [...], "videos": [...], "category": ..., "source": ...}. In the user's texts an
`<image>` or `<video>` stands for the next entry of its list. Paths are relative to the row's file, and the folder holds
what they name (as hard links where the disk allows it, else copies): it can be moved as one."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from finetune.data.items import Medium
from finetune.data.quality import MARKS
from finetune.errors import FinetuneError

Category = Literal["caption", "ocr_vqa", "grounding", "interleaved", "video", "text"]
"""The six of the report's section 3.1."""

CATEGORIES: dict[Category, str] = {
    "caption": "Image caption",
    "ocr_vqa": "OCR and VQA",
    "grounding": "Grounding and counting",
    "interleaved": "Interleaved",
    "video": "Video understanding",
    "text": "Pure text",
}

Part = str | Medium | Path
"""Text, a medium of the folder that was read, or a picture that was made, relative to the output folder."""


@dataclass(frozen=True)
class Turn:
    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Example:
    """One row. User and assistant take turns, the user begins, and only the user shows media."""

    category: Category
    source: str  # the item it was made from, and how
    turns: tuple[Turn, ...]

    @property
    def media(self) -> list[Medium | Path]:
        return [part for turn in self.turns for part in turn.parts if not isinstance(part, str)]


def asked(category: Category, source: str, question: Iterable[Part], answer: str) -> Example:
    """A row of one question and its answer."""
    return Example(category, source, (Turn("user", tuple(question)), Turn("assistant", (answer,))))


def to_row(example: Example) -> dict[str, Any]:
    """The row as it is written. Raises FinetuneError for an example that breaks the rules of a row."""
    roles = [turn.role for turn in example.turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise FinetuneError(f"A row of {example.source} does not take turns from the user to the assistant.")
    messages, images, videos = [], [], []
    for turn in example.turns:
        pieces = []
        for part in turn.parts:
            if isinstance(part, str):
                if any(mark in part for mark in MARKS):
                    raise FinetuneError(f"A text of {example.source} holds the mark of a medium.")
                pieces.append(part)
            elif turn.role == "assistant":
                raise FinetuneError(f"A row of {example.source} has a medium in an answer.")
            elif isinstance(part, Path):
                images.append(part.as_posix())
                pieces.append("<image>")
            elif part.kind == "image":
                images.append(_placed(part).path)
                pieces.append("<image>")
            else:
                videos.append(_placed(part).to_row())
                pieces.append("<video>")
        content = "".join(pieces)
        if not content.strip():
            raise FinetuneError(f"A row of {example.source} has a turn of the {turn.role} that is blank.")
        messages.append({"role": turn.role, "content": content})
    row: dict[str, Any] = {"messages": messages}
    if images:
        row["images"] = images
    if videos:
        row["videos"] = videos
    return {**row, "category": example.category, "source": example.source}


def _placed(medium: Medium) -> Medium:
    return replace(medium, path=f"media/{medium.path}")


def with_frame_limits(examples: Iterable[Example], limits: Iterable[int]) -> list[Example]:
    """Every example with videos once for each limit on their frames: the report uses each sample twice, with 16 and
    with 32. Examples without videos, and videos whose frame rate is given, stay as they are."""
    several = list(limits)
    out = []
    for example in examples:
        free = any(isinstance(part, Medium) and _is_free(part) for part in example.media)
        for limit in several if several and free else [None]:
            turns = tuple(
                replace(turn, parts=tuple(_limited(part, limit) for part in turn.parts)) for turn in example.turns
            )
            out.append(replace(example, turns=turns))
    return out


def _is_free(medium: Medium) -> bool:
    return medium.kind == "video" and medium.fps is None and medium.max_frames is None


def _limited(part: Part, limit: int | None) -> Part:
    return replace(part, max_frames=limit) if limit and isinstance(part, Medium) and _is_free(part) else part


class RowFiles:
    """rows-CATEGORY.jsonl in `out`; each is there whole once `close` was called, and the files of an earlier run stand
    until then. Raises FinetuneError where the disk does not take them."""

    def __init__(self, out: Path, folder: Path) -> None:
        self._out, self._folder = out, folder
        self._files: dict[Category, TextIO] = {}
        self._linked: set[str] = set()
        self.counts: Counter[Category] = Counter()

    def add(self, example: Example, row: dict[str, Any]) -> None:
        """Write `row`, which `to_row` made of the example, and put its media beside it."""
        try:
            for medium in example.media:
                if isinstance(medium, Medium):
                    self._link(medium.path)
            if example.category not in self._files:
                self._files[example.category] = self._partial(example.category).open("w", encoding="utf-8")
            self._files[example.category].write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise FinetuneError(
                f"{self._out} cannot be written ({error.strerror}); free some space and run the same command again."
            ) from error
        self.counts[example.category] += 1

    def _link(self, name: str) -> None:
        if name in self._linked:
            return
        target = self._out / "media" / name
        source = (self._folder / name).resolve()
        if not (target.exists() and os.path.samefile(source, target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or one without links
                shutil.copy2(source, target)
        self._linked.add(name)

    def close(self) -> list[Path]:
        """Put the files in their places and return these; files of categories that have no rows now are removed."""
        paths = []
        for category in CATEGORIES:
            path = self._partial(category).with_suffix("")
            if category not in self._files:
                path.unlink(missing_ok=True)
                continue
            self._files[category].close()
            self._partial(category).replace(path)
            paths.append(path)
        return paths

    def __enter__(self) -> RowFiles:
        return self

    def __exit__(self, *_: object) -> None:
        """What was not closed is thrown away."""
        for category, file in self._files.items():
            file.close()
            self._partial(category).unlink(missing_ok=True)

    def _partial(self, category: Category) -> Path:
        return self._out / f"rows-{category}.jsonl.part"
