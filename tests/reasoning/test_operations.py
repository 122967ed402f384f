"""What can be done to a picture, against NumPy and against itself undone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.reasoning import operations as op

IMAGE = np.random.default_rng(7).integers(0, 256, (48, 80, 3), np.uint8)
BOX = (10, 5, 50, 35)
sides = st.floats(-200, 300, allow_nan=False)


def test_crop_is_a_slice_and_a_copy() -> None:
    out = op.crop(IMAGE, BOX)
    assert np.array_equal(out, IMAGE[5:35, 10:50])
    out[:] = 0
    assert IMAGE[5:35, 10:50].any()


def test_zoom_enlarges_what_was_cropped() -> None:
    flat = np.full_like(IMAGE, 200)
    flat[5:35, 10:50] = 30
    out = op.zoom(flat, BOX, 2)
    assert out.shape == (60, 80, 3) and (out == 30).all()
    assert op.zoom(IMAGE, BOX, 1).shape == (30, 40, 3)


def test_a_quarter_turn_is_exact_and_four_are_none() -> None:
    assert np.array_equal(op.rotate(IMAGE, 90), np.rot90(IMAGE, -1))
    out = IMAGE
    for _ in range(4):
        out = op.rotate(out, -90)
    assert np.array_equal(out, IMAGE)


def test_an_odd_turn_loses_nothing_and_goes_clockwise() -> None:
    white = np.zeros((61, 61, 3), np.uint8)
    white[0:20, 25:35] = 255  # at the top
    out = op.rotate(white, 45)
    rows, columns = np.nonzero(out[..., 0] > 128)
    assert columns.mean() > out.shape[1] / 2 + 5 and rows.mean() < out.shape[0] / 2 - 5  # now at the top right
    assert out.astype(float).sum() == pytest.approx(white.astype(float).sum(), rel=0.05)


def test_contrast_and_brightness_change_what_they_are_named_after() -> None:
    calm = np.clip(IMAGE, 100, 150)
    more = op.contrast(calm, 1.5)
    assert more.std() == pytest.approx(1.5 * calm.std(), rel=0.02) and abs(more.mean() - calm.mean()) < 1
    assert op.brightness(calm, 1.5).mean() == pytest.approx(1.5 * calm.mean(), rel=0.01)
    assert np.array_equal(op.brightness(IMAGE, 1), IMAGE) and np.array_equal(op.contrast(IMAGE, 1), IMAGE)
    assert op.brightness(IMAGE, 100).max() == 255


def test_a_drawn_box_marks_its_edge_and_nothing_else() -> None:
    out = op.draw_box(IMAGE, BOX)
    changed = (out != IMAGE).any(-1)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == BOX
    assert np.array_equal(out[8:32, 13:47], IMAGE[8:32, 13:47])


def test_a_grid_has_equal_cells() -> None:
    changed = (op.grid(IMAGE, 4, 3) != IMAGE).any(-1)
    assert np.flatnonzero(changed.mean(0) > 0.9).tolist() == [20, 40, 60]
    assert np.flatnonzero(changed.mean(1) > 0.9).tolist() == [16, 32]


def test_pixels_of_a_small_region_are_the_pixels() -> None:
    lines = op.pixels(IMAGE, (3, 4, 6, 6)).splitlines()
    expected = [[bytes(pixel).hex() for pixel in row] for row in IMAGE[4:6, 3:6]]
    assert [line.split() for line in lines[1:]] == expected
    assert lines[0].startswith("mean ")
    large = op.pixels(IMAGE, (0, 0, 80, 48)).splitlines()
    assert len(large) <= 9 and all(len(line.split()) <= 8 for line in large[1:])


@given(sides, sides, sides, sides)
def test_a_box_is_cut_to_the_picture_or_refused(a: float, b: float, c: float, d: float) -> None:
    try:
        left, top, right, bottom = op.within((a, b, c, d), 80, 48)
    except op.ToolError:
        assert max(a, c) <= 0 or min(a, c) >= 80 or max(b, d) <= 0 or min(b, d) >= 48 or a == c or b == d
        return
    assert 0 <= left < right <= 80 and 0 <= top < bottom <= 48
    assert left <= max(0, min(a, c)) and right >= min(80, max(a, c))


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 9000))
def test_what_is_fitted_costs_no_more_than_it_may(width: int, height: int, most: int) -> None:
    out = op.fitted(np.broadcast_to(np.uint8(9), (height, width, 3)), most)
    rows, columns = out.shape[:2]
    assert rows * columns <= most or 1 in (rows, columns)
    assert rows >= 1 and columns >= 1


def test_a_box_keeps_its_place_at_another_size() -> None:
    assert op.scaled((10, 5, 50, 35), (80, 48), (160, 96)) == (20, 10, 100, 70)
    assert op.scaled((79, 47, 80, 48), (80, 48), (8, 4)) == (7, 3, 8, 4)
