"""What a model of this architecture costs: parameters, floating-point operations, bytes. Everything follows from
config.json; nothing is measured and no weight is loaded.

Operations are counted as is usual: a multiplication with its addition is two. A matrix of N weights costs 2·N a token
on the way forward, 2·N more where a gradient passes through it, and 2·N more where it learns: 6·N in all for what is
trained, 4·N for a frozen decoder behind which a projector learns, 2·N for a frozen tower, which nothing before it needs
a gradient from. Attention costs 4·n²·(heads × head size) a layer forward for a sequence of n that sees all of itself,
half of that where it sees only what came before, and twice as much again for its gradient, frozen or not.
Norms, activations and rotations are left out: they are less than a hundredth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from engine.keye import KeyeConfig
from engine.keye.configuration import KeyeVL1_5Config

Role = Literal["trained", "passed", "frozen"]
"""trained: its weights learn; passed: they do not, but a gradient goes through; frozen: forward only."""

PACKING_ROWS = 32768
"""Of the published packing table, which no forward pass reads (published modelling code)."""


@dataclass(frozen=True)
class Parameters:
    """How many there are, by module. `unused` are in the published files and in no forward pass."""

    tower: int
    projector: int
    decoder: int  # embeddings and output layer not counted
    embeddings: int
    output: int  # 0 where it is the embeddings
    unused: int

    @property
    def built(self) -> int:
        """Of the model as it is trained and served."""
        return self.tower + self.projector + self.decoder + self.embeddings + self.output

    @property
    def published(self) -> int:
        return self.built + self.unused


def parameters(config: KeyeConfig) -> Parameters:
    """Every tensor of section 2 of the published state dict, from the sizes in the configuration."""
    v, h = config.vision.hidden_size, config.hidden_size
    iv, i = config.vision.intermediate_size, config.intermediate_size
    heads, kv, d = heads_of(config)
    patch = config.vision.num_channels * config.vision.patch_size**2
    side = config.vision.image_size // config.vision.patch_size
    norm = 2 * v  # weight and bias
    attention = 4 * (v * v + v)
    mlp = 2 * v * iv + iv + v
    joined = v * config.vision.spatial_merge_size**2
    bias = (heads + 2 * kv) * d + h if config.attention_bias else 0
    layer = h * heads * d * 2 + h * kv * d * 2 + bias + 2 * d + 3 * h * i + 2 * h
    table = config.vocab_size * h
    return Parameters(
        tower=(patch + 1) * v + side**2 * v + config.vision.num_hidden_layers * (attention + mlp + 2 * norm) + norm,
        projector=(2 * joined if isinstance(config, KeyeVL1_5Config) else norm)
        + joined * joined
        + joined
        + joined * h
        + h,
        decoder=config.num_hidden_layers * layer + h,
        embeddings=table,
        output=0 if config.tie_word_embeddings else table,
        # a probe, one attention and one MLP that pool the patches, and the packing table
        unused=v + attention + norm + mlp + PACKING_ROWS * v,
    )


@dataclass(frozen=True)
class Item:
    """A picture or clip as the tower gets it: one segment, however many frames it has (Preview), or each frame one
    (1.5)."""

    frames: int
    patches: int  # of each frame

    @property
    def length(self) -> int:
        return self.frames * self.patches

    def pairs(self, config: KeyeConfig) -> int:
        """Of patches that see each other."""
        return self.length * (self.patches if isinstance(config, KeyeVL1_5Config) else self.length)


@dataclass(frozen=True)
class Example:
    """One sequence. Visual tokens are patches / 4; `text` counts all other tokens, `learnt` those that the loss needs
    logits of (-1: all of the text)."""

    text: int
    items: tuple[Item, ...] = ()
    learnt: int = -1

    @property
    def patches(self) -> int:
        return sum(item.length for item in self.items)

    def visual(self, config: KeyeConfig) -> int:
        return self.patches // config.vision.spatial_merge_size**2

    def length(self, config: KeyeConfig) -> int:
        return self.text + self.visual(config)


@dataclass(frozen=True)
class Forward:
    """Operations of one forward pass, matrices apart from attention."""

    tower: float = 0.0
    tower_attention: float = 0.0
    projector: float = 0.0
    decoder: float = 0.0  # with the output layer
    decoder_attention: float = 0.0

    @property
    def total(self) -> float:
        return self.tower + self.tower_attention + self.projector + self.decoder + self.decoder_attention

    def __add__(self, other: Forward) -> Forward:
        return Forward(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, passes: float, tower: float | None = None) -> Forward:
        """So many passes; with `tower` that many through tower and projector, whose features are used again."""
        seen = passes if tower is None else tower
        return Forward(
            self.tower * seen,
            self.tower_attention * seen,
            self.projector * seen,
            self.decoder * passes,
            self.decoder_attention * passes,
        )

    def step(self, tower: Role, projector: Role, decoder: Role) -> float:
        """Operations of forward and backward together."""
        return (
            _matrices(tower) * self.tower
            + _attention(tower) * self.tower_attention
            + _matrices(projector) * self.projector
            + _matrices(decoder) * self.decoder
            + _attention(decoder) * self.decoder_attention
        )


def forward(config: KeyeConfig, examples: Sequence[Example], *, causal: bool = True) -> Forward:
    """Of `examples`, each a sequence of its own. With `causal` the masked half of the scores is not computed, as flash
    kernels do; without, it is."""
    v, h = config.vision.hidden_size, config.hidden_size
    heads, kv, d = heads_of(config)
    layers, depth = config.num_hidden_layers, config.vision.num_hidden_layers
    patch = config.vision.num_channels * config.vision.patch_size**2
    patches = sum(example.patches for example in examples)
    visual = sum(example.visual(config) for example in examples)
    tokens = visual + sum(example.text for example in examples)
    learnt = sum(example.text if example.learnt < 0 else example.learnt for example in examples)
    joined = v * config.vision.spatial_merge_size**2
    tower = patch * v + depth * (4 * v * v + 2 * v * config.vision.intermediate_size)
    layer = 2 * h * heads * d + 2 * h * kv * d + 3 * h * config.intermediate_size
    seen = sum(example.length(config) ** 2 for example in examples) * (0.5 if causal else 1.0)
    return Forward(
        tower=2.0 * tower * patches,
        tower_attention=4.0 * depth * v * sum(i.pairs(config) for e in examples for i in e.items),
        projector=2.0 * (joined * joined + joined * h) * visual,
        decoder=2.0 * layers * layer * tokens + 2.0 * h * config.vocab_size * learnt,
        decoder_attention=4.0 * layers * heads * d * seen,
    )


def packed_forward(
    config: KeyeConfig, items: Sequence[Item], clips: int, prefix: int, rows: int, row: int, learnt: int
) -> Forward:
    """Of a packed batch (finetune.packing.packed): `clips` prefixes of `prefix` tokens, each with its item where there
    are any, and each continued by `rows` rows of `row` tokens that see it and themselves; `learnt` logits in all.
    Scores are computed whole, masked or not; the last layer answers for the learnt tokens only and does not attend
    from the prefix."""
    h, (heads, kv, d), layers = config.hidden_size, heads_of(config), config.num_hidden_layers
    seen = forward(config, [Example(0, tuple(items), 0)])
    tokens = clips * (prefix + rows * row)
    inputs = 2.0 * h * (heads + 2 * kv) * d
    outputs = 2.0 * (h * heads * d + 3 * h * config.intermediate_size)
    among = clips * rows * row * (prefix + row)
    return Forward(
        tower=seen.tower,
        tower_attention=seen.tower_attention,
        projector=seen.projector,
        decoder=layers * inputs * tokens
        + outputs * ((layers - 1) * tokens + learnt)
        + 2.0 * h * config.vocab_size * learnt,
        decoder_attention=4.0 * heads * d * (layers * among + (layers - 1) * clips * prefix**2),
    )


@dataclass(frozen=True)
class TextTower:
    """What stage 0 trains beside the tower: SigLIP's text tower, as wide as the vision tower, and its pooling head."""

    layers: int
    mlp: int
    vocabulary: int
    tokens: int  # of a text; padding is read too

    def parameters(self, width: int) -> int:
        layer = 4 * (width * width + width) + 2 * width * self.mlp + self.mlp + width + 4 * width
        text = (self.vocabulary + self.tokens) * width + self.layers * layer + 2 * width + width * width + width
        pool = width + 4 * (width * width + width) + 2 * width + 2 * width * self.mlp + self.mlp + width
        return text + pool + 2  # scale and bias of the loss

    def forward(self, width: int, texts: float, patches: float) -> float:
        """Operations for so many texts and for the pooling of their pictures."""
        layer = 4 * width * width + 2 * width * self.mlp
        one = 2.0 * self.layers * layer * self.tokens + 4.0 * self.layers * width * self.tokens**2 + 2.0 * width**2
        pooled = 2.0 * (2 * width**2 + 2 * width * self.mlp)  # one query a picture
        return texts * (one + pooled) + patches * (2.0 * 2 * width**2 + 4.0 * width)


