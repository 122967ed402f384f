"""A file to sampled frames, against the bare decoding of that file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.clips import clip
from bench.figures import Line, Row, Series, Size, at_most, cpu_seconds, share_of
from bench.worker import alternate, ours

PRESETS = ("keye-vl-preview", "keye-vl-1.5")
MEMORY_MB = 120.0


def measure(size: Size) -> list[Line]:
    path = clip(2, 320, 180) if size.tiny else clip(30, 1280, 720)
    lines = [_processor(path, preset, size) for preset in PRESETS]
    return lines + [_memory(path, preset, size) for preset in PRESETS]


def _processor(path: Path, preset: str, size: Size) -> Line:
    with (
        ours(size, "bench.ours:sampled", path=str(path), preset=preset) as sampling,
        ours(size, "bench.ours:bare_decode", path=str(path)) as bare,
    ):
        mine, limit = alternate((sampling.run, bare.run), size.runs)
    name = f"{preset}: {mine[0].value} frames, processor"
    return share_of(name, cpu_seconds(mine), cpu_seconds(limit), 1.15, unit="CPU s")


def _memory(path: Path, preset: str, size: Size) -> Line:
    peaks = []
    frames: Any = None
    for _ in range(size.runs):
        with ours(size, "bench.ours:sampled", path=str(path), preset=preset) as fresh:
            frames = fresh.run().value
            peaks.append(fresh.peak_mb())
    series = Series(tuple(peaks))
    name = f"{preset}: {frames} frames, peak memory"
    note = "above the interpreter with its packages loaded; the frames themselves are part of it"
    return Line(name, "MB", series, None, series.median, "MB", at_most(MEMORY_MB), note)


ROW = Row(
    name="decode",
    what="30 s of 720p30 H.264 → sampled frames at 2 per second",
    against="the same machine's bare sequential decode of that file with PyAV, no conversion (the limit)",
    goal="at most 1.15× its CPU seconds; peak memory at most 120 MB above the interpreter",
    how="Two processes take turns; CPU seconds count all threads of each. Ours probes, plans, decodes, converts and "
    "scales; the other only decodes. Memory: the high-water mark of a new process for every run, less what it held "
    "before.",
    measure=measure,
)
