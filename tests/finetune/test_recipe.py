"""Recipes: what a file says, what the shell replaces, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.recipe import load_recipe

TEXT = """
name = "little"
seed = 7
[model]
new = "keye-nano"
[stage0]
kind = "vision"
steps = 10
[stage1]
kind = "alignment"
steps = 2
[stage2]
kind = "multitask"
lr = 0.01
[stage2.pictures]
steps = 3
media = "pictures"
[stage2.videos]
steps = 4
lr = 0.02
mixture = { text = 2.0 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "little.toml"
    path.write_text(TEXT)
    return path


def test_stages_keep_their_order_and_parts_take_over_what_the_stage_says(file: Path) -> None:
    recipe = load_recipe(file)
    assert (recipe.name, recipe.seed, recipe.model) == ("little", 7, {"new": "keye-nano"})
    assert [s.name for s in recipe.stages] == ["stage0", "stage1", "stage2"]
    pictures, videos = recipe.stages[2].parts["pictures"], recipe.stages[2].parts["videos"]
    assert (pictures.lr, pictures.steps, pictures.media) == (0.01, 3, "pictures")
    assert (videos.lr, videos.steps, videos.mixture) == (0.02, 4, {"text": 2.0})


def test_what_a_stage_trains_is_the_reports_where_nothing_is_said(file: Path) -> None:
    trained = [next(iter(s.parts.values())).train for s in load_recipe(file).stages]
    assert trained == [("tower",), ("projector",), ("tower", "projector", "decoder")]


@pytest.mark.parametrize(
    ("said", "stage", "part", "field", "value"),
    [
        ("stage0.steps=20", 0, "stage0", "steps", 20),
        ("stage2.lr=1e-3", 2, "videos", "lr", 1e-3),  # said of a stage, it holds for all its parts
        ("stage2.lr=1e-3", 2, "pictures", "lr", 1e-3),
        ("stage2.videos.lr=5", 2, "videos", "lr", 5.0),
        ('stage2.train=["decoder"]', 2, "videos", "train", ("decoder",)),
        ("stage2.media=pictures", 2, "videos", "media", "pictures"),
    ],
)
def test_the_shell_replaces_numbers(file: Path, said: str, stage: int, part: str, field: str, value: object) -> None:
    assert getattr(load_recipe(file, [said]).stages[stage].parts[part], field) == value


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("stage2.lrr=1", "did you mean “lr”"),
        ("stage2.steps=many", "stage2.*steps must be a whole number"),
        ("stage2.steps=-1", "makes no sense"),
        ("stage2.lr=nan", "must be a number"),
        ("stage9.lr=1", "knows no “stage9”"),
        ("stage0.kind=painting", "needs a kind"),
        ('stage0.train=["ears"]', "one of “tower”"),
        ("speed=1", "knows no “speed”"),
        ('stage2.ours=["colour"]', "ours.* knows no “colour”"),
        ("stage2", "sets nothing"),
        ("processes=0", "processes must lie between"),
        ("stage2.fall=down", "one of “none”, “linear”, “cosine”"),
    ],
)
def test_what_makes_no_sense_is_named(file: Path, said: str, told: str) -> None:
    with pytest.raises(FinetuneError, match=told):
        load_recipe(file, [said])


@pytest.mark.parametrize("text", ["", "name = ", "[model]\nold = 'x'\n[sft]\nkind='sft'", "\x00", "sft = 3"])
def test_broken_files_are_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(FinetuneError):
        load_recipe(path)
    with pytest.raises(FinetuneError, match="cannot be read"):
        load_recipe(tmp_path / "missing.toml")


def test_the_recipes_of_the_house_are_whole() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    for path in folder.glob("*.toml"):
        assert load_recipe(path).name == path.stem
    kinds = [stage.kind for stage in load_recipe(folder / "nano.toml").stages]
    assert kinds[:4] == ["vision", "alignment", "multitask", "annealing"]
