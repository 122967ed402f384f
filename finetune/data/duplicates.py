"""The same picture found again, as published (appendix A of the report): the perceptual hash of a picture, 64 bits,
becomes the set of the places of its 1-bits; MinHash with 128 permutations puts similar sets into the same bucket; a
pair from one bucket counts if its true Jaccard index exceeds 0.95.

The perceptual hash sets the 32 coefficients above the median, so that two sets of 32 that differ at all differ in two
places and have an index of 31/33 = 0.939: above 0.95 lies the same hash only. A lower threshold finds copies that were
changed more, and more pairs that are none: 0.88 lets two bits of 32 differ."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import imagehash
import numpy as np
from datasketch import MinHash, MinHashLSH
from PIL import Image

from engine.errors import EngineError
from finetune.data.folder import kind_of
from finetune.data.frames import looks
from finetune.data.items import Item, Medium
from finetune.data.report import Report
from finetune.errors import FinetuneError

PERMUTATIONS = 128
JACCARD = 0.95
FRAMES = 8
"""Frames of a video that are compared."""

_FEWEST = 8
"""1-bits of a picture that shows anything: an even field has none or one, and is like every other."""

_LONGEST = 512  # pixels of a side of what is hashed; the hash itself sees 32
_SURE = 0.999  # of the pairs at the threshold, at least this share shall meet in a bucket

Bits = frozenset[int]


def one_bits(picture: np.ndarray) -> Bits:
    """The places (0..63) of the 1-bits of a picture's perceptual hash. `picture` is uint8 RGB [height, width, 3]."""
    return frozenset(np.flatnonzero(imagehash.phash(Image.fromarray(picture)).hash.ravel()).tolist())


def jaccard(one: Bits, other: Bits) -> float:
    """How much of both sets is in each of them, 0..1; 0 for two empty ones."""
    both = len(one | other)
    return len(one & other) / both if both else 0.0


def tells(bits: Bits) -> bool:
    """Whether a picture shows anything to be compared."""
    return len(bits) >= _FEWEST


Name = TypeVar("Name", bound=Hashable)


class Index(Generic[Name]):
    """Sets of bits, each with the name of what it is of; finds all that are more similar than `threshold`.

    Raises FinetuneError for a threshold that no buckets serve."""

    def __init__(self, threshold: float = JACCARD) -> None:
        if not 0.5 <= threshold < 1:
            raise FinetuneError(f"The Jaccard threshold is {threshold:g}; give one from 0.5 to below 1.")
        self._threshold = threshold
        self._buckets = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))
        self._names: dict[Bits, list[Name]] = {}

    def add(self, bits: Bits, name: Name) -> None:
        """Take up a set; one that shows nothing is passed over."""
        if not tells(bits):
            return
        if bits not in self._names:
            self._names[bits] = []
            self._buckets.insert(bits, _minhash(bits))
        self._names[bits].append(name)

    def find(self, bits: Bits) -> list[Name]:
        """The names of all similar sets; none for a set that shows nothing."""
        if not tells(bits):
            return []
        candidates = [other for other in self._buckets.query(_minhash(bits)) if jaccard(bits, other) > self._threshold]
        return [name for other in candidates for name in self._names[other]]


def alike(index: Index[Name], seen: Sequence[Bits]) -> list[Name]:
    """The names under which most of what `seen` shows was taken up: of a video, more than half of its frames."""
    telling = [bits for bits in seen if tells(bits)]
    counts = Counter(name for bits in telling for name in set(index.find(bits)))
    return [name for name, count in counts.items() if 2 * count > len(telling)]


