"""Three-dimensional position ids: time, row and column of every token (technical report §2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import EngineError

Grids = Tensor | Sequence[Sequence[int]] | None


@dataclass(frozen=True)
class PositionRule:
    """What the positions of a checkpoint depend on.

    With `per_frame` (1.5) every frame is a block of its own at time zero and the text between frames moves on; without
    it (Preview) a video is one block whose frames lie `seconds × tokens_per_second` apart."""

    image_token_id: int
    video_token_id: int
    merge: int = 2
    tokens_per_second: int = 2
    per_frame: bool = False


def grid_rows(grid_thw: Grids) -> list[tuple[int, int, int]]:
    """[n, 3] (frames, patch rows, patch columns) as Python numbers; None is no rows."""
    if grid_thw is None:
        return []
    rows = grid_thw.tolist() if isinstance(grid_thw, Tensor) else grid_thw
    return [(int(t), int(h), int(w)) for t, h, w in rows]


def frame_times(frames: int, seconds_per_frame: float, tokens_per_second: int) -> Tensor:
    """int64 [frames]: the time id of each frame. In float32 and truncated, as published: 1/3 s gives 0 0 1 2 2 …"""
    seconds = torch.arange(frames, dtype=torch.float32) * torch.tensor(seconds_per_frame, dtype=torch.float32)
    return (seconds * tokens_per_second).long()


def rope_index(
    input_ids: Tensor,
    rule: PositionRule,
    *,
    attention_mask: Tensor | None = None,
    image_grid_thw: Grids = None,
    video_grid_thw: Grids = None,
    second_per_grid_ts: Tensor | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Position ids and the distance between a sequence's length and its next position.

    `input_ids` [batch, length]; `attention_mask` [batch, length], 0 for padding on either side; the grids are in
    patches, one row per item (1.5: per run of equal frames) in reading order over the batch;
    `second_per_grid_ts` [videos], missing means 1 s between frames.
    Returns int64 [3, batch, length] (padding gets 1) and int64 [batch, 1]: next position = length + delta, where the
    length includes padding. Raises EngineError if placeholders and grids do not agree."""
    device = input_ids.device
    images, videos = grid_rows(image_grid_thw), grid_rows(video_grid_thw)
    if second_per_grid_ts is None:
        seconds = [1.0] * len(videos)
    else:
        seconds = [float(s) for s in torch.as_tensor(second_per_grid_ts).reshape(-1).tolist()]
        if not rule.per_frame and len(seconds) < len(videos):
            raise EngineError(f"There are {len(videos)} videos but {len(seconds)} frame intervals; give one for each.")
    queues = {
        rule.image_token_id: _items(images, None, rule),
        rule.video_token_id: _items(videos, seconds, rule),
    }
    batch, length = input_ids.shape
    ids = input_ids.cpu()
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask.cpu()
    positions = torch.ones(3, batch, length, dtype=torch.long)
    deltas = torch.zeros(batch, 1, dtype=torch.long)
    media = bool(images or videos)
    for row in range(batch):
        keep = mask[row].bool()
        tokens = ids[row][keep]
        blocks, end = _blocks(tokens, queues if media else {})
        if blocks:
            positions[:, row, keep] = torch.cat(blocks, dim=1)
        deltas[row, 0] = end - length
    left = sum(len(queue) for queue in queues.values())
    if left:
        raise EngineError(
            f"{left} pictures, clips or frames have no placeholder in the text; "
            "write one image or video placeholder for each of them."
        )
    return positions.to(device), deltas.to(device)


def _items(
    grids: list[tuple[int, int, int]], seconds: list[float] | None, rule: PositionRule
) -> list[tuple[Tensor, int]]:
    """One entry per block of placeholders, last first: its ids from zero [3, tokens] and how far it moves on."""
    made = []
    for i, (t, h, w) in enumerate(grids):
        rows, columns = h // rule.merge, w // rule.merge
        if t < 1 or rows < 1 or columns < 1:
            raise EngineError(
                f"The grid {[t, h, w]} is empty; give at least one frame of {rule.merge} by {rule.merge}."
            )
        if rule.per_frame:
            made += [_block(torch.zeros(1, dtype=torch.long), rows, columns)] * t
        elif seconds is None:
            made.append(_block(torch.zeros(t, dtype=torch.long), rows, columns))
        else:
            made.append(_block(frame_times(t, seconds[i], rule.tokens_per_second), rows, columns))
    made.reverse()
    return made


def _block(times: Tensor, rows: int, columns: int) -> tuple[Tensor, int]:
    t = times[:, None, None].expand(-1, rows, columns)
    r = torch.arange(rows)[None, :, None].expand_as(t)
    c = torch.arange(columns)[None, None, :].expand_as(t)
    return torch.stack((t, r, c)).reshape(3, -1), max(int(times.max()), rows - 1, columns - 1) + 1


def _blocks(tokens: Tensor, queues: dict[int, list[tuple[Tensor, int]]]) -> tuple[list[Tensor], int]:
    """The ids of one unpadded sequence in pieces, and the position after it. Text between items is one piece each."""
    marked = torch.zeros_like(tokens, dtype=torch.bool)
    for token in queues:
        marked |= tokens == token
    places = marked.nonzero().flatten().tolist()
    pieces: list[Tensor] = []
    start = at = 0
    for place in places:
        if place < at:
            continue  # inside the item before
        token = int(tokens[place])
        if not queues[token]:
            raise EngineError(
                "The text has more image or video placeholders than pictures or clips; give one for each."
            )
        block, step = queues[token].pop()
        stop = place + block.shape[1]
        if stop > len(tokens) or not bool((tokens[place:stop] == token).all()):
            raise EngineError(
                f"An item needs {block.shape[1]} placeholders but the text holds fewer in a row; "
                "let the processor write the placeholders."
            )
        if place > at:
            pieces.append((torch.arange(place - at) + start).expand(3, -1))
            start += place - at
        pieces.append(block + start)
        start += step
        at = stop
    if len(tokens) > at:
        pieces.append((torch.arange(len(tokens) - at) + start).expand(3, -1))
        start += len(tokens) - at
    return pieces, start
