"""Curves as inline SVG: no script, colours from the page's style, text that stays readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.reports.pages import text

Point = tuple[float, float]

WIDTH, HEIGHT = 400, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 14, 24
_MOST_POINTS = 240  # of a line; more are averaged
_SMOOTHED_FROM = 40  # points
_LOG_FROM = 8.0  # largest to smallest value
COLOURS = 6


@dataclass(frozen=True)
class Line:
    """One curve. `colour` counts from 0 and begins again after COLOURS; a faint one is background to others."""

    name: str
    points: Sequence[Point]  # x ascending, both finite
    colour: int = 0
    faint: bool = False
    dashed: bool = False


def chart(lines: Sequence[Line], label: str, *, percent: bool = False, marks: Sequence[float] = ()) -> str:
    """Lines over one pair of axes; `label` says what the picture shows, for those who cannot see it. `marks` are
    positions on the x axis where something new begins. With `percent` the y axis goes from 0 to 100 %; without, it is
    logarithmic where the values span much. Empty text where there is nothing to draw."""
    several = [line for line in lines if line.points]
    if not several:
        return ""
    xs = [x for line in several for x, _ in line.points]
    ys = [y for line in several for _, y in line.points]
    left, right = min(0.0, min(xs)), max(xs) or 1.0
    logarithmic = not percent and min(ys) > 0 and max(ys) / min(ys) > _LOG_FROM
    low, high = (0.0, 1.0) if percent else _span(min(ys), max(ys), logarithmic)

    def at(x: float, y: float) -> tuple[float, float]:
        if logarithmic:
            up = (math.log(y) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            up = (y - low) / (high - low)
        across = (x - left) / (right - left) if right > left else 0.5
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - min(1.0, max(0.0, up)) * (HEIGHT - _TOP - _BOTTOM),
        )

    parts = []
    for value in _log_ticks(low, high) if logarithmic else ticks(low, high, 4):
        _, y = at(left, value)
        shown = f"{value * 100:.0f}" if percent else f"{value:.4g}"
        parts.append(f'<path class="kr-grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="kr-tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{shown}</text>')
    for value in ticks(left, right, 4):
        x, _ = at(value, high)
        anchor = "end" if x > WIDTH - 30 else "middle"
        parts.append(
            f'<text class="kr-tick" x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{thousands(value)}</text>'
        )
    for mark in marks:
        x, _ = at(mark, high)
        parts.append(f'<path class="kr-mark" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
    for line in several:
        parts += _drawn(line, at)
    return (
        f'<svg class="kr-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(label)}">'
        f"{''.join(parts)}</svg>"
    )


def sparkline(values: Sequence[float | None], label: str) -> str:
    """A small row of shares between 0 and 1, with a dot at the last one."""
    width, height = 76, 22
    steps = max(1, len(values) - 1)
    dots = [
        (3 + i / steps * (width - 8), height - 3 - min(1.0, max(0.0, v)) * (height - 6))
        for i, v in enumerate(values)
        if v is not None
    ]
    if not dots:
        return ""
    x, y = dots[-1]
    line = f'<path class="kr-line kr-c0" d="{_path(dots)}"/>' if len(dots) > 1 else ""
    return (
        f'<svg class="kr-spark" viewBox="0 0 {width} {height}" role="img" aria-label="{text(label)}">'
        f'<path class="kr-grid" d="M0 {height - 3}H{width}M0 3H{width}"/>{line}'
        f'<circle class="kr-dot kr-c0" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/></svg>'
    )


def legend(lines: Sequence[tuple[str, int, bool]]) -> str:
    """Names with their colours (-1: no one colour); the last of the three says whether the line is dashed."""
    items = "".join(
        f'<span><i class="{_css(colour, dashed)}"></i>{text(name)}</span>' for name, colour, dashed in lines
    )
    return f'<div class="kr-legend">{items}</div>' if items else ""


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between `low` and `high`, some `about` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    rough = span / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def thousands(value: float) -> str:
    """A count in as few characters as it takes: 750, 1.2k, 3M."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """The same curve with at most `most` points, each the mean of its neighbours."""
    if len(points) <= most:
        return list(points)
    out = []
    for i in range(most):
        several = points[i * len(points) // most : (i + 1) * len(points) // most]
        out.append((sum(x for x, _ in several) / len(several), sum(y for _, y in several) / len(several)))
    return out


def smoothed(points: Sequence[Point]) -> list[Point]:
    """A centred moving mean over a tenth of the curve."""
    half = max(1, len(points) // 20)
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)  # symmetric, so that a slope is not bent at the ends
        several = [y for _, y in points[i - reach : i + reach + 1]]
        out.append((x, sum(several) / len(several)))
    return out


def _drawn(line: Line, at: object) -> list[str]:
    assert callable(at)
    css = _css(line.colour, line.dashed)
    points = thinned(line.points)
    place = [at(x, y) for x, y in points]
    if len(place) == 1:
        return [f'<circle class="kr-dot {css}" cx="{place[0][0]:.1f}" cy="{place[0][1]:.1f}" r="3"/>']
    if line.faint:
        return [f'<path class="kr-faint {css}" d="{_path(place)}"/>']
    if len(points) < _SMOOTHED_FROM:
        return [f'<path class="kr-line {css}" d="{_path(place)}"/>']
    smooth = [at(x, y) for x, y in smoothed(points)]
    return [f'<path class="kr-faint {css}" d="{_path(place)}"/>', f'<path class="kr-line {css}" d="{_path(smooth)}"/>']


def _css(colour: int, dashed: bool) -> str:
    return f"kr-c{'n' if colour < 0 else colour % COLOURS}{' kr-dashed' if dashed else ''}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _span(low: float, high: float, logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        return low / 1.1, high * 1.1
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < (high - low) * 0.5 else low - room), high + room


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [s * 10.0**p for p in powers for s in (1, 2, 5) if low <= s * 10.0**p <= high]
    return found if len(found) <= 7 else [value for value in found if f"{value:e}"[0] == "1"]
