"""What was read before is not read again: a prompt that begins like one of the last goes on from its keys and values.

An answer that is continued (a tool's result, a closed thought) repeats its whole prompt but for the end, and so does
the next question of a conversation about the same clip; the clip is the expensive part of both."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engine.video.types import Frames

Media = Sequence[Frames | np.ndarray]


@dataclass
class Kept:
    """A prompt that was read, and what was generated after it; `ids` grows as the cache does."""

    ids: list[int]
    media: Media
    cache: Any
    growing: bool = False  # an answer is being written into it: another one needs a copy

    def shared(self, ids: list[int], media: Media, placeholders: frozenset[int]) -> int:
        """How many tokens at the front of another prompt need not be read again; 0 where that is of no use.

        At least one token is left to be read. All media of this prompt must lie in what is shared: the placeholders of
        two pictures of one size look the same."""
        known = self.ids[: self.cache.get_seq_length()]
        most = min(len(known), len(ids) - 1)
        count = next((i for i in range(most) if known[i] != ids[i]), most)
        if not same_media(self.media, media[: len(self.media)]):
            return 0
        if any(token in placeholders for token in known[count:]) or ids[count] in placeholders:
            return 0
        if any(isinstance(item, Frames) for item in media[len(self.media) :]):
            return 0  # a further clip: rare, and not worth the cutting of its grids
        return count


def same_media(one: Media, other: Media) -> bool:
    """Whether two lists hold the very same pictures. Compared as objects: clips come from one cache."""
    return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))


def _same(one: Frames | np.ndarray, other: Frames | np.ndarray) -> bool:
    if isinstance(one, Frames) and isinstance(other, Frames):
        pictures = zip(one.images, other.images, strict=False)
        return one.times == other.times and one.start == other.start and all(a is b for a, b in pictures)
    return one is other


def rest_of(model: Any, inputs: dict[str, Any], kept: Kept, count: int) -> dict[str, Any]:
    """The model's arguments for what is left of a prompt when `kept` holds its first `count` tokens.

    Positions are those that the whole prompt has."""
    if spare := kept.cache.get_seq_length() - count:
        kept.cache.crop(-spare)
    ids = inputs["input_ids"]
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    positions, deltas = model.get_rope_index(ids, **{name: inputs.get(name) for name in names})
    rest = {
        "input_ids": ids[:, count:],
        "position_ids": positions[:, :, count:],
        "rope_deltas": deltas,
        "past_key_values": kept.cache,
    }
    before = sum(not isinstance(item, Frames) for item in kept.media)
    grids = inputs.get("image_grid_thw")
    if grids is not None and len(grids) > before:
        patches = int(grids[:before].prod(1).sum()) if before else 0
        rest |= {"image_grid_thw": grids[before:], "pixel_values": inputs["pixel_values"][patches:]}
    return rest


def begin(model: Any, inputs: dict[str, Any], media: Media, known: list[Kept]) -> tuple[dict[str, Any], Kept]:
    """The arguments of the first forward pass of a prompt, and what is to be kept of it (its cache comes with it).

    It goes on from whichever of `known` holds most of it. That one is taken out of the list, as its cache grows on
    with this prompt, unless another answer is being written into it: then this one gets a copy."""
    ids: list[int] = inputs["input_ids"][0].tolist()
    config = model.config
    placeholders = frozenset((config.image_token_id, config.video_token_id))
    counts = [kept.shared(ids, media, placeholders) if kept.cache is not None else 0 for kept in known]
    count = max(counts, default=0)
    if not count:
        return inputs, Kept(ids, media, None)
    best = counts.index(count)
    with torch.inference_mode():
        growing = known[best].growing
        kept = replace(known[best], cache=copy.deepcopy(known[best].cache)) if growing else known.pop(best)
        return rest_of(model, inputs, kept, count), Kept(ids, media, kept.cache)
