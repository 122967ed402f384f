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
