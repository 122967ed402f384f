"""What is measured against is what was published, and what was made fast is still equal to it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file

from bench.published import modeling, processor
from bench.rows.growth import filled, pages
from bench.rows.training import alone, padded
from bench.rows.vision import clip_inputs, floor_seconds, gpu_lines
from engine.keye import load_model
from engine.keye.image_processing import KeyeImageProcessor
from engine.video import probe
from engine.video.decode import frames_at, to_rgb
from engine.video.scaling import resize
from finetune.feedback import Store
from finetune.run import tiny_is_zero
from tests.media import make_clip

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


# -- what is measured against ------------------------------------------------------------------------------------


def test_the_restated_image_processor_makes_the_recorded_patches() -> None:
    """On frames that keep their size, as those of the utilities do: how a Pillow scales is its own affair."""
    recorded = load_numpy(GOLDEN / "A" / "video_2fps.safetensors")
    frames = torch.from_numpy(recorded["raw_video0"]).permute(0, 3, 1, 2).float()
    patches, grid = processor.preview(frames)
    np.testing.assert_array_equal(patches.numpy(), recorded["pixel_values_videos"])
    assert [list(grid)] == recorded["video_grid_thw"].tolist()


def test_the_restated_processor_of_1_5_makes_what_ours_makes() -> None:
    """Sizes as the utilities 1.5.2 hand them over; ours is checked against recorded frames in tests/video."""
    frames = np.random.default_rng(2).integers(0, 256, (3, 120, 160, 3), np.uint8)
    sizes = {"height": 112, "width": 140, "fast_height": 56, "fast_width": 84, "frame_types": torch.tensor([0, 1, 1])}
    patches, grids = processor.one_five(torch.from_numpy(frames).permute(0, 3, 1, 2), sizes)
    scaled = [resize(f, *((56, 84) if i else (112, 140)), "bilinear") for i, f in enumerate(frames)]
    made, runs = KeyeImageProcessor(resample="bilinear").cut(scaled)
    np.testing.assert_allclose(patches.numpy(), made, atol=1e-6)
    assert grids == [(1, 8, 10), (1, 4, 6), (1, 4, 6)] and runs == [(1, 8, 10), (2, 4, 6)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_restated_first_pass_makes_the_recorded_logits(attention: str) -> None:
    recorded = load_file(GOLDEN / "A" / "video_2fps.safetensors")
    model = load_model(GOLDEN / "A", dtype=torch.float32)
    inputs = {
        name: recorded[name] for name in ("input_ids", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    }
    with torch.inference_mode():
        logits = modeling.first_pass(model, inputs, attention)
    torch.testing.assert_close(logits, recorded["logits"].float(), atol=1e-4, rtol=1e-4)


# -- what was made fast ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "3", "b-adapt": "0", "preset": "veryfast"}),
        ("libx264", {"bf": "3", "b-pyramid": "none", "preset": "veryfast"}),
        ("libx264", {"bf": "2", "preset": "veryfast", "x264-params": "open-gop=1:interlaced=1"}),
        ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:bframes=4:open-gop=1"}),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 7])
def test_leaving_pictures_undecoded_changes_none_that_is_used(
    tmp_path: Path, codec: str, options: dict[str, str], step: int
) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=60, size=(192, 128), codec=codec, options=options, gop=20)
    with av.open(str(path)) as container:
        whole = [to_rgb(frame) for frame in container.decode(video=0)]
    info = probe(path)
    indices = tuple(range(step // 2, 60, step))
    found = list(frames_at(info, indices, 59, lambda slot, rgb: rgb))
    assert [slot for slot, _, _ in found] == list(range(len(indices)))
    for slot, when, picture in found:
        assert when == pytest.approx(float(indices[slot] / Fraction(25)))
        np.testing.assert_array_equal(picture, whole[indices[slot]])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((180, 320), (84, 140)),
        ((180, 320), (112, 56)),
        ((180, 320), (252, 448)),
        ((179, 321), (56, 420)),  # lower and wider
        ((65, 31), (129, 28)),  # a last strip of one row
        ((1, 300), (28, 84)),
        ((300, 1), (84, 28)),
        ((720, 1280), (560, 1280)),
        ((720, 1280), (720, 1008)),
        ((1600, 900), (56, 28)),  # its filter is more than a hundred values wide
    ],
)
def test_scaling_is_the_published_arithmetic(old: tuple[int, int], new: tuple[int, int]) -> None:
    """Bicubic: float32 over all three channels at once, clamped, rounded; where the order of a sum decides the
    rounding, one level away. Bilinear: on bytes, equal."""
    picture = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
    planar = torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()
    cubic = torch.nn.functional.interpolate(planar.float(), size=new, mode="bicubic", antialias=True)
    wanted = cubic.clamp(0, 255).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()
    away = np.abs(resize(picture, *new, "bicubic").astype(int) - wanted)
    assert away.max() <= 1
    assert (away > 0).mean() <= 1e-4
    linear = torch.nn.functional.interpolate(planar, size=new, mode="bilinear", antialias=True)
    np.testing.assert_array_equal(resize(picture, *new, "bilinear"), linear[0].permute(1, 2, 0).numpy())


def test_a_turned_frame_is_scaled_like_one_that_lies_straight() -> None:
    """A frame that is displayed turned is a view whose rows run backwards."""
    picture = np.random.default_rng(2).integers(0, 256, (90, 130, 3), np.uint8)
    turned = np.rot90(picture, -1)
    np.testing.assert_array_equal(resize(turned, 84, 56, "bicubic"), resize(turned.copy(), 84, 56, "bicubic"))


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.48, 0.46, 0.41)])
def test_patches_are_cut_as_published(mean: tuple[float, float, float]) -> None:
    """One table for all channels, or one for each; frames of two sizes in runs."""
    random = np.random.default_rng(1)
    frames = [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((56, 84), (56, 84), (28, 56))]
    patches, runs = KeyeImageProcessor(image_mean=mean).cut(frames)
    assert runs == [(2, 4, 6), (1, 2, 4)]
    wanted = []
    for frame in frames:
        values = (frame * (1 / 255)).astype(np.float32)
        values = (values - np.asarray(mean, np.float32)) / np.float32(0.5)
        for row in range(0, frame.shape[0], 14):
            for column in range(0, frame.shape[1], 14):
                wanted.append(values[row : row + 14, column : column + 14].transpose(2, 0, 1))
    np.testing.assert_array_equal(patches, np.stack(wanted))


def test_frames_that_do_not_see_each_other(tmp_path: Path) -> None:
    """With the span "frame" the last frame does not move the features of the first, and each frame is what it is
    alone; with "clip" it does."""
    model: Any = load_model(GOLDEN / "A", dtype=torch.float32)
    pixels = torch.randn(3 * 4 * 4, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([[3, 4, 4]])
    with torch.inference_mode():
        model.config.vision.attention_span = "frame"
        frames = model.visual(pixels, grid)
        alone_ = torch.cat([model.visual(part, torch.tensor([[1, 4, 4]])) for part in pixels.split(16)])
        model.config.vision.attention_span = "clip"
        whole = model.visual(pixels, grid)
    torch.testing.assert_close(frames, alone_, atol=1e-5, rtol=1e-4)
    assert (whole - frames).abs().max() > 1e-2


# -- the rows themselves -----------------------------------------------------------------------------------------


def test_the_gpu_columns_run_on_any_device() -> None:
    config = load_model(GOLDEN / "A", dtype=torch.float32).config
    lines = gpu_lines("small shapes", config, 2, 4, 4, "cpu", torch.float32, runs=1)
    assert [line.figure is not None for line in lines] == [True, True]


def test_what_a_datasheet_allows() -> None:
    """The two spans differ by the scores between frames alone."""
    config = load_model(GOLDEN / "A", dtype=torch.float32).config
    both = [floor_seconds(config, 2, 2, 2, whole) for whole in (True, False)]
    vision = config.vision
    # Whole clips score 8 × 8 pairs, frames 2 × 4 × 4: 32 pairs more, each two products of `hidden` in every layer.
    more = vision.num_hidden_layers * 4 * 32 * vision.hidden_size
    assert (both[0] - both[1]) * 989e12 == pytest.approx(more, rel=1e-6)


def test_clips_of_noise_fill_their_placeholders() -> None:
    config = load_model(GOLDEN / "A", dtype=torch.float32).config
    inputs = clip_inputs(config, 3, 4, 6, "cpu")
    assert int((inputs["input_ids"] == config.video_token_id).sum()) == 3 * 2 * 3
    assert inputs["pixel_values_videos"].shape[0] == 3 * 4 * 6


def test_a_filled_store_is_a_store(tmp_path: Path) -> None:
    filled(tmp_path / "studio.sqlite", 25)
    store = Store(tmp_path / "studio.sqlite")
    talks = store.conversations()
    assert len(talks) == 4
    assert sum(len(store.turns(talk.id)) for talk in talks) == 25
    assert all(answer is not None for talk in talks for _, answer in store.turns(talk.id))
    store.close()
    shown = {name: str(work()) for name, work in pages(tmp_path)}
    assert list(shown) == [
        "the list of conversations",
        "a conversation of ten questions",
        "everything collected",
        "everything that says a word",
        "two letters that nobody wrote",
        "the longest conversation",
    ]
    word = "A red circle"
    assert [word in page for page in shown.values()] == [False, True, True, True, False, True]


def test_plain_batches_hold_what_packed_ones_hold() -> None:
    from bench.rows.training import _start
    from finetune.recipe import Part
    from finetune.stages import multitask

    source = multitask.work(_start(), Part(steps=1)).source
    batch = source.make(0)
    learnt = 0
    for one in range(len(batch.prefix_ids)):
        inputs = alone(batch, one)
        if inputs is not None:
            learnt += int((inputs["labels"] != -100).sum())
            # The label of a token stands at the token itself.
            where = inputs["labels"] != -100
            assert bool((inputs["labels"][where] == inputs["input_ids"][where]).all())
    assert learnt == source.learnt(batch)
    assert callable(padded)


def test_tiny_numbers_are_zero_while_a_run_trains_and_not_after_it() -> None:
    tiny = torch.tensor([1e-39])
    with tiny_is_zero():
        assert float(tiny * 0.5) == 0
    assert 0 < float(tiny * 0.5) < 1e-38
