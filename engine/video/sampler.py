"""From a clip to the frames the model sees: plan, decode once, scale at once, keep within the budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.errors import EngineError
from engine.video.budget import Size, fast_size, frame_size, plan, slow_fast_sizes, tokens_of
from engine.video.cache import FrameCache, FrameKeeper, cache_key
from engine.video.container import regular_file
from engine.video.decode import frames_at
from engine.video.probe import probe
from engine.video.scaling import resize
from engine.video.slowfast import SlowFast
from engine.video.types import Clip, Frames, Kind, Plan, Sampling, VideoInfo

CACHE = FrameCache()
"""Shared by every caller in this process."""

Progress = Callable[[int, int], None]
"""Called with (frames read, frames planned)."""

Pictures = dict[int, tuple[float, np.ndarray]]
"""By position in the plan: seconds in the file, and the picture at the model's size."""

T = TypeVar("T")


def sample(
    clip: Clip,
    sampling: Sampling,
    *,
    info: VideoInfo | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    cache: FrameKeeper | None = CACHE,
) -> Frames:
    """What the model sees of `clip`: frames at their true presentation times, turned for display, scaled, costing at
    most `sampling.budget` tokens in total.

    `info` saves a second probe of the same file; `cancelled` is asked often and stops the work with Cancelled.
    Frames that cannot be decoded are left out and `notes` says so. Raises EngineError when the file is not a video,
    the range lies outside it, nothing can be decoded, or one smallest frame exceeds the budget."""
    file = regular_file(clip.path)
    key = cache_key(file, clip, sampling)
    if cache is not None and (known := cache.get(key)) is not None:
        return dataclasses.replace(known, clip=clip)
    planned = plan(info if info is not None else probe(file), clip, sampling)
    read = _read_slow_fast if sampling.slow_fast else _read_even
    frames = read(planned, progress or (lambda done, total: None), cancelled)
    if cache is not None:
        cache.put(key, frames)
    return frames


def _read_even(planned: Plan, progress: Progress, cancelled: Callable[[], bool] | None) -> Frames:
    def scaled(slot: int, rgb: np.ndarray) -> np.ndarray:
        return resize(rgb, planned.height, planned.width, planned.sampling.resample)

    got: Pictures = {}
    for slot, time, picture in _decoded(planned, scaled, progress, cancelled):
        got[slot] = (time, picture)
    return _frames(planned, got, dict.fromkeys(got, "slow"))


def _read_slow_fast(planned: Plan, progress: Progress, cancelled: Callable[[], bool] | None) -> Frames:
    """Sizes depend on how many frames turn out slow. Frames are scaled as if that did not press on the budget, which
    is so for most clips; where it does, the clip is decoded a second time with the sizes then known."""
    sampling = planned.sampling
    guess = _roomy_sizes(planned)
    watch = SlowFast(sampling.min_frame_similarity)
    kinds: dict[int, Kind] = {}
    spent = 0

    def classified(slot: int, rgb: np.ndarray) -> np.ndarray | None:
        nonlocal spent
        kinds[slot] = kind = watch.classify(rgb)
        spent += tokens_of(guess[kind])
        return resize(rgb, *guess[kind], sampling.resample) if spent <= sampling.budget else None

    got: Pictures = {}
    for slot, time, picture in _decoded(planned, classified, progress, cancelled):
        if picture is not None:
            got[slot] = (time, picture)
        else:
            got.clear()  # the guess is wrong; only the kinds are of use now
    if not kinds:
        return _frames(planned, got, kinds)
    slow = sum(kind == "slow" for kind in kinds.values())
    height, width = planned.info.height, planned.info.width
    sizes: dict[Kind, Size] = {}
    sizes["slow"], sizes["fast"] = slow_fast_sizes(height, width, slow, len(kinds) - slow, sampling)
    if sizes != guess or len(got) != len(kinds):

        def scaled(slot: int, rgb: np.ndarray) -> np.ndarray:
            return resize(rgb, *sizes[kinds.get(slot, "fast")], sampling.resample)

        again = _decoded(planned, scaled, progress, cancelled)
        got = {slot: (time, picture) for slot, time, picture in again if slot in kinds}
        notes = (*planned.notes, _shrunk(sizes, slow, len(kinds) - slow))
        planned = dataclasses.replace(planned, notes=notes)
    return _frames(planned, got, kinds)


def _roomy_sizes(planned: Plan) -> dict[Kind, Size]:
    height, width, sampling = planned.info.height, planned.info.width, planned.sampling
    slow = frame_size(height, width, sampling.min_frame_tokens, sampling.max_frame_tokens, sampling.budget)
    assert slow is not None  # the plan found a smallest frame that fits
    fast = fast_size(height, width, slow, sampling)
    return {"slow": slow, "fast": fast if tokens_of(fast) <= tokens_of(slow) else slow}


def _shrunk(sizes: dict[Kind, Size], slow: int, fast: int) -> str:
    def shown(kind: Kind, count: int) -> str:
        height, width = sizes[kind]
        return f"{count:,} {kind} at {width}×{height} ({tokens_of(sizes[kind])} tokens each)"

    return f"To keep the budget, frames were shown smaller: {shown('slow', slow)}, {shown('fast', fast)}."


def _decoded(
    planned: Plan, use: Callable[[int, np.ndarray], T], progress: Progress, cancelled: Callable[[], bool] | None
) -> Iterator[tuple[int, float, T]]:
    total = planned.frame_count
    for done, item in enumerate(frames_at(planned.info, planned.indices, planned.last_index, use, cancelled), 1):
        yield item
        progress(done, total)


def _frames(planned: Plan, got: Pictures, kinds: dict[int, Kind]) -> Frames:
    name = Path(planned.clip.path).name
    if not got:
        raise EngineError(
            f"No frame of {name} could be decoded in this range; the file is damaged: choose another range."
        )
    slots = sorted(got)
    fps, notes = planned.fps, planned.notes
    lost = planned.frame_count - len(slots)
    if lost:
        notes = (
            *notes,
            f"{lost} of {planned.frame_count} frames could not be decoded and were left out; the file is damaged.",
        )
        if len(slots) > 1:  # as many seconds, fewer frames; frames missing at the end leave the beat as it was
            fps = fps * (len(slots) - 1) / (slots[-1] - slots[0])
    for slot in slots:
        got[slot][1].flags.writeable = False
    return Frames(
        clip=planned.clip,
        info=planned.info,
        sampling=planned.sampling,
        images=tuple(got[slot][1] for slot in slots),
        times=tuple(got[slot][0] for slot in slots),
        kinds=tuple(kinds[slot] for slot in slots),
        fps=fps,
        notes=notes,
    )
