"""What `generate` needs to know about pictures, clips and three-dimensional positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from engine.errors import EngineError

_PREFILL_ONLY = (
    "pixel_values",
    "pixel_values_videos",
    "image_embeds",
    "video_embeds",
    "image_grid_thw",
    "video_grid_thw",
    "second_per_grid_ts",
    "num_frames",
)
"""Arguments that only the first forward pass of a prompt reads."""


class KeyeGenerationMixin(GenerationMixin):
    """`rope_deltas` travels from step to step in the arguments of `generate`, never on the module."""

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        """[3, batch, length] of the whole prompt; leaves `rope_deltas` in `model_kwargs` for the steps to come."""
        ids = model_kwargs.get("input_ids")
        ids = inputs_tensor if ids is None or ids.shape[1] == 0 else ids
        cache = model_kwargs.get("past_key_values")
        seen = cache.get_seq_length() if cache is not None else 0
        mask = model_kwargs.get("attention_mask")
        # Continuing on a cache, the ids are either the whole conversation or only what is new.
        only_new = bool(seen) and mask is not None and mask.shape[1] == seen + ids.shape[1]
        model: Any = self
        positions, deltas = model._positions(
            ids if ids.ndim == 2 else None,
            None if ids.ndim == 2 else ids,
            mask,
            cache,
            seen if only_new else 0,
            None,
            {name: model_kwargs.get(name) for name in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")},
        )
        if only_new:  # as long as the whole conversation, so that a step counts from its length
            positions = torch.cat((positions.new_zeros(*positions.shape[:2], seen), positions), dim=-1)
        model_kwargs["rope_deltas"] = deltas
        return positions

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        # The library counts on from the last position; after a prompt that ends in a picture that is too little.
        positions: Tensor | None = model_kwargs.pop("position_ids", None)
        deltas: Tensor | None = model_kwargs.get("rope_deltas")
        model_kwargs = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        if deltas is None:
            deltas = outputs.rope_deltas
            model_kwargs["rope_deltas"] = deltas
        if positions is not None:
            steps = torch.arange(num_new_tokens, device=positions.device) + positions.shape[-1]
            following = (steps + deltas.to(positions.device)).expand(positions.shape[0], -1, -1)
            model_kwargs["position_ids"] = torch.cat((positions, following), dim=-1)
        return model_kwargs

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        first, cache = kwargs.get("is_first_iteration"), kwargs.get("past_key_values")
        if cache is not None and kwargs.get("use_cache", True):
            if not first:
                kwargs = {name: value for name, value in kwargs.items() if name not in _PREFILL_ONLY}
            elif cache.get_seq_length() and (length := kwargs.get("next_sequence_length")) is not None:
                kwargs |= self._unseen_media(input_ids[:, -length:], kwargs)
        inherited: Any = super().prepare_inputs_for_generation  # type: ignore[misc]  # its self is a protocol
        return inherited(input_ids, **kwargs)

    def _unseen_media(self, new_ids: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The media whose placeholders are not in the cache yet, when the whole conversation was passed again."""
        model: Any = self
        config = model.config
        changed: dict[str, Any] = {}
        for pixels, grid, embeds, token in (
            ("pixel_values", "image_grid_thw", "image_embeds", config.image_token_id),
            ("pixel_values_videos", "video_grid_thw", "video_embeds", config.video_token_id),
        ):
            tokens = int((new_ids == token).sum())
            if kwargs.get(embeds) is not None:
                features = kwargs[embeds] if isinstance(kwargs[embeds], Tensor) else torch.cat(list(kwargs[embeds]))
                changed[embeds] = features[len(features) - tokens :]
            elif kwargs.get(pixels) is not None:
                patches = tokens * config.vision.spatial_merge_size**2
                sizes = kwargs[grid].prod(1).flip(0).cumsum(0)
                changed[pixels] = kwargs[pixels][len(kwargs[pixels]) - patches :] if patches else None
                changed[grid] = kwargs[grid][int((sizes > patches).sum()) :] if patches else None
        return changed

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat a batch for beams or several answers: media are encoded once and their features repeated.

        The library would repeat single rows of patches and of grids, which belong to the batch as a whole."""
        if expand_size > 1 and input_ids is not None:
            model_kwargs = self._repeat_media(input_ids, expand_size, model_kwargs)
        inherited: Any = super()._expand_inputs_for_generation  # type: ignore[misc]  # its self is a protocol
        return inherited(expand_size, is_encoder_decoder, input_ids, **model_kwargs)

    def _repeat_media(self, input_ids: Tensor, times: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        media = {name: kwargs.pop(name, None) for name in _PREFILL_ONLY}
        model: Any = self
        with torch.no_grad():
            images, videos = model.visual_features(
                media["pixel_values"],
                media["image_grid_thw"],
                media["image_embeds"],
                media["pixel_values_videos"],
                media["video_grid_thw"],
                media["video_embeds"],
            )
        for name, features, token in (
            ("image_embeds", images, model.config.image_token_id),
            ("video_embeds", videos, model.config.video_token_id),
        ):
            if features is None:
                continue
            counts = (input_ids == token).sum(1).tolist()
            if sum(counts) != features.shape[0]:
                raise EngineError(
                    f"The text has {sum(counts)} placeholders for {features.shape[0]} visual tokens; "
                    "pass all that one processor call returned."
                )
            # A list: the library repeats the rows of tensors, and these are repeated already.
            kwargs[name] = [rows for rows in features.split(counts) for _ in range(times) if len(rows)]
        return kwargs
