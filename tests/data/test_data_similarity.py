"""Similarity filters, with a tiny SigLIP against transformers' own features and an encoder worked by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessorPil, SiglipModel

from engine.keye import load_model
from finetune.data.contamination import decontaminate_pairs
from finetune.data.items import Item, Medium, Region
from finetune.data.similarity import crop, crops, open_encoder, similarity
from finetune.errors import FinetuneError
from finetune.stages.reading import BESIDE
from finetune.stages.vision import Beside
from finetune.world.clips import encode_clip
from finetune.world.scene import make_scene
from tests.data.pictures import field, save

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"
WORDS = ["<pad>", "<unk>", "a", "red", "blue", "picture"]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """A SigLIP folder with random weights, 2 layers of 16."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 8, "projection_size": 16}
    vision = {**small, "image_size": 28, "patch_size": 14}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    words = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return folder


def test_features_are_those_of_transformers(siglip):
    encoder = open_encoder(siglip)
    pictures = [field(1), field(2, 50, 90), field(3, 28, 28)]
    found = encoder.image_features(pictures)
    model = SiglipModel.from_pretrained(siglip).eval()
    for row, picture in zip(found, pictures, strict=True):
        small = Image.fromarray(picture).resize((28, 28), Image.Resampling.BICUBIC)
        pixels = torch.tensor(np.asarray(small)).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        with torch.no_grad():
            truth = model.get_image_features(pixel_values=pixels).pooler_output[0]
        assert np.allclose(row, (truth / truth.norm()).numpy(), atol=1e-5)
    ids = torch.tensor([[2, 3, 5, 0, 0, 0, 0, 0], [2, 4, 1, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        truth = model.get_text_features(input_ids=ids).pooler_output
    said = encoder.text_features(["a red picture", "a blue dog"])
    assert np.allclose(said, torch.nn.functional.normalize(truth, dim=-1).numpy(), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert encoder.text_features(["red " * 50]).shape == (1, 16)  # cut to what the tower takes


def test_the_tower_of_stage_0_is_an_encoder_too(tmp_path):
    """Its folder as stage 0 leaves it, with the tower of keye-nano and what stood beside it untrained."""
    model = load_model(NANO, torch.float32)
    beside = Beside(
        model.config.vision.hidden_size, model.config.vision.num_attention_heads, model.config.vocab_size, None
    )
    shutil.copytree(NANO, tmp_path / "model")
    save_file(beside.state_dict(), tmp_path / BESIDE)
    encoder = open_encoder(tmp_path)
    pictures, texts = encoder.image_features([field(1), field(2, 50, 90)]), encoder.text_features(["a red star"])
    assert pictures.shape[0] == 2 and pictures.shape[1:] == texts.shape[1:]
    assert torch.allclose(pictures.norm(dim=1), torch.ones(2), atol=1e-5)
    encode_clip(make_scene(3, "train", 2.0), tmp_path / "a.mp4", (160, 160), fps=10)
    item = Item("a.mp4", (Medium("a.mp4", "video"),), "a red star moves")
    (kept,), _ = similarity([item], tmp_path, encoder, threshold=-1)
    assert kept == item


def test_odd_pictures_are_taken(siglip):
    encoder = open_encoder(siglip)
    odd = [np.zeros((1, 1, 3), np.uint8), np.zeros((3, 200, 3), np.uint8), np.zeros((200, 1, 3), np.uint8)]
    assert torch.isfinite(encoder.image_features(odd)).all()


def test_folders_that_are_none_are_told(siglip, tmp_path):
    with pytest.raises(FinetuneError, match=r"config\.json"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(FinetuneError, match=r"model\.safetensors"):
        open_encoder(tmp_path)  # no weights
    torch.save(SiglipModel.from_pretrained(siglip).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FinetuneError, match=r"model\.safetensors"):
        open_encoder(tmp_path)  # a pickle is not read


class Colours:
    """Features worked by hand: how red, green and blue a picture is; a text names one of these."""

    def image_features(self, pictures):
        means = np.stack([picture.reshape(-1, 3).mean(0) for picture in pictures]).astype(np.float32)
        return torch.tensor(means / np.linalg.norm(means, axis=1, keepdims=True))

    def text_features(self, texts):
        return torch.tensor([[float(word in text) for word in ("red", "green", "blue")] for text in texts])


def paint(path, left, right):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = left, right
    return save(path, picture)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_captions_that_do_not_fit_are_taken_away(tmp_path):
    paint(tmp_path / "red.png", RED, RED)
    paint(tmp_path / "half.png", RED, BLUE)
    (tmp_path / "broken.png").write_bytes(b"x")
    items = [
        Item("1", (Medium("red.png", "image"),), "red"),  # cosine 1
        Item("2", (Medium("red.png", "image"),), "blue"),  # 0
        Item("3", (Medium("half.png", "image"),), "red"),  # 0.7071
        Item("4", (Medium("half.png", "image"),)),
        Item("5", text="red"),
        Item("6", (Medium("broken.png", "image"),), "red"),
    ]
    kept, report = similarity(items, tmp_path, Colours(), threshold=0.7)
    assert [(item.id, item.text) for item in kept] == [("1", "red"), ("2", ""), ("3", "red"), ("4", ""), ("5", "red")]
    assert report.reasons["the text does not fit the medium"].examples == ["2: 0.000, blue"]
    assert report.came == 4 and report.made == 2
    assert "lowest 0.000" in report.notes[0] and "half below 0.707" in report.notes[0]
    kept, _ = similarity(items, tmp_path, Colours(), threshold=0.71)
    assert [item.text for item in kept] == ["red", "", "", "", "red"]
    for wrong in (1.5, float("nan")):
        with pytest.raises(FinetuneError):
            similarity(items, tmp_path, Colours(), threshold=wrong)


def test_a_video_is_compared_by_the_mean_of_its_frames(tmp_path):
    encode_clip(make_scene(3, "train", 2.0), tmp_path / "a.mp4", (160, 160), fps=10)
    item = Item("a.mp4", (Medium("a.mp4", "video"),), "red green blue")
    (kept,), report = similarity([item], tmp_path, Colours(), threshold=-1)
    assert kept == item and report.came == 1


def test_what_says_and_shows_what_a_benchmark_does_is_left_out(tmp_path):
    """Pictures of one colour: red beside red-with-a-little-green is a cosine of .995, beside orange .89."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"

    def colour(folder, name, rgb):
        save(folder / name, np.full((20, 20, 3), rgb, np.uint8))

    colour(theirs, "red.png", (200, 0, 0))
    (theirs / "red.txt").write_text("red")
    colour(theirs, "blue.png", (0, 0, 200))  # nothing is said of it
    for name, rgb in (("same", (200, 20, 0)), ("other", (200, 20, 0)), ("orange", (200, 100, 0)), ("sea", (0, 0, 99))):
        colour(mine, f"{name}.png", rgb)

    def item(name, text="", questions=()):
        return Item(name, (Medium(f"{name}.png", "image"),), text, questions=questions)

    items = [
        item("same", "red"),  # the picture and the words
        item("other", "green"),  # the picture alone
        item("orange", "red"),  # the words alone
        item("sea", "green"),  # the picture, where the benchmark has no words
        Item("text", (), "red"),
    ]
    kept, report = decontaminate_pairs(items, mine, Colours(), [theirs])
    assert [one.id for one in kept] == ["other", "orange", "text"]
    (why,) = report.reasons
    assert report.reasons[why].examples == ["same: like theirs/red.png", "sea: like theirs/blue.png"]
    kept, _ = decontaminate_pairs([item("orange", questions=(("which", "red"),))], mine, Colours(), [theirs], image=0.8)
    assert not kept  # a question and its answer are words too
    with pytest.raises(FinetuneError, match="cosines"):
        decontaminate_pairs(items, mine, Colours(), [theirs], image=98)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("red")
    with pytest.raises(FinetuneError, match="no pictures or videos"):
        decontaminate_pairs(items, mine, Colours(), [tmp_path / "none"])


def test_a_region_is_cut_out():
    picture = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    box = Region("x", "box", ((0.25, 0.2), (0.5, 0.6)))
    assert np.array_equal(crop(picture, box), picture[2:6, 5:10])
    triangle = Region("x", "polygon", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0)))
    assert np.array_equal(crop(picture, triangle), picture[:, :10])
    nothing = Region("x", "box", ((1.0, 1.0), (1.0, 1.0)))
    assert crop(picture, nothing).shape == (1, 1, 3)


def test_the_better_half_of_regions_stays(tmp_path):
    paint(tmp_path / "a.png", RED, BLUE)
    left, right, all_of_it = ((0.0, 0.0), (0.5, 1.0)), ((0.5, 0.0), (1.0, 1.0)), ((0.0, 0.0), (1.0, 1.0))
    regions = (
        Region("red", "box", left),  # 1
        Region("red", "box", right),  # 0
        Region("blue", "box", all_of_it),  # 0.7071
        Region("green", "box", left),  # 0
        Region("green", "point", ((0.5, 0.5),)),
    )
    items = [Item("a", (Medium("a.png", "image"),), regions=regions)]
    (kept,), report = crops(items, tmp_path, Colours())
    assert kept.regions == (regions[0], regions[2], regions[4])
    assert report.came == 4 and report.made == 2
    (kept,), _ = crops(items, tmp_path, Colours(), threshold=0.8)
    assert kept.regions == (regions[0], regions[4])
    with pytest.raises(FinetuneError):
        crops(items, tmp_path, Colours(), share=0)
