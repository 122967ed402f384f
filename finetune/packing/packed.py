"""Many conversations about one clip in one pass: what the clip costs is paid once.

A batch is `clips` prefixes of one length (system turn, start of the user turn, visual tokens) and, for each, rows of
conversations that continue it. A conversation attends to its prefix and to itself, and its positions go on from the
prefix, so every logit is what a separate sequence would give."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, apply_rotary_pos_emb

from engine.keye import KeyeForConditionalGeneration
from engine.keye.decoder import rotary_tables


@dataclass
class PackedBatch:
    """`clips` clips or pictures of one grid, each with `rows` rows of packed conversations."""

    prefix_ids: Tensor  # int64 [clips, prefix]
    prefix_positions: Tensor  # int64 [3, clips, prefix]
    row_ids: Tensor  # int64 [clips, rows, length]
    # int64 [clips, rows, length]: time, row and column are equal in text; [3, clips, rows, length] where rows have
    # pictures of their own
    row_positions: Tensor
    segments: Tensor  # int64 [clips, rows, length]: which conversation a token belongs to; -1 for padding
    labels: Tensor  # int64 [clips, rows, length]: the next token where it is learnt, else -100
    pixels: Tensor | None  # float32 [patches, 3, side, side]
    grid: Tensor | None  # int64 [clips, 3]
    kinds: list[str]  # of every learnt answer, in the order of the clips, for the log
    kind_of: Tensor  # int64 [clips, rows, length]: index into `kinds` where labels are learnt, else -1
    truth: dict[str, Tensor] | None = None  # of every visual token, int64 [clips * tokens]: finetune.packing.labels
    # pictures within the rows, in the order of their tokens: float32 [patches, 3, side, side], int64 [pictures, 3]
    row_pixels: Tensor | None = None
    row_grid: Tensor | None = None

    def to(self, device: torch.device) -> PackedBatch:
        """The same on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: moved(inner) for name, inner in value.items()}
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self)})


NOTHING = torch.tensor([[1, 2, 2]])
"""The grid of the smallest picture there is."""


class Output(NamedTuple):
    logits: Tensor  # [learnt, vocabulary], at the positions whose label is not -100
    labels: Tensor  # int64 [learnt]
    visual: Tensor | None  # [clips * tokens, hidden]: the visual tokens in the middle of the decoder


def forward(model: KeyeForConditionalGeneration, batch: PackedBatch, tower_grad: bool = False) -> Output:
    """One pass over a batch. With `tower_grad` False no gradient reaches the vision tower.

    A batch without pictures sends one through tower and projector all the same, and takes it times nothing: each
    process must have a gradient for every weight, or the others wait for ever."""
    picture, clip = model.config.image_token_id, model.config.video_token_id
    assert picture is not None and clip is not None
    hidden = model.model.embed_tokens(batch.prefix_ids)
    token: Tensor | None = None  # bool [clips, prefix]: the visual ones
    seen: Tensor | None = None
    if batch.pixels is None:
        with torch.set_grad_enabled(tower_grad and torch.is_grad_enabled()):
            features = model.visual(hidden.new_zeros(4, 3, 14, 14), NOTHING)
        hidden = hidden + 0.0 * model.mlp_AR(features, NOTHING)[0].sum()
    if batch.pixels is not None:
        assert batch.grid is not None
        with torch.set_grad_enabled(tower_grad and torch.is_grad_enabled()):
            features = model.visual(batch.pixels, batch.grid)
        visual = torch.cat(model.mlp_AR(features, batch.grid))
        token = (batch.prefix_ids == picture) | (batch.prefix_ids == clip)
        hidden = hidden.masked_scatter(token.unsqueeze(-1), visual.to(hidden.dtype))
    _clips, rows, length = batch.row_ids.shape
    prefix = hidden.shape[1]
    said = model.model.embed_tokens(batch.row_ids)
    if batch.row_pixels is not None:
        assert batch.row_grid is not None
        with torch.set_grad_enabled(tower_grad and torch.is_grad_enabled()):
            features = model.visual(batch.row_pixels, batch.row_grid)
        looked = torch.cat(model.mlp_AR(features, batch.row_grid))
        said = said.masked_scatter((batch.row_ids == picture).unsqueeze(-1), looked.to(said.dtype))
    x = torch.cat((hidden, said.flatten(1, 2)), dim=1)
    later = batch.row_positions if batch.row_positions.ndim == 4 else batch.row_positions.expand(3, -1, -1, -1)
    positions = torch.cat((batch.prefix_positions, later.flatten(2)), dim=2)
    cos, sin = rotary_tables(model.config, positions, x.dtype)
    same = batch.segments[..., :, None] == batch.segments[..., None, :]
    causal = torch.ones(max(prefix, length), max(prefix, length), dtype=torch.bool, device=x.device).tril()
    own = (same & causal[:length, :length]).unsqueeze(2)  # [clips, rows, 1, length, length]
    causal = causal[:prefix, :prefix]
    learnt = batch.labels.flatten(1) != -100
    middle = len(model.model.layers) // 2
    for i, layer in enumerate(model.model.layers):
        last = i == len(model.model.layers) - 1
        if i == middle and token is not None:
            seen = x[:, :prefix][token]
        mixed = _attend(layer.self_attn, layer.input_layernorm(x), cos, sin, prefix, rows, own, causal, last)
        if last:  # nothing after it reads the other positions
            x, mixed = x[:, prefix:][learnt], mixed[learnt]
        x = x + layer.self_attn.o_proj(mixed)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return Output(model.lm_head(model.model.norm(x)), batch.labels.flatten(1)[learnt], seen)


