"""Which frames of a clip are slow (new) and which are fast (like the last slow one). Published utilities 1.5.2."""

from __future__ import annotations

import cv2
import numpy as np

from engine.video.rules import PIXELS, smart_resize
from engine.video.scaling import resize
from engine.video.types import TOKEN_SIDE, Kind

_COMPARE_TOKENS = (48, 256)
_PATCH_SIMILARITY = 0.7
_DARK = 0.01


def features(rgb: np.ndarray) -> np.ndarray:
    """What two frames are compared by: float32 [patches, 2352], the HSV values of each 28×28 patch of the picture
    (uint8 RGB [h, w, 3]) at 48 to 256 tokens."""
    fewest, most = _COMPARE_TOKENS
    height, width = smart_resize(rgb.shape[0], rgb.shape[1], fewest * PIXELS, most * PIXELS)
    small = resize(rgb, height, width, "bilinear")
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    side = TOKEN_SIDE
    patches = hsv.reshape(height // side, side, width // side, side, 3).transpose(0, 2, 1, 3, 4)
    return patches.reshape(-1, side * side * 3).astype(np.float32)


def lengths(patches: np.ndarray) -> np.ndarray:
    """The norm of every row of features [patches, 2352]."""
    norms: np.ndarray = np.sqrt(np.einsum("ij,ij->i", patches, patches))
    return norms


def similarity(a: np.ndarray, norm_a: np.ndarray, b: np.ndarray, norm_b: np.ndarray) -> float:
    """The share of alike patches (cosine above 0.7) of two frames' features [patches, 2352] with these `lengths`,
    leaving out patches that are black in both; NaN when all are."""
    seen = ~((norm_a < _DARK) & (norm_b < _DARK))
    if not seen.any():
        return float("nan")
    cosine = np.einsum("ij,ij->i", a, b) / np.maximum(norm_a * norm_b, 1e-8)
    return float(np.float32((cosine[seen] > _PATCH_SIMILARITY).mean()))


class SlowFast:
    """Tells slow from fast frames as they come, in order. `similarities` keeps what each was compared at."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.similarities: list[float] = []
        self._reference: tuple[np.ndarray, np.ndarray] | None = None  # the last slow frame's features and lengths

    def classify(self, rgb: np.ndarray) -> Kind:
        """Whether this frame, uint8 RGB [h, w, 3], is slow: the first one, and any whose similarity to the last slow
        one is below the threshold. Two black frames are alike."""
        patches = features(rgb)
        now = (patches, lengths(patches))
        if self._reference is None or self._reference[0].shape != patches.shape:
            self._reference = now
            return "slow"
        value = similarity(*self._reference, *now)
        self.similarities.append(value)
        if value < self.threshold:
            self._reference = now
            return "slow"
        return "fast"
