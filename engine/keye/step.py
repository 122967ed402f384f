"""One more token of one sequence: the decoder's arithmetic without the library's bookkeeping.

A step of a small model costs less than what surrounds it: masks that mask nothing, three positions that are one, module
hooks, a cache that is copied to grow. Here the modules' own weights are used in the same order, keys and values are
written into room that was made for them, and queries and keys are normalised and turned together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from engine.keye.decoder import KeyeTextModel

_ROOM = 256  # tokens: how much longer than now the keys and values may become before they move


def steps_for(model: Any, cache: Cache) -> Callable[[Tensor, Tensor], Tensor] | None:
    """A function (token [1, 1], position [1, 1]) -> logits [1, 1, vocabulary] that goes on from `cache` and keeps it up
    to date, or None where the model has to be called as a whole: several sequences, windows, another kind of cache or
    attention, layers on several devices or behind hooks."""
    config, layers = model.config, getattr(cache, "layers", [])
    simple = (
        isinstance(getattr(model, "model", None), KeyeTextModel)
        and config._attn_implementation == "sdpa"
        and not model.training
        and set(config.layer_types or ()) == {"full_attention"}
        and len(layers) == config.num_hidden_layers
        and all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)
        and all(layer.keys.shape[0] == 1 for layer in layers)
        and not any(_watched(module) for module in model.modules())
    )
    return _Steps(model, layers) if simple else None


def _watched(module: nn.Module) -> bool:
    """Whether something else is to run when this module is called."""
    return bool(hasattr(module, "_hf_hook") or module._forward_hooks or module._forward_pre_hooks)


def _linear(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A projection without the way through nn.Module; an adapter's or a quantised one is called as it is."""
    if type(module) is not nn.Linear:
        return module
    weight, bias = module.weight, module.bias
    return lambda x: F.linear(x, weight, bias)


def _normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm as Qwen3 has it: in float32, cast, then the gain."""
    wide = x.float()
    return weight * (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + eps)).to(x.dtype)


class _Layer:
    """One block. `kept` is its entry in the cache: what it shows are the first tokens of the room here."""

    def __init__(self, block: Any, kept: DynamicLayer, config: Any) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.dim, self.eps, self.kept = config.head_dim, config.rms_norm_eps, kept
        self.before, self.after = block.input_layernorm.weight, block.post_attention_layernorm.weight
        self.q, self.k, self.v = (_linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj))
        gains = (attention.q_norm.weight.expand(self.heads, -1), attention.k_norm.weight.expand(self.kv_heads, -1))
        self.gain = torch.cat(gains)
        self.scale: float = attention.scaling
        self.out = _linear(attention.o_proj)
        self.gate, self.up, self.down = (_linear(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.act = mlp.act_fn
        self.room = self._moved()

    def _moved(self) -> tuple[Tensor, Tensor]:
        """Keys and values at the front of new room."""
        room = []
        for tensor in (self.kept.keys, self.kept.values):
            assert tensor is not None
            batch, heads, length, dim = tensor.shape
            new = tensor.new_empty(batch, heads, length + max(_ROOM, length // 4), dim)
            new[:, :, :length] = tensor
            room.append(new)
        return room[0], room[1]

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, length: int) -> Tensor:
        """`x` [1, hidden]; `length` tokens are in the cache; cos and sin [dim], the first half of sin negated."""
        h = _normalised(x, self.before, self.eps)
        both = torch.cat((self.q(h), self.k(h)), dim=-1).view(self.heads + self.kv_heads, self.dim)
        both = _normalised(both, self.gain, self.eps)
        both = both * cos + both.roll(self.dim // 2, -1) * sin
        if length == self.room[0].shape[2]:
            self.room = self._moved()
        keys, values = self.room
        keys[0, :, length] = both[self.heads :]
        values[0, :, length] = self.v(h).view(self.kv_heads, self.dim)
        self.kept.keys, self.kept.values = keys, values = keys[:, :, : length + 1], values[:, :, : length + 1]
        # The query heads that share keys stand as a sequence of queries: nothing is repeated.
        queries = both[: self.heads].view(1, self.kv_heads, -1, self.dim)
        mixed = F.scaled_dot_product_attention(queries, keys, values, scale=self.scale)
        x = x + self.out(mixed.reshape(1, self.heads * self.dim))
        h = _normalised(x, self.after, self.eps)
        return x + self.down(self.act(self.gate(h)) * self.up(h))


class _Steps:
    def __init__(self, model: Any, layers: list[DynamicLayer]) -> None:
        config, text = model.config, model.model
        self.embed, self.norm, self.eps = text.embed_tokens.weight, text.norm.weight, config.rms_norm_eps
        self.head = _linear(model.lm_head)
        self.layers = [_Layer(block, kept, config) for block, kept in zip(text.layers, layers, strict=True)]
        even = torch.arange(0, config.head_dim, 2, device=self.embed.device, dtype=torch.float32)
        self.frequencies = 1.0 / (config.rope_theta ** (even / config.head_dim))
        self.length = layers[0].get_seq_length()

    def __call__(self, token: Tensor, position: Tensor) -> Tensor:
        x = F.embedding(token[0], self.embed)
        angles = position[0].float() * self.frequencies  # after the prompt the three axes are one
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.cat((cos, cos)).to(x.dtype), torch.cat((-sin, sin)).to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, self.length)
        self.length += 1
        return self.head(_normalised(x, self.norm, self.eps)).unsqueeze(0)
