"""What a clip may cost: how many frames, which ones and how large, never above the budget.

The published code states a total but lets a clip cost up to twice as much, and its smallest frame overrides the total
for long clips. Here the total is the one limit nothing overrides: frames shrink first, down to the smallest size that
keeps `min_frame_tokens`, and then there are fewer of them."""

from __future__ import annotations

import math

import numpy as np

from engine.errors import EngineError
from engine.video.rules import (
    PIXELS,
    even_in_time,
    even_indices,
    fast_slow_frame_count,
    preview_frame_count,
    smart_resize,
)
from engine.video.types import Clip, Plan, Sampling, VideoInfo

Size = tuple[int, int]
"""(height, width) in pixels."""


def tokens_of(size: Size) -> int:
    """Visual tokens of one picture of this size."""
    return size[0] * size[1] // PIXELS


def smallest_size(height: int, width: int, min_tokens: int) -> Size:
    """The published size of a picture grown or shrunk to just above `min_tokens` (rounding up, so never below)."""
    smart_resize(height, width, PIXELS, PIXELS)  # refuses impossible shapes
    beta = math.sqrt(min_tokens * PIXELS / (height * width))
    return math.ceil(height * beta / 28) * 28, math.ceil(width * beta / 28) * 28


def frame_size(height: int, width: int, min_tokens: int, max_tokens: int, cap: int) -> Size | None:
    """The published size within `min_tokens`..`max_tokens`, or the largest one that costs at most `cap`; None when even
    the smallest frame costs more than `cap`.

    Where the published size already costs at most `cap` it is returned unchanged."""
    published = smart_resize(height, width, min_tokens * PIXELS, max_tokens * PIXELS)
    if tokens_of(published) <= cap:
        return published
    size = smart_resize(height, width, min_tokens * PIXELS, max(min_tokens, cap) * PIXELS)
    if min_tokens <= tokens_of(size) <= cap:
        return size
    size = smallest_size(height, width, min_tokens)
    return size if tokens_of(size) <= cap else None


def fast_size(height: int, width: int, slow: Size, sampling: Sampling) -> Size:
    """The size of a fast frame beside slow ones of size `slow`: `fast_ratio` of their tokens, about
    `min_fast_tokens` at least. Published utilities 1.5.2 (where the smallest may round below or above that)."""
    low = sampling.min_fast_tokens
    most = max(int(tokens_of(slow) * sampling.fast_ratio), low)
    return smart_resize(height, width, low * PIXELS, most * PIXELS)


def slow_fast_sizes(height: int, width: int, slow: int, fast: int, sampling: Sampling) -> tuple[Size, Size]:
    """The sizes of slow and fast frames when a clip of `height`×`width` pixels has `slow` and `fast` of them: the
    largest pair whose true total keeps the budget. Found by bisection over the tokens of a slow frame (published
    utilities 1.5.2 bisect an estimate and stop one step above the budget).

    A fast frame never costs more than a slow one. Raises EngineError when nothing fits."""

    def sizes(cap: int) -> tuple[Size, Size] | None:
        big = frame_size(height, width, sampling.min_frame_tokens, sampling.max_frame_tokens, cap)
        if big is None:
            return None
        small = fast_size(height, width, big, sampling)
        if tokens_of(small) > tokens_of(big):
            small = big
        cost = slow * tokens_of(big) + fast * tokens_of(small)
        return (big, small) if cost <= sampling.budget else None

    # No frame can cost more than its published size, which growing may push above max_frame_tokens.
    published = smart_resize(height, width, sampling.min_frame_tokens * PIXELS, sampling.max_frame_tokens * PIXELS)
    top = tokens_of(published)
    best = sizes(top)
    if best is not None:
        return best
    low, high = tokens_of(smallest_size(height, width, sampling.min_frame_tokens)), top
    best = sizes(low)
    if best is None:
        raise EngineError(_too_small(height, width, low, sampling.budget))
    while high - low > 1:
        middle = (low + high) // 2
        found = sizes(middle)
        if found is None:
            high = middle
        else:
            best, low = found, middle
    return best


