"""A file to model-ready tensors, against the published utilities and image processors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.clips import clip
from bench.figures import Line, Row, Run, Size, at_least, cpu_seconds, not_measured, seconds, times_faster
from bench.ours import PUBLISHED_TOTAL
from bench.published.install import search_path
from bench.worker import Worker, alternate, ours

GOAL = 4.0
# (what, version of the utilities, their work, our preset, fields of both, fields of ours)
CASES: tuple[tuple[str, str, str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("Preview", "1.0.0", "preview_tensors", "keye-vl-preview", {}, {"budget": PUBLISHED_TOTAL}),
    ("1.5", "1.5.2", "one_five_tensors", "keye-vl-1.5", {}, {}),
    ("1.5, every frame slow", "1.5.2", "one_five_tensors", "keye-vl-1.5", {"threshold": 1.0001}, {}),
)


def measure(size: Size) -> list[Line]:
    path = clip(2, 320, 180) if size.tiny else clip(30, 1280, 720)
    return [_case(path, size, *case) for case in (CASES[:2] if size.tiny else CASES)]


def _case(
    path: Path,
    size: Size,
    name: str,
    version: str,
    work: str,
    preset: str,
    both: dict[str, Any],
    own: dict[str, Any],
) -> Line:
    try:
        search = search_path(version)
    except FileNotFoundError as error:
        return not_measured(name, str(error), at_least(GOAL))
    mine: dict[str, Any] = {"path": str(path), "preset": preset, **both, **own}
    theirs: dict[str, Any] = {"path": str(path), **both}
    equal, *once = _compared(size, mine, theirs, work, search)
    made, published = [once[0]], [once[1]]
    if not size.tiny:
        with (
            Worker("bench.ours:tensors", **mine) as one,
            Worker(f"bench.published.utilities:{work}", search=search, **theirs) as other,
        ):
            made, published = alternate((one.run, other.run), size.runs)
    cpu = cpu_seconds(published).median / cpu_seconds(made).median
    note = f"{made[0].value:,} patches; {equal}; {cpu:.1f}× fewer CPU seconds"
    return times_faster(f"{name}: 60 frames", seconds(made), seconds(published), GOAL, note)


def _compared(
    size: Size, mine: dict[str, Any], theirs: dict[str, Any], work: str, search: list[Path]
) -> tuple[str, Run, Run]:
    """How far the two results lie apart, in levels of 255, and the two runs that made them."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("ours.npy", "theirs.npy")]
        with ours(size, "bench.ours:tensors", keep=files[0], **mine) as one:
            first = one.run()
        with Worker(f"bench.published.utilities:{work}", search=search, keep=files[1], **theirs) as other:
            second = other.run()
        a, b = (np.load(file, mmap_mode="r") for file in files)
        if a.shape != b.shape:
            return f"NOT EQUAL: {a.shape} and {b.shape}", first, second
        apart = max(float(np.abs(a[at : at + 4096] - b[at : at + 4096]).max()) for at in range(0, len(a), 4096))
    # A level is 1/127.5 after normalisation.
    return f"values at most {apart * 127.5:.3g} of 255 levels apart", first, second


ROW = Row(
    name="tensors",
    what="the same → model-ready tensors, Preview and 1.5 settings",
    against="keye-vl-utils 1.0.0 / 1.5.2 plus the published image processor",
    goal="at least 4× as fast end to end, values equal to 1 level of 255",
    how="The utilities are the packages from the index, with decord; the image processors are restated "
    "(bench/published/processor.py) because they are published with the weights only, and proven equal on the recorded "
    "figures. Two processes take turns; seconds on the clock. Ours gets the published total of tokens, so that both "
    "make the same sizes; afterwards both results are compared value by value.",
    measure=measure,
)
