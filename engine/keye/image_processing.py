"""Pictures and frames to patches (published image processor of Keye-VL Preview)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from engine.errors import EngineError

Picture = Image.Image | np.ndarray | Tensor
"""A PIL image of any mode, or [height, width] or [height, width, 1, 3 or 4] with values 0…255."""

_MAX_RATIO = 200
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_RGB = 3


def smart_resize(
    height: int, width: int, factor: int = 28, min_pixels: int = 3136, max_pixels: int = 1003520
) -> tuple[int, int]:
    """Height and width, multiples of `factor`, near the given ones and within the limits on their product.

    The published rule of the image processor: a side below `factor` is brought up to it first. Unlike it, a picture
    too narrow for the upper limit gets sides of at least `factor` instead of 0. Raises EngineError for an empty
    picture, or one whose sides differ more than 200 times."""
    if height < 1 or width < 1:
        raise EngineError(f"A picture of {height}×{width} pixels has nothing to see; give one with pixels.")
    if height < factor:
        height, width = factor, round(width * factor / height)
    if width < factor:
        height, width = round(height * factor / width), factor
    if max(height, width) / min(height, width) > _MAX_RATIO:
        raise EngineError(
            f"A picture of {height}×{width} is too elongated: one side is more than {_MAX_RATIO} times the other; "
            "crop it first."
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        new_height = math.floor(height / scale / factor) * factor
        new_width = math.floor(width / scale / factor) * factor
        if not new_height or not new_width:
            longest = max(max_pixels // factor**2, 1) * factor
            new_height = min(max(new_height, factor), longest)
            new_width = min(max(new_width, factor), longest)
    elif new_height * new_width < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * scale / factor) * factor
        new_width = math.ceil(width * scale / factor) * factor
    return new_height, new_width


def to_rgb(picture: Picture) -> np.ndarray:
    """uint8 [height, width, 3]. Palettes are looked up, gray is repeated, transparency is dropped, as published.

    Float arrays must hold whole numbers 0…255. Raises EngineError for anything that is no picture."""
    if isinstance(picture, Tensor):
        picture = picture.numpy(force=True)
    if not isinstance(picture, Image.Image):
        array = np.asarray(picture)
        if array.ndim == 2:
            array = array[:, :, None]
        if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
            raise EngineError(f"An array of shape {array.shape} is no picture; give [height, width, 3] with 0…255.")
        array = _bytes(array)
        return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :_RGB]
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.uint8)
        if bool((whole == array).all()):
            return whole
    raise EngineError("The picture's values are not whole numbers from 0 to 255; scale them to that range.")


def resize_rgb(array: np.ndarray, size: tuple[int, int], kernel: Image.Resampling) -> np.ndarray:
    """uint8 [height, width, 3] -> [size], one axis after the other.

    Both passes round to bytes, so their order shows, and Pillow has changed which it takes first (12: always the
    width; 13: by cost). The order is fixed here, as in the recorded figures, so that no release alters what a model
    sees: the width first, unless the height shrinks while the width grows."""
    (height, width), image = size, Image.fromarray(array)
    old_height, old_width = array.shape[:2]
    passes = [(width, old_height), (width, height)]
    if height < old_height and width > old_width:
        passes[0] = (old_width, height)
    for step in passes:
        image = image.resize(step, kernel) if image.size != step else image
    return np.asarray(image)


class KeyeImageProcessor:
    """Resizes pictures and frames and cuts them into patches.

    The defaults are the published preprocessor_config.json of the Preview; `resample` is bicubic there and bilinear
    in 1.5. `min_pixels` and `max_pixels` hold for a picture and for a single frame."""

    def __init__(
        self,
        min_pixels: int = 3136,
        max_pixels: int = 1003520,
        patch_size: int = 14,
        merge_size: int = 2,
        temporal_patch_size: int = 1,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        rescale_factor: float = 1 / 255,
        resample: Literal["bicubic", "bilinear"] = "bicubic",
    ) -> None:
        whole = (min_pixels, max_pixels, patch_size, merge_size)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in whole) or max_pixels < min_pixels:
            raise EngineError(
                "min_pixels, max_pixels, patch_size or merge_size in preprocessor_config.json is not a positive whole "
                "number, or the limits are swapped; correct the file."
            )
        if temporal_patch_size != 1:
            raise EngineError("temporal_patch_size in preprocessor_config.json must be 1: Keye-VL sees single frames.")
        if len(image_mean) != _RGB or len(image_std) != _RGB or not all(float(s) > 0 for s in image_std):
            raise EngineError("image_mean and image_std in preprocessor_config.json need three numbers, std above 0.")
        if resample not in _FILTERS:
            raise EngineError(f"resample must be one of {', '.join(_FILTERS)}, not {resample!r}.")
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.patch_size, self.merge_size, self.temporal_patch_size = patch_size, merge_size, temporal_patch_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        self.rescale_factor, self.resample = rescale_factor, resample
        # A byte has 256 values, so rescaling and normalising is a table; float64 product, then float32, as published.
        scaled = (np.arange(256, dtype=np.float64) * rescale_factor).astype(np.float32)
        mean, std = (np.asarray(v, dtype=np.float32)[:, None] for v in (image_mean, image_std))
        self._table = (scaled[None] - mean) / std
        self._one_table = bool((self._table == self._table[0]).all())

    @property
    def factor(self) -> int:
        """Pixels on a side of one visual token."""
        return self.patch_size * self.merge_size

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """The size at which a picture of `height` × `width` enters the tower. Sizes that fit already are kept."""
        return smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)

    def resize(self, picture: Picture, size: tuple[int, int], resample: str | None = None) -> np.ndarray:
        """uint8 RGB [size]; nothing is touched where the size is right."""
        array = to_rgb(picture)
        if array.shape[:2] == size:
            return array
        return resize_rgb(array, size, _FILTERS[resample or self.resample])

    def patchify(self, frames: np.ndarray | Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[int, int, int]]:
        """uint8 [frames, height, width, 3], or as many single frames of one size -> float32 [patches, 3, side, side] in
        raster order per frame, and the grid (frames, rows, columns). Both sides must be multiples of `factor`."""
        patches, runs = self.cut(frames)
        if len(runs) != 1:
            raise EngineError("The frames differ in size; give frames of one size.")
        return patches, runs[0]

    def cut(self, frames: np.ndarray | Sequence[np.ndarray]) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
        """Frames, each uint8 [height, width, 3], to float32 [patches, 3, side, side] and the grids of the runs of equal
        sizes (frames, rows, columns), in order."""
        p = self.patch_size
        runs: list[tuple[int, int, int]] = []
        for height, width, _ in (frame.shape for frame in frames):
            if height % self.factor or width % self.factor or not height or not width:
                raise EngineError(
                    f"Frames of {height}×{width} cannot be cut up; make both sides multiples of {self.factor}."
                )
            grid = (height // p, width // p)
            if runs and runs[-1][1:] == grid:
                runs[-1] = (runs[-1][0] + 1, *grid)
            else:
                runs.append((1, *grid))
        if not runs:
            raise EngineError("There are no frames to cut up; give at least one.")
        values: np.ndarray = np.empty((sum(t * h * w for t, h, w in runs), _RGB, p, p), dtype=np.float32)
        start = 0
        for frame in frames:  # one at a time: its bytes stay in the processor's cache until they are floats
            rows, columns = frame.shape[0] // p, frame.shape[1] // p
            # Bytes are moved before they become floats: a quarter of the traffic.
            moved = np.ascontiguousarray(frame.reshape(rows, p, columns, p, _RGB).transpose(0, 2, 4, 1, 3))
            self._look_up(moved.reshape(-1, _RGB, p * p), values[start : start + rows * columns])
            start += rows * columns
        return values, runs

    def _look_up(self, moved: np.ndarray, values: np.ndarray) -> None:
        """Bytes [patches, 3, pixels] to `values`, the same as floats."""
        if self._one_table:
            cv2.LUT(moved.reshape(1, -1), self._table[0], values.reshape(1, -1))
            return
        for channel, table in enumerate(self._table):
            values[:, channel] = cv2.LUT(np.ascontiguousarray(moved[:, channel]), table).reshape(values[:, 0].shape)

    def image(self, picture: Picture) -> tuple[np.ndarray, tuple[int, int, int]]:
        """The patches and the grid of one picture."""
        array = to_rgb(picture)
        return self.patchify(self.resize(array, self.size_for(*array.shape[:2]))[None])

    def video(self, frames: Sequence[Picture] | np.ndarray | Tensor) -> tuple[np.ndarray, tuple[int, int, int]]:
        """The patches and the grid of a clip; every frame gets the size of the first, as published."""
        arrays = [to_rgb(frame) for frame in split_frames(frames)]
        size = self.size_for(*arrays[0].shape[:2])
        return self.patchify([self.resize(array, size) for array in arrays])

    def __call__(self, images: Picture | Sequence[Picture], return_tensors: str | None = "pt") -> BatchFeature:
        """`pixel_values` float32 [patches, 3, side, side] and `image_grid_thw` int64 [pictures, 3]."""
        pictures = [images] if isinstance(images, Image.Image | np.ndarray | Tensor) else list(images)
        made = [self.image(picture) for picture in pictures]
        data = {
            "pixel_values": np.concatenate([patches for patches, _ in made]),
            "image_grid_thw": np.asarray([grid for _, grid in made], dtype=np.int64),
        }
        return BatchFeature(data, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        names = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size", "resample")
        means = {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return {name: getattr(self, name) for name in names} | means | {"processor_class": "KeyeProcessor"}

    @classmethod
    def from_dict(cls, fields: dict[str, Any], **defaults: Any) -> KeyeImageProcessor:
        """From a preprocessor_config.json; unknown fields are ignored, `defaults` fill what is absent."""
        names = set(cls.__init__.__annotations__) - {"return"}
        known = defaults | {name: value for name, value in fields.items() if name in names}
        if isinstance(known.get("resample"), int):  # the library writes Pillow's number
            known["resample"] = next((n for n, f in _FILTERS.items() if f == known["resample"]), known["resample"])
        try:
            return cls(**known)
        except (TypeError, ValueError) as error:
            raise EngineError(f"preprocessor_config.json cannot be used ({error}); download it again.") from error

    @classmethod
    def from_pretrained(cls, folder: str | Path, **defaults: Any) -> KeyeImageProcessor:
        path = Path(folder) / "preprocessor_config.json"
        return cls.from_dict(json.loads(path.read_text("utf-8")) if path.is_file() else {}, **defaults)


def split_frames(frames: Sequence[Picture] | np.ndarray | Tensor) -> list[Picture]:
    """The single frames of a clip given as [frames, height, width, 3], as [frames, 3, height, width] or as a list."""
    if isinstance(frames, Tensor):
        frames = frames.numpy(force=True)
    if isinstance(frames, np.ndarray):
        if frames.ndim != 4:
            raise EngineError(f"An array of shape {frames.shape} is no clip; give [frames, height, width, 3].")
        if frames.shape[-1] not in (1, 3, 4) and frames.shape[1] == _RGB:
            frames = frames.transpose(0, 2, 3, 1)
    split: list[Picture] = list(frames)
    if not split:
        raise EngineError("The clip has no frames; choose a longer part of it or more frames per second.")
    return split
