"""Which sampling a model folder asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.video import PRESETS, sampling_for


def folder(path: Path, model_type: object, sampling: object = None) -> Path:
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    if sampling is not None:
        (path / "preprocessor_config.json").write_text(json.dumps({"patch_size": 14, "sampling": sampling}))
    return path


def test_presets_are_the_published_numbers() -> None:
    preview, later = PRESETS["keye-vl-preview"], PRESETS["keye-vl-1.5"]
    assert (preview.fps, preview.min_frames, preview.max_frames, preview.frame_multiple) == (2.0, 4, 768, 2)
    assert (preview.min_frame_tokens, preview.max_frame_tokens, preview.budget) == (128, 768, 24576)
    assert (preview.resample, preview.slow_fast) == ("bicubic", False)
    assert (later.min_frame_tokens, later.max_frame_tokens, later.budget, later.fps) == (48, 768, 65536, 2.0)
    assert (later.fast_ratio, later.min_frame_similarity) == (0.3, 0.9)
    assert (later.resample, later.slow_fast) == ("bilinear", True)


def test_by_model_type(tmp_path: Path) -> None:
    assert sampling_for(folder(tmp_path, "Keye")) == PRESETS["keye-vl-preview"]
    assert sampling_for(str(folder(tmp_path, "KeyeVL1_5"))) == PRESETS["keye-vl-1.5"]


def test_a_folder_may_ask_for_other_numbers(tmp_path: Path) -> None:
    asked = {"name": "nano", "fps": 1, "budget": 512, "min_frame_tokens": 4, "max_frame_tokens": 16, "max_frames": 32}
    found = sampling_for(folder(tmp_path, "Keye", asked))
    assert (found.name, found.fps, found.budget, found.max_frames, found.min_frames) == ("nano", 1, 512, 32, 4)


@pytest.mark.parametrize(
    "asked",
    [
        {"colour": 3},
        {"fps": "2"},
        {"fps": 0},
        {"fps": None},
        {"budget": 1.5},
        {"budget": True},
        {"budget": -1},
        {"resample": "nearest"},
        {"slow_fast": 1},
        {"fast_ratio": 1.5},
        {"min_frame_tokens": 900},
        {"min_frames": 10, "max_frames": 5},
        {"name": ""},
        [1, 2],
        "fast",
    ],
)
def test_senseless_numbers_are_refused_with_the_file_named(tmp_path: Path, asked: object) -> None:
    with pytest.raises(EngineError, match=r"preprocessor_config\.json"):
        sampling_for(folder(tmp_path, "Keye", asked))


@pytest.mark.parametrize("model_type", ["llama", None, 5, ["Keye"]])
def test_other_models_are_refused(tmp_path: Path, model_type: object) -> None:
    with pytest.raises(EngineError, match="model_type"):
        sampling_for(folder(tmp_path, model_type))


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json"):
        sampling_for(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(EngineError, match="JSON"):
        sampling_for(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(EngineError, match="object"):
        sampling_for(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EngineError, match="JSON"):
        sampling_for(tmp_path)
