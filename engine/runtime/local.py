"""The runtime that runs in this process: a checkpoint folder, plain PyTorch.

Two answers are written at once, a token of the one and a token of the other in turn, so that two can be compared while
they grow; others wait in line. Each then takes about twice as long: the processor is the same."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from engine.errors import EngineError
from engine.events import Answer, Error, Event, Finish, Progress, Queued
from engine.keye import KeyeProcessor, load_model
from engine.keye.processing import encode
from engine.prompt import continues, render
from engine.runtime.adapters import adapter_name, alike, apply_adapter, check_adapter, first_token, idle
from engine.runtime.base import Decoding, Message, ModelInfo, Status
from engine.runtime.checkpoint import describe_checkpoint
from engine.runtime.decode import TextStream, next_tokens
from engine.runtime.line import Line
from engine.runtime.placement import place
from engine.runtime.prefix import Kept, Media, begin
from engine.runtime.source import resolve_model
from engine.runtime.tally import Tally
from engine.video.types import Frames

_LOOK_SECONDS = 0.2  # how often a waiting request looks whether it was stopped
_AT_ONCE = 2  # answers; each holds the keys and values of its own conversation in memory, and keeps them as long


@dataclass
class _Loaded:
    info: ModelInfo
    model: PreTrainedModel
    processor: Any
    ends: frozenset[int]  # tokens that end an answer
    suppress: list[int]  # tokens that must never be drawn


class LocalRuntime:
    """Loads a model folder and streams answers. `model` is a folder, a hub id, or None for keye-nano; `adapter` is the
    folder of a LoRA adapter that answers with it."""

    def __init__(
        self,
        model: str | None = None,
        *,
        adapter: Path | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        four_bit: bool | None = None,
    ) -> None:
        self._model, self._adapter = model, adapter
        self._device, self._dtype, self._four_bit = device, dtype, four_bit
        self._line = Line(_AT_ONCE)
        self._model_line = Line()  # one token at a time, and what is kept is looked at and changed by one at a time
        self._status = Status("starting", "Waiting to load the model.")
        self._loaded: _Loaded | None = None
        self._kept: list[Kept] = []  # of the last answers, the newest at the end
        self._settled = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._load, name="load-model", daemon=True)
                self._thread.start()

    def status(self) -> Status:
        return self._status

    def info(self) -> ModelInfo:
        return self._wait().info

    def close(self) -> None:
        self._loaded, self._kept = None, []
        gc.collect()  # a model is held in circles, and the next one needs its memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def model(self) -> str | None:
        """What it was made for: a folder, a hub id, or None for keye-nano."""
        return self._model

    def on(self, model: str | None, adapter: Path | None = None) -> LocalRuntime:
        """A runtime like this one for another model (None: the same) and adapter, not started yet."""
        model = self._model if model is None else model
        return LocalRuntime(model, adapter=adapter, device=self._device, dtype=self._dtype, four_bit=self._four_bit)

    def first_token(self) -> torch.Tensor:
        """What tells two models apart (engine.runtime.adapters.first_token). EngineError where it cannot answer."""
        loaded = self._wait()
        with self._model_line.turn():
            return first_token(loaded.model, loaded.processor)

    def _wait(self) -> _Loaded:
        self.start()
        self._settled.wait()
        if self._loaded is None:
            raise EngineError(self._status.message)
        return self._loaded

    def _load(self) -> None:
        try:
            self._loaded = self._load_folder(resolve_model(self._model, self._report))
            self._status = Status("ready")
        except EngineError as error:
            self._status = Status("failed", str(error))
        except (MemoryError, torch.OutOfMemoryError):
            self._status = Status(
                "failed", "The memory ran out while the model was loading; close other programs or take a smaller one."
            )
        except Exception as error:  # a thread must not die silently: whatever it was, the user is told
            self._status = Status(
                "failed", f"The model could not be loaded ({type(error).__name__}: {error}); check its folder."
            )
        finally:
            self._settled.set()

    def _report(self, sentence: str, fraction: float | None) -> None:
        self._status = Status("starting", sentence, fraction)

    def _load_folder(self, folder: Path) -> _Loaded:
        if self._adapter is not None:
            check_adapter(self._adapter)  # before minutes of loading
        where = place(folder, self._device, self._dtype, self._four_bit)
        self._report(f"Loading {folder.name}", None)
        model = load_model(
            folder,
            dtype=where.dtype,
            device=where.device,
            attn_implementation=where.attention,
            quantize_4bit=where.four_bit,
        )
        processor = KeyeProcessor.from_pretrained(folder)
        name = None
        if self._adapter is not None:
            name, before = adapter_name(self._adapter), first_token(model, processor)
            model = apply_adapter(model, folder, self._adapter, merge=not where.four_bit)
            if alike(before, first_token(model, processor)):
                raise idle(name)
        generation: GenerationConfig = model.generation_config
        ends = generation.eos_token_id
        dtype = "4 bit" if where.four_bit else str(where.dtype).removeprefix("torch.")
        info = describe_checkpoint(folder, where.device, dtype, where.note)
        return _Loaded(
            info=replace(info, adapter=name),
            model=model,
            processor=processor,
            ends=frozenset(ends if isinstance(ends, list) else [ends]),
            suppress=list(generation.suppress_tokens or []),
        )

    # -- answers ------------------------------------------------------------------------------------------------

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        tally = Tally(time.perf_counter())
        name = ""
        ticket = self._line.join(again=continues(messages))
        try:
            while not self._settled.is_set():
                self.start()
                status = self._status
                yield Progress("loading", status.fraction)
                if self._settled.wait(_LOOK_SECONDS) or stop.is_set():
                    break
            if stop.is_set():
                yield tally.done("stopped", name)
                return
            loaded = self._wait()
            name, tally.adapter = loaded.info.name, loaded.info.adapter
            told = 0
            while position := self._line.position(ticket, _LOOK_SECONDS):
                if stop.is_set():
                    break
                if position != told:
                    yield Queued(position)
                    told = position
            tally.queue_seconds = tally.elapsed()
            yield from self._answer(loaded, messages, decoding, stop, tally)
        except EngineError as error:
            yield Error(str(error))
            yield tally.done("error", name)
        except (MemoryError, torch.OutOfMemoryError):
            self._kept = []
            yield Error(
                "The memory ran out: lower the visual token budget or the number of frames, or shorten the time range."
            )
            yield tally.done("error", name)
        finally:
            self._line.leave(ticket)

    def _answer(
        self, loaded: _Loaded, messages: list[Message], decoding: Decoding, stop: threading.Event, tally: Tally
    ) -> Iterator[Event]:
        finish: Finish
        text = TextStream(loaded.processor.tokenizer)
        yield Progress("prefill")
        with contextlib.closing(self._tokens(loaded, messages, decoding, stop, tally)) as tokens:
            for token in tokens:
                if tally.first_token_seconds is None:
                    tally.first_token_seconds = tally.elapsed()
                if stop.is_set() or token in loaded.ends:
                    finish = "stopped" if stop.is_set() else "stop"
                    break
                tally.answer_tokens += 1
                if piece := text.push(token):
                    tally.text += piece
                    yield Answer(piece)
            else:
                finish = "stopped" if stop.is_set() else "length"
        if piece := text.finish():
            tally.text += piece
            yield Answer(piece)
        yield tally.done(finish, loaded.info.name)

    def _tokens(
        self, loaded: _Loaded, messages: list[Message], decoding: Decoding, stop: threading.Event, tally: Tally
    ) -> Generator[int, None, None]:
        """The answer's tokens, as many as are asked for and fit, or until `stop`; others have their turn in between."""
        kept: Kept | None = None
        tokens: Iterator[int] = iter(())
        left = 1
        try:
            while left:
                with self._model_line.turn(stop.is_set) as ours:
                    if not ours or stop.is_set():
                        return
                    if kept is None:
                        began = tally.elapsed()
                        inputs, media, room = self._prepare(loaded, messages, tally)
                        inputs, kept = begin(loaded.model, inputs, media, self._kept)
                        kept.growing = True
                        # What is too much is given up before the memory is needed.
                        self._kept = [*self._kept, kept][-_AT_ONCE:]
                        tokens = next_tokens(loaded.model, inputs, decoding, loaded.suppress, kept)
                        left = min(decoding.max_tokens, room)
                        tally.prepare_seconds = tally.elapsed() - began
                    token = next(tokens)
                yield token
                left -= 1
        finally:
            if kept is not None:
                kept.growing = False

    def _prepare(self, loaded: _Loaded, messages: list[Message], tally: Tally) -> tuple[dict[str, Any], Media, int]:
        """The model's inputs on its device, their media, and how many tokens of the context the answer may take."""
        prompt, media = render(messages, loaded.processor.apply_chat_template)
        inputs = dict(encode(loaded.processor, prompt, media).to(loaded.model.device))
        tally.prompt_tokens = int(inputs["input_ids"].shape[1])
        pictures = inputs["input_ids"] == loaded.processor.image_token_id
        tally.visual_tokens = sum(item.total_tokens for item in media if isinstance(item, Frames)) + int(pictures.sum())
        room = loaded.info.context - tally.prompt_tokens
        if room < 1:
            raise EngineError(
                f"The conversation needs {tally.prompt_tokens} tokens and the model holds {loaded.info.context}: "
                "start a new conversation, or lower the visual token budget."
            )
        return inputs, media, room
