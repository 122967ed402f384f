"""Rows about the order and the kinship of videos (section 3.1 of the report): shuffled frames to be put in order, and
the video of several that belongs to a group."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from engine.errors import EngineError
from finetune.data.duplicates import jaccard, one_bits
from finetune.data.frames import spread
from finetune.data.items import Item, Medium
from finetune.data.report import Report
from finetune.data.rowfile import Example, Part, asked
from finetune.data.wording import draw, question
from finetune.errors import FinetuneError

FRAMES = 6  # shuffled frames of a video, as published
ALIKE = 0.88  # Jaccard index of two frames that look alike: two bits of 32 differ at most
_LONGEST = 448  # pixels of the longer side of a frame that is written
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def reorder(items: Sequence[Item], folder: Path, out: Path, seed: int = 0) -> tuple[list[Example], Report]:
    """A row for each video: six frames evenly spread over it, shuffled; the answer is their numbers in true order.

    Frames are written as JPEG into `out`/frames. A video of which two of these frames look alike has no one order and
    is left out. Raises FinetuneError where the frames cannot be written."""
    report = Report("reorder", "videos")
    made = []
    seen: set[Medium] = set()
    for item in items:
        if not item.is_video or item.media[0] in seen:
            continue
        seen.add(item.media[0])
        report.came += 1
        try:
            frames = [rgb for _, rgb in spread(folder / item.media[0].path, item.media[0], FRAMES, _LONGEST)]
        except EngineError as error:
            report.drop(item.id, "a video cannot be read", str(error))
            continue
        if len(frames) < FRAMES:
            report.drop(item.id, f"a video has fewer than {FRAMES} frames")
            continue
        if _alike(frames):
            report.drop(item.id, "frames of a video look alike")
            continue
        order = list(range(FRAMES))
        random.Random(draw("reorder", seed, item.id)).shuffle(order)
        # The frames get their numbers as they are shown: a name that told the order would give it away.
        names = _write(frames, order, item.id, out)
        parts: list[Part] = []
        for shown, name in enumerate(names, 1):
            parts += [f"Frame {shown}: ", name, "\n"]
        answer = ", ".join(str(order.index(true) + 1) for true in range(FRAMES))
        ask = question("reorder", item, count=FRAMES)
        made.append(asked("video", f"{item.id} shuffled", (*parts, ask), answer))
    report.made = len(made)
    return made, report


def _alike(frames: Sequence[np.ndarray]) -> bool:
    bits = [one_bits(frame) for frame in frames]
    return any(one == other or jaccard(one, other) >= ALIKE for at, one in enumerate(bits) for other in bits[at + 1 :])


def _write(frames: Sequence[np.ndarray], order: Sequence[int], name: str, out: Path) -> list[Path]:
    """Write frames in the order in which they are shown; their paths relative to `out`."""
    stem = f"{PurePosixPath(name).stem[:60]}-{draw(name):016x}"
    paths = [Path("frames") / f"{stem}-{shown}.jpg" for shown in range(1, len(order) + 1)]
    try:
        (out / "frames").mkdir(parents=True, exist_ok=True)
        for path, true in zip(paths, order, strict=True):
            Image.fromarray(frames[true]).save(out / path, quality=90)
    except OSError as error:
        raise FinetuneError(f"{out / 'frames'} cannot be written ({error.strerror}); free some space.") from error
    return paths


def related(items: Sequence[Item], candidates: int = 4, seed: int = 0) -> tuple[list[Example], Report]:
    """A row for each video that shares a group with others: two of them (or one) are shown as the group, and the video
    is to be found among `candidates`, the rest of which share no group with it.

    Groups are what the items' facts name, their tags, and the folder a video lies in below the top one. Raises
    FinetuneError for fewer than two candidates or more than there are letters."""
    if not 2 <= candidates <= len(_LETTERS):
        raise FinetuneError(f"There must be 2 to {len(_LETTERS)} candidates, not {candidates}.")
    report = Report("related", "videos")
    made = []
    videos = list({item.media[0]: item for item in items if item.is_video}.values())
    groups = {item.id: groups_of(item) for item in videos}
    for item in videos:
        report.came += 1
        kin = [other for other in videos if other is not item and groups[item.id] & groups[other.id]]
        if not kin:
            report.drop(item.id, "no other video shares a group with it")
            continue
        rng = random.Random(draw("related", seed, item.id))
        # What is shown as the group must share one group with the answer, not one each.
        shared = rng.choice(sorted({group for other in kin for group in groups[item.id] & groups[other.id]}))
        members = [other for other in kin if shared in groups[other.id]]
        shown = rng.sample(members, min(2, len(members)))
        known = set().union(groups[item.id], *(groups[one.id] for one in shown))
        strangers = [other for other in videos if other is not item and not known & groups[other.id]]
        if len(strangers) < candidates - 1:
            report.drop(item.id, f"fewer than {candidates - 1} videos of other groups are there")
            continue
        choices = [*rng.sample(strangers, candidates - 1), item]
        rng.shuffle(choices)
        parts: list[Part] = ["Group:\n", *(one.media[0] for one in shown), "\nCandidates:\n"]
        for letter, choice in zip(_LETTERS, choices, strict=False):
            parts += [f"{letter}. ", choice.media[0], "\n"]
        answer = _LETTERS[choices.index(item)]
        made.append(asked("video", f"{item.id} in {shared}", (*parts, question("related", item)), answer))
    report.made = len(made)
    return made, report


def groups_of(item: Item) -> frozenset[str]:
    """The groups a video belongs to, as texts that tell what kind of group each is."""
    folder = str(PurePosixPath(item.media[0].path).parent)
    named = [f"group {item.group}"] if item.group else []
    return frozenset([*named, *(f"tag {tag}" for tag in item.tags), *([f"folder {folder}"] if folder != "." else [])])
