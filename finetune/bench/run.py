"""Running a benchmark: asks item by item, several at a time, and can be killed and gone on with at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from engine.errors import EngineError
from engine.events import Done, Error
from engine.reasoning.modes import BENCHMARK
from engine.runtime.base import Message, ModelInfo, Runtime
from engine.video import Cancelled, Sampling
from engine.video.cache import FrameCache
from finetune.bench import judge as judging
from finetune.bench.base import Benchmark, Item, rows
from finetune.bench.judge import Judge
from finetune.bench.lines import to_prediction
from finetune.bench.media import frame_count, load
from finetune.bench.modes import SWITCHES, Mode
from finetune.bench.predictions import Predictions
from finetune.bench.tasks import task_named
from finetune.errors import FinetuneError

_CACHE_BYTES = 64 << 20  # frames kept for the next question about the same video
_LOOK_SECONDS = 0.5  # how often a run looks whether it was stopped


@dataclass(frozen=True)
class Plan:
    """What is measured and how. The defaults are the published evaluation's (KC-MMBENCH.md §2): thinking, greedy, at
    most 2048 new tokens. None leaves a sampling limit to the model."""

    benchmark: Benchmark
    data: Path
    mode: Mode = "think"
    limit: int | None = None  # items of each task
    max_tokens: int = BENCHMARK.max_tokens
    fps: float | None = None
    max_frames: int | None = None
    budget: int | None = None

    def check(self) -> None:
        """FinetuneError where a number makes no sense or the data folder is not there."""
        if self.mode not in get_args(Mode):
            raise FinetuneError(f"The mode {self.mode!r} is not known; use {', '.join(get_args(Mode))}.")
        for name in ("limit", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise FinetuneError(f"{name} is {value}; give at least 1.")
        if self.benchmark.needs_data and not self.data.is_dir():
            raise FinetuneError(f"{self.data} is no folder; give one that holds {self.benchmark.layout}.")

    def sampling(self, info: ModelInfo) -> Sampling:
        return info.sampling.with_limits(fps=self.fps, max_frames=self.max_frames, budget=self.budget)

    def settings(self, info: ModelInfo) -> dict[str, Any]:
        """What all items of a run must share for their scores to belong together."""
        return {
            "benchmark": self.benchmark.name,
            "model": info.name,
            "checkpoint": info.path,
            "weights": fingerprint(Path(info.path)),
            "adapter": info.adapter,
            "mode": self.mode,
            "max_tokens": self.max_tokens,
            "greedy": BENCHMARK.greedy,
            "sampling": asdict(self.sampling(info)),
        }


_ENDS = 1 << 16  # bytes at either end of a file of weights


def fingerprint(folder: Path) -> str | None:
    """Tells the weights in a model folder from others in the same place, such as those of a later training; None
    where there are none. Only the ends of the files are read, so it takes no time even for a large model."""
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    for path in files:
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS) + str(size).encode())
    return digest.hexdigest()[:16] if files else None


@dataclass(frozen=True)
class Progress:
    """How far a run is. `seconds_left` is None until one item has been answered."""

    done: int
    total: int
    failed: int
    seconds_left: float | None


Report = Callable[[Progress], None]


def run(
    plan: Plan,
    runtime: Runtime,
    out: Path,
    *,
    parallel: int = 4,
    judge: Judge | None = None,
    report: Report = lambda progress: None,
    stop: threading.Event | None = None,
) -> bool:
    """Ask every item that `out` has no answer to, `parallel` at a time; True unless it was stopped before the end.

    Setting `stop` ends it within a token; what was answered stays, and the same call goes on. Raises FinetuneError
    where the data, the settings or `out` cannot be used, EngineError where the model cannot be loaded."""
    stop = stop or threading.Event()
    plan.check()
    if parallel < 1:
        raise FinetuneError(f"At least one request must be in flight, not {parallel}.")
    info = runtime.info()
    with Predictions(out) as predictions:
        _keep_settings(out, plan.settings(info), judge)
        total = sum(1 for _ in rows(plan.benchmark, plan.data, plan.limit))
        asker = _Asker(plan, runtime, info, judge, stop)
        _ask_all(asker, predictions, parallel, total, report)
    return not stop.is_set()


def _keep_settings(out: Path, settings: dict[str, Any], judge: Judge | None) -> None:
    """Write settings.json, or make sure that an earlier part of the run had the same; a judge may come later."""
    path = out / "settings.json"
    settings = json.loads(json.dumps({**settings, "judge": judge.name if judge else None}))
    if path.is_file():
        try:
            earlier = json.loads(path.read_text("utf-8"))
            differing = [k for k in settings if earlier.get(k) != settings[k] and earlier.get(k) is not None]
        except (ValueError, AttributeError, OSError) as error:
            raise FinetuneError(f"{path} is damaged; name another --out.") from error
        if judge is None and differing == ["judge"]:
            raise FinetuneError(f"{out} was judged by {earlier['judge']}; give the judge again, or name another --out.")
        if differing:
            raise FinetuneError(
                f"{out} holds a run with another {', '.join(differing)}; name another --out or move it away."
            )
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(path)


def _ask_all(asker: _Asker, predictions: Predictions, parallel: int, total: int, report: Report) -> None:
    """Feed the threads with one item each and no more: nothing waits in memory, however many items there are."""
    counts = {"done": 0, "failed": 0, "asked": 0}
    began = time.monotonic()
    running: set[Future[dict[str, Any] | None]] = set()

    def tell() -> None:
        left = None
        if counts["asked"]:
            left = (time.monotonic() - began) / counts["asked"] * (total - counts["done"])
        report(Progress(counts["done"], total, counts["failed"], left))

    def collect(wanted: int) -> None:
        """Wait until at most `wanted` are running and write down what they brought."""
        nonlocal running
        while len(running) > wanted:
            finished, running = wait(running, _LOOK_SECONDS, FIRST_COMPLETED)
            for future in finished:
                row = future.result()
                if row is None:  # stopped
                    continue
                predictions.add(row)
                counts["asked"] += 1
                counts["done"] += 1
                counts["failed"] += "error" in row
                tell()

    tell()
    with ThreadPoolExecutor(parallel, "bench") as pool:
        try:
            for row in rows(asker.plan.benchmark, asker.plan.data, asker.plan.limit):
                if asker.stop.is_set():
                    break
                key = (row.task, row.index)
                if not isinstance(row, Item) or not asker.has_work(key, predictions):
                    counts["done"] += 1
                    continue
                running.add(pool.submit(asker.answer, row, predictions.get(key)))
                collect(parallel - 1)
            collect(0)
        except BaseException:
            asker.stop.set()  # the threads must not go on for a run that failed
            raise
    tell()


class _Asker:
    """Answers one item: its media, the model's text, the judge's reply. Called from several threads."""

    def __init__(
        self, plan: Plan, runtime: Runtime, info: ModelInfo, judge: Judge | None, stop: threading.Event
    ) -> None:
        self.plan, self.stop = plan, stop
        self._runtime, self._judge = runtime, judge
        self._sampling = plan.sampling(info)
        self._decoding = replace(BENCHMARK, max_tokens=plan.max_tokens)
        self._cache = FrameCache(_CACHE_BYTES)

    def has_work(self, key: tuple[str, str], predictions: Predictions) -> bool:
        """Whether the item is still to be asked, or asked about."""
        if not predictions.is_finished(key):
            return True
        task = task_named(key[0])
        if self._judge is None or task is None or task.judged is None:
            return False
        known = predictions.get(key) or {}
        return "judged_by" not in known

    def answer(self, item: Item, known: dict[str, Any] | None) -> dict[str, Any] | None:
        """The record of one item; None where it was stopped. `known` is what an earlier attempt left."""
        row = known if known is not None and "error" not in known else self._ask_model(item)
        if row is None or "error" in row:
            return row
        return self._ask_judge(row)

    def _ask_model(self, item: Item) -> dict[str, Any] | None:
        row: dict[str, Any] = {
            "task": item.task,
            "index": item.index,
            "question": item.question,
            "answer": item.answer,
            "category": item.category or None,
        }
        try:
            if item.prepare is not None:
                item.prepare()
            parts = load(item.media, self._sampling, self._cache, self.stop.is_set)
        except Cancelled:
            return None
        except (EngineError, FinetuneError, OSError) as error:
            return {**row, "output": None, "error": f"the media cannot be read: {error}"}
        message = Message("user", (*parts, item.prompt + SWITCHES[self.plan.mode]))
        failure, done = "", None
        for event in self._runtime.stream([message], self._decoding, self.stop):
            if isinstance(event, Error):
                failure = event.message
            elif isinstance(event, Done):
                done = event
        if failure or done is None or done.finish == "error":
            return {**row, "output": None, "error": f"the model failed: {failure or 'it gave no answer'}"}
        if done.finish == "stopped":
            return None
        return {
            **row,
            "output": done.text,
            "finish": done.finish,
            "frames": frame_count(parts),
            "prompt_tokens": done.prompt_tokens,
            "visual_tokens": done.visual_tokens,
            "answer_tokens": done.answer_tokens,
        }

    def _ask_judge(self, row: dict[str, Any]) -> dict[str, Any]:
        task, prediction = task_named(row["task"]), to_prediction(row)
        if self._judge is None or task is None or task.judged is None or isinstance(prediction, str):
            return row
        judged = judging.ask(self._judge, task.judged, prediction)
        row = {key: value for key, value in row.items() if key not in ("judge_reply", "judge_error")}
        row["judged_by"] = self._judge.name
        if judged.reply is not None:
            row["judge_reply"] = judged.reply
        if judged.error:
            row["judge_error"] = judged.error
        return row
