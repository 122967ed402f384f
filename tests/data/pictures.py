"""Pictures for the tests of data: smooth random fields, no two alike, and small helpers to write them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def field(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A smooth random picture, uint8 RGB [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, picture: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return path
