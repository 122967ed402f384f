"""Answers for reinforcement, drawn by a server with the adapter that is trained: those that the trained weights here
would give."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel

from engine.keye import KeyeForConditionalGeneration, KeyeProcessor, load_model
from engine.runtime.base import Decoding, Message
from engine.runtime.source import NANO
from engine.video import Clip, sample, sampling_for
from finetune.answers.rollouts import ModelRoller, ServedRoller
from finetune.data.conversations import Conversations
from finetune.training.adapters import TARGETS, add_lora
from tests.sglang.conftest import Served

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
QUESTIONS = ("Describe what happens.", "Which shapes are there?/no_think")


def shift(adapted: PeftModel, seed: int) -> None:
    """What a step of training does, only more of it."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(1.0 * torch.randn(weight.shape, generator=noise))


def test_a_server_draws_as_the_trained_weights_would(nano: Served, tmp_path: Path) -> None:
    model = load_model(NANO, torch.float32)
    assert isinstance(model, KeyeForConditionalGeneration)
    adapted = add_lora(model, NANO, 4, 8.0, TARGETS, "s")
    conversations = Conversations(KeyeProcessor.from_pretrained(NANO), model.position_rule(), sampling_for(NANO), 2048)
    clip = sample(Clip(sorted(DEMO.glob("*.mp4"))[0]), sampling_for(NANO))
    prompts = [conversations.prompt([Message("user", (clip, question))]) for question in QUESTIONS]
    greedy = Decoding(20, greedy=True)
    here, there = ModelRoller(model, conversations), ServedRoller(nano.runtime, adapted, conversations, tmp_path / "r")
    said = []
    try:
        for turn in range(3):  # untrained, and after two steps
            if turn:
                shift(adapted, turn)
            there.renew()
            texts = [there.roll(prompt, 2, greedy) for prompt in prompts]
            for prompt, rolled in zip(prompts, texts, strict=True):
                (own,) = here.roll(prompt, 1, greedy)
                assert [(one.text, one.finished) for one in rolled] == [(own.text, own.finished)] * 2
            said.append([rolled[0].text for rolled in texts])
            assert nano.runtime.adapters() == [f"rolling-{turn + 1}"]
            assert [folder.name for folder in (tmp_path / "r").iterdir()] == nano.runtime.adapters()
        assert said[0] != said[1] != said[2]
        drawn = there.roll(prompts[0], 6, Decoding(20, temperature=1.5, top_p=1.0, top_k=0, seed=5))
        assert len({one.text for one in drawn}) > 1
    finally:
        for name in nano.runtime.adapters():
            nano.runtime.unload_adapter(name)
        nano.runtime.use_adapter(None)
