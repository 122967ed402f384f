"""A prompt that begins like the last one: what is generated is the same, and less is read."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from engine.events import Done
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.video import Clip, sample
from tests.media import make_clip

PICTURE = np.arange(56 * 84 * 3, dtype=np.uint32).reshape(56, 84, 3).astype(np.uint8)
OTHER = PICTURE[::-1].copy()


class Watched(LocalRuntime):
    """Notes how many tokens each first forward pass read, and the logits of the last of them."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []
        self.logits: list[torch.Tensor] = []
        self.start()
        model = self._wait().model
        forward = model.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if kwargs["input_ids"].shape[1] > 1 or "logits_to_keep" in kwargs:
                self.read.append(kwargs["input_ids"].shape[1])
                self.logits.append(output.logits[:, -1].clone())
            return output

        model.forward = watched  # type: ignore[method-assign]

    def ask(self, *messages: Message, tokens: int = 6) -> Done:
        *_, done = self.stream(list(messages), Decoding(max_tokens=tokens, greedy=True), threading.Event())
        assert isinstance(done, Done)
        return done


@pytest.fixture(scope="module")
def runtime() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, runtime: Watched) -> Any:
    path = tmp_path_factory.mktemp("prefix") / "clip.mp4"
    make_clip(path, frames=50, fps=25, size=(112, 112))
    return sample(Clip(path), runtime.info().sampling)


def fresh(runtime: Watched, *messages: Message) -> Done:
    """The same with nothing kept."""
    runtime._kept = []
    return runtime.ask(*messages)


@pytest.mark.parametrize("pictures", [(), (PICTURE,), (PICTURE, OTHER)])
def test_a_continued_turn_reads_only_what_is_new_and_writes_the_same(
    runtime: Watched, clip: Any, pictures: tuple[np.ndarray, ...]
) -> None:
    asked = Message("user", (clip, PICTURE, "What shapes?"))
    runtime.ask(asked)
    begun: list[Any] = ["<think>I see a circle."]
    for picture in pictures:
        begun += [picture, " and "]
    turn = Message("assistant", tuple(begun))
    reused = runtime.ask(asked, turn)
    read, logits = runtime.read[-1], runtime.logits[-1]
    whole = fresh(runtime, asked, turn)
    assert runtime.read[-1] == whole.prompt_tokens > read
    assert read < whole.prompt_tokens - clip.total_tokens
    torch.testing.assert_close(logits, runtime.logits[-1], atol=2e-4, rtol=2e-4)
    assert reused.text == whole.text and reused.prompt_tokens == whole.prompt_tokens


def test_the_next_question_about_the_same_clip_reads_only_itself(runtime: Watched, clip: Any) -> None:
    first = Message("user", (clip, "What shapes?"))
    said = runtime.ask(first)
    talk = (first, Message("assistant", (said.text,)), Message("user", ("How many?",)))
    runtime.ask(*talk)
    assert runtime.read[-1] < 40
    logits = runtime.logits[-1]
    fresh(runtime, *talk)
    torch.testing.assert_close(logits, runtime.logits[-1], atol=2e-4, rtol=2e-4)


def test_other_pictures_of_the_same_size_are_read(runtime: Watched) -> None:
    """Their placeholders look the same."""
    runtime.ask(Message("user", (PICTURE, "What shapes?")))
    done = runtime.ask(Message("user", (OTHER, "What shapes?")))
    assert runtime.read[-1] == done.prompt_tokens
    two = Message("user", (OTHER, PICTURE, "What shapes?"))
    runtime.ask(two)  # one picture more, after the one that is known
    logits = runtime.logits[-1]
    fresh(runtime, two)
    torch.testing.assert_close(logits, runtime.logits[-1], atol=2e-4, rtol=2e-4)
    runtime.ask(Message("user", (PICTURE, OTHER, "What shapes?")))
    assert runtime.read[-1] == runtime.read[-2]  # the other order is another prompt


def test_the_very_same_prompt_reads_one_token(runtime: Watched, clip: Any) -> None:
    asked = Message("user", (clip, "What shapes?"))
    one, two = fresh(runtime, asked), runtime.ask(asked)
    assert runtime.read[-1] == 1 and one.text == two.text


def test_two_conversations_that_take_turns_are_both_kept(runtime: Watched, clip: Any) -> None:
    first, second = Message("user", (clip, "What shapes?")), Message("user", (PICTURE, "Which colour?"))
    talks = [(asked, Message("assistant", (fresh(runtime, asked).text,))) for asked in (first, second)]
    runtime._kept = []
    runtime.ask(first)
    runtime.ask(second)
    for talk in talks:
        runtime.ask(*talk, Message("user", ("How many?",)))
        assert runtime.read[-1] < 40
    assert len(runtime._kept) == 2  # and no more: each holds memory
