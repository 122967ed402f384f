"""Rows that point: points, boxes, polygons and counts of named things (table 1 of the report)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.timed import sayable
from finetune.data.formats import Box, Boxes, Mark, Point, Points, Polygons, clockwise, to_grid, write
from finetune.data.items import Item, Region
from finetune.data.report import Report
from finetune.data.rowfile import Example, asked
from finetune.data.wording import question

MOST_SHAPES = 50
"""Shapes in one answer; more of one name are counted and not listed."""


def grounding(items: Sequence[Item]) -> tuple[list[Example], Report]:
    """For each picture and each name in it a row for each kind of shape there is, and one with the count."""
    report = Report("grounding", "rows")
    made: list[Example] = []
    for item in items:
        if not item.is_image:
            continue
        counts = dict(item.counts)
        for name in dict.fromkeys((*(region.name for region in item.regions), *counts)):
            if not sayable(name):
                report.drop(item.id, "a name cannot be written between marks", name[:80])
                continue
            for shape in ("point", "box", "polygon"):
                regions = [region for region in item.regions if region.name == name and region.shape == shape]
                if len(regions) > MOST_SHAPES:
                    report.drop(item.id, f"a name has more than {MOST_SHAPES} shapes to list", name[:80])
                elif regions:
                    ask = question(shape, item, name=name)
                    made.append(asked("grounding", item.id, (item.media[0], ask), write(mark(name, regions))))
            if name in counts:
                ask = question("count", item, name=name)
                made.append(asked("grounding", item.id, (item.media[0], ask), str(counts[name])))
    report.came = len(made) + report.left_out
    report.made = len(made)
    return made, report


def mark(name: str, regions: Sequence[Region]) -> Mark:
    """Regions of one shape as the published mark, from top to bottom and then from left to right."""
    corners = sorted((tuple((to_grid(x), to_grid(y)) for x, y in region.points) for region in regions), key=_place)
    if regions[0].shape == "point":
        return Points(tuple(points[0] for points in corners), name)
    if regions[0].shape == "box":
        return Boxes(tuple(_box(points) for points in corners), name)
    return Polygons(tuple(clockwise(points) for points in corners), name)


def _place(points: tuple[Point, ...]) -> tuple[int, int]:
    return min(y for _, y in points), min(x for x, _ in points)


def _box(points: tuple[Point, ...]) -> Box:
    (left, top), (right, bottom) = points[0], points[-1]
    return left, top, right, bottom
