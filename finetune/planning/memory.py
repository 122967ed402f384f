"""Bytes that training takes on each GPU, from the configuration alone.

The account is that of mixed precision with AdamW (Rajbhandari et al., ZeRO, 2020): of every parameter a weight in
bfloat16, 2 bytes; of a trained one also its gradient, 2, a float32 copy, 4, and two moments, 8. All of it is shared
out over the GPUs (ZeRO stage 3: report, section 5). What the batch leaves for the way back is not shared out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.keye import KeyeConfig
from finetune.planning.costs import heads_of, lora_parameters, parameters, roles

WEIGHT, GRADIENT, OPTIMIZER = 2.0, 2.0, 12.0
FOUR_BIT = 0.5


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    optimizer: float
    activations: float  # of one batch, everything kept
    checkpointed: float  # of one batch, each layer computed again on the way back
    logits: float

    @property
    def state(self) -> float:
        return self.weights + self.gradients + self.optimizer

    @property
    def full(self) -> float:
        return self.state + self.activations + self.logits

    @property
    def least(self) -> float:
        """With activation checkpointing."""
        return self.state + self.checkpointed + self.logits


@dataclass(frozen=True)
class Batch:
    """What one GPU has before it at once."""

    patches: int
    tokens: int  # of the decoder, visual ones with them
    learnt: int  # logits


def memory(
    config: KeyeConfig,
    train: Sequence[str],
    batch: Batch,
    gpus: int,
    *,
    lora: int = 0,
    four_bit: bool = False,
    beside: int = 0,
    copies: int = 0,
    sees_only: bool = False,
) -> Memory:
    """Of a step on `batch` on each of `gpus`.

    With `lora` the decoder is frozen but for an adapter of that rank. `beside` are further trained parameters,
    `copies` further frozen models (the reference of preferences and reinforcement). `sees_only`: the loss ends at the
    tower, as in stage 0. Attention keeps no scores (flash), and what is kept is bfloat16."""
    held = parameters(config)
    size = {"tower": held.tower, "projector": held.projector}
    size["decoder"] = held.decoder + held.embeddings + held.output
    moved = beside + (lora_parameters(config, lora) if lora else sum(size[m] for m in size if m in train))
    decoder_bytes = FOUR_BIT if four_bit else WEIGHT
    frozen = WEIGHT * (size["tower"] + size["projector"] + beside) + decoder_bytes * size["decoder"]
    full, least = _activations(config, ("decoder",) if lora else tuple(train), batch, sees_only)
    # bfloat16, the float32 of the loss, and the gradient of that
    logits = 0.0 if sees_only else (2.0 + 4.0 + 4.0) * batch.learnt * config.vocab_size
    return Memory(
        weights=(frozen + WEIGHT * (moved - beside if lora else 0) + copies * WEIGHT * held.built) / gpus,
        gradients=GRADIENT * moved / gpus,
        optimizer=OPTIMIZER * moved / gpus,
        activations=full,
        checkpointed=least,
        logits=logits,
    )


def _activations(config: KeyeConfig, train: Sequence[str], batch: Batch, sees_only: bool) -> tuple[float, float]:
    """Bytes with everything kept, and with the inputs of the layers alone: then one layer at a time is whole."""
    tower, projector, decoder = roles(train)
    v, h = config.vision.hidden_size, config.hidden_size
    full = least = widest = 0.0
    if tower != "frozen":
        one = WEIGHT * vision_layer_values(config) * batch.patches
        full += config.vision.num_hidden_layers * one
        least += config.vision.num_hidden_layers * WEIGHT * v * batch.patches
        widest = one
    if not sees_only:
        if projector != "frozen":
            # the joined patches, and the middle before and after its activation: four patches a token
            kept = WEIGHT * 3 * v * batch.patches
            full, least = full + kept, least + kept
        if decoder != "frozen":
            one = WEIGHT * decoder_layer_values(config) * batch.tokens
            full += config.num_hidden_layers * one
            least += config.num_hidden_layers * WEIGHT * h * batch.tokens
            widest = max(widest, one)
    return full, least + widest


def vision_layer_values(config: KeyeConfig) -> int:
    """Values that a tower layer keeps of each patch for its gradient: two norms' inputs and outputs (4), queries,
    keys and values (3), what attention gives (1), and the MLP's middle before and after its activation."""
    return 8 * config.vision.hidden_size + 2 * config.vision.intermediate_size


def decoder_layer_values(config: KeyeConfig) -> int:
    """Values that a decoder layer keeps of each token: two norms' inputs and outputs (4); queries and keys before
    their norm, after it, and turned (3); values; what attention gives; gate, its activation, up, and the product."""
    heads, kv, d = heads_of(config)
    return 4 * config.hidden_size + 3 * (heads + kv) * d + kv * d + heads * d + 4 * config.intermediate_size
