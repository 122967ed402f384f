"""A step without the library's bookkeeping makes the logits that the whole model makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.keye import load_model, step
from engine.keye.step import steps_for

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def read(folder: str, case: str) -> tuple[Any, dict[str, torch.Tensor]]:
    recorded = load_file(GOLDEN / folder / f"{case}.safetensors")
    names = ("input_ids", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    model = load_model(GOLDEN / folder, dtype=torch.float32)
    return model, {name: recorded[name] for name in names if name in recorded}


@pytest.mark.parametrize(("folder", "case"), [("A", "video_3fps"), ("B", "video_3fps"), ("A15", "video_slowfast")])
def test_logits_are_those_of_the_whole_model_also_after_the_room_was_outgrown(
    folder: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_ROOM", 3)
    model, inputs = read(folder, case)
    tokens = torch.randint(10, 100, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, other = (model(**inputs, use_cache=True, logits_to_keep=1) for _ in range(2))
        one = steps_for(model, first.past_key_values)
        assert one is not None
        length = other.past_key_values.get_seq_length()
        for i, token in enumerate(tokens[0]):
            position = length + i + other.rope_deltas
            made = one(token.view(1, 1), position)
            whole = model(
                input_ids=token.view(1, 1),
                position_ids=position.expand(3, 1, 1),
                past_key_values=other.past_key_values,
                use_cache=True,
            )
            torch.testing.assert_close(made, whole.logits, atol=1e-4, rtol=1e-4)
        assert first.past_key_values.get_seq_length() == length + 12
        for kept, known in zip(first.past_key_values.layers, other.past_key_values.layers, strict=True):
            torch.testing.assert_close(kept.keys, known.keys, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(kept.values, known.values, atol=1e-5, rtol=1e-4)


def test_in_half_the_width_too() -> None:
    """bfloat16 has three digits: the steps must not lie farther from float32 than the whole model does."""
    model, inputs = read("A", "text_only")
    ids = inputs["input_ids"]
    token = torch.tensor([[11]])
    found = {}
    for name, dtype in (("exact", torch.float32), ("half", torch.bfloat16)):
        model = model.to(dtype)
        with torch.inference_mode():
            first, other = (model(input_ids=ids, use_cache=True) for _ in range(2))
            position = torch.tensor([[ids.shape[1]]]) + first.rope_deltas
            one = steps_for(model, first.past_key_values)
            assert one is not None
            found[name] = one(token, position).float()
            positions = position.expand(3, 1, 1)
            whole = model(input_ids=token, position_ids=positions, past_key_values=other.past_key_values)
            found[f"{name}, whole"] = whole.logits.float()
    apart = (found["half"] - found["exact"]).abs().max()
    assert apart <= 2 * (found["half, whole"] - found["exact, whole"]).abs().max() + 1e-3


def test_a_model_that_something_watches_is_called_as_a_whole() -> None:
    model, inputs = read("A", "text_only")
    cache = model(input_ids=inputs["input_ids"], use_cache=True).past_key_values
    assert steps_for(model, cache) is not None
    handle = model.model.layers[0].mlp.register_forward_hook(lambda module, args, output: None)
    assert steps_for(model, cache) is None
    handle.remove()
    cache.batch_repeat_interleave(2)
    assert steps_for(model, cache) is None
