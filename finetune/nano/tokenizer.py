"""keye-nano's tokenizer: a small byte-level BPE with the published special tokens, able to write any text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from engine.reasoning.modes import (
    ANALYSIS_CLOSE,
    ANALYSIS_OPEN,
    ANSWER_CLOSE,
    ANSWER_OPEN,
    MODE_NAMES,
    MODES,
    RESULT_CLOSE,
    RESULT_OPEN,
)
from finetune.world import phrases, phrases_zh
from finetune.world.details import with_details
from finetune.world.questions import draw
from finetune.world.scene import BACKGROUNDS, COLOURS, NEW_MOTIONS, NEW_SHAPES, SHAPES, TEXTURES, make_scene
from finetune.world.speech import SPEECH
from finetune.world.thoughts import SIMPLE_VIDEO, detail_problem, draw_steps, simple_problem, turn_of

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<|point_start|>",
    "<|point_end|>",
    "<|ocr_text_start|>",
    "<|ocr_text_end|>",
    "<|clip_time_start|>",
    "<|clip_time_end|>",
]
"""As published, in the published order."""

CONTROL = frozenset(
    [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ]
)
"""Those that the published configuration marks special: left out when an answer is decoded to text."""

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in "
    "content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}"
    "Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] "
    "== 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}"
    "Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content "
    "%}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)
"""The published template of the processor."""

VOCABULARY = 1792

# A capital that does not begin a word, and every digit, is a token of its own: made-up text and times are read and
# written character by character. `Red` stays whole, so that an answer is told from others by its first token. The
# world's Chinese words stay whole too, the longest first, and so does what stands between two numbers of a box.
_CHINESE = "|".join(sorted(phrases_zh.WORDS, key=lambda word: (-len(word), word)))
# So do the marks and the sentences of the modes, which every answer in a mode repeats.
_MARKS = (
    *(ANALYSIS_OPEN, ANALYSIS_CLOSE, ANSWER_OPEN, ANSWER_CLOSE, RESULT_OPEN, RESULT_CLOSE),
    *(f" Therefore, {MODES[mode].switch} mode is more appropriate." for mode in ("no_think", "think")),
    *(mode.switch for mode in MODES.values() if mode.switch),
)
_WHOLE = "|".join(map(re.escape, _MARKS))
_SINGLE = rf"{_WHOLE}|[A-Z](?![a-z])|[0-9]|, (?=[0-9])|{_CHINESE}"
_WORDS = (
    rf"\A(?:{_WHOLE})\z|" + r"\A, \z|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus(seed: int = 0, scenes: int = 3000) -> Iterator[str]:
    """Questions and answers of training scenes, and the words around them; one text each."""
    rng = random.Random(seed)
    for i in range(scenes):
        scene = make_scene(i, duration=rng.choice((0, 2, 4, 8)))
        for question in draw(scene, rng, 8, chinese=0.35):
            yield question.text
            yield question.answer
        yield from _reasoned(i, rng)
    for _ in range(200):
        for talk in (phrases, phrases_zh):
            yield from talk.GREETINGS + talk.WHO + talk.THANKS + talk.FOREIGN + tuple(talk.ANSWERS.values())
        yield from ("system\nYou are a helpful assistant.", "user\n", "assistant\n")
        yield from (*_MARKS, "\\boxed{", "<", ">", "</", *(f"{SPEECH['en'].number(n)}" for n in range(13)))
        yield from phrases_zh.WORDS
        for word in COLOURS + SHAPES + BACKGROUNDS + TEXTURES + NEW_SHAPES + NEW_MOTIONS:
            yield from (word, f" {word}", word.capitalize(), f" {word}s")


def _reasoned(number: int, rng: random.Random) -> Iterator[str]:
    """Questions about one scene with all that is written to them in the modes."""
    scene = make_scene(number, duration=4.0)
    detailed = with_details(scene, rng, 112)
    problems = [draw_steps(scene, rng), simple_problem(scene, rng, rng.choice(SIMPLE_VIDEO))]
    if detailed is not None:
        problems.append(detail_problem(detailed, rng, (112, 112)))
    for problem in problems:
        if problem is not None:
            for mode in MODE_NAMES:
                turn = turn_of(problem, mode)
                yield from (turn.text, *turn.said)


def train_tokenizer(seed: int = 0, size: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE of exactly `size` entries at most, special tokens included, after the 256 bytes and merges.

    Always the same for the same arguments."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SINGLE), "isolated"),
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        min_frequency=20,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=text in CONTROL) for text in SPECIAL])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.json in the published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    added: dict[str, Any] = {
        str(tokenizer.token_to_id(text)): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": text in CONTROL,
        }
        for text in SPECIAL
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [text for text in SPECIAL if text in CONTROL and text != "<|endoftext|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "processor_class": "KeyeProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}, indent=1) + "\n", "utf-8")
