"""Decoding on the CPU, token by token, against the library's `generate` on the same weights."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.figures import Line, Row, Series, Size, at_least
from bench.worker import alternate, ours

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "assets" / "keye-nano"
CLIP = ROOT / "assets" / "demo" / "three-shapes.mp4"
GOAL = 1.5


@contextmanager
def endless() -> Iterator[Path]:
    """keye-nano in a folder of its own, kept from ending an answer: every answer has the full length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "keye-nano"
        shutil.copytree(NANO, folder)
        file = folder / "generation_config.json"
        fields = json.loads(file.read_text("utf-8"))
        ends = fields["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        fields["suppress_tokens"] = [*fields.get("suppress_tokens", []), *ends]
        file.write_text(json.dumps(fields), "utf-8")
        yield folder


def _question(folder: str) -> list[Any]:
    from engine.runtime.base import Message
    from engine.video import Clip, sample, sampling_for

    return [Message("user", (sample(Clip(CLIP), sampling_for(folder)), "What happens?"))]


def local(folder: str, tokens: int) -> Callable[[], list[Any]]:
    """An answer of the local runtime, greedy: its text and how many tokens it has."""
    from engine.events import Done
    from engine.runtime.base import Decoding
    from engine.runtime.local import LocalRuntime

    runtime = LocalRuntime(folder, device="cpu", dtype=torch.float32)
    runtime.info()
    messages = _question(folder)

    def work() -> list[Any]:
        *_, done = runtime.stream(messages, Decoding(max_tokens=tokens, greedy=True), threading.Event())
        assert isinstance(done, Done)
        return [done.text, done.answer_tokens]

    return work


def library(folder: str, tokens: int) -> Callable[[], list[Any]]:
    """The same answer by `generate`."""
    from engine.keye import KeyeProcessor, load_model
    from engine.keye.processing import encode
    from engine.prompt import render

    model: Any = load_model(folder, dtype=torch.float32)
    processor = KeyeProcessor.from_pretrained(folder)
    messages = _question(folder)

    def work() -> list[Any]:
        prompt, media = render(messages, processor.apply_chat_template)
        inputs = encode(processor, prompt, media)
        made = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        return [processor.decode(made, skip_special_tokens=True), len(made)]

    return work


def measure(size: Size) -> list[Line]:
    tokens = 8 if size.tiny else 256
    with (
        endless() as folder,
        ours(size, "bench.rows.tokens:local", folder=str(folder), tokens=tokens) as mine,
        ours(size, "bench.rows.tokens:library", folder=str(folder), tokens=tokens) as other,
    ):
        made, theirs = alternate((mine.run, other.run), size.runs)
    same = "the same text" if made[0].value[0] == theirs[0].value[0] else "DIFFERENT texts"
    rates = [Series(tuple(run.value[1] / run.seconds for run in runs)) for runs in (made, theirs)]
    cpu = sum(run.cpu for run in theirs) / sum(run.cpu for run in made)
    figure = rates[0].median / rates[1].median
    note = f"{same}; {cpu:.1f}× fewer CPU seconds"
    return [Line("keye-nano, float32", "tokens/s", rates[0], rates[1], figure, "× as fast", at_least(GOAL), note)]


ROW = Row(
    name="tokens",
    what="decode tokens/s, keye-nano, local, CPU",
    against="transformers' `generate` on the same weights",
    goal="at least 1.5×",
    how="The same question about a demo clip, greedy, 256 tokens that nothing ends, prefill included on both sides; "
    "two processes take turns, each with PyTorch's own number of threads. The texts are compared.",
    measure=measure,
)
