"""keye-nano, demo clips and a picture, and files of conversations about them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.keye import KeyeForConditionalGeneration, KeyeProcessor, load_model
from engine.video import sampling_for
from engine.video.cache import FrameCache
from finetune.data.conversations import Conversations

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "assets" / "keye-nano"
CLIPS = sorted((ROOT / "assets" / "demo").glob("*.mp4"))


@pytest.fixture(scope="session")
def model() -> KeyeForConditionalGeneration:
    loaded = load_model(NANO, torch.float32)
    assert isinstance(loaded, KeyeForConditionalGeneration)
    return loaded


@pytest.fixture(scope="session")
def processor() -> KeyeProcessor:
    return KeyeProcessor.from_pretrained(NANO)


@pytest.fixture(scope="session")
def conversations(model: KeyeForConditionalGeneration, processor: KeyeProcessor) -> Conversations:
    return Conversations(processor, model.position_rule(), sampling_for(NANO), 2048, FrameCache())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips and two pictures."""
    for i, clip in enumerate(CLIPS[:2]):
        shutil.copy(clip, tmp_path / f"{'ab'[i]}.mp4")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (112, 84, 3), np.uint8)).save(tmp_path / "p.png")
    Image.fromarray(random.integers(0, 255, (100, 200, 3), np.uint8)).save(tmp_path / "q.jpg")
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    def write(*rows: Any, name: str = "data.jsonl") -> Path:
        path = folder / name
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    return write
