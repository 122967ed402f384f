"""Weights, gradients and optimiser states divided among processes (FSDP2), for models that one GPU does not hold."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

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


def gather(model: nn.Module) -> None:
    """Give the first process the weights of a divided model whole, in place and on the processor, to be written. Every
    process calls it; none trains after it."""
    state = whole_state(model)
    if dist.get_rank():
        return
    made: dict[int, nn.Parameter] = {}  # one that has several names stays one
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        if id(parameter) not in made:
            made[id(parameter)] = nn.Parameter(state[name], parameter.requires_grad)
        model.get_submodule(owner).register_parameter(leaf, made[id(parameter)])


def whole_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state dict, gathered on the processor. Every process calls it, and gets it."""
    state = optimizer.state_dict()
    state["state"] = {
        number: {key: value.full_tensor().cpu() if isinstance(value, DTensor) else value for key, value in of.items()}
        for number, of in state["state"].items()
    }
    return state


def divide_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """What `whole_optimizer` gave, divided as the parameters of `optimizer` are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def like(value: Any, p: Any) -> Any:
        if not isinstance(p, DTensor) or not isinstance(value, torch.Tensor) or value.shape != p.shape:
            return value
        return distribute_tensor(value.to(p.device), p.device_mesh, p.placements)

    divided = {n: {key: like(v, parameters[n]) for key, v in of.items()} for n, of in state["state"].items()}
    return {**state, "state": divided}
