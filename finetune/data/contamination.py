"""Leaving out what says and shows nearly what a benchmark does, by the features of two towers (section 4.1 of the
report, which compared its post-training data so with 29 benchmarks).

Pictures that are the same but for their coding are found by their hashes (finetune.data.duplicates), whatever is said
about them; here a question on a similar picture is found, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import EngineError
from finetune.data.duplicates import note_compared
from finetune.data.folder import read_folder
from finetune.data.frames import looks
from finetune.data.items import Item
from finetune.data.report import Report
from finetune.data.similarity import FRAMES, Encoder
from finetune.errors import FinetuneError

IMAGE, TEXT = 0.98, 0.50
"""Cosines above which a pair goes. The report gives both numbers; that both must be exceeded is how we read it."""


def decontaminate_pairs(
    items: Sequence[Item],
    folder: Path,
    encoder: Encoder,
    benchmarks: Sequence[Path],
    image: float = IMAGE,
    text: float = TEXT,
) -> tuple[list[Item], Report]:
    """Leaves out items of which a picture is more similar than `image` to one of a benchmark while what is said of the
    one is more similar than `text` to what is said of the other (cosines, -1..1). Where nothing is said of one of the
    two the picture decides alone. Of a video FRAMES frames are looked at, and the nearest counts; said is the caption
    and every question with its answer.

    Raises FinetuneError where a folder of `benchmarks` holds no media that can be read."""
    if not (-1 <= image <= 1 and -1 <= text <= 1):
        raise FinetuneError(f"The limits {image:g} and {text:g} are cosines; give numbers from -1 to 1.")
    report = Report("decontaminate-pairs", came=len(items))
    theirs = [one for place in benchmarks for one in _benchmark(place, encoder, report)]
    shown = torch.cat([pictures for _, pictures, _ in theirs])
    owner = torch.tensor([n for n, (_, pictures, _) in enumerate(theirs) for _ in range(len(pictures))])
    kept: list[Item] = []
    for item in items:
        if not item.media:
            kept.append(item)
            continue
        try:
            pictures, said = _features(item, folder, encoder)
        except (EngineError, FinetuneError) as error:
            report.drop(item.id, "a medium cannot be read", str(error))
            continue
        nearest = (pictures @ shown.T).amax(0)
        like = sorted(set(owner[nearest > image].tolist()))
        match = next((theirs[n] for n in like if _same_said(said, theirs[n][2], text)), None)
        if match is None:
            kept.append(item)
        else:
            report.drop(item.id, "says and shows what a benchmark does", f"like {match[0]}")
    report.made = len(kept)
    return kept, report


def _same_said(one: Tensor, other: Tensor, limit: float) -> bool:
    return not len(one) or not len(other) or bool((one @ other.T).max() > limit)


def _said(item: Item) -> Iterator[str]:
    if item.text:
        yield item.text
    for question, answer in item.questions:
        yield f"{question} {answer}"


def _features(item: Item, folder: Path, encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Of an item's pictures and of what is said about them, float32 [n, d] and [m, d]; m may be 0."""
    pictures = [picture for medium in item.media for picture in looks(folder, medium, FRAMES, longest=1024)]
    seen, texts = encoder.image_features(pictures), list(_said(item))
    return seen, encoder.text_features(texts) if texts else seen[:0]


def _benchmark(place: Path, encoder: Encoder, report: Report) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name and features of everything in a benchmark's folder that can be read."""
    read, unread = 0, []
    for item in read_folder(place)[0]:
        if not item.media:
            continue
        try:
            seen, said = _features(item, place, encoder)
        except (EngineError, FinetuneError):
            unread.append(item.id)
            continue
        read += 1
        yield f"{place.name}/{item.id}", seen, said
    note_compared(report, place, read, unread)
