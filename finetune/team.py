"""Several processes that train one model: each takes its own batches, all take the same step."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Team:
    """Which one of `size` processes this is; `rank` 0 writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, rank: int, size: int, meeting: Path) -> Team:
        """Meet the others over the file `meeting`, on this machine only."""
        if size > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            dist.init_process_group(
                "gloo",
                init_method=f"file://{meeting.resolve()}",
                rank=rank,
                world_size=size,
                timeout=timedelta(minutes=20),
            )
        return cls(rank, size)

    def average_gradients(self, parameters: Iterable[Any]) -> None:
        """Every gradient becomes the mean over the processes, in one message. One that is missing counts as zero, so
        that a process whose batch had no picture does not keep the others waiting."""
        if self.size == 1:
            return
        chosen = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chosen])
        dist.all_reduce(flat)
        flat /= self.size
        for p, part in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
            p.grad = part.view_as(p)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()
