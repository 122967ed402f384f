"""Training steps, against a plain loop that decodes and pads every batch."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench.clips import clip
from bench.figures import Line, Row, Run, Series, Size, at_least, cpu_seconds, seconds, times_faster
from bench.worker import ROOT, alternate, ours, timed
from engine.keye import KeyeProcessor, load_model
from engine.video import sampling_for
from finetune.data.conversations import Conversations, Example
from finetune.data.jsonl import load_rows
from finetune.packing.packed import PackedBatch
from finetune.recipe import Part
from finetune.run import tiny_is_zero
from finetune.stages import multitask
from finetune.stages import sft as finetune_sft
from finetune.stages.reading import Start
from finetune.training.trainer import Log, Trainer, Work

NANO = ROOT / "assets" / "keye-nano"
GOAL = 3.0
BUSY = 90.0  # %
TOGETHER = 4  # conversations of a batch in the plain loop
IGNORE = -100
SEED = "bench"
PLAIN_CLIPS = 4

Timed = tuple[float, float]
"""Seconds on the clock and of the processor."""


@dataclass(frozen=True)
class Setting:
    """Where the data lies and how much of it there is."""

    folder: str
    rows: str
    clips: int  # of the batch of stage 2, in the plain loop


def measure(size: Size) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        setting = _setting(Path(name), size)
        one = _in_turn(size, setting, "sft", "plain_sft")
        two = _in_turn(size, setting, "stage2", "plain_stage2")
    return [*_lines("SFT, every epoch but the first", *one), *_lines("stage 2, videos of the world", *two)]


def _in_turn(size: Size, setting: Setting, *works: str) -> list[list[Run]]:
    """The runs of each, which times itself: the loading of the model does not count."""
    with ExitStack() as stack:
        sides = [stack.enter_context(ours(size, f"{__name__}:{work}", **asdict(setting))) for work in works]
        return alternate([lambda side=side: Run(*side.run().value) for side in sides], size.runs)  # type: ignore[misc]


def _lines(name: str, ours: list[Run], plain: list[Run]) -> list[Line]:
    cpu = cpu_seconds(plain).median / cpu_seconds(ours).median
    threads = torch.get_num_threads()
    busy = Series(tuple(100 * run.cpu / run.seconds / threads for run in ours))
    note = f"the same conversations on both sides; {cpu:.1f}× fewer CPU seconds"
    return [
        times_faster(f"{name}: seconds for the same steps", seconds(ours), seconds(plain), GOAL, note),
        Line(f"{name}: processor busy", "%", busy, None, busy.median, "%", at_least(BUSY), f"of {threads} threads"),
    ]


def _setting(folder: Path, size: Size) -> Setting:
    """A file of conversations about ranges of one clip, each range a clip of its own."""
    footage, count, length = (clip(2, 320, 180), 2, 1) if size.tiny else (clip(30, 1280, 720), 8, 8)
    rows = []
    for number in range(count):
        start = number * (1 if size.tiny else 22) / count
        video = {"path": str(footage), "start": start, "end": start + length}
        answer = f"A red disc moves to the left, and number {number} of the others turns grey."
        turns = [
            {"role": "user", "content": "<video>\nWhat happens?"},
            {"role": "assistant", "content": answer},
        ]
        rows.append(json.dumps({"messages": turns, "videos": [video]}) + "\n")
    file = folder / "talks.jsonl"
    file.write_text("".join(rows), "utf-8")
    return Setting(str(folder), str(file), 1 if size.tiny else PLAIN_CLIPS)


def _start() -> Start:
    model: Any = load_model(NANO, dtype=torch.float32)
    return Start(model, KeyeProcessor.from_pretrained(NANO), NANO, None, SEED, 0, 1)


def _trained(folder: str, part: Part, work: Callable[[], Work]) -> Timed:
    """One run of the trainer over its part, set up as runs are: everything between its first step and its last
    state."""
    with tempfile.TemporaryDirectory(dir=folder) as name, tiny_is_zero():
        log = Log(Path(name) / "log.jsonl")
        trainer = Trainer("bench", part, work(), Path(name), Accelerator(cpu=True), log)
        run = timed(lambda: trainer.run(threading.Event()).step)
    return run.seconds, run.cpu


def _plain(model: Any, steps: Callable[[], list[Callable[[], Tensor]]]) -> Timed:
    """A plain loop: make a batch, forward, backward, AdamW."""
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def work() -> int:
        count = 0
        for losses in steps():
            loss = losses()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            count += 1
        return count

    run = timed(work)
    return run.seconds, run.cpu


# -- SFT --------------------------------------------------------------------------------------------------------


def sft(folder: str, rows: str, clips: int) -> Callable[[], Timed]:
    part = Part(epochs=1.0, lr=1e-4, data=(rows,), batch_tokens=1024, cache=str(Path(folder) / "frames"))
    return lambda: _trained(folder, part, lambda: finetune_sft.work(_start(), part))


def plain_sft(folder: str, rows: str, clips: int) -> Callable[[], Timed]:
    return lambda: _plain_sft(Path(folder), Path(rows))


def _plain_sft(folder: Path, file: Path) -> Timed:
    start = _start()
    model = start.model
    conversations = Conversations(start.processor, model.position_rule(), sampling_for(NANO), 1024, None)
    rows, _ = load_rows([file], conversations.length, folder / "plain", "plain")

    def steps() -> list[Callable[[], Tensor]]:
        return [partial(loss, at) for at in range(0, len(rows), TOGETHER)]

    def loss(at: int) -> Tensor:
        examples = [conversations.example(row) for row in rows[at : at + TOGETHER]]
        value: Tensor = model(**padded(examples)).loss
        return value

    return _plain(model, steps)


def padded(examples: list[Example]) -> dict[str, Tensor]:
    """A batch as a plain loop makes it: [conversations, longest], padded on the right."""
    ids = [example.input_ids for example in examples]
    grids = [example.video_grid_thw for example in examples]
    pixels = [example.pixel_values_videos for example in examples]
    assert all(grid is not None for grid in grids) and all(pixel is not None for pixel in pixels)
    positions = [example.position_ids.T for example in examples]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence([example.labels for example in examples], batch_first=True, padding_value=IGNORE),
        "position_ids": pad_sequence(positions, batch_first=True).permute(2, 0, 1),
        "pixel_values_videos": torch.cat([pixel for pixel in pixels if pixel is not None]),
        "video_grid_thw": torch.cat([grid for grid in grids if grid is not None]),
    }


# -- stage 2 ----------------------------------------------------------------------------------------------------


def stage2(folder: str, rows: str, clips: int) -> Callable[[], Timed]:
    part = Part(steps=1, lr=1e-4)
    return lambda: _trained(folder, part, lambda: multitask.work(_start(), part))


def plain_stage2(folder: str, rows: str, clips: int) -> Callable[[], Timed]:
    return lambda: _plain_stage2(clips)


def _plain_stage2(clips: int) -> Timed:
    """The very same questions, each a sequence of its own with its clip in front, padded to the longest: those about
    the first few clips of the batch, and the time that all would take."""
    start = _start()
    source = multitask.work(start, Part(steps=1, lr=1e-4)).source
    shares = []

    def loss() -> Tensor:
        batch = source.make(0)
        shares.append(len(batch.prefix_ids) / clips)
        assert isinstance(batch, PackedBatch)
        total = start.model.lm_head.weight.new_zeros(())
        for one in range(clips):
            inputs = alone(batch, one)
            if inputs is not None:
                total = total + start.model(**inputs).loss
        return total

    seconds, cpu = _plain(start.model, lambda: [loss])
    return seconds * shares[0], cpu * shares[0]


def alone(batch: PackedBatch, one: int) -> dict[str, Tensor] | None:
    """The conversations about clip `one` of a packed batch as padded sequences, each with the clip; None if there are
    none. Packed labels stand one place before their token, the model's at it."""
    ids, labels, positions = [], [], []
    prefix, where = batch.prefix_ids[one], batch.prefix_positions[:, one]
    for row, segments in enumerate(batch.segments[one]):
        for segment in range(int(segments.max()) + 1):
            own = segments == segment
            if not bool(own.any()):
                continue
            # The last token of a packed conversation is only ever a target.
            following = batch.labels[one, row, own]
            ids.append(torch.cat((prefix, batch.row_ids[one, row, own], following[-1:])))
            learnt = torch.full_like(ids[-1], IGNORE)
            learnt[len(prefix) + 1 :] = following
            labels.append(learnt)
            text = batch.row_positions[one, row, own]
            text = torch.cat((text, text[-1:] + 1)).expand(3, -1)
            positions.append(torch.cat((where, text), dim=1).T)
    if not ids:
        return None
    inputs = {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        "position_ids": pad_sequence(positions, batch_first=True).permute(2, 0, 1),
    }
    if batch.pixels is not None and batch.grid is not None:
        patches = batch.grid.prod(1).tolist()
        pixels = batch.pixels.split(patches)[one]
        kind = "videos" if int(batch.grid[one, 0]) > 1 else ""
        inputs[f"pixel_values{'_' + kind if kind else ''}"] = pixels.repeat(len(ids), 1, 1, 1)
        inputs["video_grid_thw" if kind else "image_grid_thw"] = batch.grid[one].repeat(len(ids), 1)
    return inputs


ROW = Row(
    name="training",
    what="training steps/s at stage 2 and SFT",
    against="the same data through a plain loop that decodes and pads each batch",
    goal="at least 3×; the processor busy at least 90 % of the time",
    how="keye-nano, float32: the trainer of `finetune run` with all that it does (packed batches, frames kept on disk, "
    "batches made ahead) and a plain PyTorch loop, each a process, take turns on the same conversations. SFT: eight "
    "ranges of 8 s of the 720p clip, one epoch; the first epoch, in which both decode, warms up and does not count. "
    "Stage 2: the plain loop gets the questions of one batch one per sequence, each with its clip, those about four of "
    "its clips, and is counted as if all were asked; both render the world, nobody decodes.",
    measure=measure,
)
