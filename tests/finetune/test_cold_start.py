"""The stage that teaches the modes: what is learnt, that tool results lie as the loop puts them, and the shares."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.events import Answer, Done, Event
from engine.keye import KeyeForConditionalGeneration, KeyeProcessor, load_model
from engine.keye.processing import encode
from engine.prompt import render as render_prompt
from engine.reasoning.loop import reason
from engine.reasoning.modes import MODE_NAMES, MODES
from engine.runtime.base import Decoding, Message, ModelInfo, Status
from engine.runtime.checkpoint import describe_checkpoint
from engine.video import Clip, sample, sampling_for
from finetune.errors import FinetuneError
from finetune.nano.shape import new_checkpoint
from finetune.nano.tokenizer import corpus
from finetune.packing.cold_batches import PUBLISHED, ColdBatches, Talk, look_closer
from finetune.packing.footage import Setting, frames_of, to_patches
from finetune.packing.packed import PackedBatch, forward
from finetune.recipe import load_recipe, parse_recipe
from finetune.run import prepare
from finetune.world.clips import encode_clip
from finetune.world.details import with_details
from finetune.world.scene import Scene, make_scene
from finetune.world.thoughts import STEPS, detail_problem, step_problem, turn_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cold") / "keye-nano"
    new_checkpoint(path, seed=3)
    return path


@pytest.fixture(scope="module")
def processor(folder: Path) -> KeyeProcessor:
    return KeyeProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> KeyeForConditionalGeneration:
    loaded = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        for p in loaded.parameters():  # fresh weights are so small that every logit is nearly the same
            if p.ndim > 1:
                p.mul_(3)
    assert isinstance(loaded, KeyeForConditionalGeneration)
    return loaded


def detailed(folder: Path) -> tuple[Scene, Setting]:
    scene = with_details(make_scene(4, "train", 2.0, 1.0), random.Random(1), 112)
    assert scene is not None
    return scene, Setting((448, 448), (112, 112), 2.0, 30, sampling_for(folder), "full")


def talks(scene: Scene) -> list[Talk]:
    rng = random.Random(2)
    looks = []
    for detail in scene.details:
        problem = detail_problem(replace(scene, details=(detail,)), rng, (112, 112), plain=True)
        looks.append(Talk((), turn_of(problem, "think_with_image")))
    others = [
        Talk((("Is there any text?", "No."),), turn_of(problem, mode))
        for mode in MODE_NAMES
        for kind in STEPS
        if (problem := step_problem(scene, rng, kind)) is not None
    ]
    return [looks[0], others[0], looks[1], *others[1:4]]


def packed(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor, folder: Path
) -> tuple[PackedBatch, list[Talk]]:
    scene, setting = detailed(folder)
    images, fps = frames_of([scene, scene], setting)
    pixels, grid = to_patches(images)
    said = talks(scene)
    looks = [talk.turn.look for talk in said if talk.turn.look is not None]
    shown = {(c, look): look_closer(scene, look, setting) for c in range(2) for look in looks}
    batches = ColdBatches(model.position_rule(), processor)
    return batches.pack_modes("video", [said, said[::-1]], pixels, grid, fps, shown), said


def rows_of(batch: PackedBatch, clip: int) -> Iterator[torch.Tensor]:
    """Where each conversation of a clip lies, as a mask [rows, length]."""
    for row in range(batch.segments.shape[1]):
        for segment in range(int(batch.segments[clip, row].max()) + 1):
            mask = torch.zeros_like(batch.segments[clip], dtype=torch.bool)
            mask[row] = batch.segments[clip, row] == segment
            yield mask


def test_all_that_the_assistant_writes_is_learnt_and_nothing_that_a_tool_gives(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor, folder: Path
) -> None:
    batch, said = packed(model, processor, folder)
    for clip in range(2):
        taught = Counter()
        for mask in rows_of(batch, clip):
            labels = batch.labels[clip][mask]
            taught[processor.tokenizer.decode(labels[labels != -100], skip_special_tokens=False)] += 1
        assert taught == Counter("".join(talk.turn.said) + "<|im_end|>" for talk in said)
    assert "<sandbox_output>" not in "".join(taught)
    assert any("<tool_call>" in text for text in taught)


class Scripted:
    """A runtime that writes given texts, one for each time that it is asked."""

    def __init__(self, info: ModelInfo, texts: list[str]) -> None:
        self._info, self.texts, self.heard = info, list(texts), list[list[Message]]()

    def start(self) -> None: ...

    def close(self) -> None: ...

    def status(self) -> Status:
        return Status("ready")

    def info(self) -> ModelInfo:
        return self._info

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        self.heard.append(messages)
        text = self.texts.pop(0)
        yield Answer(text)
        yield Done("stop", text, "scripted", answer_tokens=1)


def test_a_tool_result_lies_in_the_batch_as_the_loop_puts_it(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor, folder: Path, tmp_path: Path
) -> None:
    """The loop runs the call on a real file; what it would have the model read next is what the batch holds."""
    scene, setting = detailed(folder)
    batch, said = packed(model, processor, folder)
    frames = sample(Clip(encode_clip(scene, tmp_path / "clip.mp4", setting.file, 30, crf=0)), setting.sampling)
    for talk in (t for t in said if t.turn.look is not None):
        runtime = Scripted(describe_checkpoint(folder, "cpu", "float32", ""), list(talk.turn.said))
        question = talk.turn.text.removesuffix(MODES["think_with_image"].switch)
        messages = [Message("user", (frames, question))]
        events = list(reason(runtime, messages, Decoding(), threading.Event(), MODES["think_with_image"]))
        done = events[-1]
        assert isinstance(done, Done) and done.tool_calls == 1 and len(runtime.heard) == 2
        turn = Message("assistant", (*runtime.heard[1][-1].parts, talk.turn.said[1]))
        prompt, media = render_prompt([*runtime.heard[1][:-1], turn], processor.apply_chat_template)
        served = encode(processor, prompt + "<|im_end|>", media)
        positions, _ = model.get_rope_index(
            served["input_ids"],
            image_grid_thw=served["image_grid_thw"],
            video_grid_thw=served["video_grid_thw"],
            second_per_grid_ts=served["second_per_grid_ts"],
        )
        found = 0
        for mask in rows_of(batch, 0):
            mine = torch.cat((batch.prefix_ids[0], batch.row_ids[0][mask]))
            if torch.equal(mine, served["input_ids"][0, :-1]):
                found += 1
                own = torch.cat((batch.prefix_positions[:, 0], batch.row_positions[:, 0][:, mask]), dim=1)
                assert torch.equal(own, positions[:, 0, :-1])
        assert found == 1
        assert batch.row_pixels is not None and batch.row_grid is not None
        patches = served["pixel_values"]
        near = [
            float((patches - part).abs().mean()) for part in batch.row_pixels.split(batch.row_grid.prod(1).tolist())
        ]
        assert min(near) < 0.03  # values are -1 to 1; a file keeps colours at half the resolution


def test_packed_turns_with_pictures_equal_separate_sequences(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor, folder: Path
) -> None:
    batch, _ = packed(model, processor, folder)
    with torch.no_grad():
        logits, _, _ = forward(model, batch)
    learnt = batch.labels.flatten(1) != -100
    index = torch.full(learnt.shape, -1)
    index[learnt] = torch.arange(len(logits))
    index = index.view_as(batch.labels)
    assert batch.pixels is not None and batch.grid is not None
    assert batch.row_pixels is not None and batch.row_grid is not None
    own_pixels = list(batch.row_pixels.split(batch.row_grid.prod(1).tolist()))
    own_grids = list(batch.row_grid)
    per_clip = len(batch.pixels) // 2
    image, compared = processor.image_token_id, 0
    for clip in range(2):
        for mask in rows_of(batch, clip):
            ids = torch.cat((batch.prefix_ids[clip], batch.row_ids[clip][mask]))[None]
            inputs = {
                "pixel_values_videos": batch.pixels[clip * per_clip : (clip + 1) * per_clip],
                "video_grid_thw": batch.grid[clip : clip + 1],
                "second_per_grid_ts": torch.tensor([0.5]),
            }
            if bool((ids == image).any()):
                inputs |= {"pixel_values": own_pixels.pop(0), "image_grid_thw": own_grids.pop(0)[None]}
            with torch.no_grad():
                alone = model(input_ids=ids, **inputs).logits[0, batch.prefix_ids.shape[1] :]
            at = index[clip][mask]
            torch.testing.assert_close(logits[at[at >= 0]], alone[at >= 0], atol=3e-4, rtol=1e-4)
            compared += int((at >= 0).sum())
    assert compared == len(logits) and not own_pixels


def test_the_modes_have_the_published_shares(model: KeyeForConditionalGeneration, processor: KeyeProcessor) -> None:
    counts = load_recipe(ROOT / "recipes/nano-cold.toml").stage("cold_start").parts["ways"].counts
    more = {"no_think": 1, "think": 1, "auto": 6, "think_with_image": 3}  # as the recipe's own words say
    assert counts == {mode: more[mode] * number for mode, number in PUBLISHED.items()}
    assert sum(PUBLISHED.values()) == 680_000 + 2 * (24_000 + 80_000)
    batches = ColdBatches(model.position_rule(), processor)
    met: Counter[str] = Counter()
    for number in range(0, 300, 2):
        planned, _, said = batches.turns(number)
        met.update(talk.turn.mode for several in said for talk in several)
        assert sum(map(len, said)) == (48 if planned.detailed else 96)
    total = sum(PUBLISHED.values())
    for mode, count in PUBLISHED.items():
        assert met[mode] / met.total() == pytest.approx(count / total, abs=0.025), mode


def test_every_clip_is_used_twice_with_twice_as_many_frames(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor
) -> None:
    batches = ColdBatches(model.position_rule(), processor)
    doubled = 0
    for number in range(0, 40, 2):
        (one, scenes, said), (two, others, again) = batches.turns(number), batches.turns(number + 1)
        if one.media == "video":
            assert scenes == others and said == again
            assert one.setting is not None and two.setting is not None
            assert two.setting.sampling.fps == 2 * one.setting.sampling.fps
            doubled += 1
    assert doubled > 5


def test_what_is_written_costs_few_tokens_and_comes_back(processor: KeyeProcessor) -> None:
    tokenizer = processor.tokenizer
    for mark in ("<analysis>", "</analysis>", "<answer>", "</answer>", "<sandbox_output>", "</sandbox_output>"):
        assert len(tokenizer(mark)["input_ids"]) == 1
    for mode in MODES.values():
        if mode.switch:
            assert tokenizer(f"What?{mode.switch}")["input_ids"][-1] == tokenizer(mode.switch)["input_ids"][0]
            assert len(tokenizer(mode.switch)["input_ids"]) == 1
    rng, long = random.Random(9), 0
    for seed in range(500, 560):
        scene = with_details(make_scene(seed, "test", 4.0), rng, 112)
        if scene is None:
            continue
        for problem in (*(step_problem(scene, rng, kind) for kind in STEPS), detail_problem(scene, rng, (112, 112))):
            for mode in MODE_NAMES if problem else ():
                assert problem is not None
                for text in turn_of(problem, mode).said:
                    ids = tokenizer(text)["input_ids"]
                    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
                    words = len(text.replace("<", " <").replace('"', ' "').split()) + sum(map(text.count, ",.:{}[]>"))
                    digits = sum(c.isdigit() for c in text)
                    assert len(ids) <= words + digits + 10, text  # no word falls into pieces
                    long = max(long, len(ids))
    assert long < 100
    assert next(iter(corpus()))


def test_what_cannot_be_run_is_said(folder: Path, tmp_path: Path) -> None:
    for match, numbers in {
        "knows no mode dream": {"counts": {"dream": 3}},
        "at least one above 0": {"counts": {"think": 0}},
        "another mode": {"counts": {"think_with_image": 5}},
        "leave out cold.data": {"data": ["a.jsonl"]},
    }.items():
        recipe = parse_recipe({"model": {"path": str(folder)}, "cold": {"kind": "cold_start", "steps": 1, **numbers}})
        with pytest.raises(FinetuneError, match=match):
            prepare(recipe, tmp_path / "run")


def test_a_picture_looked_at_is_as_large_as_a_frame(folder: Path) -> None:
    scene, setting = detailed(folder)
    shown = look_closer(scene, (8, 16, 48, 56), setting)
    assert shown.shape == (112, 112, 3) and shown.dtype == np.uint8
