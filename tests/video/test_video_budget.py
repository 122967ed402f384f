"""Nothing costs more than the budget, and what was reduced is said."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.video import PRESETS, Clip, Plan, Sampling, VideoInfo, plan
from engine.video.budget import slow_fast_sizes, tokens_of
from engine.video.rules import even_in_time

PREVIEW, FAST_SLOW = PRESETS["keye-vl-preview"], PRESETS["keye-vl-1.5"]


def video(width: int, height: int, fps: float, frames: int, times: np.ndarray | None = None) -> VideoInfo:
    """A probe's answer about a video nobody has to encode."""
    when = np.arange(frames) / fps if times is None else times
    return VideoInfo(
        path=Path("clip.mp4"),
        container="mp4",
        codec="h264",
        width=width,
        height=height,
        rotation=0,
        fps=fps,
        variable_rate=times is not None,
        duration=float(when[-1]) + 1 / fps,
        frame_count=len(when),
        audio_codec=None,
        size_bytes=1,
        frame_times=when,
        key_times=when[:1],
    )


def planned(info: VideoInfo, sampling: Sampling, start: float | None = None, end: float | None = None) -> Plan:
    return plan(info, Clip(info.path, start, end), sampling)


sides = st.integers(1, 9000)
samplings = st.builds(
    lambda base, fps, low, span, budget, frames, least: dataclasses.replace(
        base,
        fps=fps,
        min_frame_tokens=low,
        max_frame_tokens=low + span,
        budget=budget,
        max_frames=frames,
        min_frames=min(least, frames),
    ),
    st.sampled_from([PREVIEW, FAST_SLOW]),
    st.floats(0.01, 240),
    st.integers(1, 300),
    st.integers(0, 900),
    st.integers(1, 200_000),
    st.integers(1, 2000),
    st.integers(1, 20),
)


@settings(max_examples=600, deadline=None)
@given(sides, sides, st.floats(0.1, 240), st.integers(1, 20_000), samplings, st.booleans())
def test_no_clip_ever_costs_more_than_its_budget(
    width: int, height: int, fps: float, frames: int, sampling: Sampling, varying: bool
) -> None:
    times = np.cumsum(np.random.default_rng(frames).uniform(0.2, 3, frames)) / fps if varying else None
    if times is not None:
        times -= times[0]
    try:
        found = planned(video(width, height, fps, frames, times), sampling)
    except EngineError as error:
        assert "200 times" in str(error) or "raise the budget" in str(error)
        return
    assert found.total_tokens == sum(found.tokens) <= sampling.budget
    assert found.height % 28 == found.width % 28 == 0 and min(found.height, found.width) >= 28
    assert 1 <= found.frame_count <= min(frames, sampling.max_frames)
    assert list(found.indices) == sorted(set(found.indices)) and found.indices[-1] < frames
    assert math.isfinite(found.fps) and found.fps > 0
    if not sampling.slow_fast and found.frame_count > 1:
        assert found.frame_count % 2 == 0


@settings(max_examples=600, deadline=None)
@given(sides, sides, st.integers(1, 700), st.integers(0, 700), samplings)
def test_slow_and_fast_frames_never_cost_more_than_the_budget(
    width: int, height: int, slow: int, fast: int, sampling: Sampling
) -> None:
    try:
        big, small = slow_fast_sizes(height, width, slow, fast, sampling)
    except EngineError:
        return
    assert slow * tokens_of(big) + fast * tokens_of(small) <= sampling.budget
    assert tokens_of(small) <= tokens_of(big)


@settings(max_examples=60, deadline=None)
@given(st.integers(28, 2000), st.integers(28, 2000), st.integers(1, 90), st.integers(0, 90), st.integers(2000, 40000))
def test_slow_frames_are_as_large_as_the_budget_allows(w: int, h: int, slow: int, fast: int, budget: int) -> None:
    """Against trying every limit instead of bisecting."""
    from engine.video.budget import fast_size, frame_size

    sampling = dataclasses.replace(FAST_SLOW, budget=budget)
    best = 0
    for cap in range(1, 900):
        big = frame_size(h, w, 48, 768, cap) if max(h, w) / min(h, w) <= 200 else None
        if big is not None:
            small = min(tokens_of(fast_size(h, w, big, sampling)), tokens_of(big))
            if slow * tokens_of(big) + fast * small <= budget:
                best = max(best, tokens_of(big))
    try:
        assert tokens_of(slow_fast_sizes(h, w, slow, fast, sampling)[0]) == best
    except EngineError:
        assert best == 0


