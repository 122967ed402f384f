"""What keye-nano is: the published architecture at three million parameters, and its checkpoint folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from engine.keye import KeyeConfig, KeyeForConditionalGeneration, load_model
from finetune.errors import FinetuneError
from finetune.nano.tokenizer import save_tokenizer, train_tokenizer
from finetune.training.checkpoint import write_model

SAMPLING: dict[str, Any] = {
    "name": "keye-nano",
    "fps": 2.0,
    "min_frames": 4,
    "max_frames": 16,
    "frame_multiple": 2,
    "min_frame_tokens": 8,
    "max_frame_tokens": 16,
    "budget": 256,
    "resample": "bicubic",
}
"""Fields of engine.video.types.Sampling: a square frame is 4×4 tokens of 28×28 pixels."""

MIN_PIXELS, MAX_PIXELS = 8 * 784, 16 * 784
"""Of a still picture: as many tokens as a frame of a clip."""


def nano_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json: the fields and values of the published one but for sizes and token ids."""

    def token(text: str) -> int:
        found = tokenizer.token_to_id(text)
        assert found is not None, text
        return found

    return {
        "architectures": ["KeyeForConditionalGeneration"],
        "model_type": "Keye",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_token_id": token("<|vision_pad|>"),
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 192,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "max_position_embeddings": 2048,
        "max_window_layers": 4,
        "num_attention_heads": 6,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        # Rows and columns take the slow frequencies; at the published base they would not turn within a frame.
        "rope_theta": 100.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
        "vision_config": {
            "architectures": ["SiglipVisionModel"],
            "model_type": "siglip_vision_model",
            "attention_dropout": 0.0,
            "hidden_size": 128,
            "image_size": 112,
            "intermediate_size": 512,
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
        },
    }


def new_model(tokenizer: Tokenizer, seed: int = 0) -> KeyeForConditionalGeneration:
    """An untrained keye-nano in float32, always the same for the same tokenizer and seed."""
    torch.manual_seed(seed)
    fields = {k: v for k, v in nano_config(tokenizer).items() if k not in ("model_type", "dtype")}
    return KeyeForConditionalGeneration(KeyeConfig(**fields)).float()


def new_checkpoint(folder: Path, seed: int = 0, former: Path | None = None) -> None:
    """Write an untrained keye-nano, in float32, to a folder that `engine.keye.load_model` and
    `KeyeProcessor.from_pretrained` read. With the folder of a `former` keye-nano it knows what that one knew: its
    weights, and of its words those that both tokenizers have."""
    tokenizer = train_tokenizer()
    model = new_model(tokenizer, seed)
    if former is not None:
        inherit(model, tokenizer, former)
    with tempfile.TemporaryDirectory() as name:
        companions = Path(name)
        config = nano_config(tokenizer)
        files: dict[str, dict[str, Any]] = {
            "config.json": config,
            # Greedy: it has one short answer to a question, and a drawn one is more often wrong.
            "generation_config.json": {
                "bos_token_id": config["bos_token_id"],
                "do_sample": False,
                "eos_token_id": [config["eos_token_id"], config["pad_token_id"]],
                "pad_token_id": config["pad_token_id"],
                "suppress_tokens": [config["image_token_id"], config["video_token_id"]],
            },
            "preprocessor_config.json": {
                "min_pixels": MIN_PIXELS,
                "max_pixels": MAX_PIXELS,
                "patch_size": 14,
                "temporal_patch_size": 1,
                "merge_size": 2,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "processor_class": "KeyeProcessor",
                "model_type": "Keye",
                "sampling": SAMPLING,
                "tool_prompt": False,  # it reads the words of its world only
            },
        }
        for file, content in files.items():
            (companions / file).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        save_tokenizer(tokenizer, companions)
        write_model(folder, model.state_dict(), companions)


@torch.no_grad()
def inherit(model: KeyeForConditionalGeneration, tokenizer: Tokenizer, former: Path) -> None:
    """Give `model` the weights of the model in the folder `former`; rows of words go by the words, and a new word
    keeps its own. FinetuneError where the two differ in more than their vocabulary."""
    old = load_model(former, torch.float32)
    words = Tokenizer.from_file(str(former / "tokenizer.json")).get_vocab()
    pairs = [(i, words[word]) for word, i in tokenizer.get_vocab().items() if word in words]
    new_rows, old_rows = (torch.tensor(side) for side in zip(*pairs, strict=True))
    mine = model.state_dict()
    for name, value in old.state_dict().items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            mine[name][new_rows] = value[old_rows]
        elif name in mine and mine[name].shape == value.shape:
            mine[name].copy_(value)
        else:
            raise FinetuneError(f"{former} is no keye-nano of this size: {name} is {list(value.shape)} there.")
