"""How each published model wants its clips sampled, and what a model folder says about it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.video.types import Sampling

PRESETS: dict[str, Sampling] = {
    # Technical report §2.2 (128..768 tokens a frame, 24576 a video); the rest as in the published utilities 1.0.0.
    "keye-vl-preview": Sampling("keye-vl-preview"),
    # Published utilities 1.5.2: 48..768 tokens a frame, 65536 a video; 1365 is as many frames of 48 as fit.
    "keye-vl-1.5": Sampling(
        "keye-vl-1.5",
        min_frames=1,
        max_frames=1365,
        frame_multiple=1,
        min_frame_tokens=48,
        budget=65536,
        slow_fast=True,
        resample="bilinear",
    ),
}

_BY_MODEL_TYPE = {"Keye": "keye-vl-preview", "KeyeVL1_5": "keye-vl-1.5"}


def sampling_for(model_folder: str | Path) -> Sampling:
    """How the checkpoint in `model_folder` wants its clips sampled: the preset that config.json's `model_type`
    names, changed by an optional object "sampling" (fields of Sampling) in preprocessor_config.json.

    Raises EngineError when the folder holds no Keye model or the object does not make sense."""
    folder = Path(model_folder)
    config = _read_object(folder / "config.json")
    if config is None:
        raise EngineError(f"{folder} has no config.json; give a folder in the Hugging Face layout.")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _BY_MODEL_TYPE:
        known = " or ".join(f'"{name}"' for name in _BY_MODEL_TYPE)
        raise EngineError(f"{folder / 'config.json'} says model_type {model_type!r}; this studio knows {known}.")
    preset = PRESETS[_BY_MODEL_TYPE[model_type]]
    file = folder / "preprocessor_config.json"
    override = (_read_object(file) or {}).get("sampling")
    if override is None:
        return preset
    if not isinstance(override, dict):
        raise EngineError(f'"sampling" in {file} must be an object, not {override!r}.')
    known_fields = [spec.name for spec in dataclasses.fields(Sampling)]
    unknown = sorted(set(override) - set(known_fields))
    if unknown:
        raise EngineError(
            f'"sampling" in {file} has unknown fields {", ".join(unknown)}; known: {", ".join(known_fields)}.'
        )
    try:
        return dataclasses.replace(preset, **override)
    except EngineError as error:
        raise EngineError(f'"sampling" in {file}: {error}') from None


def _read_object(file: Path) -> dict[str, Any] | None:
    """The JSON object in `file`, None where there is no such file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise EngineError(f"{file} cannot be read as JSON ({error}).") from None
    if not isinstance(value, dict):
        raise EngineError(f"{file} must hold a JSON object.")
    return value
