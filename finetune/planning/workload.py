"""What a part of a recipe has to compute: how many examples of which size, and the operations they take.

Where a recipe counts tokens or examples, `shapes` says what an example is and `effort` what else is done with it;
where it counts steps of the generated world, batches are made and looked at."""

from __future__ import annotations

import importlib
import math
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import torch

from engine.keye import KeyeConfig, KeyeForConditionalGeneration, KeyeProcessor
from engine.keye.loading import load_model
from finetune.errors import FinetuneError
from finetune.planning.costs import (
    Example,
    Item,
    Role,
    TextTower,
    forward,
    generated,
    packed_forward,
    roles,
)
from finetune.planning.memory import Batch
from finetune.recipe import Part, Recipe, Stage

SAMPLED = 6
"""Batches of the world that are made to know their mean size: they are made to be of about one size."""

DEFAULT = "default"

ASKED_SHAPE = {"frames": 7.0, "patches": 64.0, "text": 40.0, "learnt": 8.0, "answer": 8.0}
"""What a question about a clip of the world and its answer are taken to be. Assumed, not measured: there is no batch
to look at before the model has answered."""


@dataclass(frozen=True)
class Shape:
    """What one example is. Tokens of the decoder; a picture is a clip of one frame."""

    share: float = 1.0  # of the examples, where these are not counted one by one
    frames: float = 1.0
    patches: float = 0.0  # of a frame; four are a visual token
    text: float = 0.0  # of the conversation, answers with it
    learnt: float = -1.0  # tokens that the loss is of; -1: all of the text
    answer: float = 0.0  # tokens of a sampled answer, in `rl` and `align`


@dataclass(frozen=True)
class Effort:
    """What else a stage does."""

    patches_per_token: float = 4.0  # of stage 0, whose tokens are all visual
    text_layers: float = 2.0  # of stage 0's text tower; as wide as the vision tower
    text_mlp: float = 0.0  # 0: four times as wide
    text_vocabulary: float = 0.0  # 0: the model's
    samples: float = 8.0  # answers to each prompt
    rounds: float = 1.0  # of alignment
    judge_parameters: float = 0.0  # of the model that judges each answer, per token active
    judge_tokens: float = 0.0  # that it reads and writes of each answer
    rollout_share: float = 0.05  # of the peak while answers are sampled: memory bounds that, not arithmetic


@dataclass
class Load:
    """A part's work in all, or of one step where nobody knows how many there will be."""

    examples: float = 0.0
    text: float = 0.0
    visual: float = 0.0
    training: float = 0.0  # operations, here and below
    sampling: float = 0.0
    judging: float = 0.0
    known: bool = True  # False: of one step
    beside: int = 0  # parameters trained beside the model
    copies: int = 0  # frozen models held beside it
    batch: Batch = field(default_factory=lambda: Batch(0, 0, 0))  # of each GPU
    effort: Effort = field(default_factory=Effort)

    @property
    def tokens(self) -> float:
        return self.text + self.visual


def load_of(recipe: Recipe, stage: Stage, part: Part, where: str, config: KeyeConfig, world: World) -> Load:
    """The work of a part. FinetuneError where its numbers do not say what an example is."""
    counted = part.tokens or part.examples or (part.counts and not part.steps)
    if part.data == ("world",) and not counted:
        if stage.kind not in ("mpo", "rl", "align"):
            return world.load(recipe, stage, part)
        asked = max(1, part.steps) * part.accumulate * part.questions * recipe.processes
        asked *= len(part.modes) if stage.kind == "rl" else 1
        part = replace(part, examples=asked, shapes={DEFAULT: ASKED_SHAPE}, effort={"samples": part.samples})
    shapes = {name: _filled(Shape, row, f"{where}.shapes.{name}") for name, row in part.shapes.items()}
    effort: Effort = _filled(Effort, part.effort, f"{where}.effort")
    load = Load(effort=effort)
    if stage.kind == "vision":
        _pairs(load, part, shapes, config, where)
    else:
        _conversations(load, recipe, stage, part, shapes, config, where)
    return load


# -- what a recipe counts ---------------------------------------------------------------------------------------


def _mixed(part: Part, shapes: dict[str, Shape], where: str) -> list[tuple[float, Shape]]:
    """How many examples of each shape there are; shares of one where only their tokens or nothing is counted."""
    repeated = part.epochs or 1.0
    out: list[tuple[float, Shape]] = []
    for name, count in part.counts.items():
        out.append((count * repeated, _shape(shapes, name, where)))
    rest = part.examples - sum(part.counts.values())
    if rest > 0:
        out += [(rest * repeated * share, shape) for share, shape in _shared(shapes, set(part.counts), where)]
    return out or _shared(shapes, set(), where)


