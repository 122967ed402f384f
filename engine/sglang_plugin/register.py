"""What every process of the server must know before it reads a checkpoint: Keye's configurations and its processor."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from engine.keye import KeyeConfig, KeyeVL1_5Config
from engine.sglang_plugin.tokenizer import ServedProcessor


def _rope_parameters(config: KeyeConfig) -> dict[str, Any]:
    """The rotary fields as SGLang reads them: with `mrope_section` it uses three-dimensional positions."""
    return {"rope_type": "default", "rope_theta": config.rope_theta, "mrope_section": list(config.mrope_section)}


class ServedKeyeConfig(KeyeConfig):
    architectures: list[str] | None = None
    rope_parameters: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.architectures = ["KeyeForConditionalGeneration"]
        self.rope_parameters = _rope_parameters(self)


class ServedKeyeVL1_5Config(KeyeVL1_5Config):
    architectures: list[str] | None = None
    rope_parameters: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.architectures = ["KeyeVL1_5ForConditionalGeneration"]
        self.rope_parameters = _rope_parameters(self)


def register() -> None:
    """Entry point of the group `sglang.srt.plugins`."""
    from sglang.srt.multimodal.customized_mm_processor_utils import register_customized_processor

    for config in (ServedKeyeConfig, ServedKeyeVL1_5Config):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        # By model type: the library's own registry would find the class that preprocessor_config.json names.
        register_customized_processor(ServedProcessor)(config)
