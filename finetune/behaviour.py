"""How a model behaves before held-out questions, beside whether it is right: how often it goes round in circles, and
how often it decides to think where that is left to it (report, table 7)."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine.events import Done, Error
from engine.keye import KeyeForConditionalGeneration, KeyeProcessor, load_model
from engine.reasoning.loop import reason
from engine.reasoning.modes import MODES, THOUGHT_OPEN, ModeName
from engine.runtime.base import Decoding, Runtime
from engine.video import sampling_for
from finetune.data.conversations import Conversations
from finetune.errors import FinetuneError
from finetune.queries import Query
from finetune.rewards import correctness, repeats, well_formed
from finetune.rollouts import ModelRoller
from finetune.scorer import Scorer
from finetune.scoring import wilson


@dataclass
class Behaviour:
    """Counts over `answers` answers of one mode."""

    mode: ModeName
    answers: int = 0
    right: int = 0
    formed: int = 0  # written as the mode is
    repeating: int = 0  # went round in circles: ended by the guard, or by the tighter rule for short answers
    thinking: int = 0  # had a thought
    tokens: int = 0
    by_kind: dict[str, list[int]] = field(default_factory=dict)  # right and asked

    def as_json(self) -> dict[str, Any]:
        """Shares with their 95 % intervals (Wilson)."""
        out: dict[str, Any] = {"mode": self.mode, "answers": self.answers, "tokens": self.tokens}
        for name in ("right", "formed", "repeating", "thinking"):
            count = getattr(self, name)
            low, high = wilson(count, self.answers)
            share = count / self.answers if self.answers else 0.0
            out[name] = {"count": count, "share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}
        return out


def observe(runtime: Runtime, queries: Iterable[Query], mode: ModeName, decoding: Decoding) -> Behaviour:
    """Ask every question in `mode` as the page does, guard and thinking budget included. Raises FinetuneError where the
    runtime fails."""
    found = Behaviour(mode)
    for query in queries:
        done: Done | None = None
        for event in reason(runtime, query.messages, decoding, threading.Event(), MODES[mode]):
            if isinstance(event, Error):
                raise FinetuneError(event.message)
            if isinstance(event, Done):
                done = event
        assert done is not None
        hit = correctness(query.reward, done.raw_text, query.reference) >= 0.5
        found.answers += 1
        found.right += hit
        found.formed += done.finish == "stop" and well_formed(done.raw_text, mode)
        found.repeating += any("repeated itself" in note for note in done.notes) or repeats(
            done.raw_text, decoding.max_tokens
        )
        found.thinking += THOUGHT_OPEN in done.raw_text
        found.tokens += done.answer_tokens
        row = found.by_kind.setdefault(query.kind, [0, 0])
        row[0] += hit
        row[1] += 1
    return found


@torch.no_grad()
def drawn(
    model: Path, queries: Iterable[Query], mode: ModeName = "auto", samples: int = 8, most: int = 64, seed: int = 0
) -> list[tuple[float, float]]:
    """Of every question, the mean reward and the mean correctness of `samples` answers that the model of a folder draws
    at temperature 1: what reinforcement raises, on questions that it has not seen."""
    loaded = load_model(model, torch.float32)
    assert isinstance(loaded, KeyeForConditionalGeneration)
    longest = loaded.config.max_position_embeddings
    reads = Conversations(KeyeProcessor.from_pretrained(model), loaded.position_rule(), sampling_for(model), longest)
    roller, scored = ModelRoller(loaded, reads), Scorer(most)
    out = []
    for number, query in enumerate(queries):
        decoding = Decoding(most, temperature=1.0, top_p=1.0, top_k=0, seed=seed + number)
        answers = roller.roll(reads.prompt(query.asked(mode)), samples, decoding)
        scores = [scored(query, mode, answer) for answer in answers]
        out.append((sum(s.total for s in scores) / samples, sum(s.parts["correct"] for s in scores) / samples))
    return out
