"""The server reads and answers as the local runtime does: ids, log-probabilities, text, counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from engine.events import Answer, Done, Event
from engine.keye import KeyeProcessor, encode, load_model
from engine.prompt import render, to_chat
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.runtime.sglang_client import _picture_url
from engine.video import Clip, Frames, sample
from engine.video.address import clip_url
from tests.sglang.conftest import Served, frames_of

Shapes = Callable[[Frames], dict[str, list[Message]]]
GREEDY = Decoding(max_tokens=16, greedy=True)
NAMES = (
    "text",
    "system",
    "image",
    "two images",
    "video",
    "one clip twice",
    "mixed",
    "conversation",
    "begun turn",
    "typed control tokens",
)
TOLERANCE = 1e-3  # of a log-probability


def run(runtime: Any, messages: list[Message], decoding: Decoding = GREEDY) -> list[Event]:
    return list(runtime.stream(messages, decoding, threading.Event()))


def end(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done), events[-1]
    return events[-1]


class Reference:
    """The same folder in this process: ids and log-probabilities from one plain forward pass a token."""

    def __init__(self, folder: Path) -> None:
        self.model = load_model(folder, torch.float32).float()
        self.processor = KeyeProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def __call__(self, messages: list[Message], tokens: int) -> tuple[str, torch.Tensor, list[int], list[float], Any]:
        """The prompt, its log-probabilities [length - 1], the greedy ids after it and their log-probabilities."""
        prompt, media = render(messages, self.processor.apply_chat_template)
        inputs = encode(self.processor, prompt, media)
        ids = inputs["input_ids"][0]
        read = self.model(**inputs).logits[0].log_softmax(-1)
        of_prompt = read[:-1].gather(1, ids[1:, None])[:, 0]
        out = self.model.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=self.model.config.vocab_size,  # on and on: more figures
            return_dict_in_generate=True,
            output_scores=True,  # placeholders are never drawn: they have no share in the probabilities
        )
        drawn = out.sequences[0, len(ids) :].tolist()
        written = torch.cat(out.scores).log_softmax(-1)
        return prompt, of_prompt, drawn, [float(written[i, t]) for i, t in enumerate(drawn)], ids


def ask_native(served: Served, messages: list[Message], prompt: str, tokens: int) -> dict[str, Any]:
    """SGLang's own endpoint, which tells ids and the probabilities of the prompt."""
    _, media = to_chat(messages)
    body: dict[str, Any] = {
        "text": prompt,
        "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
        "return_logprob": True,
        "logprob_start_len": 0,
    }
    if images := [_picture_url(item) for item in media if not isinstance(item, Frames)]:
        body["image_data"] = images
    if videos := [clip_url(item.clip, item.sampling) for item in media if isinstance(item, Frames)]:
        body["video_data"] = videos
    answer = httpx.post(served.url + "/generate", json=body, headers=served.headers, timeout=300)
    assert answer.status_code == 200, answer.text
    return answer.json()["meta_info"]


def assert_same_figures(served: Served, reference: Reference, messages: list[Message]) -> None:
    prompt, of_prompt, drawn, written, ids = reference(messages, 12)
    served_facts = ask_native(served, messages, prompt, 12)
    assert served_facts["prompt_tokens"] == len(ids)
    out = served_facts["output_token_logprobs"]
    assert [token for _, token, *_ in out] == drawn
    assert max(abs(a - b) for (a, *_), b in zip(out, written, strict=True)) <= TOLERANCE
    config = reference.model.config
    media = {config.image_token_id, config.video_token_id}
    told = served_facts["input_token_logprobs"][1:]  # the first token has no probability
    compared = [
        abs(entry[0] - float(of_prompt[i]))
        for i, entry in enumerate(told)
        if entry[0] is not None and int(ids[i + 1]) not in media
    ]
    assert len(compared) > 8 and max(compared) <= TOLERANCE


@pytest.fixture(scope="session")
def nano_reference(nano: Served) -> Reference:
    return Reference(nano.folder)


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_nano(nano: Served, nano_reference: Reference, clip: Path, shapes: Shapes, name: str) -> None:
    assert_same_figures(nano, nano_reference, shapes(frames_of(clip, nano.runtime))[name])


