"""The losses against PyTorch's own, transformers' SigLIP and values worked by hand; and what they hold in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import SiglipConfig, SiglipModel

from finetune.training.losses import IGNORE, next_token_loss, siglip_loss, token_log_probs

BATCH, LENGTH, HIDDEN, VOCABULARY = 3, 50, 16, 997


def made(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    hidden = torch.randn(BATCH, LENGTH, HIDDEN, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=dtype, requires_grad=True)
    labels = torch.randint(VOCABULARY, (BATCH, LENGTH))
    labels[torch.rand(BATCH, LENGTH) < 0.4] = IGNORE
    return hidden, weight, labels


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    logits = (hidden @ weight.T)[:, :-1].reshape(-1, VOCABULARY)
    return F.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=IGNORE, reduction="sum")


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_chunks_change_neither_value_nor_gradients(chunk: int) -> None:
    hidden, weight, labels = made()
    count = int((labels[:, 1:] != IGNORE).sum())
    truth = plain(hidden, weight, labels) / count
    truths = torch.autograd.grad(truth, (hidden, weight))
    total, counted = next_token_loss(hidden, weight, labels, chunk)
    assert int(counted) == count
    assert abs((total / counted - truth).item()) <= 1e-6 * truth.item()
    for got, wanted in zip(torch.autograd.grad(total / counted, (hidden, weight)), truths, strict=True):
        assert float((got - wanted).abs().max()) <= 1e-6


def test_a_value_worked_by_hand() -> None:
    """Head and hidden states give the logits (0, ln 3): token 1 has probability 3/4, token 0 1/4."""
    weight = torch.tensor([[0.0], [math.log(3)]])
    log_probs = token_log_probs(torch.ones(2, 1), weight, torch.tensor([1, 0]))
    assert torch.allclose(log_probs.exp(), torch.tensor([0.75, 0.25]))
    # Labels stand at the token: the first cannot be predicted, the second is from the first place.
    total, count = next_token_loss(torch.ones(1, 3, 1), weight, torch.tensor([[0, 1, IGNORE]]))
    assert int(count) == 1
    assert float(total) == pytest.approx(-math.log(0.75), abs=1e-6)


def test_a_batch_that_teaches_nothing_still_has_gradients() -> None:
    hidden, weight, labels = made()
    total, count = next_token_loss(hidden, weight, torch.full_like(labels, IGNORE))
    total.backward()
    assert total.item() == 0 and int(count) == 0
    assert hidden.grad is not None and weight.grad is not None
    assert not hidden.grad.any() and not weight.grad.any()


class Largest(TorchDispatchMode):
    """The most elements that any tensor made under it has."""

    elements = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_more_than_one_chunk_of_logits_ever_exists() -> None:
    tokens, vocabulary, chunk = 4096, 5000, 64
    hidden = torch.randn(1, tokens, 8, requires_grad=True)
    weight = torch.randn(vocabulary, 8, requires_grad=True)
    labels = torch.randint(vocabulary, (1, tokens))
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Largest() as seen:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            total, _ = next_token_loss(hidden, weight, labels, chunk)
        total.backward()
    assert seen.elements == chunk * vocabulary  # 1/64 of all logits, forward and backward
    # Between forward and backward nothing of the vocabulary's size is kept but the head itself.
    assert sum(kept.values()) < 4 * (vocabulary * 8 + 8 * tokens * 8)
    with Largest() as whole:
        F.cross_entropy(hidden[0] @ weight.T, labels[0]).backward()
    assert whole.elements == tokens * vocabulary  # the measure sees what it should


def test_half_precision_is_summed_in_float32() -> None:
    hidden, weight, labels = made(dtype=torch.bfloat16)
    total, count = next_token_loss(hidden, weight, labels)
    truth = plain(hidden.float(), weight.float(), labels)
    assert total.dtype == torch.float32
    assert (total / count).item() == pytest.approx((truth / count).item(), rel=5e-3)


# -- SigLIP -----------------------------------------------------------------------------------------------------------


def test_siglip_by_hand() -> None:
    """Two orthogonal pairs, scale 2, bias -1: logits 1 on the diagonal, -1 off it, so every pair costs log(1+1/e)."""
    unit = torch.eye(2)
    assert float(siglip_loss(unit, unit, 2.0, -1.0)) == pytest.approx(2 * math.log(1 + math.exp(-1)), abs=1e-6)
    # Texts exchanged: 4 pairs with logits of the wrong sign, each log(1+e), over n = 2.
    swapped = siglip_loss(unit, unit.flip(0), 2.0, -1.0)
    assert float(swapped) == pytest.approx(2 * math.log(1 + math.exp(1)), abs=1e-6)
    # One pair: only its own question.
    one = torch.ones(1, 1)
    assert float(siglip_loss(one, one, 3.0, -3.0)) == pytest.approx(math.log(2), abs=1e-6)


def test_siglip_is_the_published_models_loss() -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = SiglipConfig(
        text_config={**small, "vocab_size": 50, "max_position_embeddings": 8, "projection_size": 32, **ends},
        vision_config={**small, "image_size": 28, "patch_size": 14},
    )
    model = SiglipModel(config).eval()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-2.5)
    ids = torch.randint(2, 50, (5, 8))
    out = model(input_ids=ids, pixel_values=torch.randn(5, 3, 28, 28), return_loss=True)
    ours = siglip_loss(out.image_embeds, out.text_embeds, model.logit_scale.exp(), model.logit_bias)
    assert ours.item() == pytest.approx(out.loss.item(), rel=1e-6)
    theirs = torch.autograd.grad(out.loss, (model.logit_scale, model.logit_bias), retain_graph=True)
    for got, wanted in zip(torch.autograd.grad(ours, (model.logit_scale, model.logit_bias)), theirs, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-5)


def test_siglip_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(ValueError, match="row by row"):
        siglip_loss(torch.ones(2, 3), torch.ones(3, 3), 1.0, 0.0)
