"""Keye-VL in SGLang: its Qwen3 decoder with three-dimensional positions, behind engine/keye's own tower and projector.

The decoder is what tensor parallelism, quantisation and adapters act on. The tower and the projector (0.4 of 8.7
billion parameters) are whole on every rank: they are the modules of engine/keye, packed per item, so what a picture
means is defined once."""

from __future__ import annotations

import copy
import importlib.util
import re
from array import array
from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.utils import PPMissingLayer, get_layer_id
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead
from sglang.srt.managers.mm_utils import general_mm_embed_routine, pad_mm_tokens
from sglang.srt.model_loader.weight_utils import default_weight_loader, maybe_remap_kv_scale_name
from sglang.srt.models.qwen3 import Qwen3Model
from sglang.srt.runtime_context import get_parallel
from sglang.srt.utils import add_prefix
from torch import Tensor, nn

from engine.keye import KeyeConfig
from engine.keye.projector import KeyeProjector
from engine.keye.vision import KeyeVisionModel
from engine.sglang_plugin.limits import POSITIONS

_UNREAD = ("visual.vision_model.head.", "visual.vision_model.embeddings.packing_position_embedding.")
"""Published, and read by nothing in the forward pass."""
_STACKED = (
    ("qkv_proj", "q_proj", "q"),
    ("qkv_proj", "k_proj", "k"),
    ("qkv_proj", "v_proj", "v"),
    ("gate_up_proj", "gate_proj", 0),
    ("gate_up_proj", "up_proj", 1),
)