@pytest.fixture(scope="module")
def reference_a(tiny_a: Served) -> Reference:
    return Reference(tiny_a.folder)


@pytest.fixture(scope="module")
def reference_a15(tiny_a15: Served) -> Reference:
    return Reference(tiny_a15.folder)


def small(clip: Path, served: Served) -> Frames:
    """Few frames: what is compared is the reading, and a context of 4096 must hold it."""
    return frames_of(clip, served.runtime, max_frames=8, budget=1200)


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_the_recorded_preview(
    tiny_a: Served, reference_a: Reference, clip: Path, shapes: Shapes, name: str
) -> None:
    assert_same_figures(tiny_a, reference_a, shapes(small(clip, tiny_a))[name])


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_the_recorded_1_5(
    tiny_a15: Served, reference_a15: Reference, clip: Path, shapes: Shapes, name: str
) -> None:
    frames = small(clip, tiny_a15)
    assert {"slow", "fast"} == set(frames.kinds)
    assert_same_figures(tiny_a15, reference_a15, shapes(frames)[name])


def test_the_same_frames_at_another_rate_are_another_clip(
    tiny_a: Served, reference_a: Reference, tmp_path: Path
) -> None:
    """Two files of equal pictures and different rates: equal pixels, other positions, so nothing may be shared."""
    from tests.media import make_clip

    for fps in (2, 1):
        path = make_clip(tmp_path / f"{fps}.mkv", frames=8, fps=fps, size=(112, 112), codec="ffv1", pix_fmt="bgr0")
        sampling = tiny_a.runtime.info().sampling.with_limits(fps=float(fps))
        messages = [Message("user", (sample(Clip(path), sampling), "What happens?"))]
        assert_same_figures(tiny_a, reference_a, messages)


@pytest.mark.parametrize("name", NAMES)
def test_the_runtime_says_what_the_local_one_says(
    nano: Served, local: LocalRuntime, clip: Path, shapes: Shapes, name: str
) -> None:
    messages = shapes(frames_of(clip, local))[name]
    here, there = end(run(local, messages)), end(events := run(nano.runtime, messages))
    assert there.text == here.text == "".join(e.text for e in events if isinstance(e, Answer))
    assert (there.finish, there.model) == (here.finish, here.model)
    assert (there.prompt_tokens, there.visual_tokens) == (here.prompt_tokens, here.visual_tokens)
    assert there.answer_tokens == here.answer_tokens
    assert there.first_token_seconds is not None and there.first_token_seconds <= there.total_seconds


def test_what_answers_is_described_alike(nano: Served, local: LocalRuntime) -> None:
    here, there = local.info(), nano.runtime.info()
    known = ("name", "path", "architecture", "parameters", "context", "demonstration", "sampling", "decoding")
    for field in (*known, "tool_prompt"):
        assert getattr(here, field) == getattr(there, field), field
    assert there.runtime == "sglang" and there.adapter is None


def test_many_at_once_get_their_own_answers(nano: Served, local: LocalRuntime, clip: Path, shapes: Shapes) -> None:
    conversations = [m for start in (0.0, 2.0) for m in shapes(frames_of(clip, local, start=start)).values()]
    with ThreadPoolExecutor(len(conversations)) as pool:
        there = list(pool.map(lambda messages: end(run(nano.runtime, messages)), conversations))
    for messages, done in zip(conversations, there, strict=True):
        assert done.text == end(run(local, messages)).text


def test_a_part_of_a_clip_and_its_limits_reach_the_server(nano: Served, local: LocalRuntime, clip: Path) -> None:
    frames = frames_of(clip, local, start=1.3, end=4.7, fps=3.0, max_frames=6, budget=90)
    messages = [Message("user", (frames, "What happens?"))]
    here, there = end(run(local, messages)), end(run(nano.runtime, messages))
    assert (there.text, there.prompt_tokens) == (here.text, here.prompt_tokens)