def _minhash(bits: Bits) -> MinHash:
    made = MinHash(num_perm=PERMUTATIONS)
    made.update_batch([bytes([bit]) for bit in sorted(bits)])
    return made


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of the buckets: as selective as can be without losing pairs at the threshold. A pair of index j
    meets in one of b bands of r rows with probability 1 - (1 - j^r)^b."""
    for rows in range(32, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** bands >= _SURE:
            return bands, rows
    return PERMUTATIONS, 1


# -- steps ----------------------------------------------------------------------------------------------------------


class Hashes:
    """What the media of a folder look like; every file is read once. `frames` is how many of a video are compared."""

    def __init__(self, folder: Path, frames: int = FRAMES) -> None:
        self._folder, self._frames = folder, frames
        self._known: dict[Medium, tuple[Bits, ...]] = {}

    def of(self, medium: Medium) -> tuple[Bits, ...]:
        """A set for the picture, or for each frame. Raises EngineError or FinetuneError where it cannot be read."""
        if medium not in self._known:
            found = looks(self._folder, medium, self._frames, longest=_LONGEST)
            self._known[medium] = tuple(one_bits(picture) for picture in found)
        return self._known[medium]

    def elsewhere(self, folder: Path) -> Hashes:
        """The same of another folder."""
        return Hashes(folder, self._frames)


def duplicates(items: Sequence[Item], hashes: Hashes, threshold: float = JACCARD) -> tuple[list[Item], Report]:
    """Leaves out items whose media are all there in another one: each picture, and of a video more than half its
    frames, are like those of it. Of several that are alike the one of which most is known stays, or else the first.

    The same file with another text stays; with the same text it goes, as do texts that are the same but for capitals
    and blanks. Documents are compared with documents only. Items whose media cannot be read are left out too."""
    report = Report("duplicates", came=len(items))
    kept: list[Item] = []
    index: Index[tuple[int, int]] = Index(threshold)  # of a kept item its number, and which of its media
    written: dict[object, str] = {}
    blank = 0
    for item in sorted(items, key=lambda item: -_known(item)):
        said = (item.media, " ".join(item.text.casefold().split()), item.questions, item.regions, item.parts)
        if said in written:
            report.drop(item.id, "the same was there before", f"as {written[said]}")
            continue
        try:
            seen = [hashes.of(medium) for medium in item.media]
        except (EngineError, FinetuneError) as error:
            report.drop(item.id, "a medium cannot be read", str(error))
            continue
        twins = [
            twin
            for twin in map(kept.__getitem__, _twins(index, seen))
            if twin.media != item.media and len(twin.media) == len(item.media) and bool(twin.parts) == bool(item.parts)
        ]
        if twins:
            report.drop(item.id, "looks like another one", f"like {twins[0].id}")
            continue
        for place, sets in enumerate(seen):
            blank += not any(map(tells, sets))
            for bits in sets:
                index.add(bits, (len(kept), place))
        written[said] = item.id
        kept.append(item)
    if blank:
        report.note(f"{blank:,} media show an even field and were compared with nothing.")
    report.made = len(kept)
    places = {id(item): place for place, item in enumerate(items)}
    return sorted(kept, key=lambda item: places[id(item)]), report


def _known(item: Item) -> int:
    """How much is known of an item beside what it looks like."""
    lists = (item.questions, item.speech, item.events, item.screen, item.regions, item.captions, item.tags)
    return bool(item.text) + sum(map(bool, lists))


def _twins(index: Index[tuple[int, int]], seen: Sequence[tuple[Bits, ...]]) -> list[int]:
    """The numbers of the items that look like one whose media look like `seen`, place by place."""
    common: set[int] | None = None
    for place, sets in enumerate(seen):
        here = {number for number, where in alike(index, sets) if where == place}
        common = here if common is None else common & here
    return sorted(common or ())


def decontaminate(
    items: Sequence[Item], hashes: Hashes, benchmarks: Sequence[Path], threshold: float = JACCARD
) -> tuple[list[Item], Report]:
    """Leaves out items that show what a benchmark shows: an item goes if any one of its pictures, or any one frame of
    its videos, matches any picture or frame in the folders `benchmarks`. Pictures within tables are not looked into.

    Raises FinetuneError where a folder holds no media that can be read."""
    report = Report("decontaminate", came=len(items))
    index: Index[str] = Index(threshold)
    for folder in benchmarks:
        _take_up(folder, hashes, index, report)
    kept: list[Item] = []
    for item in items:
        try:
            match = next(
                (name for medium in item.media for bits in hashes.of(medium) for name in index.find(bits)), None
            )
        except (EngineError, FinetuneError) as error:
            report.drop(item.id, "a medium cannot be read", str(error))
            continue
        if match is None:
            kept.append(item)
        else:
            report.drop(item.id, "shows what a benchmark shows", f"like {match}")
    report.made = len(kept)
    return kept, report


def note_compared(report: Report, folder: Path, read: int, unread: Sequence[str]) -> None:
    """Say with how many media of a benchmark's folder was compared. Raises FinetuneError where there were none."""
    if not read:
        raise FinetuneError(f"{folder} holds no pictures or videos that can be read; unpack its media there.")
    report.note(f"Compared with {read:,} media of {folder.name}.")
    if unread:
        report.note(
            f"{len(unread):,} media of {folder.name} cannot be read and were compared with nothing: "
            f"{', '.join(unread[:3])}."
        )


def _take_up(folder: Path, hashes: Hashes, index: Index[str], report: Report) -> None:
    if not folder.is_dir():
        raise FinetuneError(f"{folder} is no folder; give the folder of a benchmark's pictures and videos.")
    theirs = hashes.elsewhere(folder)
    read, unread = 0, []
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            kind = kind_of(name)
            if kind is None:
                continue
            path = Path(here, name).relative_to(folder).as_posix()
            try:
                for bits in theirs.of(Medium(path, kind)):
                    index.add(bits, f"{folder.name}/{path}")
                read += 1
            except (EngineError, FinetuneError):
                unread.append(path)
    note_compared(report, folder, read, unread)
