"""The vision tower: SigLIP blocks at native resolution, with 2D rotary attention within each item."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engine.errors import EngineError
from engine.keye.configuration import KeyeVisionConfig
from engine.keye.positions import grid_rows

_ROPE_THETA = 10000.0  # fixed in the published tower, not a configuration field


@dataclass(frozen=True)
class Segments:
    """Which patches see each other. The patches lie so that segments of one length are neighbours.

    `runs` are (count, length) pairs in order; `cu_seqlens` int32 [segments + 1] are the boundaries, for kernels that
    take a packed batch."""

    runs: tuple[tuple[int, int], ...]
    cu_seqlens: Tensor
    longest: int


def plan_segments(lengths: list[int], device: torch.device) -> tuple[Segments, Tensor | None]:
    """Group segments of equal length so that attention runs once per length, and how to reorder the patches for it.

    Returns the segments and int64 [patches], the old index of each patch in the new order; None if nothing moves.
    Memory grows with the number of patches, never with their square."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])  # stable: equal lengths keep their order
    runs: list[tuple[int, int]] = []
    for i in order:
        if runs and runs[-1][1] == lengths[i]:
            runs[-1] = (runs[-1][0] + 1, lengths[i])
        else:
            runs.append((1, lengths[i]))
    ordered = torch.tensor([lengths[i] for i in order], dtype=torch.int32)
    cu_seqlens = F.pad(ordered.cumsum(0, dtype=torch.int32), (1, 0)).to(device)
    segments = Segments(tuple(runs), cu_seqlens, max(lengths))
    if order == sorted(order):
        return segments, None
    pieces = torch.arange(sum(lengths)).split(lengths)
    return segments, torch.cat([pieces[i] for i in order]).to(device)


class KeyeVisionEmbeddings(nn.Module):
    """Patches to vectors, plus the position table resized to each item's grid."""

    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def positions(self, h: int, w: int) -> Tensor:
        """[h * w, hidden]: the table at h × w, bilinear with half-pixel centres and no antialiasing, in float32."""
        table = self.position_embedding.weight
        if (h, w) == (self.side, self.side):
            return table
        square = table.float().T.reshape(1, -1, self.side, self.side)
        return F.interpolate(square, size=(h, w), mode="bilinear", align_corners=False).flatten(2)[0].T.to(table.dtype)

    def forward(self, pixel_values: Tensor, grids: list[tuple[int, int, int]]) -> Tensor:
        """`pixel_values` [patches, channels, side, side] -> [patches, hidden]."""
        # A convolution whose kernel is the whole patch is one matrix product.
        weight = self.patch_embedding.weight
        patches = F.linear(pixel_values.to(weight.dtype).flatten(1), weight.flatten(1), self.patch_embedding.bias)
        resized = {hw: self.positions(*hw) for hw in {(h, w) for _, h, w in grids}}
        return patches + torch.cat([resized[h, w].repeat(t, 1) for t, h, w in grids])


class KeyeVisionAttention(nn.Module):
    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.num_key_value_groups = 1
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        """`x` [patches, hidden] -> the same; a patch sees its own segment only."""
        shape = (x.shape[0], self.heads, self.head_dim)
        q, k = _rotate(self.q_proj(x).view(shape), *rotary), _rotate(self.k_proj(x).view(shape), *rotary)
        v = self.v_proj(x).view(shape)
        dropout = self.config.attention_dropout if self.training else 0.0
        implementation = self.config._attn_implementation or "sdpa"
        if "flash" in implementation:
            mixed = self._packed(implementation, q, k, v, segments, dropout)
        else:
            mixed = self._by_length(implementation == "eager", q, k, v, segments, dropout)
        return self.out_proj(mixed)

    def _packed(self, name: str, q: Tensor, k: Tensor, v: Tensor, segments: Segments, dropout: float) -> Tensor:
        """Variable-length flash attention: one kernel call for all segments."""
        mixed, _ = ALL_ATTENTION_FUNCTIONS[name](
            self,
            *(tensor.transpose(0, 1).unsqueeze(0) for tensor in (q, k, v)),
            attention_mask=None,
            scaling=self.scaling,
            dropout=dropout,
            cu_seq_lens_q=segments.cu_seqlens,
            cu_seq_lens_k=segments.cu_seqlens,
            max_length_q=segments.longest,
            max_length_k=segments.longest,
            is_causal=False,
        )
        return mixed.reshape(q.shape[0], -1)

    def _by_length(self, eager: bool, q: Tensor, k: Tensor, v: Tensor, segments: Segments, dropout: float) -> Tensor:
        """One batched call per length: no mask, and no score between two segments is ever computed."""
        outputs = []
        start = 0
        for count, length in segments.runs:
            stop = start + count * length
            # [count * length, heads, dim] -> [count, heads, length, dim]
            qs, ks, vs = (t[start:stop].view(count, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
            if eager:
                scores = (qs @ ks.transpose(2, 3) * self.scaling).softmax(-1, dtype=torch.float32).to(vs.dtype)
                mixed = F.dropout(scores, dropout, self.training) @ vs
            else:
                mixed = F.scaled_dot_product_attention(qs, ks, vs, dropout_p=dropout, scale=self.scaling)
            outputs.append(mixed.transpose(1, 2).reshape(stop - start, -1))
            start = stop
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class KeyeVisionMLP(nn.Module):
    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__()
        self.act = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class KeyeVisionLayer(GradientCheckpointingLayer):
    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = KeyeVisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = KeyeVisionMLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), rotary, segments)
        return x + self.mlp(self.layer_norm2(x))


