"""Answers that are drawn: the served ones where they are greedy, distributed as the model says where not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.events import Done
from engine.keye import KeyeProcessor, load_model
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample, sampling_for
from finetune.answers.rollouts import ModelRoller, RuntimeRoller
from finetune.data.conversations import Conversations

ROOT = Path(__file__).resolve().parents[2]
NANO, DEMO = ROOT / "assets" / "keye-nano", ROOT / "assets" / "demo"


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(NANO, torch.float32)


@pytest.fixture(scope="module")
def conversations(model: Any) -> Conversations:
    return Conversations(KeyeProcessor.from_pretrained(NANO), model.position_rule(), sampling_for(NANO), 2048)


@pytest.fixture(scope="module")
def runtime() -> LocalRuntime:
    return LocalRuntime(str(NANO), device="cpu", dtype=torch.float32)


QUESTIONS = ("What happens in the video?", "How many shapes are there?", "Where is the circle? Give its box.")


def ask(question: str) -> list[Message]:
    clip = sorted(DEMO.glob("*.mp4"))[0]
    return [Message("user", (sample(Clip(clip), sampling_for(NANO)), question))]


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_answers_are_the_served_ones(
    question: str, model: Any, conversations: Conversations, runtime: LocalRuntime
) -> None:
    decoding = Decoding(greedy=True, max_tokens=64)
    *_, done = runtime.stream(ask(question), decoding, threading.Event())
    assert isinstance(done, Done)
    model.train()
    rolled = ModelRoller(model, conversations).roll(conversations.prompt(ask(question)), 3, decoding)
    assert model.training
    assert [one.text for one in rolled] == [done.text] * 3
    assert all(one.finished and len(one.ids) == done.answer_tokens + 1 for one in rolled)
    served = RuntimeRoller(runtime, conversations).roll(conversations.prompt(ask(question)), 2, decoding)
    assert [one.text for one in served] == [done.text] * 2
    assert conversations.processor.tokenizer.decode(served[0].ids[:-1]) == done.text


def test_an_answer_that_was_cut_has_no_end(model: Any, conversations: Conversations) -> None:
    prompt = conversations.prompt(ask(QUESTIONS[0]))
    rolled = ModelRoller(model, conversations).roll(prompt, 2, Decoding(greedy=True, max_tokens=3))
    assert all(not one.finished and len(one.ids) == 3 for one in rolled)


def test_draws_come_from_the_seed_and_follow_the_model(model: Any, conversations: Conversations) -> None:
    """Of 3000 first tokens each is as frequent as it is likely: a chi-square of the five likeliest and the rest below
    what one draw in a thousand million exceeds."""
    prompt = conversations.prompt(ask("Which shelf is it on?"))
    roller = ModelRoller(model, conversations)
    decoding = Decoding(max_tokens=1, temperature=1.5, top_p=1.0, top_k=0, seed=3)
    drawn = [one.ids[0] for one in roller.roll(prompt, 3000, decoding)]
    assert drawn == [one.ids[0] for one in roller.roll(prompt, 3000, decoding)]
    seen = prompt.seen
    with torch.no_grad():
        logits = model(
            input_ids=seen.input_ids[None], position_ids=seen.position_ids[:, None],
            pixel_values_videos=seen.pixel_values_videos, video_grid_thw=seen.video_grid_thw,
        ).logits[0, -1]  # fmt: skip
    logits[list(model.generation_config.suppress_tokens or [])] = -torch.inf
    likely = (logits / 1.5).softmax(-1)
    best = likely.topk(5)
    wanted = [3000 * float(p) for p in best.values] + [3000 * (1 - float(best.values.sum()))]
    counts = [drawn.count(int(t)) for t in best.indices]
    counts.append(3000 - sum(counts))
    assert sum((c - w) ** 2 / w for c, w in zip(counts, wanted, strict=True)) < 50
