"""The projector: every 2×2 block of patches becomes one token of the decoder (technical report §2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.keye.configuration import KeyeConfig
from engine.keye.positions import grid_rows

_EPS = 1e-5  # fixed in the published projector, not a configuration field


class KeyeProjector(nn.Module):
    """The published `mlp_AR`. Preview normalises each patch, 1.5 (`norm_joined`) the joined block of four."""

    def __init__(self, config: KeyeConfig, norm_joined: bool = False) -> None:
        super().__init__()
        width = config.vision.hidden_size
        self.merge = config.vision.spatial_merge_size
        joined = width * self.merge**2
        self.norm_joined = norm_joined
        self.pre_norm = nn.LayerNorm(joined if norm_joined else width, eps=_EPS)
        self.linear_1 = nn.Linear(joined, joined)
        self.linear_2 = nn.Linear(joined, config.hidden_size)

    def forward(self, features: Tensor, grid_thw: Tensor) -> tuple[Tensor, ...]:
        """`features` [patches, vision hidden] of packed items -> one [tokens, hidden] per row of `grid_thw`."""
        grids = grid_rows(grid_thw)
        sizes = [t * h * w for t, h, w in grids]
        if not self.norm_joined:
            features = self.pre_norm(features)
        joined = self._join(features, grids, sizes)
        if self.norm_joined:
            joined = self.pre_norm(joined)
        tokens = self.linear_2(F.gelu(self.linear_1(joined)))
        return tokens.split([size // self.merge**2 for size in sizes])

    def _join(self, features: Tensor, grids: list[tuple[int, int, int]], sizes: list[int]) -> Tensor:
        """[patches, width] -> [patches / 4, 4 * width]: a block is top left, top right, bottom left, bottom right."""
        m = self.merge
        blocks = []
        for item, (t, h, w) in zip(features.split(sizes), grids, strict=True):
            split = item.view(t, h // m, m, w // m, m, -1).transpose(2, 3)
            blocks.append(split.reshape(t * (h // m) * (w // m), -1))
        return torch.cat(blocks)
