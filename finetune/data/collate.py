"""Conversations to batches: packed into one sequence, planned so that every process takes as many steps.

A batch is one sequence of several conversations one after the other, each with positions of its own from zero. The
decoder keeps them apart by the first row of `position_ids` (a mask under SDPA, boundaries under flash attention), so
every value is what the conversation alone gives, and nothing is ever padded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from engine.keye import KeyeForConditionalGeneration
from finetune.data.conversations import Example
from finetune.training.losses import IGNORE, token_log_probs

WINDOW = 1024
"""Rows among which those are sought that fill a batch together."""

Plan = list[list[int]]
"""Of every batch, the rows in it."""


@dataclass
class Batch:
    """Packed conversations; media of all of them one after the other, pictures and clips apart."""

    input_ids: Tensor  # int64 [1, length]
    labels: Tensor  # int64 [1, length]
    position_ids: Tensor  # int64 [4, 1, length]: count within the conversation, time, row, column
    pixel_values: Tensor | None  # float32 [patches, 3, side, side]
    image_grid_thw: Tensor | None
    pixel_values_videos: Tensor | None
    video_grid_thw: Tensor | None
    examples: int
    shared: tuple[tuple[int, int, int], ...] = ()
    """Where conversations see the same: how many do, and the rows of that in `image_grid_thw` and `video_grid_thw`.
    It is given and encoded once."""

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=True)
        return Batch(**moved)

    @property
    def learnt(self) -> int:
        return int((self.labels[:, 1:] != IGNORE).sum())


def collate(examples: Sequence[Example], filler: int = 0) -> Batch:
    """Pack examples in their order. None at all give one token `filler` that is not learnt, for a process that must
    take the step with the others."""
    if not examples:
        nothing = torch.zeros(3, 1, dtype=torch.long)
        return replace(collate([Example(torch.tensor([filler]), torch.tensor([IGNORE]), nothing)]), examples=0)
    counts = torch.cat([torch.arange(len(e.input_ids)) for e in examples])
    media = {
        name: [value for e in examples if (value := getattr(e, name)) is not None]
        for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    }
    return Batch(
        torch.cat([e.input_ids for e in examples])[None],
        torch.cat([e.labels for e in examples])[None],
        torch.cat((counts[None], torch.cat([e.position_ids for e in examples], dim=1)))[:, None],
        examples=len(examples),
        **{name: torch.cat(several) if several else None for name, several in media.items()},  # type: ignore[arg-type]
    )


def collate_shared(groups: Sequence[Sequence[Example]]) -> Batch:
    """Pack conversations of which those of one group see the same (finetune.data.conversations.Prompt): it goes
    through the tower once, however many they are."""
    groups = [group for group in groups if group]
    if not groups:
        return collate([])
    batch = collate([_unseen(e) if i else e for group in groups for i, e in enumerate(group)])
    batch.shared = tuple((len(g), _rows(g[0].image_grid_thw), _rows(g[0].video_grid_thw)) for g in groups)
    return batch


def _unseen(example: Example) -> Example:
    return replace(example, pixel_values=None, image_grid_thw=None, pixel_values_videos=None, video_grid_thw=None)


def _rows(grid: Tensor | None) -> int:
    return 0 if grid is None else len(grid)


def _spread(features: Tensor | None, grid: Tensor | None, merge: int, groups: list[tuple[int, int]]) -> Tensor | None:
    """What is seen [tokens, hidden], as often as there are conversations that see it; `groups` are how many those are,
    and how many rows of `grid` they see."""
    if features is None or grid is None:
        return None
    items = iter(features.split((grid.prod(1) // merge**2).tolist()))
    out: list[Tensor] = []
    for times, rows in groups:
        out += [next(items) for _ in range(rows)] * times
    return torch.cat(out)


def read(model: KeyeForConditionalGeneration, batch: Batch) -> Tensor:
    """[1, length, hidden]: what the decoder hands to its head, in one pass of the tower and one of the decoder.

    Tower and projector take part in every batch: where it holds nothing to see, with four patches that count for
    nothing. With sharded weights the processes would otherwise wait for each other for ever."""
    visual = {
        name: getattr(batch, name)
        for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    }
    if batch.shared:
        images, videos = model.visual_features(
            batch.pixel_values, batch.image_grid_thw, None, batch.pixel_values_videos, batch.video_grid_thw, None
        )
        merge = model.config.vision.spatial_merge_size
        visual = {
            "image_embeds": _spread(images, batch.image_grid_thw, merge, [(n, i) for n, i, _ in batch.shared]),
            "video_embeds": _spread(videos, batch.video_grid_thw, merge, [(n, v) for n, _, v in batch.shared]),
        }
    embeds = model.embed(batch.input_ids, **visual)
    if batch.pixel_values is None and batch.pixel_values_videos is None:
        vision, merge = model.config.vision, model.config.vision.spatial_merge_size
        patches = embeds.new_zeros(merge**2, vision.num_channels, vision.patch_size, vision.patch_size)
        grid = torch.tensor([[1, merge, merge]], device=embeds.device)
        embeds = embeds + 0 * torch.cat(model.encode_visual(patches, grid)).sum().to(embeds.dtype)
    out = model.model(inputs_embeds=embeds, position_ids=batch.position_ids, use_cache=False)
    hidden: Tensor = out.last_hidden_state
    return hidden


def learnt_log_probs(model: KeyeForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """float32 [learnt]: the log-probability of every learnt token, with gradients; int64 [learnt]: the conversation of
    the batch that it belongs to. Batches are moved to the model's device."""
    head: Tensor = model.lm_head.weight
    batch = batch.to(head.device)
    targets = batch.labels[0, 1:]
    kept = targets != IGNORE
    which = (batch.position_ids[0, 0] == 0).cumsum(0)[1:] - 1
    return token_log_probs(read(model, batch)[0, :-1][kept], head, targets[kept]), which[kept]


def plan_epoch(lengths: Sequence[int], most: int, seed: str, epoch: int, multiple: int) -> Plan:
    """Which rows make which batch in an epoch, the same for the same arguments.

    Every row stands in exactly one batch, and the tokens of a batch are at most `most` (unless one row alone has
    more). The number of batches is a multiple of `multiple` and the same in every epoch: batches are divided until it
    is, and where no batch has two rows to divide, some stay empty. Process r of n takes every nth batch from r on."""
    first = _evened(_filled(lengths, most, f"{seed}-0"), multiple)
    rng = random.Random(f"{seed}-{epoch}-order")
    if epoch:
        other = _filled(lengths, most, f"{seed}-{epoch}")
        if len(other) <= len(first):  # else the rows stay together as they were, in another order
            first = _evened(other, len(first))
    rng.shuffle(first)
    return first


def _filled(lengths: Sequence[int], most: int, seed: str) -> Plan:
    """Rows in random order; of every 1024, the longest first, each into the first batch that has room."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    plan: Plan = []
    for start in range(0, len(order), WINDOW):
        rows = sorted(order[start : start + WINDOW], key=lambda i: -lengths[i])
        batches: Plan = []
        room: list[int] = []
        for row in rows:
            at = next((i for i, free in enumerate(room) if lengths[row] <= free), None)
            if at is None:
                batches.append([row])
                room.append(most - lengths[row])
            else:
                batches[at].append(row)
                room[at] -= lengths[row]
        plan += batches
    return plan


def _evened(plan: Plan, multiple: int) -> Plan:
    plan = sorted(plan, key=len)
    while len(plan) % multiple:
        largest = plan.pop() if plan else []
        half = len(largest) // 2
        plan += [largest[:half], largest[half:]]
        plan.sort(key=len)
    return plan
