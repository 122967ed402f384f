"""The published modelling code's first pass over a clip, restated on the weights of our model.

As published: one convolution per patch, positions made image by image in Python, attention over the whole packed clip
through PyTorch's SDPA (or, `eager`, with all scores in memory), and logits of every token of the prompt, not only
of the last. It asserts flash-attn on import and runs on no CPU as it is; this is what it computes without that."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.keye.positions import grid_rows


def tower(model: Any, pixel_values: Tensor, grid_thw: Tensor, attention: str = "sdpa") -> Tensor:
    """[patches, 3, side, side] -> [patches, hidden] of the tower (`model.visual`)."""
    vision = model.visual.vision_model
    config = model.config.vision
    grids = grid_rows(grid_thw)
    embeddings = vision.embeddings
    x = embeddings.patch_embedding(pixel_values).flatten(-2).squeeze(-1)
    x = x + torch.cat([embeddings.positions(h, w).repeat(t, 1) for t, h, w in grids])
    cos, sin = _rotary(grids, config.head_dim, x.device)
    x = x.unsqueeze(0)
    for layer in vision.encoder.layers:
        x = x + _attention(layer.self_attn, layer.layer_norm1(x), cos, sin, attention)
        x = x + layer.mlp(layer.layer_norm2(x))
    features: Tensor = vision.post_layernorm(x)[0]
    return features


def _rotary(grids: list[tuple[int, int, int]], dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = [], []
    for t, h, w in grids:
        places = torch.arange(t * h * w, device=device) % (h * w)
        rows.append(places // w)
        columns.append(places % w)
    largest = max(max(h, w) for _, h, w in grids)
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, dim // 2, 2, device=device, dtype=torch.float) / (dim // 2)))
    table = torch.outer(torch.arange(largest, device=device, dtype=torch.float), frequencies)
    angles = table[torch.stack([torch.cat(rows), torch.cat(columns)], dim=-1)].flatten(1).repeat(1, 2)
    return angles.cos(), angles.sin()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.float()
    a, b = wide.chunk(2, dim=-1)
    turned: Tensor = wide * cos[:, None] + torch.cat((-b, a), dim=-1) * sin[:, None]
    return turned.to(x.dtype)


def _attention(module: Any, x: Tensor, cos: Tensor, sin: Tensor, kind: str) -> Tensor:
    shape = (*x.shape[:2], module.heads, module.head_dim)
    q = _turned(module.q_proj(x).view(shape), cos, sin).transpose(1, 2)
    k = _turned(module.k_proj(x).view(shape), cos, sin).transpose(1, 2)
    v = module.v_proj(x).view(shape).transpose(1, 2)
    if kind == "eager":
        scores = torch.matmul(q, k.transpose(-1, -2)) * module.scaling
        mixed = torch.matmul(F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype), v)
    else:
        mixed = F.scaled_dot_product_attention(
            q.contiguous(), k.contiguous(), v.contiguous(), attn_mask=None, scale=module.scaling, is_causal=False
        )
    out: Tensor = module.out_proj(mixed.transpose(1, 2).reshape(*x.shape[:2], -1).contiguous())
    return out


def first_pass(model: Any, inputs: dict[str, Tensor], attention: str = "sdpa") -> Tensor:
    """Tower, projector and prefill of a prompt with one clip: logits [1, length, vocabulary] in float32."""
    features = tower(model, inputs["pixel_values_videos"], inputs["video_grid_thw"], attention)
    tokens = torch.cat(model.mlp_AR(features, inputs["video_grid_thw"]))
    ids = inputs["input_ids"]
    positions, _ = model.get_rope_index(
        ids, video_grid_thw=inputs["video_grid_thw"], second_per_grid_ts=inputs["second_per_grid_ts"]
    )
    embeds = model.model.embed_tokens(ids)
    mask = (ids == model.config.video_token_id).unsqueeze(-1).expand_as(embeds)
    embeds = embeds.masked_scatter(mask, tokens.to(embeds.dtype))
    hidden = model.model(inputs_embeds=embeds, position_ids=positions, use_cache=True).last_hidden_state
    logits: Tensor = model.lm_head(hidden).float()
    return logits
