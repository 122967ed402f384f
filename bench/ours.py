"""Work done by the studio, and the bare work that is the limit, for the processes that are measured (bench.worker)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from engine.video import PRESETS, Clip, Sampling, sample

PUBLISHED_TOTAL = 115200  # tokens of a clip in the utilities 1.0.0


def sampling(name: str, budget: int | None = None) -> Sampling:
    return PRESETS[name] if budget is None else replace(PRESETS[name], budget=budget)


def with_threshold(chosen: Sampling, threshold: float) -> Sampling:
    """The sampling with this least similarity, which here may lie above 1: then every frame is slow."""
    changed = replace(chosen)
    object.__setattr__(changed, "min_frame_similarity", threshold)
    return changed


def bare_decode(path: str) -> Callable[[], int]:
    """Decode every frame in order with all threads and convert none: what no reader of whole files goes below."""

    def work() -> int:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            return sum(1 for _ in container.decode(stream))

    return work


def sampled(path: str, preset: str, budget: int | None = None) -> Callable[[], int]:
    """Probe, plan, decode and scale: the frames of a clip; returns how many."""
    chosen = sampling(preset, budget)
    return lambda: len(sample(Clip(Path(path)), chosen, cache=None).images)


def tensors(
    path: str, preset: str, budget: int | None = None, threshold: float | None = None, keep: str | None = None
) -> Callable[[], int]:
    """A file to pixel_values; returns how many patches. `threshold`: least similarity of a fast frame."""
    from engine.keye.image_processing import KeyeImageProcessor  # here: it takes seconds that others do without

    chosen = sampling(preset, budget)
    if threshold is not None:
        chosen = with_threshold(chosen, threshold)
    processor = KeyeImageProcessor(resample="bilinear" if chosen.slow_fast else "bicubic")

    def work() -> int:
        patches, _ = processor.cut(sample(Clip(Path(path)), chosen, cache=None).images)
        if keep is not None:
            np.save(keep, patches)
        return len(patches)

    return work


def slow_fast(path: str) -> Callable[[], list[int]]:
    """The kinds of the frames in an .npy file, uint8 [frames, height, width, 3]."""
    from engine.video.slowfast import SlowFast

    frames = np.load(path)

    def work() -> list[int]:
        watch = SlowFast(PRESETS["keye-vl-1.5"].min_frame_similarity)
        return [int(watch.classify(frame) == "fast") for frame in frames]

    return work
