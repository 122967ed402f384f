"""Frames at another size, with the arithmetic of the published utilities."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
from scipy.sparse import csr_array

_STRIP = 64
"""Rows that are scaled at a time: what belongs to them stays in the processor's cache."""


def resize(rgb: np.ndarray, height: int, width: int, resample: str) -> np.ndarray:
    """A picture, uint8 RGB [h, w, 3], at another size, antialiased, uint8 RGB [height, width, 3] of its own memory.

    "bicubic" is computed in float32, then clamped and rounded, as the published utilities 1.0.0 do it; "bilinear" in
    uint8 arithmetic, as 1.5.2 does when it compares frames. Bilinear values are equal to theirs; of a million bicubic
    ones about ten are one level of 255 away, where the order of a sum decides how it rounds."""
    if rgb.shape[:2] == (height, width):
        return np.array(rgb, order="C")
    if resample == "bicubic":
        return _bicubic(np.ascontiguousarray(rgb), height, width)
    picture = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(picture, size=(height, width), mode="bilinear", antialias=True)
    return cv2.merge(list(small[0].numpy()))


def _bicubic(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """PyTorch's antialiased filter as two products with its weights, first along the rows, then along the columns.

    Its own loop goes value by value and takes almost three times as long."""
    old_height, old_width = rgb.shape[:2]
    across = _weights(old_width, width)
    wide = np.empty((old_height, width * 3), np.float32)
    for top in range(0, old_height, _STRIP):
        strip = rgb[top : top + _STRIP]
        rows = len(strip)
        columns = cv2.transpose(strip).reshape(old_width, rows * 3).astype(np.float32)
        scaled = (across @ columns).reshape(width, rows, 3)
        wide[top : top + rows] = cv2.transpose(scaled).reshape(rows, width * 3)
    out = np.empty((height, width, 3), np.uint8)
    for top, first, last, down in _strips(old_height, height):
        values = down @ wide[first:last]
        rounded = cv2.add(values, 0, dtype=cv2.CV_8U)  # type: ignore[call-overload]  # half to even, and clamped
        out[top : top + len(values)] = rounded.reshape(-1, width, 3)
    return out


@lru_cache(maxsize=64)
def _strips(old: int, new: int) -> list[tuple[int, int, int, csr_array]]:
    """The rows of `_weights` in strips: the first row of each, the first and last + 1 of the old rows that it needs,
    and its weights for these."""
    weights = _weights(old, new)
    strips = []
    for top in range(0, new, _STRIP):
        part = weights[top : top + _STRIP]
        first, last = int(part.indices.min()), int(part.indices.max()) + 1
        strips.append((top, first, last, csr_array(part[:, first:last])))
    return strips


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> csr_array:
    """float32 [new, old]: with which weight each old value enters each new one, as PyTorch has it.

    Read off its answers to combs, whose teeth lie farther apart than its filter is wide: what comes out at a place is
    then the weight of the only tooth that the filter reaches there."""
    apart = 2 * math.ceil(2 * max(old / new, 1.0)) + 3
    combs = torch.zeros(apart, old)
    places = torch.arange(old)
    combs[places % apart, places] = 1.0
    answers = torch.nn.functional.interpolate(combs[None, None], size=(apart, new), mode="bicubic", antialias=True)
    found = answers[0, 0].numpy()
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first_tooth = np.arange(apart)[:, None]
    nearest = first_tooth + apart * np.rint((centres - first_tooth) / apart).astype(np.int64)
    comb, out = np.nonzero(found)
    weights = csr_array((found[comb, out], (out, nearest[comb, out])), shape=(new, old))
    weights.sort_indices()
    return weights
