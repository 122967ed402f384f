"""Muon for matrices (K. Jordan 2024): momentum whose singular values are all brought near one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices with equal singular values, about: Newton–Schulz on [n, rows, columns]."""
    a, b, c = _COEFFICIENTS
    x = matrices  # float32: bfloat16 is forty times slower on processors without it
    flat = x.shape[1] > x.shape[2]
    if flat:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if flat else x


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions, and filters taken as [filters, everything else]. Matrices of one shape are
    orthogonalised together, in one product."""

    def __init__(self, params: Iterable[Any], lr: float = 0.02, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for (rows, *inner), params in shapes.items():
                columns = math.prod(inner)
                pushes = []
                for p in params:
                    assert p.grad is not None  # those without one were left out above
                    state = self.state[p]
                    if "moment" not in state:
                        state["moment"] = torch.zeros_like(p)
                    moment = state["moment"]
                    moment.lerp_(p.grad, 1 - group["momentum"])
                    pushes.append(p.grad.lerp(moment, group["momentum"]).flatten(1))
                scale = max(1.0, rows / columns) ** 0.5
                for p, push in zip(params, orthogonalize(torch.stack(pushes)).to(params[0].dtype), strict=True):
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.add_(push.view_as(p), alpha=-group["lr"] * scale)


def optimizers(
    modules: dict[str, nn.Module], lr: float, adam_lr: float, decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the named `modules`, AdamW for embeddings, heads, norms and biases; AdamW for
    everything where Muon's `lr` is 0. AdamW's weights decay by `decay`.

    Each group remembers its `peak` rate, which a schedule multiplies."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for prefix, module in modules.items():
        for name, p in module.named_parameters(prefix):
            if not p.requires_grad:
                continue
            ends = any(word in name for word in ("embed_tokens", "position_embedding", "lm_head", "heads"))
            (matrices if lr and p.ndim >= 2 and not ends else rest).append(p)
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, lr=lr))
    if rest:
        made.append(torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=decay))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made
