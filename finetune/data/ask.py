"""What a model reads in media and says of them: frame-level OCR and re-captioning (section 3.1 of the report).

Every medium is asked about once: answers go to an append-only file, and a rerun of the same command asks only what has
no answer yet. A medium that fails is counted and named, and asked again the next time."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.events import Done, Error
from engine.reasoning.final_answer import final_answer
from engine.reasoning.loop import reason
from engine.reasoning.modes import BENCHMARK, MODES
from engine.runtime.base import Message, Part, Runtime
from engine.timed import Timed, sayable
from engine.video import Cancelled, Clip, sample
from finetune.bench.predictions import Predictions
from finetune.bench.run import fingerprint
from finetune.data.frames import every, picture, span
from finetune.data.itemfile import from_json
from finetune.data.items import Caption, Item, Medium
from finetune.data.report import Report
from finetune.errors import FinetuneError

READ = "What text is shown?"
CAPTION_VIDEO = "What happens in this video?"
CAPTION_IMAGE = "What is in this picture?"
"""Questions in plain words that keye-nano knows too."""

RATES = (0.5, 1.0, 2.0)
"""Frames per second at which the report has videos captioned."""

_NOTHING = frozenset({"", "none", "no text", "there is no text", "no text is shown", "没有文字", "无", "图中没有文字"})
_LONGEST = 1024  # pixels of the longer side of a frame that is read


@dataclass(frozen=True)
class Asking:
    """Whom to ask, where answers are kept, and how. `stop` ends the work between two tokens."""

    runtime: Runtime
    kept: Path
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    max_tokens: int = 512
    read_fps: float = 1.0
    read_question: str = READ
    rates: tuple[float, ...] = RATES
    caption_question: str | None = None
    all_captions: bool = False  # caption what has a caption already, too
    tell: Callable[[int, int, int], None] = lambda done, total, failed: None

    def __post_init__(self) -> None:
        """Raises FinetuneError for rates that make no sense."""
        for rate in (self.read_fps, *self.rates):
            if not 0 < rate <= 60:
                raise FinetuneError(f"{rate:g} frames per second make no sense here; give a number up to 60.")
        if self.max_tokens < 1:
            raise FinetuneError(f"An answer of at most {self.max_tokens} tokens says nothing; give at least 1.")
        if not self.rates:
            raise FinetuneError("Give at least one rate to caption videos at, such as 1.")


class _Failed(Exception):
    """Why a medium got no answer, in a few words; the detail says more."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why


def ocr(items: Sequence[Item], folder: Path, asking: Asking) -> tuple[list[Item], Report]:
    """Has the text in pictures and in the frames of videos read; a video's readings that stay the same from frame to
    frame become one, from the first frame that shows it to the first that does not."""
    report = Report("ocr", "media")
    job = _Job(asking, report, "ocr")
    wanted = [item for item in items if _has_one_medium(item) and not item.screen]

    def read(medium: Medium) -> list[dict[str, Any]]:
        path = folder / medium.path
        if medium.kind == "image":
            said = job.ask((picture(path),), asking.read_question)
            return [] if is_nothing(said) else [{"start": 0.0, "end": 0.0, "text": said}]
        readings = [
            (time, job.ask((frame,), asking.read_question))
            for time, frame in every(path, medium, asking.read_fps, _LONGEST)
        ]
        merged = merge(readings, 1 / asking.read_fps, span(path, medium)[1])
        return [dataclasses.asdict(cue) for cue in merged]

    found: dict[str, tuple[Timed, ...]] = {}
    settings = f"{asking.read_question} {asking.read_fps:g} fps"
    for item, _, output in job.run(
        [(item, item.media[0]) for item in wanted], folder, settings, read, tuple[Timed, ...]
    ):
        found[item.id] = output
        if not found[item.id]:
            report.drop(item.id, "no text was found")
    report.made = sum(bool(cues) for cues in found.values())
    return [replace(item, screen=found[item.id]) if found.get(item.id) else item for item in items], report


def is_nothing(reading: str) -> bool:
    """Whether a reading says that there is no text, or cannot be written between marks."""
    return reading.strip().strip(".。!").casefold() in _NOTHING or not sayable(reading)


def merge(readings: Sequence[tuple[float, str]], step: float, end: float) -> tuple[Timed, ...]:
    """(second, text) of frames that are `step` seconds apart as cues: the same text in frames that follow each other
    is one cue, which ends where the next frame begins, or at `end`. Blanks within a text do not count."""
    out: list[Timed] = []
    open_text = ""
    for time, text in readings:
        same = " ".join(text.split())
        text = "" if is_nothing(same) else same
        until = min(time + step, end)
        if text and text == open_text:
            out[-1] = replace(out[-1], end=until)
        elif text:
            if out and out[-1].end > time:
                out[-1] = replace(out[-1], end=time)
            out.append(Timed(time, until, text))
        open_text = text
    return tuple(out)


