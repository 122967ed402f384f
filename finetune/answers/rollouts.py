"""Answers drawn from a model: several to one question, by the model that is being trained or by a runtime.

All draws come from a seed. The model in this process answers one question several times in one batch: the prompt is
read once, its keys and values are repeated, and every step of decoding is one for all."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel

from engine.errors import EngineError
from engine.events import Answer, Done, Error
from engine.keye import KeyeForConditionalGeneration
from engine.runtime.base import Decoding, Message, Runtime
from engine.runtime.decode import warpers
from engine.runtime.sglang import SGLangRuntime
from finetune.data.conversations import Conversations, Prompt
from finetune.errors import FinetuneError
from finetune.training.adapters import save_adapter

PARALLEL = 16
"""Answers that a server is asked for at once; it takes what it has room for."""


@dataclass(frozen=True)
class Rolled:
    """One answer. `ids` are its tokens, the end of the turn with them where it came to one (`finished`)."""

    ids: tuple[int, ...]
    text: str  # as the model wrote it, tags included
    finished: bool


class Roller(Protocol):
    """What answers a question several times."""

    def roll(self, prompt: Prompt, samples: int, decoding: Decoding) -> list[Rolled]:
        """`samples` answers, the same for the same `decoding.seed`. Raises FinetuneError where nothing answers."""
        ...

    def renew(self) -> None:
        """Answer as the model that is trained would from now on."""
        ...


class ModelRoller:
    """The weights as they are at this moment."""

    def __init__(self, model: KeyeForConditionalGeneration, conversations: Conversations) -> None:
        self.model, self.conversations = model, conversations
        generation: Any = model.generation_config
        ends = generation.eos_token_id
        self._ends = torch.tensor(ends if isinstance(ends, list) else [ends])
        self._suppress = list(generation.suppress_tokens or [])

    def roll(self, prompt: Prompt, samples: int, decoding: Decoding) -> list[Rolled]:
        room = self.conversations.longest - len(prompt.seen.input_ids)
        training = self.model.training
        self.model.eval()  # recomputing activations and keeping keys and values exclude each other
        try:
            drawn = self._draw(prompt, samples, replace(decoding, max_tokens=max(1, min(decoding.max_tokens, room))))
        finally:
            self.model.train(training)
        out = []
        decode: Any = self.conversations.processor.tokenizer.decode
        for row in drawn.tolist():
            end = next((i for i, token in enumerate(row) if token in self._ends), None)
            ids = tuple(row if end is None else row[: end + 1])
            text = decode(
                ids if end is None else ids[:-1], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            out.append(Rolled(ids, text, end is not None))
        return out

    def renew(self) -> None:
        """These are its weights."""

    @torch.no_grad()
    def _draw(self, prompt: Prompt, samples: int, decoding: Decoding) -> torch.Tensor:
        """int64 [samples, tokens]; what follows a row's first end is to be cut off."""
        model: Any = self.model
        device = model.lm_head.weight.device
        chain = warpers(decoding, self._suppress, device)
        generator = torch.Generator(device=device).manual_seed(decoding.seed or 0)
        seen = prompt.seen
        given = {
            name: value.to(device)
            for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
            if (value := getattr(seen, name)) is not None
        }
        ids: Any = seen.input_ids[None].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = model(
                input_ids=ids, position_ids=seen.position_ids[:, None].to(device), use_cache=True, logits_to_keep=1,
                **given,
            )  # fmt: skip
            cache, logits = out.past_key_values, out.logits[:, -1].float().expand(samples, -1)
            ended = torch.zeros(samples, dtype=torch.bool, device=device)
            ends, drawn = self._ends.to(device), []
            for step in range(decoding.max_tokens):
                scores = chain(ids, logits)
                if decoding.greedy:
                    token = scores.argmax(-1)
                else:
                    token = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
                drawn.append(token)
                ended |= torch.isin(token, ends)
                if bool(ended.all()) or step + 1 == decoding.max_tokens:
                    break
                if step == 0:
                    cache.batch_repeat_interleave(samples)
                positions = torch.full((3, samples, 1), prompt.following + step, device=device)
                out = model(input_ids=token[:, None], position_ids=positions, past_key_values=cache, use_cache=True)
                logits = out.logits[:, -1].float()
        return torch.stack(drawn, dim=1)


class RuntimeRoller:
    """A runtime that holds the model already: `local` on a folder, or SGLang, whose adapter of the same name is taken.

    A runtime gives text; it is cut into tokens again, which may give other tokens than were drawn. What is learnt from
    them is weighed by their probability under the model itself, so that nothing depends on the runtime's own."""

    def __init__(self, runtime: Runtime, conversations: Conversations, parallel: int = 1) -> None:
        self.runtime, self.conversations, self.parallel = runtime, conversations, parallel

    def roll(self, prompt: Prompt, samples: int, decoding: Decoding) -> list[Rolled]:
        seeds = [None if decoding.seed is None else decoding.seed + i for i in range(samples)]
        asked: Sequence[Decoding] = [replace(decoding, seed=seed) for seed in seeds]
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda one: self._one(prompt.messages, one), asked))

    def renew(self) -> None:
        """The runtime's model stays what it is."""

    def _one(self, messages: list[Message], decoding: Decoding) -> Rolled:
        text, finished = "", False
        for event in self.runtime.stream(messages, decoding, threading.Event()):
            if isinstance(event, Error):
                raise FinetuneError(f"The runtime could not answer: {event.message}")
            if isinstance(event, Answer):
                text += event.text
            if isinstance(event, Done):
                finished = event.finish == "stop"
        ids = self.conversations.answer(text)
        return Rolled(tuple(ids if finished else ids[:-1]), text, finished)


class ServedRoller(RuntimeRoller):
    """An SGLang server on the model that the training began with, and the adapter that is trained, brought to it anew
    whenever answers are to follow the model."""

    def __init__(
        self, server: SGLangRuntime, adapted: PeftModel, conversations: Conversations, scratch: Path
    ) -> None:  # fmt: skip
        """`server` serves the base of `adapted`; what is brought to it passes through the folder `scratch`."""
        super().__init__(server, conversations, PARALLEL)
        self._server, self._adapted, self._scratch = server, adapted, scratch
        self._turns, self._name = 0, ""

    def renew(self) -> None:
        self._turns += 1
        before, self._name = self._name, f"rolling-{self._turns}"
        folder = self._scratch / self._name
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_adapter(self._adapted, folder)
        try:
            self._server.load_adapter(self._name, folder, idle_too=True)  # before its first step it changes nothing
            self._server.use_adapter(self._name)
            if before:
                self._server.unload_adapter(before)
                shutil.rmtree(self._scratch / before, ignore_errors=True)
        except EngineError as error:
            raise FinetuneError(f"The server does not take the adapter that is trained: {error}") from error

    def close(self) -> None:
        """End the server and forget the adapters that passed through."""
        self._server.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