class KeyeVisionEncoder(nn.Module):
    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([KeyeVisionLayer(config) for _ in range(config.num_hidden_layers)])


class KeyeVisionTransformer(nn.Module):
    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__()
        self.embeddings = KeyeVisionEmbeddings(config)
        self.encoder = KeyeVisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class KeyeVisionModel(PreTrainedModel):
    """The published `visual.`: everything is under `vision_model`. The unused pooling head is not built."""

    config_class = KeyeVisionConfig
    config: KeyeVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    input_modalities = ["image", "video"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["KeyeVisionLayer", "KeyeVisionEmbeddings"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: KeyeVisionConfig) -> None:
        super().__init__(config)
        self.vision_model = KeyeVisionTransformer(config)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.embeddings.patch_embedding

    def forward(self, pixel_values: Tensor, grid_thw: Tensor, per_frame: bool = False) -> Tensor:
        """Encode packed items in one pass.

        `pixel_values` [patches, channels, side, side], items one after the other, patches in raster order per frame;
        `grid_thw` [items, 3] in patches. An item is one sequence; with `per_frame` (1.5), or where the configuration's
        `attention_span` is "frame", each of its frames is: time and memory then grow with the frames, not their square.
        Returns [patches, hidden] in the order of the input. Raises EngineError if the counts do not agree."""
        grids = grid_rows(grid_thw)
        patches = sum(t * h * w for t, h, w in grids)
        if not grids or patches != pixel_values.shape[0] or min(min(grid) for grid in grids) < 1:
            raise EngineError(
                f"The grids describe {patches} patches but {pixel_values.shape[0]} were given; "
                "pass the pixel values and the grid of one processor call together."
            )
        per_frame = per_frame or self.config.attention_span == "frame"
        lengths = [n for t, h, w in grids for n in ([h * w] * t if per_frame else [t * h * w])]
        x = self.vision_model.embeddings(pixel_values, grids)
        segments, order = plan_segments(lengths, x.device)
        rows, columns = _coordinates(grids, x.device)
        if order is not None:
            x, rows, columns = x[order], rows[order], columns[order]
        rotary = _angles(rows, columns, self.config.head_dim)
        for layer in self.vision_model.encoder.layers:
            x = layer(x, rotary, segments)
        x = self.vision_model.post_layernorm(x)
        if order is not None:
            x = torch.empty_like(x).index_copy(0, order, x)
        return x


def _coordinates(grids: list[tuple[int, int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every patch within its frame, float32 [patches]; time does not enter."""
    rows, columns = [], []
    for t, h, w in grids:
        rows.append(torch.arange(h).repeat_interleave(w).repeat(t))
        columns.append(torch.arange(w).repeat(t * h))
    return torch.cat(rows).to(device, torch.float32), torch.cat(columns).to(device, torch.float32)


def _angles(rows: Tensor, columns: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [patches, 1, head_dim / 2]: the first half of the angles turns with the row."""
    quarter = torch.arange(head_dim // 4, device=rows.device, dtype=torch.float32)
    frequencies = 1.0 / (_ROPE_THETA ** (2 * quarter / (head_dim // 2)))
    angles = torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), dim=1).unsqueeze(1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [patches, heads, dim]; channel i turns with channel i + dim/2, in float32."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)
