"""Keye-VL as published: configuration, tower, projector, decoder, positions, processors, loading."""

from engine.keye.configuration import KeyeConfig, KeyeVisionConfig, KeyeVL1_5Config
from engine.keye.image_processing import KeyeImageProcessor
from engine.keye.loading import load_model
from engine.keye.modeling import KeyeForConditionalGeneration, KeyeOutput, KeyeVL1_5ForConditionalGeneration
from engine.keye.processing import KeyeProcessor, encode

__all__ = [
    "KeyeConfig",
    "KeyeForConditionalGeneration",
    "KeyeImageProcessor",
    "KeyeOutput",
    "KeyeProcessor",
    "KeyeVL1_5Config",
    "KeyeVL1_5ForConditionalGeneration",
    "KeyeVisionConfig",
    "encode",
    "load_model",
]
