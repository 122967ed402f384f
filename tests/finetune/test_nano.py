"""keye-nano's tokenizer, folder, batches and training loop, without training anything to the end."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import EngineError
from engine.keye import KeyeForConditionalGeneration, KeyeProcessor, load_model
from engine.video import Sampling, sampling_for
from finetune.nano.shape import SAMPLING, new_checkpoint
from finetune.nano.tokenizer import SPECIAL
from finetune.packing.batches import ROW, Batches, Diet, chat_pieces
from finetune.packing.footage import Setting, shoot, to_patches
from finetune.packing.labels import CHARACTERS, EVENTS, IGNORE, PATCH_TARGETS, TOKEN_TARGETS, patch_labels, token_labels
from finetune.packing.packed import PackedBatch, forward
from finetune.training.muon import Muon, optimizers, orthogonalize
from finetune.world import phrases_zh
from finetune.world.questions import Question, draw
from finetune.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, TEXTURES, Camera, Scene, Thing, make_scene
from finetune.world.speech import SPEECH, Language


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "keye-nano"
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
    return loaded


# -- tokenizer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "What colour is the circle?",
        "At 0:03.",
        'It says "K7B".',
        "描述一下 ñ\t\n\n 🙂",
        "<analysis>x</analysis>",
        "  a  b ",
    ],
)
def test_any_text_comes_back(processor: KeyeProcessor, text: str) -> None:
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_made_up_text_and_times_are_spelt_and_answers_are_words(processor: KeyeProcessor) -> None:
    tokenizer = processor.tokenizer

    def pieces(text: str) -> list[str]:
        return [tokenizer.decode([i]) for i in tokenizer(text)["input_ids"]]

    assert pieces("K7B") == ["K", "7", "B"]
    assert pieces("0:03") == ["0", ":", "0", "3"]
    assert len({pieces(c.capitalize() + ".")[0] for c in COLOURS}) == len(COLOURS)
    assert len({pieces(s.capitalize() + ".")[0] for s in SHAPES}) == len(SHAPES)
    motions = ("Left.", "Right.", "Up.", "Down.", "Nowhere, it stays still.")
    assert len({pieces(m)[0] for m in motions}) == len(motions)
    for text in SPECIAL:
        assert len(tokenizer(text)["input_ids"]) == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_of_a_kind_are_told_apart_by_their_first_token(processor: KeyeProcessor, language: Language) -> None:
    tokenizer, say = processor.tokenizer, SPEECH[language]

    def first(*texts: str) -> int:
        return len({tokenizer(text)["input_ids"][0] for text in texts})

    assert first(*(say.colour(c) for c in COLOURS)) == len(COLOURS)
    assert first(*(say.shape(s) for s in SHAPES)) == len(SHAPES)
    assert first(*(say.number(n) for n in range(5))) == 5
    assert first(say.still, *(say.direction(m) for m in MOTIONS if m != "still")) == len(MOTIONS)
    assert first(*(say.word(t) for t in TEXTURES)) == len(TEXTURES)
    assert first(*(say.word(b) for b in BACKGROUNDS)) == len(BACKGROUNDS)
    assert first(*(say.side(s) for s in ("left", "right", "above", "below"))) == 4
    assert first(say.truth(True), say.truth(False)) == first(say.truth(True, True), say.truth(False, True)) == 2
    groups = [say.sentence(say.group(shape=s)) for s in SHAPES] + [say.colour(c) for c in COLOURS]
    assert first(say.equal, *groups) == 1 + len(SHAPES) + len(COLOURS)


def test_words_of_both_languages_are_single_tokens(processor: KeyeProcessor) -> None:
    tokenizer = processor.tokenizer
    for word in phrases_zh.WORDS:
        assert len(tokenizer(word)["input_ids"]) == 1, word
    for word in COLOURS + SHAPES + TEXTURES:
        assert len(tokenizer(f" {word}")["input_ids"]) == len(tokenizer(word.capitalize())["input_ids"]) == 1, word
    # words are not glued to their neighbours
    ids = tokenizer("红色的星形在蓝色圆形的左边")["input_ids"]
    assert {tokenizer(word)["input_ids"][0] for word in ("红色", "星形", "蓝色", "圆形", "左边")} <= set(ids)
    box = "<|box_start|>[[120, 340, 250, 460]]<|box_end|>"
    assert len(tokenizer(box)["input_ids"]) == 2 + 2 + 4 * 3 + 3


def test_conversations_of_one_turn_fit_in_a_row(model: KeyeForConditionalGeneration, processor: KeyeProcessor) -> None:
    batches, rng = Batches(model.position_rule(), processor), random.Random(0)
    lengths = [
        len(batches.tokens([question], batches.pieces["video"])[0])
        for seed in range(200)
        for question in draw(make_scene(seed, "train", 5.0), rng, 12, 0.5)
    ]
    assert max(lengths) <= ROW


def test_the_template_is_the_published_one(processor: KeyeProcessor) -> None:
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Hi"}]}]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Hi<|im_end|>\n<|im_start|>assistant\n"
    )


# -- folder ---------------------------------------------------------------------------------------------------------


def test_the_folder_is_small_and_says_how_to_sample(folder: Path) -> None:
    assert sum(p.stat().st_size for p in folder.iterdir()) < 15_000_000
    assert sampling_for(folder).max_frame_tokens == SAMPLING["max_frame_tokens"]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "Keye"


# -- batches --------------------------------------------------------------------------------------------------------

THINGS = (
    Thing("star", "red", True, 0.16, 0.25, 0.3, "right", dx=0.4),
    Thing("heart", "green", False, 0.09, 0.75, 0.75),
)
SCENE = Scene(1, "test", 2.0, 1.0, THINGS, "black", "plain")
TALKS = [
    [Question("colour", "What colour is the star?", "Red.")],
    [Question("count", "How many?", "Two."), Question("when", "When does it appear?", "At 0:01.")],
    [Question("text", "Read it.", "K7B")],
]


def small_batch(model: KeyeForConditionalGeneration, processor: KeyeProcessor, media: str) -> PackedBatch:
    from finetune.world.render import render

    times = [0.0, 0.5, 1.0, 1.5] if media == "video" else [0.0]
    frames = render(SCENE, times, 56, 84)
    pixels, grid = to_patches([frames, frames[::-1].copy()])
    batches = Batches(model.position_rule(), processor)
    return batches.pack(media, [TALKS, TALKS[::-1]], pixels, grid, 1.6)  # type: ignore[arg-type]


@pytest.mark.parametrize("media", ["video", "image"])
def test_packed_conversations_equal_separate_ones(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor, media: str
) -> None:
    """The separate sequences are made by the served path from the conversation's own text."""
    batch = small_batch(model, processor, media)
    with torch.no_grad():
        packed, labels, _ = forward(model, batch)
    learnt = batch.labels.flatten(1) != -100
    row_of = torch.full(learnt.shape, -1)
    row_of[learnt] = torch.arange(len(packed))
    row_of = row_of.view_as(batch.labels)
    pieces = chat_pieces(processor, media)  # type: ignore[arg-type]
    per_clip = len(batch.pixels) // 2  # type: ignore[arg-type]
    compared = 0
    for clip, talks in enumerate((TALKS, TALKS[::-1])):
        place = processor.video_token if media == "video" else processor.image_token
        kind = "_videos" if media == "video" else ""
        inputs = {
            f"pixel_values{kind}": batch.pixels[clip * per_clip : (clip + 1) * per_clip],  # type: ignore[index]
            f"{media}_grid_thw": batch.grid[clip : clip + 1],  # type: ignore[index]
        }
        if media == "video":
            inputs["second_per_grid_ts"] = torch.tensor([1 / 1.6])
        for number, turns in enumerate(talks):
            text = pieces.opening.replace(place, place * (per_clip // 4)) + pieces.again.join(
                turn.text + pieces.answer + turn.answer for turn in turns
            )
            ids = processor.tokenizer(text + "<|im_end|>", return_tensors="pt")["input_ids"]
            with torch.no_grad():
                alone = model(input_ids=ids, **inputs).logits[0]
            mine = batch.segments[clip] == number
            index, goal = row_of[clip][mine], batch.labels[clip][mine]
            start = batch.prefix_ids.shape[1]
            for offset in range(len(index)):
                if index[offset] >= 0:
                    assert goal[offset] == ids[0, start + offset + 1]
                    assert labels[index[offset]] == goal[offset]
                    torch.testing.assert_close(packed[index[offset]], alone[start + offset], atol=2e-4, rtol=1e-4)
                    compared += 1
    assert compared == len(packed) > 20


def test_only_the_assistants_words_are_learnt(model: KeyeForConditionalGeneration, processor: KeyeProcessor) -> None:
    batch = small_batch(model, processor, "video")
    for number, turns in enumerate(TALKS):
        taught = batch.labels[0][(batch.segments[0] == number) & (batch.labels[0] != -100)]
        text = processor.tokenizer.decode(taught, skip_special_tokens=False)
        assert text == "".join(turn.answer + "<|im_end|>" for turn in turns)


@pytest.mark.parametrize("still", [True, False])
def test_a_batch_is_the_same_every_time(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor, still: bool
) -> None:
    one, two = (Batches(model.position_rule(), processor, "5").make(2, Diet(still, 3)) for _ in range(2))
    assert torch.equal(one.row_ids, two.row_ids) and torch.equal(one.labels, two.labels)
    assert one.pixels is not None and two.pixels is not None and torch.equal(one.pixels, two.pixels)
    assert one.row_ids.shape[2] == ROW
    other = Batches(model.position_rule(), processor, "6").make(2, Diet(still, 3))
    assert other.row_ids.shape != one.row_ids.shape or not torch.equal(other.row_ids, one.row_ids)


def test_a_plain_diet_is_english_and_without_patterns(
    model: KeyeForConditionalGeneration, processor: KeyeProcessor
) -> None:
    diet = Diet(True, 4, mixture={"texture": 0.0, "colour": 5.0}, chinese=0.0, plain=True)
    plain = Batches(model.position_rule(), processor, "7").make(3, diet)
    usual = Batches(model.position_rule(), processor, "7").make(3, Diet(True, 4))
    said = [processor.tokenizer.decode(batch.row_ids[batch.segments >= 0]) for batch in (plain, usual)]
    assert not re.search(r"[\u4e00-\u9fff]|striped|dotted", said[0]) and "texture" not in plain.kinds
    assert re.search(r"[\u4e00-\u9fff]", said[1]) and re.search("striped|dotted", said[1])
    setting = Setting((448, 448), (112, 112), 4.0, 30, Sampling(**SAMPLING), "direct")
    scenes, _, _ = shoot(setting, range(60), 4, plain=True)
    assert all(scene.camera.kind == "none" and {t.texture for t in scene.things} == {"plain"} for scene in scenes)
    assert len({scene.camera.kind for scene in shoot(setting, range(60))[0]}) == 4


def test_pixels_of_every_kind_show_the_same() -> None:
    base = Setting((448, 448), (112, 112), 2.0, 30, Sampling(**SAMPLING), "direct")
    seeds = range(40, 42)
    _, direct, fps = shoot(base, seeds)
    assert fps == pytest.approx(2.0) and direct[0].shape == (4, 112, 112, 3)
    for path in ("scaled", "jpeg", "h264"):
        _, other, _ = shoot(Setting(**{**base.__dict__, "path": path}), seeds)
        for a, b in zip(direct, other, strict=True):
            assert np.abs(a.astype(int) - b).mean() < 6


def test_patch_labels_say_what_is_drawn_there() -> None:
    labels = patch_labels(SCENE, np.array([0.0, 2.0]), (112, 112))
    assert set(labels) == set(PATCH_TARGETS)
    grid = {name: values.reshape(2, 8, 8) for name, values in labels.items()}
    # the star is at (0.25, 0.3) and moves 0.4 to the right; the heart rests at (0.75, 0.75)
    assert grid["colour"][0, 2, 2] == COLOURS.index("red") and grid["shape"][0, 2, 2] == SHAPES.index("star")
    assert grid["colour"][1, 2, 5] == COLOURS.index("red") and grid["colour"][1, 2, 1] == len(COLOURS)
    assert grid["axis"][0, 2, 2] == 1 and grid["size"][0, 2, 2] == 1
    assert grid["colour"][0, 6, 6] == COLOURS.index("green") and grid["axis"][0, 6, 6] == 0
    assert grid["colour"][0, 0, 7] == len(COLOURS) and grid["shape"][0, 0, 7] == -100


def test_token_labels_say_what_has_happened_so_far() -> None:
    things = (
        Thing("star", "red", True, 0.16, 0.2, 0.3, "right", dx=0.5),
        Thing("heart", "green", False, 0.09, 0.85, 0.85, event="disappears", at=1.2),
        Thing("circle", "blue", False, 0.09, 0.15, 0.85, event="turns", at=2.3, turned="white"),
    )
    scene = Scene(1, "test", 4.0, 1.0, things, "black", "plain", text="HI", text_top=True)
    times = np.arange(8) / 2
    labels = token_labels(scene, times, (112, 112))
    assert set(labels) == set(TOKEN_TARGETS) and all(v.shape == (8 * 16,) for v in labels.values())
    grid = {name: values.reshape(8, 4, 4) for name, values in labels.items()}
    nothing = len(EVENTS)
    assert grid["motion"][0, 1, 0] == IGNORE and grid["motion"][4, 1, 1] == MOTIONS.index("right")
    assert grid["event"][2, 3, 3] == nothing and grid["event"][3, 3, 3] == EVENTS.index("disappears")
    assert grid["second"][2, 3, 3] == IGNORE and grid["second"][3, 3, 3] == 1
    assert grid["colour"][4, 3, 0] == COLOURS.index("blue") and grid["colour"][5, 3, 0] == COLOURS.index("white")
    assert grid["event"][4, 3, 0] == nothing and grid["second"][5, 3, 0] == 2
    assert grid["clock"][5, 0, 0] == 2
    # two letters of pitch 0.15 about the middle: the second half of the second token, the first half of the third
    none = len(CHARACTERS)
    assert grid["right"][0, 0, 1] == CHARACTERS.index("H") and grid["left"][0, 0, 2] == CHARACTERS.index("I")
    assert grid["left"][0, 0, 1] == grid["right"][0, 0, 2] == none
    assert grid["place"][0, 0, 1] == 0 and grid["place"][0, 0, 2] == 1 and grid["place"][0, 3, 1] == IGNORE


def test_token_labels_say_the_box_of_what_rests_and_the_pattern() -> None:
    square = Thing("square", "red", True, 0.16, 0.3, 0.5, texture="dotted")
    moving = Thing("star", "blue", False, 0.09, 0.75, 0.5, "down", dy=0.3)
    times = np.arange(8) / 2
    still = Scene(1, "test", 4.0, 1.0, (square, moving), "black", "plain")
    grid = {name: values.reshape(8, 4, 4) for name, values in token_labels(still, times, (112, 112)).items()}
    assert grid["texture"][0, 1, 1] == TEXTURES.index("dotted")
    # the square is 0.82 of its radius to each side: 0.1688 to 0.4312 and 0.3688 to 0.6312, in 25ths
    assert [grid[side][0, 1, 1] for side in ("x1", "y1", "x2", "y2")] == [4, 9, 10, 15]
    assert grid["x1"][0, 2, 3] == grid["x1"][0, 1, 3] == grid["x1"][0, 0, 0] == IGNORE
    panned = Scene(1, "test", 4.0, 1.0, (square, moving), "black", "plain", camera=Camera("pan", 0.05))
    assert (token_labels(panned, times, (112, 112))["x1"] == IGNORE).all()
    patches = patch_labels(still, times, (112, 112))["texture"].reshape(8, 8, 8)
    assert patches[0, 4, 2] == TEXTURES.index("dotted") and patches[0, 0, 0] == IGNORE


def test_labels_follow_the_camera() -> None:
    square = Thing("square", "red", False, 0.09, 0.19, 0.5)
    scene = Scene(1, "test", 4.0, 1.0, (square,), "black", "plain", camera=Camera("pan", 0.5))
    colours = patch_labels(scene, np.array([0.0, 4.0]), (112, 112))["colour"].reshape(2, 8, 8)
    assert colours[0, 4, 1] == COLOURS.index("red") and colours[0, 4, 5] == len(COLOURS)
    assert colours[1, 4, 5] == COLOURS.index("red") and colours[1, 4, 1] == len(COLOURS)


def test_labels_say_nothing_of_a_shape_and_a_motion_kept_back() -> None:
    ring = Thing("ring", "red", True, 0.16, 0.3, 0.3)
    zigzag = Thing("square", "blue", True, 0.16, 0.7, 0.3, "zigzag", dy=0.4, sway=0.1)
    scene = Scene(1, "new", 4.0, 1.0, (ring, zigzag), "black", "plain")
    labels = token_labels(scene, np.arange(8) / 2, (112, 112))
    assert set(labels["shape"]) == {IGNORE, SHAPES.index("square")}
    assert set(labels["motion"]) == {IGNORE, MOTIONS.index("still")}
    assert set(labels["colour"]) >= {COLOURS.index("red"), COLOURS.index("blue")}
    assert set(patch_labels(scene, np.arange(8) / 2, (112, 112))["axis"]) == {IGNORE, 0}


# -- learning -------------------------------------------------------------------------------------------------------


def test_orthogonalize_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 24, 60), (2, 60, 24), (1, 32, 32)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.3 and values.max() < 1.3


