"""Token by token, against the recorded generation of the reference and the library's own processors."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from engine.keye import load_model
from engine.runtime.base import Decoding
from engine.runtime.decode import TextStream, next_tokens

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
NAMES = (
    "input_ids",
    "attention_mask",
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "second_per_grid_ts",
)


@pytest.mark.parametrize(
    ("folder", "case"),
    [
        ("A", "text_only"),
        ("A", "one_image"),
        ("A", "video_3fps"),
        ("A", "mixed"),
        ("B", "mixed"),
        ("A15", "video_slowfast"),
    ],
)
def test_greedy_tokens_are_the_references(folder: str, case: str) -> None:
    recorded = load_file(GOLDEN / folder / f"{case}.safetensors")
    model = load_model(GOLDEN / folder, dtype=torch.float32)
    inputs = {name: recorded[name] for name in NAMES if name in recorded}
    suppress = [model.config.image_token_id, model.config.video_token_id]
    wanted = recorded["gen_ids"][0].tolist()
    made = list(islice(next_tokens(model, inputs, Decoding(greedy=True), suppress), len(wanted)))
    assert made == wanted


def test_a_seed_draws_the_same_tokens_and_suppressed_ones_never() -> None:
    recorded = load_file(GOLDEN / "A" / "text_only.safetensors")
    model = load_model(GOLDEN / "A", dtype=torch.float32)
    inputs = {"input_ids": recorded["input_ids"], "attention_mask": recorded["attention_mask"]}

    def draw(seed: int) -> list[int]:
        decoding = Decoding(temperature=5.0, top_k=0, top_p=1.0, seed=seed)
        return list(islice(next_tokens(model, inputs, decoding, list(range(400))), 40))

    assert draw(1) == draw(1) != draw(2)
    assert min(draw(3)) >= 400


def test_characters_spread_over_tokens_come_whole_and_nothing_is_lost() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(ROOT / "assets" / "keye-nano"), local_files_only=True)
    text = "Zwölf Ärzte 短视频 😀👩‍👩‍👧 end"
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer(text)["input_ids"]]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "".join(pieces) + stream.finish() == text


def test_an_answer_cut_within_a_character_ends_with_a_replacement() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(ROOT / "assets" / "keye-nano"), local_files_only=True)
    stream = TextStream(tokenizer)
    ids = tokenizer("ok 😀")["input_ids"][:-1]
    text = "".join(stream.push(token) for token in ids) + stream.finish()
    assert text.startswith("ok ") and text.endswith("\N{REPLACEMENT CHARACTER}")
