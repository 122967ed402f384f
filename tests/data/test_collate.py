"""Packing changes no value and no gradient; the plan gives every row once and every process as many steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.keye import KeyeForConditionalGeneration
from finetune.data.collate import collate, plan_epoch, read
from finetune.data.conversations import Conversations, Example
from finetune.data.rows import parse_row
from finetune.training.losses import IGNORE, next_token_loss
from tests.data.talks import talk


@pytest.fixture
def examples(conversations: Conversations, folder: Path) -> list[Example]:
    rows = [
        talk("<video>What colour is the heart?", "Orange.", "And?", "No more.", videos=["a.mp4"]),
        talk("Hello", "Hello."),
        talk("<image>What?", "A red star.", images=["p.png"]),
        talk("<image><video>Two", "Both.", images=["q.jpg"], videos=[{"path": "b.mp4", "end": 2}]),
        talk("Who are you?", "A small model."),
    ]
    return [conversations.example(parse_row(row, folder, "x")) for row in rows]


def alone(model: KeyeForConditionalGeneration, example: Example) -> Tensor:
    """The logits of one conversation by the model's own forward, without packing."""
    return model(
        input_ids=example.input_ids[None],
        position_ids=example.position_ids[:, None],
        pixel_values=example.pixel_values,
        image_grid_thw=example.image_grid_thw,
        pixel_values_videos=example.pixel_values_videos,
        video_grid_thw=example.video_grid_thw,
        use_cache=False,
    ).logits[0]


def loss_alone(model: KeyeForConditionalGeneration, example: Example) -> Tensor:
    logits = alone(model, example)[:-1]
    return torch.nn.functional.cross_entropy(logits, example.labels[1:], ignore_index=IGNORE, reduction="sum")


def test_packed_logits_are_those_of_each_alone(model: KeyeForConditionalGeneration, examples: list[Example]) -> None:
    batch = collate(examples)
    with torch.no_grad():
        packed = model.lm_head(read(model, batch))[0]
        separate = torch.cat([alone(model, e) for e in examples])
    assert packed.shape == separate.shape
    assert float((packed - separate).abs().max()) <= 1e-5 * float(separate.abs().max())
    assert batch.learnt == sum(e.learnt for e in examples) and batch.examples == 5


def test_packed_gradients_are_the_sum_of_each_alone(
    model: KeyeForConditionalGeneration, examples: list[Example]
) -> None:
    def gradients(loss: Tensor) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    batch = collate(examples)
    total, count = next_token_loss(read(model, batch), model.lm_head.weight, batch.labels, chunk=7)
    packed = gradients(total / count)
    separate = gradients(sum(loss_alone(model, e) for e in examples) / count)  # type: ignore[arg-type]
    assert set(packed) == set(separate)
    assert any(name.startswith("visual.") for name in packed)
    scale = max(float(g.abs().max()) for g in separate.values())
    for name, wanted in separate.items():
        assert float((packed[name] - wanted).abs().max()) <= 1e-5 * scale, name


def test_a_conversation_does_not_see_the_one_before(
    model: KeyeForConditionalGeneration, examples: list[Example]
) -> None:
    """Another first conversation changes nothing in the second."""
    last = len(examples[2].input_ids)
    with torch.no_grad():
        one = read(model, collate([examples[0], examples[2]]))[0, -last:]
        other = read(model, collate([examples[4], examples[1], examples[2]]))[0, -last:]
    assert float((one - other).abs().max()) <= 1e-5 * float(one.abs().max())


def test_the_tower_runs_once_whatever_there_is_to_see(
    model: KeyeForConditionalGeneration, examples: list[Example]
) -> None:
    calls: list[int] = []
    hook = model.visual.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    try:
        for chosen in (examples, examples[1:2], examples[2:3], []):
            model.zero_grad(set_to_none=True)
            batch = collate(chosen)
            loss, _ = next_token_loss(read(model, batch), model.lm_head.weight, batch.labels)
            loss.backward()
            # Every parameter has a gradient on every process, or sharded ones would wait for each other.
            missing = [name for name, p in model.named_parameters() if p.grad is None]
            assert not missing
    finally:
        hook.remove()
    assert len(calls) == 4
    assert calls[1] == calls[3] == 4  # four patches that count for nothing
    assert not model.visual.vision_model.post_layernorm.weight.grad.any()


def test_with_recomputed_activations_the_gradients_are_the_same(
    model: KeyeForConditionalGeneration, examples: list[Example]
) -> None:
    found = []
    try:
        for recompute in (False, True):
            model.train()
            if recompute:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            model.zero_grad(set_to_none=True)
            batch = collate(examples)
            layers: list[int] = []
            hook = model.model.layers[0].input_layernorm.register_forward_hook(lambda *_, seen=layers: seen.append(1))
            next_token_loss(read(model, batch), model.lm_head.weight, batch.labels)[0].backward()
            hook.remove()
            assert len(layers) == 1 + recompute
            found.append([p.grad.clone() for p in model.parameters()])
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# -- the plan ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=80),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_every_row_once_and_as_many_batches_for_all(
    lengths: list[int], processes: int, accumulate: int, epoch: int
) -> None:
    multiple = processes * accumulate
    plan = plan_epoch(lengths, 600, "seed", epoch, multiple)
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in batch) <= 600 for batch in plan)
    assert len(plan) % multiple == 0 and len(plan) > 0
    assert len({len(plan[rank::processes]) for rank in range(processes)}) == 1
    assert plan == plan_epoch(lengths, 600, "seed", epoch, multiple)
    assert len(plan) == len(plan_epoch(lengths, 600, "seed", epoch + 1, multiple))
    assert all(plan) or max(map(len, plan)) <= 1  # no process idles while there are rows to divide


def test_batches_are_full_and_epochs_differ() -> None:
    lengths = [50 + (i * 37) % 400 for i in range(3000)]
    plans = [plan_epoch(lengths, 4096, "s", epoch, 2) for epoch in range(3)]
    for plan in plans:
        assert len(plan) <= 1.05 * sum(lengths) / 4096  # at most a twentieth is left free
    assert len({tuple(map(tuple, plan)) for plan in plans}) == 3
    assert plan_epoch(lengths, 4096, "other", 0, 2) != plans[0]
    order = [batch[0] for batch in plans[0]]
    assert order != sorted(order)
