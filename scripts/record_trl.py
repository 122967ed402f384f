"""Records tests/golden/trl_losses.json: what TRL's own code makes of made-up log-probabilities, as a second opinion on
ours. TRL is no part of the project; give it a virtual environment of its own:

    python -m venv trl-only && trl-only/bin/pip install trl==1.16.0 torch transformers==5.19.0
    trl-only/bin/python scripts/record_trl.py

The trainers' methods are called as they are, on a model that answers with the log-probabilities. Chosen answers are of
one length, because TRL takes the mean likelihood over all tokens of a batch and the published loss that of each answer.
TRL's quality loss has no shift."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from trl import DPOTrainer, GRPOTrainer

OUT = Path(__file__).resolve().parents[1] / "tests" / "golden" / "trl_losses.json"
LOCAL = SimpleNamespace(
    device=torch.device("cpu"),
    gather=lambda x: x,
    gather_for_metrics=lambda x: x,
    reduce=lambda x, reduction: x,
)


def preference() -> dict[str, Any]:
    """Two chosen answers of four tokens, then two rejected ones of two and five; the prompt is the first token."""
    torch.manual_seed(0)
    lengths, width = (4, 4, 2, 5), 5
    mask = torch.tensor([[0] + [1] * n + [0] * (width - n) for n in lengths])
    found = -torch.rand(4, width, dtype=torch.float64) * 3
    found = (found * mask[:, 1:]).requires_grad_()
    reference = -torch.rand(4, dtype=torch.float64) * 8
    output = SimpleNamespace(
        log_probs=found,
        entropy=torch.zeros(4, width),
        mean_logits=torch.zeros(4, width),
        is_top1=torch.zeros(4, width, dtype=torch.bool),
    )
    itself: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=LOCAL,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid", "bco_pair", "sft"],
        loss_weights=[0.8, 0.2, 1.0],
        beta=0.1,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros(4, width + 1, dtype=torch.long),
        "attention_mask": torch.ones(4, width + 1, dtype=torch.long),
        "completion_mask": mask,
        "ref_chosen_logps": reference[:2],
        "ref_rejected_logps": reference[2:],
    }
    loss = DPOTrainer._compute_loss(itself, lambda **_: output, inputs, False)
    (gradient,) = torch.autograd.grad(loss, found)
    kept = mask[:, 1:].bool()
    return {
        "lengths": lengths,
        "log_probs": [row[keep].tolist() for row, keep in zip(found, kept, strict=True)],
        "reference": reference.tolist(),
        "loss": loss.item(),
        "gradient": [row[keep].tolist() for row, keep in zip(gradient, kept, strict=True)],
    }


def reinforcement() -> dict[str, Any]:
    """Four answers of one to six tokens, clip 0.2, divergence 0.05."""
    torch.manual_seed(1)
    lengths, width = (1, 6, 3, 4), 6
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    found = (-torch.rand(4, width, dtype=torch.float64) * 2).requires_grad_()
    old = found.detach() + 0.5 * torch.randn(4, width, dtype=torch.float64)
    reference = found.detach() + 0.3 * torch.randn(4, width, dtype=torch.float64)
    advantages = torch.tensor([1.2, -0.4, 0.6, -1.4], dtype=torch.float64)
    itself: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=LOCAL,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.05,
        loss_type="grpo",
        epsilon_low=0.2,
        epsilon_high=0.2,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (found, torch.zeros(4, width), None),
    )
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(4, width, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }
    loss = GRPOTrainer._compute_loss(itself, None, inputs)
    (gradient,) = torch.autograd.grad(loss, found)
    kept = mask.bool()
    return {
        "lengths": lengths,
        **{
            name: [row[keep].tolist() for row, keep in zip(values, kept, strict=True)]
            for name, values in (("log_probs", found), ("old", old), ("reference", reference), ("gradient", gradient))
        },
        "advantages": advantages.tolist(),
        "loss": loss.item(),
        "divergence": itself._metrics["train"]["kl"][0],
    }


if __name__ == "__main__":
    facts = {"trl": trl.__version__, "torch": torch.__version__}
    facts |= {"preference": preference(), "reinforcement": reinforcement()}
    OUT.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print(OUT)