def test_the_overshoot_of_the_published_code_is_gone() -> None:
    """30 s of 720×1280 cost 43,200 tokens there and 5 min 72,000, both against a total of 24,576."""
    half_minute = planned(video(1280, 720, 30, 900), PREVIEW)
    assert half_minute.frame_count == 60 and 20_000 < half_minute.total_tokens <= 24_576
    assert half_minute.frame_tokens >= 128
    assert any("43,200 tokens" in note and "24,576" in note for note in half_minute.notes)
    minutes = planned(video(1280, 720, 30, 9000), PREVIEW)
    assert minutes.frame_count % 2 == 0 and 150 <= minutes.frame_count <= 192
    assert minutes.frame_tokens >= 128 and 20_000 < minutes.total_tokens <= 24_576
    assert any(f"only {minutes.frame_count} frames" in note for note in minutes.notes)


def test_frames_shrink_before_they_get_fewer() -> None:
    info = video(640, 480, 30, 1200)
    last = 10**9
    for budget in (80_000, 40_000, 20_000, 12_000):
        found = planned(info, dataclasses.replace(PREVIEW, budget=budget))
        assert found.frame_count == 80 and found.frame_tokens <= last
        last = found.frame_tokens
    fewer = planned(info, dataclasses.replace(PREVIEW, budget=6_000))
    assert fewer.frame_count < 80 and fewer.frame_tokens >= 128


def test_a_roomy_budget_changes_nothing_and_says_nothing() -> None:
    found = planned(video(640, 360, 25, 250), PREVIEW)
    assert (found.frame_count, found.height, found.width, found.fps, found.notes) == (20, 364, 644, 2.0, ())


def test_a_budget_below_one_frame_is_refused() -> None:
    with pytest.raises(EngineError, match="raise the budget to at least 144"):
        planned(video(1280, 720, 30, 90), PREVIEW.with_limits(budget=100))
    assert planned(video(1280, 720, 30, 90), PREVIEW.with_limits(budget=150)).frame_count == 1


@pytest.mark.parametrize("sampling", [PREVIEW, FAST_SLOW])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_very_short_clips(frames: int, sampling: Sampling) -> None:
    found = planned(video(320, 240, 30, frames), sampling)
    assert 1 <= found.frame_count <= frames and found.indices[0] == 0


def test_too_many_frames_for_the_limit_are_spread_over_the_whole_clip() -> None:
    found = planned(video(320, 240, 30, 9000), PREVIEW.with_limits(max_frames=10))
    assert found.frame_count == 10 and found.indices[0] == 0 and found.indices[-1] == 8999
    assert any("600 frames at 2 fps" in note and "limit of 10" in note for note in found.notes)


def test_varying_rate_is_sampled_evenly_in_time() -> None:
    """Slow motion in the first of ten seconds: 240 of the 330 frames lie there."""
    times = np.concatenate([np.arange(240) / 240, 1 + np.arange(90) / 10])
    found = planned(video(320, 240, 33, 330, times), PREVIEW)
    moments = np.linspace(times[0], times[-1], found.frame_count)
    assert found.frame_count == 18  # 2 × 9.9 s, even
    assert np.abs(np.array(found.times) - moments).max() <= 0.05 + 1e-9


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.001, 50), min_size=1, max_size=60), st.data())
def test_moments_never_share_a_frame(gaps: list[float], data: st.DataObject) -> None:
    times = np.cumsum([0.0, *gaps])
    first = data.draw(st.integers(0, len(times) - 1))
    last = data.draw(st.integers(first, len(times) - 1))
    count = data.draw(st.integers(1, last - first + 1))
    picked = even_in_time(times, first, last, count)
    assert len(set(picked)) == count and picked == sorted(picked)
    assert first <= picked[0] and picked[-1] <= last


@pytest.mark.parametrize(
    "limits",
    [
        {"fps": 0},
        {"fps": -1},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"fps": "2"},
        {"fps": True},
        {"max_frames": 0},
        {"max_frames": 2.5},
        {"max_frames": float("nan")},
        {"budget": -5},
        {"budget": "many"},
        {"budget": True},
    ],
)
def test_senseless_limits_are_refused(limits: dict[str, object]) -> None:
    with pytest.raises(EngineError, match="must be"):
        PREVIEW.with_limits(**limits)  # type: ignore[arg-type]


def test_limits() -> None:
    changed = PREVIEW.with_limits(fps=1, max_frames=2.0, budget=9000)  # type: ignore[arg-type]
    assert (changed.fps, changed.max_frames, changed.min_frames, changed.budget) == (1.0, 2, 2, 9000)
    assert PREVIEW.with_limits() == PREVIEW
    assert planned(video(320, 240, 30, 900), PREVIEW.with_limits(fps=1e300)).frame_count <= 768
    assert planned(video(320, 240, 30, 900), PREVIEW.with_limits(max_frames=1)).frame_count == 1
