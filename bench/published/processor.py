"""The published image processors restated, with the library functions that they call.

They are published with the weights and not as a package. What costs their time is kept as it is: every frame goes
through Pillow and back and through each transformation alone, the patches of a clip are put into one Python list, one
object per 14×14 patch, and the array is made of that list (Preview: `pixel_values.extend(patches)`, `np.array`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.image_transforms import normalize, rescale, resize, to_channel_dimension_format
from transformers.image_utils import ChannelDimension, PILImageResampling, infer_channel_dimension_format

from engine.keye.image_processing import smart_resize

PATCH = 14
MEAN = STD = [0.5, 0.5, 0.5]  # preprocessor_config.json
MIN_PIXELS, MAX_PIXELS = 3136, 1003520

Grid = tuple[int, int, int]


def _cut(frames: np.ndarray) -> tuple[np.ndarray, Grid]:
    """[frames, 3, height, width] to [patches, 3, 14, 14] and the grid."""
    t, channels, height, width = frames.shape
    h, w = height // PATCH, width // PATCH
    cut = frames.reshape(t, 1, channels, h, PATCH, w, PATCH).transpose(0, 3, 5, 2, 1, 4, 6)
    return cut.reshape(t * h * w, channels, PATCH, PATCH), (t, h, w)


def _transformed(picture: np.ndarray, size: tuple[int, int] | None, resample: PILImageResampling) -> np.ndarray:
    layout = infer_channel_dimension_format(picture)
    if size is not None:
        picture = resize(picture, size=size, resample=resample, input_data_format=layout)
    picture = rescale(picture, scale=1 / 255, input_data_format=layout)
    picture = normalize(picture, mean=MEAN, std=STD, input_data_format=layout)
    made = to_channel_dimension_format(picture, ChannelDimension.FIRST, input_channel_dim=layout)
    assert isinstance(made, np.ndarray)
    return made


def preview(frames: torch.Tensor) -> tuple[torch.Tensor, Grid]:
    """A clip of the utilities 1.0.0, float32 [frames, 3, height, width] with whole values, to patches and grid."""
    pictures = [frame.numpy() for frame in frames]
    height, width = frames.shape[-2:]
    size = smart_resize(height, width, 28, MIN_PIXELS, MAX_PIXELS)
    made = [_transformed(picture, size, PILImageResampling.BICUBIC) for picture in pictures]
    patches, grid = _cut(np.array(made))
    pixel_values: list[np.ndarray] = []
    pixel_values.extend(patches)
    return torch.tensor(np.array(pixel_values)), grid


def one_five(frames: torch.Tensor, sizes: dict[str, Any]) -> tuple[torch.Tensor, list[Grid]]:
    """A clip of the utilities 1.5.2, uint8 [frames, 3, height, width] in full size, and what they say of it (`height`,
    `width`, `fast_height`, `fast_width`, `frame_types`), to patches and the grid of every frame.

    Each frame is resized by PyTorch, bilinear and antialiased on bytes, and processed as a picture of its own."""
    pixel_values: list[np.ndarray] = []
    grids: list[Grid] = []
    for frame, fast in zip(frames, sizes["frame_types"].tolist(), strict=True):
        kind = "fast_" if fast else ""
        size = (sizes[f"{kind}height"], sizes[f"{kind}width"])
        small = torch.nn.functional.interpolate(frame[None], size=size, mode="bilinear", antialias=True)[0]
        patches, grid = _cut(np.array([_transformed(small.numpy(), None, PILImageResampling.BILINEAR)]))
        pixel_values.extend(patches)
        grids.append(grid)
    return torch.tensor(np.array(pixel_values)), grids
