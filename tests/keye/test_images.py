"""Pictures and clips to patches, against recorded figures and by hand."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import EngineError
from engine.keye import KeyeImageProcessor
from engine.keye.image_processing import smart_resize, to_rgb
from tests.keye.helpers import GOLDEN, tensors

PROCESSOR = KeyeImageProcessor()


@pytest.mark.parametrize("table", ["image_processor_preview", "image_processor_factor32"])
def test_recorded_sizes(table: str) -> None:
    recorded = json.loads((GOLDEN / "preproc" / "smart_resize.json").read_text())[table]
    for height, width, expected in recorded["rows"]:
        if expected == "ValueError":
            with pytest.raises(EngineError, match="elongated"):
                smart_resize(height, width, **recorded["kwargs"])
        else:
            assert list(smart_resize(height, width, **recorded["kwargs"])) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(784, 200_000), st.integers(20, 100))
def test_sizes_lie_within_the_limits(height: int, width: int, least: int, times: int) -> None:
    """For limits 20 times apart or more, so that rounding an elongated picture up to one cannot pass the other."""
    try:
        new_height, new_width = smart_resize(height, width, 28, least, least * times)
    except EngineError:
        return
    assert new_height % 28 == new_width % 28 == 0
    assert least <= new_height * new_width <= least * times


@given(st.integers(1, 60), st.integers(1, 60))
def test_sizes_within_the_limits_are_kept(rows: int, columns: int) -> None:
    height, width = rows * 28, columns * 28
    if 3136 <= height * width <= 1003520:
        assert smart_resize(height, width) == (height, width)


def test_a_picture_too_narrow_for_the_limit_keeps_its_sides() -> None:
    assert smart_resize(28, 4000, 28, 784, 3136) == (28, 112)


@pytest.mark.parametrize("case", sorted({name.split(".")[0] for name in tensors("preproc/image_processor")}))
def test_recorded_pictures(case: str) -> None:
    recorded = tensors("preproc/image_processor")
    made = PROCESSOR(recorded[f"{case}.input"].numpy())
    assert torch.equal(made["image_grid_thw"], recorded[f"{case}.grid"])
    assert torch.equal(made["pixel_values"], recorded[f"{case}.pixel_values"])


def test_a_recorded_large_picture() -> None:
    recorded = tensors("preproc/image_processor_large")
    made = PROCESSOR(recorded["input"].numpy())
    assert torch.equal(made["image_grid_thw"], recorded["grid"])
    assert torch.equal(made["pixel_values"][recorded["patch_index"]], recorded["patches"])
    meta = json.loads((GOLDEN / "preproc" / "image_meta.json").read_text())["1100x1300"]
    bytes_ = ((made["pixel_values"] * 0.5 + 0.5) * 255).round().to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(bytes_).hexdigest() == meta["u8_sha256"]


@pytest.mark.parametrize("as_float", [False, True])
def test_a_recorded_clip(as_float: bool) -> None:
    recorded = tensors("preproc/video_processor")
    frames = recorded["input"].numpy()
    values, grid = PROCESSOR.video(frames.astype(np.float32) if as_float else frames)
    assert torch.equal(torch.from_numpy(values), recorded["pixel_values_videos"])
    assert [list(grid)] == recorded["grid"].tolist()
    channels_first, _ = PROCESSOR.video(torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert np.array_equal(channels_first, values)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_recorded_modes(mode: str) -> None:
    recorded = tensors(f"preproc/image_mode_{mode}")
    for picture in (Image.fromarray(recorded["input"].numpy()), recorded["input"].numpy()):
        assert torch.equal(PROCESSOR(picture)["pixel_values"], recorded["pixel_values"])


def test_a_palette_is_looked_up() -> None:
    picture = Image.new("P", (56, 56), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert (to_rgb(picture) == [10, 20, 30]).all()


def test_patches_by_hand() -> None:
    """Patch 5 of a 56×56 picture is row 1, column 1; its first value is the red of pixel (14, 14)."""
    frame = np.zeros((1, 56, 56, 3), dtype=np.uint8)
    frame[0, 14, 14] = [255, 51, 0]
    frame[0, 14, 15, 0] = 204
    values, grid = PROCESSOR.patchify(frame)
    assert grid == (1, 4, 4) and values.shape == (16, 3, 14, 14)
    assert values[5, :, 0, 0].tolist() == pytest.approx([1.0, -0.6, -1.0])
    assert values[5, 0, 0, 1] == pytest.approx(0.6)
    assert (np.delete(values, 5, axis=0) == -1).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4,), np.uint8),
        np.full((30, 30, 3), 0.5),
        np.full((30, 30, 3), np.nan),
        np.full((30, 30, 3), 256),
        np.full((30, 30, 3), -1.0),
        np.full((30, 30, 3), "x"),
    ],
)
def test_what_is_no_picture(wrong: np.ndarray) -> None:
    with pytest.raises(EngineError):
        PROCESSOR(wrong)


@pytest.mark.parametrize("clip", [[], np.zeros((0, 28, 28, 3), np.uint8), np.zeros((28, 28, 3), np.uint8)])
def test_what_is_no_clip(clip: Any) -> None:
    with pytest.raises(EngineError):
        PROCESSOR.video(clip)


@pytest.mark.parametrize(
    "fields",
    [
        {"min_pixels": -1},
        {"min_pixels": "many"},
        {"max_pixels": 10},
        {"temporal_patch_size": 2},
        {"image_std": [0, 0, 0]},
        {"image_mean": [0.5]},
        {"image_mean": 3},
        {"resample": "nearest"},
        {"rescale_factor": "x"},
    ],
)
def test_hostile_preprocessor_fields(fields: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        KeyeImageProcessor.from_dict(fields)
