"""SGLang on a machine without a GPU: plain PyTorch, none of SGLang's compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def activate() -> str | None:
    """Entry point of the group `sglang.srt.platforms`: its class, or None to stand back for an accelerator."""
    if torch.accelerator.is_available():
        return None
    _lift_assumptions_of_a_gpu()
    return "engine.sglang_plugin.cpu_class.TorchCpuPlatform"


def _lift_assumptions_of_a_gpu() -> None:
    """Let the calls pass that only make sense beside CUDA. Once per process."""
    if getattr(torch, "_keye_unpinned", False):
        return
    torch._keye_unpinned = True  # type: ignore[attr-defined]
    if torch.version.cuda is None:
        # torchvision's PyPI wheel is built for CUDA: beside the processor build of torch its library is not loaded, but
        # it registers fake kernels for these two operators all the same, which fails unless they have a schema.
        global _operators
        _operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # Memory is pinned for copies to a device. PyTorch refuses to pin where there is none, instead of doing nothing.
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    for name in ("tensor", "empty", "zeros", "ones", "full", "arange", "empty_like", "zeros_like"):
        setattr(torch, name, _unpinned(getattr(torch, name)))


_operators: torch.library.Library | None = None  # the registration lives as long as this object


def _unpinned(make: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        return make(*args, **kwargs)

    return call
