"""Slow or fast, frame by frame, against the published utilities."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from bench.clips import scene
from bench.figures import Line, Row, Size, at_least, cpu_seconds, not_measured, seconds, times_faster
from bench.published.install import search_path
from bench.worker import Worker, alternate, ours

GOAL = 10.0


def measure(size: Size) -> list[Line]:
    count, width, height = (4, 320, 180) if size.tiny else (60, 1280, 720)
    name = f"{count} frames of {width}×{height}"
    try:
        search = search_path("1.5.2")
    except FileNotFoundError as error:
        return [not_measured(name, str(error), at_least(GOAL))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.npy"
        np.save(file, np.stack(list(scene(count, width, height, fps=2))))
        with (
            ours(size, "bench.ours:slow_fast", path=str(file)) as mine,
            Worker("bench.published.utilities:slow_fast", search=search, path=str(file)) as other,
        ):
            made, published = alternate((mine.run, other.run), size.runs)
    same = "the same decisions" if made[0].value == published[0].value else "DIFFERENT decisions"
    cpu = cpu_seconds(published).median / cpu_seconds(made).median
    note = f"{same}, {made[0].value.count(0)} slow; {cpu:.1f}× fewer CPU seconds"
    return [times_faster(name, seconds(made), seconds(published), GOAL, note)]


ROW = Row(
    name="slowfast",
    what="slow/fast classification of 60 frames",
    against="keye-vl-utils 1.5.2",
    goal="at least 10× as fast, the same decisions",
    how="The package from the index; two processes take turns, each with the decoded frames in memory in the layout "
    "that it works on. The decisions are compared here, and on the recorded cases in tests/video.",
    measure=measure,
)