def plan(info: VideoInfo, clip: Clip, sampling: Sampling) -> Plan:
    """Which frames of `clip` to read and at what size, so that they cost at most `sampling.budget` tokens.

    Frame counts and indices follow the published utilities 1.0.0 (Preview) and 1.5.2 (slow/fast) for clips of
    constant rate; a clip of varying rate is sampled evenly in time. Whatever had to be reduced is said in `notes`.
    Raises EngineError when the range lies outside the file or one smallest frame exceeds the budget."""
    first, last, notes = _range(info, clip)
    height, width = info.height, info.width
    total = last - first + 1
    rate = info.fps
    if info.variable_rate:
        end = info.frame_times[last + 1] if last + 1 < info.frame_count else info.duration
        rate = total / float(end - info.frame_times[first])
    wanted = _frame_count(total, rate, sampling)
    smallest = tokens_of(smallest_size(height, width, sampling.min_frame_tokens))
    published = smart_resize(height, width, sampling.min_frame_tokens * PIXELS, sampling.max_frame_tokens * PIXELS)
    smallest = min(smallest, tokens_of(published))
    if smallest > sampling.budget:
        raise EngineError(_too_small(height, width, smallest, sampling.budget))
    count = wanted
    if count * smallest > sampling.budget:
        count = sampling.budget // smallest
        if count > sampling.frame_multiple:
            count -= count % sampling.frame_multiple
    size = frame_size(height, width, sampling.min_frame_tokens, sampling.max_frame_tokens, sampling.budget // count)
    assert size is not None  # count was chosen so that the smallest frame fits
    per_second = total / rate
    notes += _reductions(wanted, count, published, size, per_second, total, sampling)
    if info.variable_rate:
        indices = even_in_time(info.frame_times, first, last, count)
    else:
        indices = even_indices(first, last, count)
    return Plan(
        clip=clip,
        info=info,
        sampling=sampling,
        indices=tuple(indices),
        times=tuple(float(info.frame_times[i]) for i in indices),
        last_index=last,
        fps=count / total * rate,
        height=size[0],
        width=size[1],
        exact=not sampling.slow_fast,
        notes=info.notes + tuple(notes),
    )


def _frame_count(total: int, rate: float, sampling: Sampling) -> int:
    fewest = min(sampling.min_frames, total)
    if sampling.slow_fast:
        count = fast_slow_frame_count(total, rate, fps=sampling.fps, max_frames=sampling.max_frames)
        return max(count, fewest)
    try:
        return preview_frame_count(
            total,
            rate,
            fps=sampling.fps,
            min_frames=sampling.min_frames,
            max_frames=sampling.max_frames,
            multiple=sampling.frame_multiple,
        )
    except EngineError:
        # Fewer frames than one multiple, in the clip or allowed: take them as they are.
        return max(1, min(total, sampling.max_frames))


def _range(info: VideoInfo, clip: Clip) -> tuple[int, int, list[str]]:
    """The first and last frame of a clip. A range that falls between two frames means the frame on screen then."""
    start = 0.0 if clip.start is None else clip.start
    end = info.duration if clip.end is None else clip.end
    if not all(isinstance(second, int | float) and math.isfinite(second) for second in (start, end)):
        raise EngineError("The start and end of a clip must be numbers of seconds.")
    if start < 0:
        raise EngineError(f"The clip starts at {start:g} s; give a start of 0 or more.")
    if clip.end is not None and end <= start:
        raise EngineError(f"The clip ends at {end:g} s but starts at {start:g} s; the end must come after the start.")
    if start > 0 and start >= info.duration:
        raise EngineError(f"The clip starts at {start:g} s, but the video is only {info.duration:.2f} s long.")
    notes = []
    times = info.frame_times
    if clip.end is not None and end > info.duration + 0.05:
        notes.append(f"The clip was to end at {end:g} s; the video ends at {info.duration:.2f} s.")
    slack = 1e-6
    first = int(np.searchsorted(times, start - slack, side="left"))
    last = int(np.searchsorted(times, end + slack, side="right")) - 1
    if last < first:
        first = last = max(0, min(first, len(times)) - 1)
        notes.append(f"No frame begins between {start:g} s and {end:g} s; the one on screen then is used.")
    return first, last, notes


def _reductions(
    wanted: int, count: int, published: Size, size: Size, seconds: float, total: int, sampling: Sampling
) -> list[str]:
    notes = []
    asked = seconds * sampling.fps
    if total <= wanted < math.floor(asked) or total < sampling.min_frames:
        notes.append(f"The clip has only {total} frame{'s' if total > 1 else ''}; all that can be used are.")
    elif wanted == sampling.max_frames - sampling.max_frames % sampling.frame_multiple and asked >= wanted + 1:
        notes.append(
            f"{math.floor(asked):,} frames at {sampling.fps:g} fps are more than the limit of {sampling.max_frames:,}; "
            f"{wanted:,} are taken, one every {seconds / wanted:.2f} s."
        )
    cost = wanted * tokens_of(published)
    if cost > sampling.budget:
        asked_for = f"{wanted:,} frames of {published[1]}×{published[0]}"
        costs = f"{asked_for} would cost {'up to ' if sampling.slow_fast else ''}{cost:,} tokens"
        shown = f"frames are shown at {size[1]}×{size[0]} ({tokens_of(size)} tokens each)"
        if sampling.slow_fast and count == wanted:
            kept = "frames may be shown smaller"
        elif count == wanted:
            kept = shown
        elif size == published:
            kept = f"only {count:,} frames are taken"
        else:
            kept = f"{shown} and only {count:,} frames are taken"
        notes.append(f"{costs}; to keep {sampling.budget:,} {kept}.")
    return notes


def _too_small(height: int, width: int, tokens: int, budget: int) -> str:
    return (
        f"The smallest frame of a {width}×{height} video costs {tokens} tokens, more than the budget of {budget}; "
        f"raise the budget to at least {tokens}."
    )