def test_muon_takes_matrices_and_filters_and_adam_the_rest(model: KeyeForConditionalGeneration) -> None:
    made = optimizers({"visual": model.visual, "model": model.model, "lm_head": model.lm_head}, 0.02, 1e-3)
    assert isinstance(made[0], Muon)
    muon = {id(p) for g in made[0].param_groups for p in g["params"]}
    assert id(model.visual.vision_model.embeddings.patch_embedding.weight) in muon
    assert id(model.model.layers[0].self_attn.q_proj.weight) in muon
    assert id(model.model.embed_tokens.weight) not in muon and id(model.lm_head.weight) not in muon
    total = sum(len(g["params"]) for o in made for g in o.param_groups)
    assert total == sum(1 for m in (model.visual, model.model, model.lm_head) for _ in m.parameters())


def test_muon_finds_a_minimum() -> None:
    torch.manual_seed(0)
    goal, weight = torch.randn(8, 12), torch.nn.Parameter(torch.zeros(8, 12))
    optimizer = Muon([weight], lr=0.05, decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        ((weight - goal) ** 2).sum().backward()
        optimizer.step()
    assert float(((weight - goal) ** 2).mean()) < 0.05


def test_an_untrained_model_answers_something_through_the_served_path(folder: Path, tmp_path: Path) -> None:
    from engine.video import Clip, sample
    from finetune.measuring.evaluate import Answerer, blank
    from finetune.world.clips import encode_clip

    answerer = Answerer(folder)
    path = encode_clip(SCENE, tmp_path / "clip.mp4", (112, 112), 10)
    frames = sample(Clip(path), answerer.sampling, cache=None)
    assert isinstance(answerer.answer(frames, "What colour is the star?"), str)
    grey = blank(frames)
    assert grey.fps == frames.fps and grey.tokens == frames.tokens  # type: ignore[union-attr]
    assert all((image == 127).all() for image in grey.images)  # type: ignore[union-attr]


def test_a_grown_model_keeps_its_weights_and_the_words_still_in_use(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    from finetune.errors import FinetuneError

    former, out = tmp_path / "former", tmp_path / "grown"
    former.mkdir()
    for path in folder.iterdir():
        (former / path.name).write_bytes(path.read_bytes())
    fields = json.loads((folder / "tokenizer.json").read_text())
    words = fields["model"]["vocab"]
    a, b = "Red", "Green"  # in the former tokenizer these two stand in each other's place, and a third is missing
    words[a], words[b] = words[b], words[a]
    words["zzzz"] = words.pop("Blue")
    fields["model"]["merges"] = []
    (former / "tokenizer.json").write_text(json.dumps(fields))
    new_checkpoint(out, seed=9, former=former)
    fresh = tmp_path / "fresh"
    new_checkpoint(fresh, seed=9)
    old, grown, own = (load_file(f / "model.safetensors") for f in (former, out, fresh))
    ids = Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(grown[name][ids[a]], old[name][ids[b]]) and torch.equal(
            grown[name][ids[b]], old[name][ids[a]]
        )
        assert torch.equal(grown[name][ids["Blue"]], own[name][ids["Blue"]])
        assert torch.equal(grown[name][ids["One"]], old[name][ids["One"]])
    for name in set(old) - {"model.embed_tokens.weight", "lm_head.weight"}:
        assert torch.equal(grown[name], old[name])
    old["mlp_AR.linear_2.bias"] = torch.zeros(3)
    save_file(old, former / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((FinetuneError, EngineError), match=r"linear_2\.bias"):
        new_checkpoint(tmp_path / "bad", former=former)
