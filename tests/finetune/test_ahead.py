"""Batches that other processes make ahead are those that the source itself makes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.keye import KeyeProcessor, load_model
from finetune.recipe import Part
from finetune.stages.cold_start import Modes
from finetune.stages.reading import Start
from finetune.stages.vision import WorldPairs
from finetune.training import ahead
from finetune.training.ahead import Ahead

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"


@pytest.fixture(scope="module")
def start() -> Start:
    model: Any = load_model(NANO, dtype=torch.float32)
    return Start(model, KeyeProcessor.from_pretrained(NANO), NANO, None, "7", 0, 1)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def equal(one: Any, other: Any) -> bool:
    return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


@pytest.mark.parametrize("kind", ["pairs", "modes"])
def test_made_ahead_or_not_a_batch_is_the_same(start: Start, kind: str) -> None:
    source: Any = WorldPairs(start) if kind == "pairs" else Modes(start, Part(steps=9, lr=1e-4))
    made = Ahead(source, 2)
    for number in (4, 5, 6, 1):  # on in order, then back, as a run that is resumed begins
        batch = made.make(number)
        assert equal(batch, source.make(number))
        assert made.learnt(batch) == source.learnt(batch) > 0 and made.size(batch) == source.size(batch)
    assert not equal(made.make(2), source.make(3))


def test_they_are_made_ahead_for_a_gpu_with_room_and_cores(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    source = WorldPairs(start)
    monkeypatch.setattr(ahead.os, "cpu_count", lambda: 16)
    assert ahead.ahead(source, 1) is source  # a processor learns
    monkeypatch.setattr(ahead.torch.cuda, "is_available", lambda: True)
    assert isinstance(ahead.ahead(source, 1), Ahead) and isinstance(ahead.ahead(source, 8), Ahead)
    assert ahead.ahead(source, 16) is source
    monkeypatch.setattr(ahead.shutil, "disk_usage", lambda folder: type("Disk", (), {"free": 64 << 20}))
    assert ahead.ahead(source, 1) is source