def _shared(shapes: dict[str, Shape], without: set[str], where: str) -> list[tuple[float, Shape]]:
    left = [shape for name, shape in shapes.items() if name not in without]
    whole = sum(shape.share for shape in left)
    if not whole:
        raise FinetuneError(
            f"{where} does not say what an example is; give it shapes = {{ default = {{ text = 500 }} }}."
        )
    return [(shape.share / whole, shape) for shape in left]


def _shape(shapes: dict[str, Shape], name: str, where: str) -> Shape:
    found = shapes.get(name) or shapes.get(DEFAULT)
    if found is None:
        raise FinetuneError(f"{where}.shapes has neither “{name}” nor “{DEFAULT}”; say what such an example is.")
    return found


def _example(shape: Shape) -> Example:
    item = (Item(round(shape.frames), round(shape.patches)),) if shape.patches else ()
    return Example(round(shape.text), item, round(shape.learnt))


def _conversations(
    load: Load, recipe: Recipe, stage: Stage, part: Part, shapes: dict[str, Shape], config: KeyeConfig, where: str
) -> None:
    if not shapes and not part.counts and not part.examples:
        shapes = {DEFAULT: Shape(text=float(part.batch_tokens))}  # one text as long as the batch
    mixed = _mixed(part, shapes, where)
    of_one = sum(n * _example(s).length(config) for n, s in mixed)
    if part.tokens:
        mixed = [(n * part.tokens / of_one, s) for n, s in mixed]
    elif not part.examples and not part.counts:
        per_step = part.batch_tokens * part.accumulate * recipe.processes
        load.known = part.steps > 0
        mixed = [(n * per_step * (part.steps or 1) / of_one, s) for n, s in mixed]
    tower, projector, decoder = ("frozen", "frozen", "passed") if part.lora else roles(part.train)
    by_role: tuple[Role, Role, Role] = (tower, projector, decoder)  # type: ignore[assignment]
    samples, rounds = load.effort.samples, load.effort.rounds if stage.kind == "align" else 1.0
    for n, shape in mixed:
        example = _example(shape)
        one = forward(config, [example])
        load.examples += n
        load.text += n * example.text
        load.visual += n * example.visual(config)
        if stage.kind == "mpo":  # chosen and rejected of one clip, by the model and by its reference
            load.training += n * (one.times(2, tower=1).step(*by_role) + one.times(2, tower=1).total)
        elif stage.kind in ("rl", "align"):
            prompt = Example(example.text, example.items, 1)
            answered = Example(example.text + round(shape.answer), example.items, round(shape.answer))
            drawn = generated(config, prompt, round(shape.answer)).times(samples)
            load.sampling += n * rounds * (forward(config, [prompt]).total + drawn.total)
            load.judging += n * rounds * samples * 2 * load.effort.judge_parameters * load.effort.judge_tokens
            learnt = forward(config, [answered]).times(2 if stage.kind == "align" else samples, tower=1)
            load.training += n * rounds * (learnt.step(*by_role) + learnt.total)
        else:
            load.training += n * one.step(*by_role)
    load.copies = 1 if stage.kind in ("mpo", "rl", "align") else 0
    drawn_too = stage.kind in ("rl", "align")
    whole = load.tokens + sum(n * s.answer for n, s in mixed if drawn_too)
    learnt_share = sum(n * _learnt(s, stage) for n, s in mixed) / max(1.0, whole)
    load.batch = Batch(
        round(4 * part.batch_tokens * load.visual / max(1.0, whole)),
        part.batch_tokens,
        round(min(1.0, learnt_share) * part.batch_tokens),
    )


def _learnt(shape: Shape, stage: Stage) -> float:
    if stage.kind in ("rl", "align"):
        return shape.answer
    return shape.text if shape.learnt < 0 else shape.learnt


def _pairs(load: Load, part: Part, shapes: dict[str, Shape], config: KeyeConfig, where: str) -> None:
    """Stage 0: pictures or clips against texts."""
    mixed = _mixed(part, shapes, where)
    patches = sum(n * s.frames * s.patches for n, s in mixed)
    if not patches:
        raise FinetuneError(f"{where}.shapes has nothing to see; give patches.")
    if part.tokens:
        mixed = [(n * part.tokens * load.effort.patches_per_token / patches, s) for n, s in mixed]
    width, effort = config.vision.hidden_size, load.effort
    for n, shape in mixed:
        seen = forward(config, [Example(0, _example(shape).items, 0)])
        text = _text_tower(effort, round(shape.text), config)
        load.examples += n
        load.visual += n * shape.frames * shape.patches / effort.patches_per_token
        beside = text.forward(width, n, n * shape.frames * shape.patches)
        load.training += n * 3 * (seen.tower + seen.tower_attention) + 3 * beside
        load.beside = text.parameters(width)
    load.batch = Batch(round(part.batch_tokens * effort.patches_per_token), 0, 0)


