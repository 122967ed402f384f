"""Switches, templates and sampling as published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.reasoning.modes import BENCHMARK, MODES, mode_of, with_switch
from engine.runtime.base import Decoding, Message

PICTURE = np.zeros((28, 28, 3), np.uint8)
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "keye-vl-8b-preview" / "generation_config.json"


def test_sampling_is_that_of_the_published_generation_config() -> None:
    published = json.loads(GOLDEN.read_text("utf-8"))
    assert (Decoding().temperature, Decoding().top_p, Decoding().top_k) == tuple(
        published[name] for name in ("temperature", "top_p", "top_k")
    )
    assert not Decoding().greedy and BENCHMARK.greedy and BENCHMARK.max_tokens == 2048


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("auto", "How many?"),
        ("think", "How many?/think"),
        ("no_think", "How many?/no_think"),
        ("think_with_image", "How many?/agentic_think"),
    ],
)
def test_the_switch_ends_the_newest_question_only(name: str, asked: str) -> None:
    talk = [Message("user", (PICTURE, "First?")), Message("assistant", ("Yes.",)), Message("user", ("How many?",))]
    switched = with_switch(talk, mode_of(name))
    assert switched[2].parts == (asked,)
    assert switched[:2] == talk[:2] and talk[2].parts == ("How many?",)


def test_the_switch_follows_the_last_text_of_several_parts() -> None:
    (message,) = with_switch([Message("user", ("Look:", PICTURE, "How many?", PICTURE))], MODES["think"])
    assert [p for p in message.parts if isinstance(p, str)] == ["Look:", "How many?/think"]
    assert with_switch([Message("user", (PICTURE,))], MODES["think"])[0].parts[1:] == ("/think",)


def test_what_cannot_be_asked_is_one_sentence() -> None:
    with pytest.raises(EngineError, match="use one of auto, think"):
        mode_of("deep_think")
    with pytest.raises(EngineError, match="no question"):
        with_switch([Message("assistant", ("Yes.",))], MODES["think"])
