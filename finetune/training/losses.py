"""What is minimised: next tokens without ever holding all their logits, and pictures that should find their texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""A label that is not learnt."""

CHUNK = 1024
"""Tokens whose logits exist at the same time: 620 MB of float32 with Keye-VL's vocabulary of 151,936."""


def token_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """float32 [tokens]: the log-probability of each target, with gradients.

    `hidden` [tokens, hidden] is what the decoder hands to its head, `weight` [vocabulary, hidden] the head's,
    `targets` int64 [tokens]. Logits [chunk, vocabulary] live for one chunk at a time and are computed once more for
    its gradient. Tied to `hidden` and `weight` even where there is no token, so that every process has a gradient."""
    if chunk < 1:
        raise ValueError(f"A chunk holds at least one token, not {chunk}.")
    pieces = [
        checkpoint(_log_probs, h, weight, t, use_reentrant=False, preserve_rng_state=False)  # nothing in it is random
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat(pieces)


def _log_probs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, weight).float()
    return -F.cross_entropy(logits, targets, reduction="none")


def next_token_loss(hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy of the labels (float32) and their number (int64), both scalars.

    `hidden` [batch, length, hidden]; `labels` [batch, length] stand at the token itself and are predicted from the
    place before it; IGNORE is left out. The sum is divided by the number over all processes and accumulated
    batches, or each of them would count the same however few tokens it has. The first label of every packed sequence
    must be IGNORE, for the place before it belongs to another."""
    targets = labels[:, 1:]
    kept = targets != IGNORE
    log_probs = token_log_probs(hidden[:, :-1][kept], weight, targets[kept], chunk)
    return -log_probs.sum(), kept.sum()


def siglip_loss(image: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """The sigmoid contrastive loss of stage 0 (SigLIP, arXiv 2303.15343, algorithm 1), float32 scalar.

    `image` and `text` [n, dim] have length 1 and belong together row by row. Every pair is a question of its own,
    "do they belong together?", answered by `scale` · x·y + `bias` (the published parameters are log(scale), from
    log 10, and bias, from -10). The sum over all n² pairs is divided by n."""
    if image.shape != text.shape or image.ndim != 2 or not len(image):
        raise ValueError(f"Pictures {tuple(image.shape)} and texts {tuple(text.shape)} do not belong row by row.")
    logits = (image @ text.T).float() * scale + bias
    together = 2 * torch.eye(len(image), device=logits.device) - 1
    return -F.logsigmoid(together * logits).sum() / len(image)


# -- preferences ------------------------------------------------------------------------------------------------------

MPO_WEIGHTS = (0.8, 0.2, 1.0)
"""Of preference, quality and generation (MPO, arXiv 2411.10442, section 4.1; the report's section 4.1.2 cites it)."""


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """float32 [pairs]: how far the chosen answer is not preferred (DPO, arXiv 2305.18290, equation 7).

    `chosen` and `rejected` [pairs] are log π − log π_ref of the whole answers."""
    return -F.logsigmoid(beta * (chosen - rejected))


def bco_loss(chosen: Tensor, rejected: Tensor, beta: float, shift: Tensor | float) -> Tensor:
    """float32 [pairs]: how far each answer by itself is not told as good or bad (BCO, arXiv 2404.04656): the reward
    β·(log π − log π_ref) lies above the mean of all rewards so far, `shift`, or below it."""
    return -F.logsigmoid(beta * chosen - shift) - F.logsigmoid(-(beta * rejected - shift))


def mpo_loss(
    chosen: Tensor, rejected: Tensor, likelihood: Tensor, beta: float, shift: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """float32 [pairs], and the three losses it is made of: 0.8 preference + 0.2 quality + 1.0 generation.

    `likelihood` [pairs] is the mean log-probability of a chosen answer's tokens; all else as above."""
    preference, quality = dpo_loss(chosen, rejected, beta), bco_loss(chosen, rejected, beta, shift)
    of_preference, of_quality, of_generation = MPO_WEIGHTS
    loss = of_preference * preference + of_quality * quality - of_generation * likelihood
    return loss, {"preference": preference, "quality": quality, "generation": -likelihood}


# -- reinforcement ----------------------------------------------------------------------------------------------------


def group_advantages(rewards: Tensor) -> Tensor:
    """float32 [groups, answers]: how much better than its group each answer is, in standard deviations of the group
    (GRPO, arXiv 2402.03300, section 4.1.2). 0 in a group whose answers are all worth the same: it teaches nothing."""
    middle, spread = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True)
    return torch.where(spread > 1e-6, (rewards - middle) / (spread + 1e-4), 0.0)


def grpo_loss(
    log_probs: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    which: Tensor,
    clip: float = 0.2,
    kl: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """float32 [answers]: the clipped loss of every answer, the mean of its tokens' (GRPO, equation 3); and the mean
    divergence from the reference, scalar.

    `log_probs`, `old`, `reference` [tokens] are under the model, the model that wrote the answers, and the one it began
    with (None: no divergence counts); `which` int64 [tokens] says whose answer a token is, `advantages` [answers]. The
    divergence is estimated by r − log r − 1 of r = π_ref / π, which is never negative."""
    ratio = (log_probs - old).exp()
    gain = advantages[which]
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    apart = torch.zeros_like(loss)
    if reference is not None:
        apart = (reference - log_probs).exp() - (reference - log_probs) - 1
    count = torch.zeros_like(advantages).index_add_(0, which, torch.ones_like(loss)).clamp(min=1)
    summed = torch.zeros_like(advantages).index_add(0, which, loss + kl * apart)
    return summed / count, apart.detach().mean() if len(apart) else apart.sum()
