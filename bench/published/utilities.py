"""Work done by the published utilities. Only for processes whose search path has them (install.search_path)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# torchvision's wheel is built for CUDA: beside the processor build of torch its library is not loaded, but it registers
# fake kernels for these two operators all the same, which fails unless they have a schema.
_operators: torch.library.Library | None = None
if torch.version.cuda is None:
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from keye_vl_utils import process_vision_info  # noqa: E402

from bench.published import processor  # noqa: E402


def _asked(path: str, **options: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video", "video": path, **options}]}]


def preview_tensors(path: str, keep: str | None = None) -> Callable[[], int]:
    """Utilities 1.0.0 and the Preview's image processor: a file to pixel_values; returns how many patches."""

    def work() -> int:
        _, videos = process_vision_info(_asked(path))
        patches, _ = processor.preview(videos[0])
        return _kept(patches, keep)

    return work


def one_five_tensors(path: str, threshold: float | None = None, keep: str | None = None) -> Callable[[], int]:
    """Utilities 1.5.2 and 1.5's image processor: a file to pixel_values; returns how many patches. `threshold`: least
    similarity of a fast frame."""
    options = {} if threshold is None else {"min_frame_similarity": threshold}

    def work() -> int:
        _, videos, said = process_vision_info(_asked(path, **options))
        patches, _ = processor.one_five(videos[0], {name: values[0] for name, values in said.items()})
        return _kept(patches, keep)

    return work


def slow_fast(path: str) -> Callable[[], list[int]]:
    """Utilities 1.5.2: the kinds of the frames in an .npy file, uint8 [frames, height, width, 3]."""
    from keye_vl_utils.vision_process import extract_slow_fast_frames

    frames = torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).contiguous()  # the layout that they work on

    def work() -> list[int]:
        return [int(kind) for kind in extract_slow_fast_frames(frames)]

    return work


def _kept(patches: torch.Tensor, keep: str | None) -> int:
    if keep is not None:
        np.save(keep, patches.numpy())
    return len(patches)
