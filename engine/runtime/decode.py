"""Choosing tokens one by one, so that a stream can be stopped after any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.logits_process import SuppressTokensLogitsProcessor

from engine.keye.step import steps_for
from engine.runtime.base import Decoding
from engine.runtime.prefix import Kept


def warpers(decoding: Decoding, suppress: list[int], device: torch.device) -> LogitsProcessorList:
    """What changes the logits before a token is drawn; the library's own, in the order of its `generate`."""
    chain = LogitsProcessorList()
    if suppress:
        chain.append(SuppressTokensLogitsProcessor(suppress, device=str(device)))
    if not decoding.greedy:
        chain.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_k > 0:
            chain.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1.0:
            chain.append(TopPLogitsWarper(decoding.top_p))
    return chain


@torch.inference_mode()
def next_tokens(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    decoding: Decoding,
    suppress: list[int],
    kept: Kept | None = None,
) -> Iterator[int]:
    """Yield token ids for ever, one forward pass each; the caller decides when it is enough.

    `inputs` is one processed prompt (batch of 1), or what engine.runtime.prefix left of it. `kept` is filled in as it
    goes. The same ids as `model.generate` in greedy decoding."""
    ids = inputs["input_ids"]
    chain = warpers(decoding, suppress, ids.device)
    generator = None
    if decoding.seed is not None:
        generator = torch.Generator(device=ids.device).manual_seed(decoding.seed)
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    cache, deltas, logits = output.past_key_values, output.rope_deltas, output.logits
    length = cache.get_seq_length()
    step = steps_for(model, cache)
    if kept is not None:
        kept.cache = cache
    while True:
        scores = chain(ids, logits[:, -1].float())
        if decoding.greedy:
            token = scores.argmax(-1, keepdim=True)
        else:
            token = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        yield int(token)
        if kept is not None:
            kept.ids.append(int(token))
        position = length + deltas  # past the prompt the three axes advance together
        if step is not None:
            logits = step(token, position)
        else:
            positions = position.expand(3, 1, 1)
            logits = model(input_ids=token, position_ids=positions, past_key_values=cache, use_cache=True).logits
        length += 1


class TextStream:
    """Token ids in, text out: a character that is spread over several tokens is held back until it is whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._given = 0

    def push(self, token: int) -> str:
        """The text that this token completes; may be empty."""
        self._ids.append(token)
        text = self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        self._given += len(text)
        return text

    def finish(self) -> str:
        """What was still held back: the replacement characters of an answer cut within a character."""
        whole = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return whole[self._given :]