def recaption(items: Sequence[Item], folder: Path, asking: Asking) -> tuple[list[Item], Report]:
    """Has media without a caption described (or all of them), pictures once and videos at each of the rates."""
    report = Report("recaption", "captions")
    job = _Job(asking, report, "recaption")
    name = asking.runtime.info().name
    wanted = [
        (item, replace(item.media[0], fps=rate))
        for item in items
        if _has_one_medium(item) and (asking.all_captions or not item.text)
        for rate in (asking.rates if item.is_video else (None,))
    ]

    def describe(medium: Medium) -> str:
        path = folder / medium.path
        if medium.kind == "image":
            said = job.ask((picture(path),), asking.caption_question or CAPTION_IMAGE)
        else:
            sampling = asking.runtime.info().sampling.with_limits(fps=medium.fps)
            frames = sample(Clip(path, medium.start, medium.end), sampling, cache=None, cancelled=asking.stop.is_set)
            said = job.ask((frames,), asking.caption_question or CAPTION_VIDEO)
        if not said:
            raise _Failed("the model said nothing", medium.path)
        return said

    found: dict[str, list[Caption]] = {}
    settings = asking.caption_question or f"{CAPTION_IMAGE} {CAPTION_VIDEO}"
    for item, medium, output in job.run(wanted, folder, settings, describe, str):
        found.setdefault(item.id, []).append(Caption(output, name, medium.fps))
    report.made = sum(map(len, found.values()))
    return [replace(i, captions=(*i.captions, *found[i.id])) if i.id in found else i for i in items], report


def _has_one_medium(item: Item) -> bool:
    return item.is_image or item.is_video


class _Job:
    """Asks about media one after the other and remembers the answers."""

    def __init__(self, asking: Asking, report: Report, task: str) -> None:
        self._asking, self._report, self._task = asking, report, task
        info = asking.runtime.info()
        self._model = f"{info.name} {fingerprint(Path(info.path))}"

    def run(
        self,
        wanted: Sequence[tuple[Item, Medium]],
        folder: Path,
        settings: str,
        work: Callable[[Medium], Any],
        kind: Any,
    ) -> list[tuple[Item, Medium, Any]]:
        """The answers there are, in order, old and new; what failed is in the report. `work` gives an answer as JSON,
        `kind` is the type that it has here."""
        out: list[tuple[Item, Medium, Any]] = []
        failed = 0
        with Predictions(self._asking.kept) as kept:
            for done, (item, medium) in enumerate(wanted):
                self._asking.tell(done, len(wanted), failed)
                self._report.came += 1
                row = self._row(kept, medium, folder / medium.path, settings, work, kind)
                if row is None:
                    self._report.drop(item.id, "it was not asked about before the stop")
                elif "error" in row:
                    failed += 1
                    self._report.drop(item.id, row["error"], row["detail"])
                else:
                    out.append((item, medium, row["output"]))
        self._asking.tell(len(wanted), len(wanted), failed)
        return out

    def _row(
        self, kept: Predictions, medium: Medium, path: Path, settings: str, work: Callable[[Medium], Any], kind: Any
    ) -> dict[str, Any] | None:
        """The record of one medium; None where it was stopped."""
        stat = path.stat() if path.is_file() else None
        version = f"{stat.st_size} {stat.st_mtime_ns}" if stat else "missing"
        index = "\n".join((json.dumps(dataclasses.asdict(medium)), version, settings, self._model))
        known = kept.get((self._task, index))
        if known is not None and kept.is_finished((self._task, index)):
            try:
                return {**known, "output": from_json(kind, known.get("output"))}
            except TypeError:
                pass  # the file was changed by others: ask again
        row: dict[str, Any] = {"task": self._task, "index": index}
        try:
            if self._asking.stop.is_set():
                return None
            output = work(medium)
        except Cancelled:
            return None
        except _Failed as error:
            row |= {"error": error.why, "detail": str(error)}
        except (EngineError, FinetuneError, OSError) as error:
            row |= {"error": f"a {medium.kind} cannot be read", "detail": str(error)}
        except MemoryError:
            row |= {"error": f"the memory does not hold a {medium.kind}", "detail": medium.path}
        else:
            kept.add({**row, "output": output})
            return {**row, "output": from_json(kind, json.loads(json.dumps(output)))}
        kept.add(row)
        return row

    def ask(self, parts: tuple[Part, ...], question: str) -> str:
        """The model's whole answer, greedily drawn and without thinking. Raises _Failed, and Cancelled when stopped."""
        decoding = replace(BENCHMARK, max_tokens=self._asking.max_tokens)
        messages = [Message("user", (*parts, question))]
        failure, done = "", None
        for event in reason(self._asking.runtime, messages, decoding, self._asking.stop, MODES["no_think"]):
            if isinstance(event, Error):
                failure = event.message
            elif isinstance(event, Done):
                done = event
        if self._asking.stop.is_set():
            raise Cancelled("Asking was stopped.")
        if failure or done is None or done.finish == "error":
            raise _Failed("the model failed", failure or "it gave no answer")
        if done.finish == "length":
            raise _Failed("an answer was cut at the token limit", done.text[:80])
        if any("repeat" in note for note in done.notes):
            raise _Failed("an answer repeated itself", done.text[:80])
        return final_answer(done.text).strip()