class KeyeForConditionalGeneration(nn.Module):
    """Keye-VL Preview. The class name is the one in config.json, by which SGLang finds it."""

    per_frame = False  # 1.5: a frame is a sequence of its own in the tower
    norm_joined = False  # 1.5: the projector normalises the joined block

    packed_modules_mapping = {  # noqa: RUF012
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    default_bitsandbytes_target_modules = [  # noqa: RUF012
        ".gate_proj.",
        ".down_proj.",
        ".up_proj.",
        ".q_proj.",
        ".k_proj.",
        ".v_proj.",
        ".o_proj.",
    ]
    bitsandbytes_stacked_params_mapping = {  # noqa: RUF012
        "q_proj": ("qkv_proj", 0),
        "k_proj": ("qkv_proj", 1),
        "v_proj": ("qkv_proj", 2),
        "gate_proj": ("gate_up_proj", 0),
        "up_proj": ("gate_up_proj", 1),
    }
    _adapted = re.compile(r"^model\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj))$")

    def __init__(self, config: KeyeConfig, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        config.check()
        self.config = config
        self.pp_group = get_parallel().pp_group
        decoder = copy.copy(config)
        # A long clip of few frames reaches positions far beyond the number of tokens; the rotary table must hold them.
        decoder.max_position_embeddings = max(POSITIONS, config.max_position_embeddings)
        self.model = Qwen3Model(decoder, quant_config=quant_config, prefix=add_prefix("model", prefix))
        if not self.pp_group.is_last_rank:
            self.lm_head = PPMissingLayer()
        elif self.pp_group.world_size == 1 and config.tie_word_embeddings:
            self.lm_head = self.model.embed_tokens
        else:
            self.lm_head = ParallelLMHead(
                config.vocab_size, config.hidden_size, quant_config=quant_config, prefix=add_prefix("lm_head", prefix)
            )
        flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
        config.vision._attn_implementation = "flash_attention_2" if flash else "sdpa"
        self.visual = KeyeVisionModel(config.vision)
        self.mlp_AR = KeyeProjector(config, self.norm_joined)
        self.logits_processor = LogitsProcessor(config)
        placeholders = torch.tensor([config.image_token_id, config.video_token_id])
        self.register_buffer("placeholders", placeholders, persistent=False)

    # -- seeing -------------------------------------------------------------------------------------------------

    def get_image_feature(self, items: list[Any]) -> Tensor:
        """[tokens, hidden] of pictures; an item has `feature` [patches, 3, side, side] and `image_grid_thw` [1, 3]."""
        return self._features(items, "image_grid_thw")

    def get_video_feature(self, items: list[Any]) -> Tensor:
        """[tokens, hidden] of clips; `video_grid_thw` [runs, 3] has a row per clip, in 1.5 per run of equal frames."""
        return self._features(items, "video_grid_thw")

    def _features(self, items: list[Any], grid: str) -> Tensor:
        weight = self.visual.vision_model.post_layernorm.weight
        pixels = torch.cat([item.feature for item in items]).to(weight.device, weight.dtype)
        grids = torch.cat([getattr(item, grid) for item in items])
        return torch.cat(self.mlp_AR(self.visual(pixels, grids, per_frame=self.per_frame), grids))

    # -- reading ------------------------------------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def pad_input_ids(self, input_ids: array, mm_inputs: Any) -> array:
        """Put each item's hash where its placeholders are, so that the prefix cache tells items apart."""
        return pad_mm_tokens(input_ids, mm_inputs)

    def should_apply_lora(self, module_name: str) -> bool:
        """Adapters act on the decoder alone; the tower has layers of the same names."""
        return self._adapted.match(module_name) is not None

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        forward_batch: Any,
        input_embeds: Tensor | None = None,
        pp_proxy_tensors: Any = None,
        **_: Any,
    ) -> Any:
        """`input_ids` [tokens] of all requests, `forward_batch.mrope_positions` [3, tokens]."""
        if forward_batch.mrope_positions is not None:
            positions = forward_batch.mrope_positions
        hidden = general_mm_embed_routine(
            input_ids=input_ids,
            forward_batch=forward_batch,
            language_model=self.model,
            multimodal_model=self,
            positions=positions,
            pp_proxy_tensors=pp_proxy_tensors,
        )
        if not self.pp_group.is_last_rank:
            return hidden
        output = self.logits_processor(input_ids, hidden, self.lm_head, forward_batch)
        if output.next_token_logits is not None:
            # A placeholder without its picture must never be drawn, as in the local runtime.
            lowest = torch.finfo(output.next_token_logits.dtype).min
            output.next_token_logits.index_fill_(-1, self.placeholders, lowest)
        return output

    # -- loading ------------------------------------------------------------------------------------------------

    @property
    def start_layer(self) -> int:
        return self.model.start_layer

    @property
    def end_layer(self) -> int:
        return self.model.end_layer

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """From the published names. Raises ValueError for a tensor that has no place here or is missing."""
        params = dict(self.named_parameters(remove_duplicate=False))
        loaded: set[str] = set()
        for name, tensor in weights:
            if name.startswith(_UNREAD) or not self._is_mine(name):
                continue
            if name == "model.embed_tokens.weight" and self.config.tie_word_embeddings and "lm_head.weight" in params:
                self._load(params, loaded, "lm_head.weight", tensor)
            if name == "lm_head.weight" and self.config.tie_word_embeddings:
                continue
            if name.startswith("model.") and name.endswith("_scale"):
                remapped = maybe_remap_kv_scale_name(name, params)
                if remapped is None:
                    continue
                name = remapped
            for stacked, single, shard in _STACKED:
                if name.startswith("model.") and f".{single}." in name:
                    self._load(params, loaded, name.replace(single, stacked), tensor, shard)
                    break
            else:
                self._load(params, loaded, name, tensor)
        missing = [n for n in params if n not in loaded and n.startswith(("visual.", "mlp_AR.", "model.embed_tokens."))]
        if missing:
            raise ValueError(f"The checkpoint lacks the tensor {missing[0]}; download the model again.")
        return loaded

    def _is_mine(self, name: str) -> bool:
        """Whether this pipeline rank holds the tensor: the ends of the decoder and its own layers."""
        layer = get_layer_id(name) if name.startswith("model.layers.") else None
        if layer is not None:
            return bool(self.start_layer <= layer < self.end_layer)
        if name == "model.embed_tokens.weight":
            return bool(self.pp_group.is_first_rank or self.config.tie_word_embeddings)
        return bool(self.pp_group.is_last_rank) if name in ("model.norm.weight", "lm_head.weight") else True

    @staticmethod
    def _load(params: dict[str, Any], loaded: set[str], name: str, tensor: Tensor, *shard: Any) -> None:
        if name not in params:
            raise ValueError(f"The checkpoint has a tensor {name} that Keye-VL does not have; check the folder.")
        loader = getattr(params[name], "weight_loader", default_weight_loader)
        loader(params[name], tensor, *shard)
        loaded.add(name)


class KeyeVL1_5ForConditionalGeneration(KeyeForConditionalGeneration):
    """Keye-VL 1.5: every frame is encoded alone; time is in the text."""

    per_frame = True
    norm_joined = True


EntryClass = [KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration]
