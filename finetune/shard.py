"""Weights, gradients and optimiser states divided among processes (FSDP2), for models that one GPU does not hold."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

LAYERS = ("Qwen3DecoderLayer", "KeyeVisionLayer")
"""What is gathered and given up again as one: the layers of the decoder and of the tower. All else is one group, the
root's."""


def shard(model: nn.Module, mesh: Any = None, compute: torch.dtype | None = None) -> None:
    """Divide `model` in place among the processes of `mesh` (None: all); optimisers are made after it.

    `model` is the module whose forward is called and nothing inside it: the root gathers what belongs to no layer
    (embeddings, projector, norms, head) for as long as that runs. `compute` is the type of the products (None: that
    of the weights); gradients are averaged in float32."""
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32 if compute else None)
    for module in model.modules():
        if type(module).__name__ in LAYERS:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a divided model, gathered on the processor. Every process calls it; the first gets it, the
    others an empty one."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, torch.Tensor], get_model_state_dict(model, options=options))
