"""What a checkpoint folder says of itself, before any weight is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from transformers import GenerationConfig

from engine.errors import EngineError
from engine.keye.image_processing import KeyeImageProcessor
from engine.keye.loading import load_config
from engine.runtime.base import Decoding, ModelInfo
from engine.runtime.placement import parameter_count
from engine.runtime.source import NANO, name_of
from engine.video import sampling_for


def describe_checkpoint(folder: Path, device: str, dtype: str, note: str = "") -> ModelInfo:
    """The facts of a model folder that runs on `device` in `dtype`. EngineError where the folder is no checkpoint."""
    config = load_config(folder)
    pictures = KeyeImageProcessor.from_pretrained(folder)
    return ModelInfo(
        name=name_of(folder),
        path=str(folder.resolve()),
        architecture=config.model_type,
        parameters=parameter_count(folder),
        device=device,
        dtype=dtype,
        context=config.max_position_embeddings,
        demonstration=folder.resolve() == NANO.resolve(),
        sampling=sampling_for(folder),
        decoding=decoding_of(generation_config(folder)),
        picture_pixels=(pictures.min_pixels, pictures.max_pixels),
        note=note,
        tool_prompt=tool_prompt_of(folder),
    )


def tool_prompt_of(folder: Path) -> str | bool:
    """How a checkpoint is told of the tools in the mode think_with_image: the optional "tool_prompt" in its
    preprocessor_config.json. A text is its own system prompt for it; true, as where there is none, is ours
    (engine.reasoning.tools); false is for one that learnt its tools without being told, or knows none."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return True
    try:
        wanted = json.loads(file.read_text("utf-8")).get("tool_prompt", True)
    except (OSError, ValueError, AttributeError) as error:
        raise EngineError(f"{file} is not valid JSON with fields; download it again.") from error
    if not isinstance(wanted, str | bool):
        raise EngineError(f'"tool_prompt" in {file} must be true, false or a text, not {wanted!r:.80}.')
    return wanted


def generation_config(folder: Path) -> GenerationConfig:
    """The folder's generation_config.json; an empty one where it has none."""
    if not (folder / "generation_config.json").is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(f"generation_config.json in {folder} cannot be read; download it again.") from error


def decoding_of(generation: GenerationConfig) -> Decoding:
    """How the checkpoint wants its tokens chosen; what it leaves open is as published."""
    published = Decoding()
    return replace(
        published,
        greedy=not generation.do_sample,
        temperature=generation.temperature or published.temperature,
        top_p=generation.top_p or published.top_p,
        top_k=published.top_k if generation.top_k is None else generation.top_k,
    )
