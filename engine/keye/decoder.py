"""The text decoder: Qwen3 blocks with rotary positions in time, row and column."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, Qwen3RMSNorm
from transformers.utils.output_capturing import capture_outputs

from engine.keye.configuration import KeyeConfig


def rotary_tables(config: KeyeConfig, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin for the attention layers, each [batch, length, head_dim].

    `position_ids` [3, batch, length]. Every frequency follows one axis: the first `mrope_section[0]` the time, then
    the row, then the column; where the three are equal this is ordinary rotary attention. There is no buffer, so
    casting or moving the model cannot round the frequencies."""
    assert config.head_dim is not None
    device = position_ids.device
    even = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / (config.rope_theta ** (even / config.head_dim))
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(config.mrope_section)).to(device)
    angles = position_ids.float()[axis].permute(1, 2, 0) * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


class KeyePreTrainedModel(PreTrainedModel):
    """What the decoder and the whole model tell the library about themselves."""

    config_class = KeyeConfig
    config: KeyeConfig
    base_model_prefix = "model"
    input_modalities = ["image", "video", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen3DecoderLayer", "KeyeVisionLayer", "KeyeVisionEmbeddings"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    # Published, and read by nothing in the forward pass.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"^visual\.vision_model\.head\.",
        r"^visual\.vision_model\.embeddings\.packing_position_embedding\.",
    ]
    _can_record_outputs = {"hidden_states": Qwen3DecoderLayer, "attentions": Qwen3Attention}  # noqa: RUF012


class KeyeTextModel(KeyePreTrainedModel):
    """The published `model.`: embeddings, layers, final norm."""

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        block_config = cast(Any, config)  # the blocks read fields, not the class
        self.layers = nn.ModuleList([Qwen3DecoderLayer(block_config, i) for i in range(config.num_hidden_layers)])
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Any] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """`position_ids` [3, batch, length], or [4, batch, length] whose first row counts within packed sequences
        (it restarts at 0 where a new one begins; then no attention mask is needed). Plain counting if None.
        `attention_mask` [batch, past + length], or a ready 4D mask."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        assert inputs_embeds is not None
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        batch, length = inputs_embeds.shape[:2]
        packed = None
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(length, device=inputs_embeds.device) + seen).expand(3, batch, -1)
        elif position_ids.ndim == 2:
            position_ids = position_ids.expand(3, -1, -1)
        elif position_ids.shape[0] == 4:
            packed, position_ids = position_ids[0], position_ids[1:]
        masks: dict[str, Any] | None = attention_mask if isinstance(attention_mask, dict) else None
        if masks is None:
            shared: dict[str, Any] = {
                "config": self.config,
                "inputs_embeds": inputs_embeds,
                "attention_mask": attention_mask,
                "past_key_values": past_key_values,
                "position_ids": packed,
            }
            kinds = set(self.config.layer_types or ())
            masks = {}
            if "full_attention" in kinds:
                masks["full_attention"] = create_causal_mask(**shared)
            if "sliding_attention" in kinds:
                masks["sliding_attention"] = create_sliding_window_causal_mask(**shared)
        hidden = inputs_embeds
        rotary = rotary_tables(self.config, position_ids.to(hidden.device), hidden.dtype)
        for i, layer in enumerate(self.layers):
            hidden = layer(
                hidden,
                attention_mask=masks[self.config.layer_types[i]],  # type: ignore[index]
                position_embeddings=rotary,
                position_ids=packed,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden),
            past_key_values=past_key_values if use_cache else None,
        )
