"""What is said in a video, by any Whisper checkpoint in a folder of this machine.

As the published program transcribes: half a minute at a time; the model writes text between time stamps, and the next
half minute begins at the last one it was sure of (Radford et al., 2022, section 3.8). Half minutes in which nothing is
heard are passed over, since the model would make something up.

Weights are safetensors, no code of the folder runs, nothing is downloaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import EngineError
from engine.keye.loading import weight_files
from engine.sound.read import read_sound
from engine.timed import Timed
from engine.video.probe import probe
from engine.video.types import Cancelled, VideoInfo

TICK = 0.02
"""Seconds between two time stamps of the model."""

_SILENT = 10 ** (-60 / 20)  # of full scale: a half minute whose loudest sample is below is not asked about
_SUPPRESS_FREE = 4  # tokens of a prompt: start, language, task, and one to spare


@dataclass(frozen=True)
class Transcript:
    """What is said, by whom that was heard, and in which language (a code such as `en`; "" where it is not known)."""

    cues: tuple[Timed, ...]
    by: str
    language: str = ""


class SpeechModel:
    """A Whisper checkpoint. It is loaded when first needed; one video at a time is transcribed.

    `language` is a code such as `en` or `zh`; None has the model find out from each video."""

    def __init__(self, folder: str | Path, device: str | None = None, language: str | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.language = language
        self._device = device
        self._lock = threading.Lock()
        self._parts: tuple[Any, Any, Any] | None = None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def check(self) -> None:
        """Raise EngineError where the folder cannot be a Whisper checkpoint. Reads no weights."""
        from transformers import GenerationConfig, WhisperConfig

        if not (self.folder / "config.json").is_file():
            raise EngineError(
                f"{self.folder} has no config.json; give the folder of a Whisper checkpoint with --asr, "
                "with its .safetensors file."
            )
        config = _read(lambda: WhisperConfig.get_config_dict(str(self.folder), local_files_only=True)[0], self.folder)
        if config.get("model_type") != "whisper":
            raise EngineError(
                f"{self.folder} holds a model of type {config.get('model_type')!r:.40}; give a Whisper checkpoint."
            )
        weight_files(self.folder)
        for name in ("preprocessor_config.json", "tokenizer.json", "generation_config.json"):
            if not (self.folder / name).is_file():
                raise EngineError(f"{self.folder} has no {name}; download the whole Whisper checkpoint.")
        generation = _read(lambda: GenerationConfig.from_pretrained(str(self.folder)), self.folder)
        known = getattr(generation, "lang_to_id", None)
        if getattr(generation, "no_timestamps_token_id", None) is None:
            raise EngineError(f"{self.folder} writes no times; download a newer Whisper checkpoint.")
        if self.language and known and f"<|{self.language}|>" not in known:
            codes = ", ".join(sorted(code.strip("<|>") for code in known))
            raise EngineError(f"{self.name} knows no language {self.language!r:.20}; it knows {codes}.")

    def transcribe(
        self,
        path: str | Path,
        info: VideoInfo | None = None,
        *,
        progress: Callable[[float, float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Transcript:
        """What is said in a video and when. Holds half a minute of sound at a time.

        `progress` is called with (seconds done, seconds in all), `cancelled` is asked between half minutes. A video
        without sound gives no cues. Raises EngineError, and Cancelled."""
        info = info or probe(path)
        with self._lock, torch.inference_mode():
            model, features, tokenizer = self._load()
            rate, window = int(features.sampling_rate), float(features.chunk_length)
            language = self.language
            cues: list[Timed] = []
            at = 0.0
            while at < info.duration:
                if cancelled is not None and cancelled():
                    raise Cancelled("Stopped.")
                if progress is not None:
                    progress(at, info.duration)
                end = min(at + window, info.duration)
                heard = read_sound(path, at, end, rate=rate, mono=True, info=info)
                samples = np.array(heard.get_array_of_samples(), np.float32) / 32768
                if not len(samples) or float(np.abs(samples).max()) < _SILENT:
                    at = end
                    continue
                given = features(samples, sampling_rate=rate, return_tensors="pt")["input_features"]
                given = given.to(model.device, model.dtype)
                language = language or _detected(model, given)
                tokens = _written(model, given, language)
                first = int(model.generation_config.no_timestamps_token_id) + 1
                segments, seconds = timed_tokens(tokens, first, int(model.config.eos_token_id), end - at)
                for start, until, words in segments:
                    text = " ".join(str(tokenizer.decode(words, skip_special_tokens=True)).split())
                    if text:
                        cues.append(Timed(round(at + start, 2), round(min(at + until, info.duration), 2), text))
                at += seconds
            if progress is not None:
                progress(info.duration, info.duration)
        return Transcript(without_repetitions(cues), self.name, language or "")

    def _load(self) -> tuple[Any, Any, Any]:
        if self._parts is not None:
            return self._parts
        self.check()
        from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration

        device = torch.device(self._device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.float16 if device.type == "cuda" else torch.float32

        def load() -> tuple[Any, Any, Any]:
            model: Any = WhisperForConditionalGeneration.from_pretrained(
                str(self.folder), dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            features = WhisperFeatureExtractor.from_pretrained(str(self.folder), local_files_only=True)
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(self.folder), local_files_only=True)
            return model.to(device).eval(), features, tokenizer

        self._parts = _read(load, self.folder)
        return self._parts


def timed_tokens(
    tokens: Sequence[int], first: int, end: int, seconds: float
) -> tuple[list[tuple[float, float, list[int]]], float]:
    """What a model wrote of one half minute: (start, end, tokens of the text) of every piece, and how many of its
    `seconds` were heard to their end; the rest is to be heard again, from there.

    `first` is the token of time 0, `end` the first one that is no text. Two time stamps in a row part two pieces. After
    a single one at the very end nothing more is said; words without an end are heard again (the published program's
    rule)."""
    kept = [token for token in tokens if token < end or token >= first]
    stamps = [token >= first for token in kept]
    cuts = [i + 1 for i in range(len(kept) - 1) if stamps[i] and stamps[i + 1]]
    if not cuts:
        last = next((token for token in reversed(kept) if token >= first), first)
        until = min((last - first) * TICK, seconds) if last != first else seconds
        begun = min((kept[0] - first) * TICK, until) if kept and stamps[0] else 0.0
        words = [token for token in kept if token < end]
        return ([(begun, until, words)] if words else []), seconds
    single_end = stamps[-2:] == [False, True]
    pieces = []
    for start, stop in zip([0, *cuts], [*cuts, *([len(kept)] if single_end else [])], strict=False):
        piece = kept[start:stop]
        words = [token for token in piece if token < end]
        begun, until = (piece[0] - first) * TICK if piece[0] >= first else 0.0, (piece[-1] - first) * TICK
        if words and begun <= seconds:
            pieces.append((begun, min(max(until, begun), seconds), words))
    heard = seconds if single_end else min((kept[cuts[-1] - 1] - first) * TICK, seconds)
    return pieces, heard if heard > TICK else seconds  # a model that never gets on is not asked for ever


def without_repetitions(cues: Sequence[Timed], most: int = 3) -> tuple[Timed, ...]:
    """Cues without what a model repeats over and over where it hears no words: of equal ones in a row, `most` stay."""
    out: list[Timed] = []
    for cue in cues:
        if len(out) >= most and all(before.text == cue.text for before in out[-most:]):
            continue
        out.append(cue)
    return tuple(out)


def _detected(model: Any, features: torch.Tensor) -> str | None:
    """The language of half a minute, as a code; None where the model knows only one."""
    generation = model.generation_config
    if not getattr(generation, "is_multilingual", True) or not getattr(generation, "lang_to_id", None):
        return None
    found = int(model.detect_language(features)[0])
    codes = {number: code for code, number in generation.lang_to_id.items()}
    return codes[found].strip("<|>")


def _written(model: Any, features: torch.Tensor, language: str | None) -> list[int]:
    """The tokens of half a minute, time stamps included; greedy."""
    named = {"language": language, "task": "transcribe"} if language else {}
    room = int(model.config.max_target_positions)
    made = model.generate(
        features,
        return_timestamps=True,
        force_unique_generate_call=True,
        do_sample=False,
        num_beams=1,
        max_new_tokens=max(1, min(224, room - _SUPPRESS_FREE)),
        **named,
    )
    return [int(token) for token in made[0]]


def _read(load: Callable[[], Any], folder: Path) -> Any:
    try:
        return load()
    except EngineError:
        raise
    except Exception as error:  # the library raises all kinds for files that are broken
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EngineError(f"The speech model in {folder} cannot be read ({reason}); download it again.") from error
