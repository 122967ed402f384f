"""Asking what is kept for measuring, before, while and after a model learns.

OUT/data/held_out.jsonl holds conversations that nothing was learnt from; their last answer is the truth. Where there
are none, a few of what is learnt are asked, to be looked at and not to be counted. OUT/samples.jsonl keeps it all:

    {"stage": "sft", "step": 40, "held_out": true, "right": 7, "of": 10, "answers": [{"question": …, "truth": …, …}]}"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from engine.errors import EngineError
from engine.keye import KeyeProcessor
from engine.keye.processing import encode
from engine.prompt import render
from engine.reasoning.final_answer import final_answer
from engine.runtime.base import Decoding, Message
from engine.runtime.decode import TextStream, next_tokens
from engine.video import sampling_for
from engine.video.cache import FrameKeeper
from finetune.answers.scoring import right, wilson
from finetune.data.conversations import Conversations
from finetune.data.problems import BadRow
from finetune.data.rows import Row, parse_row

MOST = 200
"""Questions asked at one time; the first of the file."""

SHOWN = 4
"""Questions of what is learnt, where nothing is held out."""

LONGEST = 256
"""Tokens of an answer."""


@dataclass(frozen=True)
class Asked:
    question: str
    truth: str
    answer: str
    right: bool


def answer(model: Any, processor: KeyeProcessor, messages: list[Message], longest: int = LONGEST) -> str:
    """The greedy answer of a model that is in memory, at most `longest` tokens. EngineError for media that cannot be
    read."""
    prompt, media = render(messages, processor.apply_chat_template)
    inputs = dict(encode(processor, prompt, media).to(model.device))
    ends = model.generation_config.eos_token_id
    stops = set(ends if isinstance(ends, list) else [ends])
    text = TextStream(processor.tokenizer)
    out = ""
    suppress = list(model.generation_config.suppress_tokens or [])
    for token in islice(next_tokens(model, inputs, Decoding(greedy=True), suppress), longest):
        if token in stops:
            break
        out += text.push(token)
    return out + text.finish()


def read_rows(path: Path, most: int) -> list[Row]:
    """The first `most` conversations of a file that can be read; none where there is no file."""
    rows: list[Row] = []
    if not path.is_file():
        return rows
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(parse_row(json.loads(line), path.parent, f"{path.name} line {number}"))
            except (ValueError, BadRow):
                continue
            if len(rows) == most:
                break
    return rows


class HeldOut:
    """What a run asks again and again; nothing, where its folder holds no questions."""

    def __init__(self, out: Path) -> None:
        rows = read_rows(out / "data" / "held_out.jsonl", MOST)
        self.counted = bool(rows)
        self.rows = rows or read_rows(out / "data" / "example.jsonl", SHOWN)
        self._samples = out / "samples.jsonl"

    def look(
        self,
        model: Any,
        processor: KeyeProcessor,
        folder: Path,
        stage: str,
        frames: FrameKeeper | None,
        step: int,
    ) -> dict[str, Any]:
        """Ask the model of `folder` as it is now, write down what it says, and give the figures for the log. Nothing
        of its training changes."""
        training = model.training
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            model.eval()
            asked = self._ask(model, processor, folder, frames)
            model.train(training)
        if not asked:
            return {}
        hits = sum(one.right for one in asked)
        line = {
            "stage": stage,
            "step": step,
            "held_out": self.counted,
            "right": hits,
            "of": len(asked),
            "answers": [vars(one) for one in asked],
        }
        with self._samples.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not self.counted:
            return {}
        low, high = wilson(hits, len(asked))
        return {"held_out": {"right": hits, "of": len(asked), "low": round(low, 4), "high": round(high, 4)}}

    def _ask(self, model: Any, processor: KeyeProcessor, folder: Path, frames: FrameKeeper | None) -> list[Asked]:
        longest = int(model.config.max_position_embeddings)
        conversations = Conversations(processor, model.position_rule(), sampling_for(folder), longest, frames)
        out = []
        for row in self.rows:
            try:
                messages = conversations.messages(row)
                said = answer(model, processor, messages[:-1])
            except (BadRow, EngineError):
                continue  # its video is gone: it can no longer be asked
            truth = row.turns[-1].text
            hit = right(final_answer(said), final_answer(truth))
            out.append(Asked(_last_question(row), truth, said, hit))
        return out


def _last_question(row: Row) -> str:
    return next((turn.text.strip() for turn in reversed(row.turns) if turn.role == "user"), "")


def samples(out: Path) -> Sequence[dict[str, Any]]:
    """What was answered so far, oldest first; a line that is not whole is left out, and of a step that was trained
    again after a kill the last one counts."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    path = out / "samples.jsonl"
    if not path.is_file():
        return []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            one = json.loads(line)
            key = (str(one["stage"]), int(one["step"]))
            answers = [{k: a[k] for k in ("question", "truth", "answer", "right")} for a in one["answers"]]
            one = {**one, "right": int(one["right"]), "of": int(one["of"]), "answers": answers}
        except (ValueError, KeyError, TypeError):
            continue
        found.pop(key, None)
        found[key] = one
    return list(found.values())
