"""The published utilities 1.0.0 and 1.5.2, recorded figure by figure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from engine.errors import EngineError
from engine.video import PRESETS, Clip, Plan, Sampling, VideoInfo, plan, probe, sample
from engine.video.budget import slow_fast_sizes
from engine.video.decode import frames_at
from engine.video.rules import IMAGE_TOKENS, PIXELS, fast_slow_frame_count, preview_frame_count, smart_resize
from engine.video.slowfast import SlowFast

Golden = Callable[[str], Path]
PUBLISHED_TOTAL = 115200  # tokens: the total that the utilities 1.0.0 state, far above what these short clips cost


def or_refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        value = function(*args, **kwargs)
    except EngineError:
        return "ValueError"
    return list(value) if isinstance(value, tuple) else value


def recorded_clips(golden: Golden, table: list[dict[str, Any]]) -> list[tuple[Path, dict[str, Any]]]:
    folder = Path(__file__).resolve().parents[1] / "golden" / "videos"
    return [(folder / row["video"], row) for row in table if (folder / row["video"]).exists()]


def test_sizes(golden: Golden) -> None:
    for name, table in json.loads(golden("preproc/smart_resize.json").read_text()).items():
        if not name.startswith("utils"):
            continue
        low, high = IMAGE_TOKENS["1.0.0" if "1.0.0" in name else "1.5.2"]
        limits = table["kwargs"] or {"min_pixels": low * PIXELS, "max_pixels": high * PIXELS}
        for height, width, size in table["rows"]:
            assert or_refusal(smart_resize, height, width, **limits) == size, (name, height, width)


def test_frame_counts(golden: Golden) -> None:
    tables = json.loads(golden("preproc/smart_nframes.json").read_text())
    for total, fps, given, count in tables["1.0.0"]:
        options = {k: v for k, v in given.items() if k in ("fps", "nframes", "min_frames", "max_frames")}
        assert or_refusal(preview_frame_count, total, fps, **options) == count, (total, fps, given)
    for total, fps, given, count in tables["1.5.2"]:
        options = {k: v for k, v in given.items() if k in ("fps", "max_frames")}
        most = int(given.get("video_total_pixels", 65536 * PIXELS) / given.get("min_pixels", 48 * PIXELS))
        found = fast_slow_frame_count(total, fps, **{"max_frames": 10**9, "max_total_frames": most, **options})
        assert found == count, (total, fps, given)


@pytest.mark.parametrize("part", ["", "2"])
def test_slow_and_fast(golden: Golden, part: str) -> None:
    cases = json.loads(golden(f"utils/slow_fast_cases{part}.json").read_text())
    clips = load_file(golden(f"utils/slow_fast_frames{part}.safetensors"))
    for case in cases:
        watch = SlowFast(case["kw"].get("threshold", 0.9))
        kinds = [int(watch.classify(np.ascontiguousarray(f.transpose(1, 2, 0))) == "fast") for f in clips[case["name"]]]
        assert kinds == case["frame_types"], case["name"]
        assert len(watch.similarities) == len(case["sims"])
        for found, recorded in zip(watch.similarities, case["sims"], strict=True):
            assert math.isnan(found) if recorded is None else abs(found - recorded) < 1e-4


def test_slow_and_fast_sizes(golden: Golden) -> None:
    """The published search and ours agree wherever its estimate stays below the budget; elsewhere ours keeps the budget
    and spends no less than published sizes that keep it too."""
    same = bound = 0
    for slow, fast, height, width, given, sizes in json.loads(golden("utils/size_search_1.5.2.json").read_text()):
        if "min_pixels" in given:
            continue  # there the published fast frames may cost more than slow ones
        budget = given.get("video_total_pixels", 65536 * PIXELS) // PIXELS
        most = given.get("max_pixels", 768 * PIXELS) // PIXELS
        sampling = dataclasses.replace(PRESETS["keye-vl-1.5"], budget=budget, max_frame_tokens=most)

        def cost(found: list[int], slow: int = slow, fast: int = fast) -> int:
            return (slow * found[0] * found[1] + fast * found[2] * found[3]) // PIXELS

        ours = or_refusal(lambda *args: sum(slow_fast_sizes(*args), ()), height, width, slow, fast, sampling)
        if slow * 768 + fast * int(768 * 0.3) <= budget:
            assert ours == sizes
            same += 1
        elif ours != "ValueError":
            assert cost(ours) <= budget
            assert cost(sizes) > budget or cost(ours) >= cost(sizes)
            bound += 1
    assert same > 70 and bound > 20


def preview_as_published(given: dict[str, Any]) -> tuple[Sampling, float | None, float | None] | None:
    """The published options as a sampling, None where an option has no counterpart."""
    if set(given) - {"fps", "min_frames", "max_frames", "max_pixels", "min_pixels", "video_start", "video_end"}:
        return None
    changes: dict[str, Any] = {k: v for k, v in given.items() if k in ("fps", "min_frames", "max_frames")}
    if "max_pixels" in given:
        changes["max_frame_tokens"] = given["max_pixels"] // PIXELS
    if "min_pixels" in given:
        changes["min_frame_tokens"] = given["min_pixels"] // PIXELS
    sampling = dataclasses.replace(PRESETS["keye-vl-preview"], budget=PUBLISHED_TOTAL, **changes)
    return sampling, given.get("video_start"), given.get("video_end")


def test_preview_frames_are_the_published_ones(golden: Golden) -> None:
    """The pictures that are decoded, scaled as the utilities do it, have the recorded digest; ours are within one
    level of 255 of these, and almost all equal."""
    compared = values = away = 0
    for path, row in recorded_clips(golden, json.loads(golden("utils/process_vision_info.json").read_text())["1.0.0"]):
        asked = preview_as_published(row["ele"])
        info = probe(path)
        if asked is None or "indices" not in row or info.variable_rate:
            continue
        sampling, start, end = asked
        frames = sample(Clip(path, start, end), sampling, info=info)
        planned = plan(info, Clip(path, start, end), sampling)
        assert list(planned.indices) == row["indices"]
        assert frames.fps == row["sample_fps"]
        published = as_published(full_pictures(info, planned), *frames.images[0].shape[:2])
        assert hashlib.sha256(published.tobytes()).hexdigest() == row["sha_u8"], (path.name, row["ele"])
        ours = np.stack(frames.images).transpose(0, 3, 1, 2)
        apart = np.abs(ours.astype(int) - published)
        assert apart.max() <= 1, (path.name, row["ele"])
        values, away = values + apart.size, away + int(apart.sum())
        compared += 1
    assert compared >= 40
    assert away / values <= 2e-5


def as_published(pictures: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """uint8 [frames, 3, height, width], the layout of the recorded frames: bicubic in float32, clamped, rounded."""
    planar = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    if planar.shape[2:] == (height, width):  # torchvision's resize leaves these alone
        return planar.to(torch.uint8).numpy()
    scaled = [
        torch.nn.functional.interpolate(one[None], size=(height, width), mode="bicubic", antialias=True)[0]
        for one in planar
    ]
    return torch.stack(scaled).clamp(0, 255).round().to(torch.uint8).numpy()


def full_pictures(info: VideoInfo, planned: Plan) -> list[np.ndarray]:
    return [rgb for _, _, rgb in frames_at(info, planned.indices, planned.last_index, lambda slot, rgb: rgb)]


def test_decoded_colours_kinds_and_times_of_1_5(golden: Golden) -> None:
    tables = json.loads(golden("utils/process_vision_info.json").read_text())["1.5.2"]
    tables += json.loads(golden("utils/process_vision_info_1.5.2_more.json").read_text())
    compared = 0
    for path, row in recorded_clips(golden, tables):
        given = row["ele"]
        info = probe(path)
        if set(given) - {"fps", "max_frames", "min_frame_similarity"} or "timestamps" not in row or info.variable_rate:
            continue
        sampling = dataclasses.replace(PRESETS["keye-vl-1.5"], **given)
        planned = plan(info, Clip(path), sampling)
        pictures = full_pictures(info, planned)
        colours = hashlib.sha256(np.stack(pictures).transpose(0, 3, 1, 2).tobytes()).hexdigest()
        assert colours == row["sha_u8"], (path.name, given)
        frames = sample(Clip(path), sampling, info=info)
        assert [int(kind == "fast") for kind in frames.kinds] == row["frame_types"], (path.name, given)
        np.testing.assert_allclose(frames.times, row["timestamps"], atol=1e-4)
        for image, kind in zip(frames.images, frames.kinds, strict=True):
            fast = "fast_" if kind == "fast" else ""
            assert image.shape[:2] == (row[f"{fast}height"], row[f"{fast}width"])
        compared += 1
    assert compared >= 30


def test_recorded_frames_of_1_5(golden: Golden) -> None:
    """Against pixels rather than a digest: the file says by how much, should a decoder ever differ."""
    recorded = load_file(golden("utils/frames_1.5.2_tiny_1s_10fps_64x48.safetensors"))
    path = golden("videos/tiny_1s_10fps_64x48.mp4")
    info = probe(path)
    planned = plan(info, Clip(path), PRESETS["keye-vl-1.5"])
    pictures = np.stack(full_pictures(info, planned))
    assert np.abs(pictures.transpose(0, 3, 1, 2).astype(int) - recorded["frames"]).max() <= 1


def test_what_a_probe_says_of_recorded_clips(golden: Golden) -> None:
    table = json.loads(golden("utils/process_vision_info.json").read_text())["decord"]
    for name, recorded in table.items():
        path = Path(__file__).resolve().parents[1] / "golden" / "videos" / name
        if not path.exists():
            continue
        info = probe(path)
        assert [info.height, info.width] == recorded["hw"]
        assert info.frame_count == recorded["frames"]
        assert info.fps == pytest.approx(recorded["avg_fps"], rel=1e-3 if info.variable_rate else 1e-12)
        np.testing.assert_allclose(info.frame_times[:5], recorded["pts_first"], atol=1e-5)
        assert info.frame_times[-1] == pytest.approx(recorded["pts_last"], abs=1e-4)
        assert info.variable_rate == name.startswith("vfr")
