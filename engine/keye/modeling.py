"""Keye-VL for generation: tower, projector and decoder under the published tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from engine.errors import EngineError
from engine.keye.configuration import KeyeConfig, KeyeVL1_5Config
from engine.keye.decoder import KeyePreTrainedModel, KeyeTextModel
from engine.keye.generation import KeyeGenerationMixin
from engine.keye.positions import Grids, PositionRule, rope_index
from engine.keye.projector import KeyeProjector
from engine.keye.vision import KeyeVisionModel

Embeds = Tensor | Sequence[Tensor] | None


@dataclass
class KeyeOutput(CausalLMOutputWithPast):
    """The library's output and `rope_deltas` int64 [batch, 1]: next position = length so far + delta, on all axes."""

    rope_deltas: Tensor | None = None


class KeyeForConditionalGeneration(KeyePreTrainedModel, KeyeGenerationMixin):
    """Keye-VL Preview.

    Nothing of a conversation is kept on the module: where the next position lies travels in the outputs, in the
    arguments of `generate` and on the cache, so conversations may be interleaved."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    per_frame = False  # 1.5: a frame is a sequence of its own, in the tower and in the positions
    norm_joined = False  # 1.5: the projector normalises the joined block

    def __init__(self, config: KeyeConfig) -> None:
        config.check()
        super().__init__(config)
        self.visual = KeyeVisionModel(config.vision)
        self.mlp_AR = KeyeProjector(config, self.norm_joined)
        self.model = KeyeTextModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    # -- seeing -------------------------------------------------------------------------------------------------

    def encode_visual(self, pixel_values: Tensor, grid_thw: Tensor) -> tuple[Tensor, ...]:
        """What the decoder reads of pictures and clips, in one tower pass.

        `pixel_values` [patches, channels, side, side] packed; `grid_thw` [items, 3] in patches, both sides even.
        Returns one [tokens, hidden] per row of `grid_thw`; pass them on as `image_embeds` or `video_embeds`."""
        if bool((grid_thw[:, 1:] % self.config.vision.spatial_merge_size != 0).any()):
            raise EngineError("A picture's grid has an odd side; resize its pixels to multiples of 28.")
        return self.mlp_AR(self.visual(pixel_values, grid_thw, per_frame=self.per_frame), grid_thw)

    def position_rule(self) -> PositionRule:
        config = self.config
        assert config.image_token_id is not None and config.video_token_id is not None
        return PositionRule(
            config.image_token_id,
            config.video_token_id,
            config.vision.spatial_merge_size,
            config.vision.tokens_per_second,
            self.per_frame,
        )

    def get_rope_index(
        self,
        input_ids: Tensor,
        image_grid_thw: Grids = None,
        video_grid_thw: Grids = None,
        second_per_grid_ts: Tensor | Sequence[float] | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`positions.rope_index` with this checkpoint's rule: int64 [3, batch, length] and [batch, 1]."""
        return rope_index(
            input_ids,
            self.position_rule(),
            attention_mask=attention_mask,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            second_per_grid_ts=second_per_grid_ts,
        )

    def visual_features(
        self,
        pixel_values: Tensor | None,
        image_grid_thw: Tensor | None,
        image_embeds: Embeds,
        pixel_values_videos: Tensor | None,
        video_grid_thw: Tensor | None,
        video_embeds: Embeds,
    ) -> tuple[Tensor | None, Tensor | None]:
        """[tokens, hidden] of all pictures and of all clips; pixels of both go through the tower together."""
        given = []
        for pixels, grid, embeds, what in (
            (pixel_values, image_grid_thw, image_embeds, "image"),
            (pixel_values_videos, video_grid_thw, video_embeds, "video"),
        ):
            if pixels is None:
                continue
            if embeds is not None:
                raise EngineError(f"Both pixels and {what}_embeds were given; give one of them.")
            if grid is None:
                raise EngineError(f"Pixels without {what}_grid_thw were given; pass all that the processor returned.")
            given.append((pixels, grid))
        encoded: list[tuple[Tensor, ...]] = []
        if given:
            items = self.encode_visual(torch.cat([p for p, _ in given]), torch.cat([g for _, g in given]))
            first = len(given[0][1])
            encoded = [items[:first], items[first:]]
        images = encoded.pop(0) if pixel_values is not None else image_embeds
        videos = encoded.pop(0) if pixel_values_videos is not None else video_embeds
        return _joined(images), _joined(videos)

    def _place(
        self, inputs_embeds: Tensor, input_ids: Tensor, features: Tensor | None, token: int | None, what: str
    ) -> Tensor:
        """Put `features` [tokens, hidden] where `input_ids` [batch, length] hold the placeholder, in order."""
        if features is None and input_ids.shape[1] == 1:
            return inputs_embeds  # one step of decoding
        mask = torch.eq(input_ids, -1 if token is None else token)
        places, tokens = int(mask.sum()), 0 if features is None else len(features)
        if places != tokens:
            raise EngineError(
                f"The text has {places} {what} placeholders but the {what}s make {tokens} tokens; "
                "pass all that one processor call returned, and suppress the placeholders when generating."
            )
        if features is None:
            return inputs_embeds
        features = features.to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds.masked_scatter(mask.unsqueeze(-1), features)

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        image_embeds: Embeds = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        video_embeds: Embeds = None,
    ) -> Tensor:
        """What the decoder reads, [batch, length, hidden]: words, and what is seen in the places of `input_ids`
        [batch, length] that hold a placeholder. Raises EngineError where media and placeholders do not agree."""
        embeds = self.model.embed_tokens(input_ids)
        images, videos = self.visual_features(
            pixel_values, image_grid_thw, image_embeds, pixel_values_videos, video_grid_thw, video_embeds
        )
        embeds = self._place(embeds, input_ids, images, self.config.image_token_id, "image")
        return self._place(embeds, input_ids, videos, self.config.video_token_id, "video")

    # -- reading ------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Any] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | Sequence[float] | None = None,
        num_frames: Tensor | None = None,
        image_embeds: Embeds = None,
        video_embeds: Embeds = None,
        rope_deltas: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> KeyeOutput:
        """Logits [batch, kept, vocabulary], and the loss if `labels` [batch, length] are given (-100: not counted).

        `input_ids` [batch, length] with one placeholder per visual token; `attention_mask` [batch, past + length] or
        4D (then `position_ids` are needed); `position_ids` [3, batch, length], or [4, …] for packed sequences, see
        the decoder; made from the grids if None. The items of the batch lie one after the other in `pixel_values` or
        `image_embeds`, and likewise for videos. `second_per_grid_ts` [videos]: seconds between frames (Preview).
        `num_frames` [videos] (1.5) is taken because the processor makes it; the grids say the same.
        Raises EngineError where media and placeholders do not agree."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        if position_ids is None:
            position_ids, rope_deltas = self._positions(
                input_ids,
                inputs_embeds,
                attention_mask,
                past_key_values,
                seen,
                rope_deltas,
                {
                    "image_grid_thw": image_grid_thw,
                    "video_grid_thw": video_grid_thw,
                    "second_per_grid_ts": second_per_grid_ts,
                },
            )
        elif rope_deltas is None and past_key_values is not None:
            rope_deltas = getattr(past_key_values, "rope_deltas", None)
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(
                input_ids,
                pixel_values,
                image_grid_thw,
                image_embeds,
                pixel_values_videos,
                video_grid_thw,
                video_embeds,
            )
        assert inputs_embeds is not None
        if rope_deltas is None:
            # The positions were given: what follows continues after the largest of them.
            assert position_ids is not None
            axes = position_ids[-3:] if position_ids.ndim == 3 else position_ids[None]
            rope_deltas = axes.amax(dim=(0, 2))[:, None] + 1 - (seen + inputs_embeds.shape[1])
            rope_deltas = rope_deltas.expand(inputs_embeds.shape[0], 1)
        outputs = self.model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        if outputs.past_key_values is not None:
            # A cache is one conversation, so what the next step needs lies there and not on the module.
            outputs.past_key_values.rope_deltas = rope_deltas
        return KeyeOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            rope_deltas=rope_deltas,
        )

    def _positions(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        attention_mask: Tensor | dict[str, Any] | None,
        cache: Cache | None,
        seen: int,
        deltas: Tensor | None,
        grids: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Positions of the new tokens, after the `seen` ones in the cache, and the deltas after them."""
        source = input_ids if input_ids is not None else inputs_embeds
        assert source is not None
        batch, length = source.shape[:2]
        mask = attention_mask if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None
        if attention_mask is not None and mask is None and not seen:
            raise EngineError("A ready-made attention mask does not say where sequences begin; pass position_ids too.")
        if input_ids is None:
            input_ids = torch.full((batch, length), -1, device=source.device)  # embeddings: text as far as we know
        positions, moved = self.get_rope_index(
            input_ids, attention_mask=None if mask is None else mask[:, -length:], **grids
        )
        if not seen:
            return positions, moved
        if deltas is None:
            deltas = getattr(cache, "rope_deltas", None)
        if deltas is None:  # a cache from elsewhere, of text: only padding sets length and position apart
            padding = 0 if mask is None else (mask[:, :seen] == 0).sum(1, keepdim=True)
            deltas = torch.zeros(batch, 1, dtype=torch.long, device=source.device) - padding
        deltas = deltas.to(source.device)
        if deltas.shape[0] != batch:  # the cache was repeated for several answers to one prompt
            deltas = deltas.repeat_interleave(batch // deltas.shape[0], dim=0)
        return positions + (seen + deltas), deltas + moved


class KeyeVL1_5ForConditionalGeneration(KeyeForConditionalGeneration):
    """Keye-VL 1.5: every frame is encoded alone and has its own block of positions; time is in the text."""

    config_class = KeyeVL1_5Config
    per_frame = True
    norm_joined = True


def _joined(features: Embeds) -> Tensor | None:
    if features is None or isinstance(features, Tensor):
        return features
    return torch.cat(list(features)) if len(features) else None


for _config, _model in (
    (KeyeConfig, KeyeForConditionalGeneration),
    (KeyeVL1_5Config, KeyeVL1_5ForConditionalGeneration),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
        _auto.register(_config, _model, exist_ok=True)