def _text_tower(effort: Effort, tokens: int, config: KeyeConfig) -> TextTower:
    mlp = round(effort.text_mlp) or 4 * config.vision.hidden_size
    vocabulary = round(effort.text_vocabulary) or config.vocab_size
    return TextTower(round(effort.text_layers), mlp, vocabulary, tokens)


# -- the generated world ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """What counts of a batch of the world."""

    examples: int
    tokens: int
    items: tuple[Item, ...]
    packed: tuple[int, int, int, int]  # clips, prefix, rows, tokens of a row; none of stage 0
    learnt: int


class World:
    """Batches of the generated world, made as in training and looked at once for all parts that make the same."""

    def __init__(self, recipe: Recipe) -> None:
        self._model = recipe.model.get("path", "")
        self._seed = recipe.seed
        self._seen: dict[tuple[object, ...], tuple[list[_Batch], int, KeyeConfig]] = {}

    def load(self, recipe: Recipe, stage: Stage, part: Part) -> Load:
        vision = stage.kind == "vision"
        batches, beside, config = self._batches(stage, part)
        made = (part.steps or 1) * part.accumulate * recipe.processes / len(batches)
        load = Load(beside=beside, known=part.steps > 0)
        text = _text_tower(load.effort, _text_tokens(), config)
        most = (0, 0, 0)
        for batch in batches:
            patches = sum(item.length for item in batch.items)
            if vision:
                seen = forward(config, [Example(0, batch.items, 0)])
                read = text.forward(config.vision.hidden_size, len(batch.items), patches)
                load.training += made * 3 * (seen.tower + seen.tower_attention + read)
                size = (patches, 0, 0)
            else:
                clips, prefix, rows, row = batch.packed
                one = packed_forward(config, batch.items, clips, prefix, rows, row, batch.learnt)
                load.training += made * one.step(*roles(part.train))
                size = (patches, clips * (prefix + rows * row), batch.learnt)
            load.examples += made * batch.examples
            load.visual += made * patches / 4
            load.text += made * (batch.tokens - patches / 4)
            most = (max(most[0], size[0]), max(most[1], size[1]), max(most[2], size[2]))
        load.batch = Batch(*most)
        return load

    def _batches(self, stage: Stage, part: Part) -> tuple[list[_Batch], int, KeyeConfig]:
        own = stage.kind if stage.kind in ("vision", "cold_start") else ""
        same = (own, part.media, part.things, part.dense > 0)  # a mixture changes what, not how much
        if same not in self._seen:
            self._seen[same] = self._make(stage, part)
        return self._seen[same]

    def _make(self, stage: Stage, part: Part) -> tuple[list[_Batch], int, KeyeConfig]:
        from finetune.nano.shape import new_checkpoint
        from finetune.stages.reading import Start

        with tempfile.TemporaryDirectory() as name:
            folder = Path(self._model or name)
            if not self._model:
                new_checkpoint(folder, self._seed)
            model = cast(KeyeForConditionalGeneration, load_model(folder, torch.float32))
            start = Start(model, KeyeProcessor.from_pretrained(folder), folder, None, "plan", 0, 1)
            work = importlib.import_module(f"finetune.stages.{stage.kind}").work(start, part)
            out = []
            for number in range(SAMPLED):
                made = work.source.make(number)
                examples, tokens = work.source.size(made)
                items = () if made.grid is None else tuple(_items(made.grid))
                if getattr(made, "row_grid", None) is not None:
                    items += tuple(_items(made.row_grid))
                packed, learnt = (0, 0, 0, 0), 0
                if stage.kind != "vision":
                    clips, rows, row = made.row_ids.shape
                    packed, learnt = (clips, made.prefix_ids.shape[1], rows, row), work.source.learnt(made)
                out.append(_Batch(examples, tokens, items, packed, learnt))
        own = {id(p) for p in model.parameters()}
        beside = sum(p.numel() for p in work.objective.parameters() if id(p) not in own)
        return out, beside, cast(KeyeConfig, model.config)


def _text_tokens() -> int:
    from finetune.stages.vision import TEXT_TOKENS

    return TEXT_TOKENS


def _items(grid: torch.Tensor) -> list[Item]:
    return [Item(t, h * w) for t, h, w in grid.tolist()]


# -- tables of numbers ------------------------------------------------------------------------------------------


def _filled(kind: type[Any], row: dict[str, float], where: str) -> Any:
    known = [f.name for f in fields(kind)]
    for name, value in row.items():
        if name not in known:
            raise FinetuneError(f"{where} knows no “{name}”; there are {', '.join(known)}.")
        if not math.isfinite(value) or (value < 0 and name != "learnt"):
            raise FinetuneError(f"{where}.{name} = {value:g} makes no sense; give another value.")
    return kind(**row)
