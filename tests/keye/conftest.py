"""Makes `engine` and `tests.keye` importable however pytest is started; a tiny tokenizer and the recorded models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.keye import KeyeImageProcessor, KeyeProcessor, load_model
from tests.keye.helpers import GOLDEN, SPECIAL


@pytest.fixture(scope="session")
def model_a() -> Any:
    return load_model(GOLDEN / "A", torch.float32)


@pytest.fixture(scope="session")
def model_b() -> Any:
    return load_model(GOLDEN / "B", torch.float32)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, no merges: ids 0…255 are bytes, then the special tokens, at other ids than the published ones."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    backend.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="session")
def template() -> str:
    return str(json.loads((GOLDEN / "keye-vl-8b-preview" / "chat_template.json").read_text())["chat_template"])


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast, template: str) -> KeyeProcessor:
    return KeyeProcessor(KeyeImageProcessor(), tokenizer, template)


@pytest.fixture(scope="session")
def processor15(tokenizer: PreTrainedTokenizerFast, template: str) -> KeyeProcessor:
    return KeyeProcessor(KeyeImageProcessor(resample="bilinear"), tokenizer, template, per_frame=True)
