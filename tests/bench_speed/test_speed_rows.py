"""Every row runs, at a size that says nothing about speed; nothing here looks at a clock."""

from __future__ import annotations

import math

import pytest

from bench.figures import Size
from bench.rows import NAMES, row


@pytest.mark.parametrize("name", NAMES)
def test_a_row_runs(name: str) -> None:
    lines = row(name).measure(Size(runs=1, tiny=True))
    assert lines
    for line in lines:
        assert line.figure is not None or line.note.startswith("not measured: "), line
        assert line.figure is None or math.isfinite(line.figure), line
        assert "DIFFERENT" not in line.note and "NOT EQUAL" not in line.note, line
        if line.figure_unit == "failed":
            assert line.figure == 0