def lora_parameters(config: KeyeConfig, rank: int) -> int:
    """Of an adapter beside the seven matrices of every decoder layer."""
    h, i, (heads, kv, d) = config.hidden_size, config.intermediate_size, heads_of(config)
    sides = 2 * (h + heads * d) + 2 * (h + kv * d) + 3 * (h + i)
    return config.num_hidden_layers * rank * sides


def roles(train: Sequence[str]) -> tuple[Role, Role, Role]:
    """Of tower, projector and decoder, where the modules in `train` learn by a loss at the decoder's end: gradients go
    as far back as something learns."""
    tower: Role = "trained" if "tower" in train else "frozen"
    projector: Role = "trained" if "projector" in train else "passed" if tower == "trained" else "frozen"
    reaches = tower == "trained" or projector == "trained"
    decoder: Role = "trained" if "decoder" in train else "passed" if reaches else "frozen"
    return tower, projector, decoder


def generated(config: KeyeConfig, prompt: Example, answer: int) -> Forward:
    """Of an answer of `answer` tokens to one prompt, the prompt not counted: each token goes through the decoder once
    and looks back at all before it."""
    heads, kv, d = heads_of(config)
    h = config.hidden_size
    layer = 2 * h * heads * d + 2 * h * kv * d + 3 * h * config.intermediate_size
    before = prompt.length(config)
    return Forward(
        decoder=2.0 * answer * (config.num_hidden_layers * layer + h * config.vocab_size),
        decoder_attention=4.0 * config.num_hidden_layers * heads * d * (answer * before + answer * answer / 2),
    )


def _matrices(role: Role) -> int:
    return {"frozen": 1, "passed": 2, "trained": 3}[role]


def _attention(role: Role) -> int:
    return 1 if role == "frozen" else 3


def heads_of(config: KeyeConfig) -> tuple[int, int, int]:
    assert config.num_key_value_heads is not None and config.head_dim is not None
    return config.num_attention_heads, config.num_key_value_heads, config.head_dim