def _attend(
    attention: Qwen3Attention,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    prefix: int,
    rows: int,
    own: Tensor,
    causal: Tensor,
    rows_only: bool,
) -> Tensor:
    """Grouped-query attention without the output projection: [clips, prefix + rows * length, heads * dim], or of the
    rows alone. Written out, because the fused kernel's bfloat16 backward is slower on a processor."""
    a = attention
    clips, total, _ = x.shape
    groups, dim, scale = int(a.num_key_value_groups), int(a.head_dim), float(a.scaling)
    shape = (clips, total, -1, dim)
    q = a.q_norm(a.q_proj(x).view(shape)).transpose(1, 2)
    k = a.k_norm(a.k_proj(x).view(shape)).transpose(1, 2)
    v = a.v_proj(x).view(shape).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, cos, sin)
    kv = k.shape[1]
    length = (total - prefix) // rows
    # queries that share keys lie together: [clips, kv, groups, tokens, dim]
    q = q.unflatten(1, (kv, groups)) * scale
    outputs = []
    if not rows_only:
        outputs.append(_prefix(q[..., :prefix, :], k[:, :, :prefix], v[:, :, :prefix], causal))
    q = q[..., prefix:, :]
    shared = q.flatten(2, 3) @ k[:, :, :prefix].mT  # [clips, kv, groups * rows * length, prefix]
    by_row = (clips, kv, groups, rows, length)
    kr, vr = (t[:, :, prefix:].unflatten(2, (rows, length)) for t in (k, v))  # [clips, kv, rows, length, dim]
    qr = q.unflatten(3, (rows, length)).transpose(2, 3).flatten(3, 4)  # [clips, kv, rows, groups * length, dim]
    alone = (qr @ kr.mT).unflatten(3, (groups, length))  # [clips, kv, rows, groups, length, length]
    alone = alone.masked_fill(~own.unsqueeze(1), -1e4)
    shared = shared.view(*by_row, prefix).transpose(2, 3)  # [clips, kv, rows, groups, length, prefix]
    weights = torch.cat((shared, alone), dim=-1).softmax(-1, dtype=torch.float32).to(v.dtype)
    seen, kept = weights.split([prefix, length], dim=-1)
    out = seen.flatten(2, 4) @ v[:, :, :prefix]  # rows, groups, length
    out = out.view(clips, kv, rows, groups, length, dim)
    out = out + (kept.flatten(3, 4) @ vr).unflatten(3, (groups, length))
    outputs.append(out.permute(0, 2, 4, 1, 3, 5).reshape(clips, rows * length, -1))
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


def _prefix(q: Tensor, k: Tensor, v: Tensor, causal: Tensor) -> Tensor:
    scores = q @ k.unsqueeze(2).mT
    weights = scores.masked_fill(~causal, -1e4).softmax(-1, dtype=torch.float32).to(v.dtype)
    out = weights @ v.unsqueeze(2)  # [clips, kv, groups, prefix, dim]
    return out.permute(0, 3, 1, 2, 4).flatten(2)
