"""Configurations of Keye-VL Preview and 1.5, field for field as published."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from engine.errors import EngineError

_MOST_LAYERS = 4096
"""A corrupt file must be refused before its number of layers fills the memory."""
_LAYER_TYPES = {"full_attention", "sliding_attention"}
ATTENTION_SPANS = ("clip", "frame")
_TOKEN_FIELDS = ("image_token_id", "video_token_id", "vision_start_token_id")


class KeyeVisionConfig(PreTrainedConfig):
    """The vision tower: a SigLIP encoder with interpolated positions and 2D rotary attention.

    The published files call it `siglip_vision_model`; the name is kept so that what is saved reads like them."""

    model_type = "siglip_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2  # published, read by nothing: frames are not paired
    tokens_per_second: int = 2
    attention_span: str = "clip"  # not published; "frame": the frames of a Preview's clip do not see each other

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def check(self) -> None:
        """Raise EngineError where a tower cannot be built from these fields."""
        _positive(
            self,
            "vision_config.",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_channels",
            "image_size",
            "patch_size",
            "spatial_merge_size",
            "tokens_per_second",
        )
        _known_function(self, "vision_config.")
        if self.num_hidden_layers > _MOST_LAYERS:
            raise _wrong("vision_config.num_hidden_layers", self.num_hidden_layers, f"must be at most {_MOST_LAYERS}")
        if self.hidden_size % (4 * self.num_attention_heads):
            # 2D rotation splits a head into row and column halves, each of which rotates pairs.
            raise _wrong("vision_config.hidden_size", self.hidden_size, "must be a multiple of 4 × num_attention_heads")
        if self.image_size < self.patch_size:
            raise _wrong("vision_config.image_size", self.image_size, "must not be smaller than patch_size")
        if self.attention_span not in ATTENTION_SPANS:
            raise _wrong("vision_config.attention_span", self.attention_span, 'must be "clip" or "frame"')
        if self.spatial_merge_size != 2:
            raise _wrong(
                "vision_config.spatial_merge_size", self.spatial_merge_size, "must be 2, as the projector joins 2×2"
            )


class KeyeConfig(PreTrainedConfig):
    """Keye-VL Preview: decoder fields at the top level, the tower's in `vision_config`.

    `image_token_id`, `video_token_id` and `vision_start_token_id` have no default: a tokenizer decides them.
    They, the sizes and the rotary sections are checked when a model is built, with EngineError."""

    model_type = "Keye"
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {"vision_config": KeyeVisionConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 152064
    hidden_size: int = 8192
    intermediate_size: int = 29568
    num_hidden_layers: int = 80
    num_attention_heads: int = 64
    num_key_value_heads: int | None = 8
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 1_000_000.0
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 80
    layer_types: list[str] | None = None
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    image_token_id: int | None = None
    video_token_id: int | None = None
    vision_start_token_id: int | None = None
    vision_end_token_id: int | None = None
    vision_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = KeyeVisionConfig()
        elif isinstance(self.vision_config, dict):
            self.vision_config = KeyeVisionConfig(**{k: v for k, v in self.vision_config.items() if k != "model_type"})
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and _whole(self.num_attention_heads) and _whole(self.hidden_size):
            self.head_dim = self.hidden_size // self.num_attention_heads
        # A window that is not in use must not mask: the mask and the cache both look at this field alone.
        self.sliding_window = self.sliding_window if self.use_sliding_window else None
        if self.layer_types is None and _whole(self.num_hidden_layers):
            self.layer_types = [
                "sliding_attention"
                if self.sliding_window is not None and i >= self.max_window_layers
                else "full_attention"
                for i in range(min(self.num_hidden_layers, _MOST_LAYERS))
            ]
        super().__post_init__(**kwargs)

    @property
    def vision(self) -> KeyeVisionConfig:
        """`vision_config` with its type."""
        assert isinstance(self.vision_config, KeyeVisionConfig)
        return self.vision_config

    @property
    def mrope_section(self) -> tuple[int, int, int]:
        """How many rotary frequencies take the time, the row and the column; all take one number in plain text.

        Without `rope_scaling`, the published 2:3:3 split."""
        if self.rope_scaling is None:
            assert self.head_dim is not None
            half = self.head_dim // 2
            side = round(half * 3 / 8)
            return half - 2 * side, side, side
        return tuple(self.rope_scaling["mrope_section"])

    def check(self) -> None:
        """Raise EngineError, naming the field, where a model cannot be built from this configuration."""
        if not isinstance(self.vision_config, KeyeVisionConfig):
            raise _wrong("vision_config", type(self.vision_config).__name__, "must be an object of fields")
        self.vision_config.check()
        _positive(
            self,
            "",
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        )
        assert self.head_dim is not None and self.num_key_value_heads is not None
        if self.num_attention_heads % self.num_key_value_heads:
            raise _wrong("num_attention_heads", self.num_attention_heads, "must be a multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise _wrong("head_dim", self.head_dim, "must be even")
        _known_function(self, "")
        if not isinstance(self.layer_types, list) or len(self.layer_types) != self.num_hidden_layers:
            raise _wrong(
                "num_hidden_layers", self.num_hidden_layers, f"must be at most {_MOST_LAYERS} and match layer_types"
            )
        if not set(map(str, self.layer_types)) <= _LAYER_TYPES:
            raise _wrong("layer_types", self.layer_types, f"may only hold {' and '.join(sorted(_LAYER_TYPES))}")
        for name in ("rope_theta", "rms_norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise _wrong(name, value, "must be a positive number")
        self._check_rope()
        for name in _TOKEN_FIELDS:
            value = getattr(self, name)
            if value is None:
                raise EngineError(f"config.json lacks {name}; take it from the checkpoint's tokenizer and add it.")
            if not _whole(value) or not 0 <= value < self.vocab_size:
                raise _wrong(name, value, f"must be a token id below vocab_size ({self.vocab_size})")
        if len({getattr(self, name) for name in _TOKEN_FIELDS}) != len(_TOKEN_FIELDS):
            raise _wrong("image_token_id", self.image_token_id, "must differ from the video and vision start ids")

    def _check_rope(self) -> None:
        if self.rope_scaling is not None:
            section = self.rope_scaling.get("mrope_section") if isinstance(self.rope_scaling, dict) else None
            if not isinstance(section, list | tuple) or len(section) != 3 or not all(_whole(n, 0) for n in section):
                raise _wrong("rope_scaling", self.rope_scaling, "must hold mrope_section, a list of three counts")
            kind = self.rope_scaling.get("rope_type", self.rope_scaling.get("type", "mrope"))
            if kind not in ("mrope", "default"):
                raise _wrong("rope_scaling.type", kind, "must be mrope")
        assert self.head_dim is not None
        if sum(self.mrope_section) != self.head_dim // 2:
            raise _wrong("rope_scaling.mrope_section", self.mrope_section, "must add up to half of head_dim")


class KeyeVL1_5Config(KeyeConfig):
    """Keye-VL 1.5: the same fields; frames are sequences of their own and time is written in the text."""

    model_type = "KeyeVL1_5"


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(config: PreTrainedConfig, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not _whole(value) or value > 1 << 31:
            raise _wrong(prefix + name, value, "must be a positive whole number")


def _known_function(config: Any, prefix: str) -> None:
    if not isinstance(config.hidden_act, str) or config.hidden_act not in ACT2FN:
        raise _wrong(prefix + "hidden_act", config.hidden_act, "must name an activation function such as silu or gelu")


def _wrong(name: str, value: Any, rule: str) -> EngineError:
    return EngineError(f"{name} in config.json is {value!r}, but it {rule}; correct it or download the file again.")
