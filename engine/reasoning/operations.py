"""What can be done to a picture by name: pure functions from a picture to a picture, or to text.

A picture is uint8 RGB [height, width, 3] and is never changed in place. A box is left, top, right, bottom in pixels,
the last two exclusive; it must lie within the picture (`within` cuts one that does not). These are the operations of
the report's examples (section 4.2.1: crop, zoom, rotate, contrast) and what is needed besides to look at a clip."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Box = tuple[int, int, int, int]

_RED = (230, 30, 40)
_CELLS = 8  # on the longer side, of a region that is read as colours


class ToolError(Exception):
    """A call that cannot be done; the message goes back to the model."""


def within(box: Sequence[float], width: int, height: int) -> Box:
    """The part of `box` that lies in a picture of that size, with corners in either order.

    Raises ToolError where nothing of it does."""
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    cut = (
        max(0, int(np.floor(left))),
        max(0, int(np.floor(top))),
        min(width, int(np.ceil(right))),
        min(height, int(np.ceil(bottom))),
    )
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        shown = ", ".join(f"{value:g}" for value in box)
        raise ToolError(f"The box [{shown}] holds nothing of the picture, which is {width}×{height} pixels.")
    return cut


def scaled(box: Box, before: tuple[int, int], after: tuple[int, int]) -> Box:
    """`box` in a picture of another size; sizes are (width, height). At least one pixel."""
    x, y = after[0] / before[0], after[1] / before[1]
    left, top = int(box[0] * x), int(box[1] * y)
    right, bottom = int(np.ceil(box[2] * x)), int(np.ceil(box[3] * y))
    return left, top, min(after[0], max(right, left + 1)), min(after[1], max(bottom, top + 1))


def crop(image: np.ndarray, box: Box) -> np.ndarray:
    left, top, right, bottom = box
    return image[top:bottom, left:right].copy()


def zoom(image: np.ndarray, box: Box, times: float = 2.0) -> np.ndarray:
    """The box enlarged; the report's examples take 2."""
    part = crop(image, box)
    size = (max(1, round(part.shape[1] * times)), max(1, round(part.shape[0] * times)))
    return cv2.resize(part, size, interpolation=cv2.INTER_CUBIC if times > 1 else cv2.INTER_AREA)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turned clockwise; the picture grows so that nothing is cut off, with black corners."""
    quarters, rest = divmod(degrees, 90)
    if not rest:
        return np.rot90(image, -int(quarters)).copy()
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = (int(np.ceil(height * sin + width * cos)), int(np.ceil(height * cos + width * sin)))
    turn[0, 2] += (size[0] - width) / 2
    turn[1, 2] += (size[1] - height) / 2
    return cv2.warpAffine(image, turn, size, flags=cv2.INTER_LINEAR)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the mean brightness times `factor`."""
    mean = float(image.mean())
    return np.clip((image - mean) * factor + mean, 0, 255).round().astype(np.uint8)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Every value times `factor`."""
    return np.clip(image * np.float64(factor), 0, 255).round().astype(np.uint8)


def draw_box(image: np.ndarray, box: Box) -> np.ndarray:
    """A red frame along the inside of the box."""
    out = np.ascontiguousarray(image).copy()
    left, top, right, bottom = box
    thick = max(1, round(min(image.shape[:2]) / 112))
    for i in range(thick):
        corners = (left + i, top + i), (max(left + i, right - 1 - i), max(top + i, bottom - 1 - i))
        cv2.rectangle(out, *corners, _RED, 1)
    return out


def grid(image: np.ndarray, columns: int = 4, rows: int = 4) -> np.ndarray:
    """Red lines that cut the picture into equal cells."""
    out = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    out[[row * height // rows for row in range(1, rows)], :] = _RED
    out[:, [column * width // columns for column in range(1, columns)]] = _RED
    return out


def pixels(image: np.ndarray, box: Box) -> str:
    """The colours of a region as text: its mean, and rows of cells, each the mean of what lies in it, as hexadecimal
    RGB. A region of at most 8×8 pixels is given pixel by pixel."""
    part = crop(image, box)
    height, width = part.shape[:2]
    shrink = max(1.0, max(width, height) / _CELLS)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    cells = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    lines = [" ".join(_hex(cell) for cell in row) for row in cells]
    return f"mean {_hex(part.reshape(-1, 3).mean(0))}\n" + "\n".join(lines)


def fitted(image: np.ndarray, most_pixels: int) -> np.ndarray:
    """The picture, shrunk if it has more than `most_pixels`, and at least one pixel on each side."""
    height, width = image.shape[:2]
    shrink = (most_pixels / (height * width)) ** 0.5
    if shrink >= 1:
        return image
    size = (max(1, int(width * shrink)), max(1, int(height * shrink)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _hex(colour: np.ndarray) -> str:
    return "".join(f"{int(value + 0.5):02x}" for value in colour)
