"""Batches of the world made ahead by other processes: a GPU learns from one sooner than a processor makes the next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from finetune.training.trainer import Source

MOST = 8
"""Processes that make batches for one that learns."""

_ROOM = 2 << 30
"""Bytes of shared memory that what is made ahead may need."""


class Ahead:
    """A source whose next batches other processes make while the model learns from this one. They are the same batches:
    a source makes each by its number alone, and none of them knows of the others."""

    def __init__(self, source: Source, workers: int) -> None:
        """`source` is sent to the processes, so it must be one that can be pickled."""
        self.steps = source.steps
        self._source, self._workers = source, workers
        self._next = -1
        self._made: Iterator[Any] = iter(())

    def make(self, number: int) -> Any:
        if number != self._next:
            self._made = iter(self._loader(number))
        self._next = number + 1
        return next(self._made)

    def learnt(self, batch: Any) -> int:
        return self._source.learnt(batch)

    def size(self, batch: Any) -> tuple[int, int]:
        return self._source.size(batch)

    def _loader(self, first: int) -> DataLoader[Any]:
        return DataLoader(
            _Numbered(self._source),
            batch_size=None,
            sampler=count(first),
            num_workers=self._workers,
            collate_fn=_as_it_is,
            multiprocessing_context="spawn",  # a process that was forked from one with a GPU cannot be relied on
        )


class _Numbered(Dataset[Any]):
    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, number: int) -> Any:
        return self._source.make(number)


def _as_it_is(batch: Any) -> Any:
    return batch


def ahead(source: Source, processes: int) -> Source:
    """The same source, made ahead where a GPU learns from it and the machine has room, in as many processes as its
    cores allow where `processes` learn. Where a processor learns, all cores have enough to do."""
    workers = min(MOST, (os.cpu_count() or 1) // processes - 1)
    if not torch.cuda.is_available() or workers < 1:
        return source
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < _ROOM:
        return source
    return Ahead(source, workers)
