"""The kinds of questions and what is true of a scene: what is there, where, how large, how many.

A maker returns nothing where the scene has no such question or where its answer would be unclear. It draws the same
from its random numbers whatever the language, so that a question can be asked in both."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from finetune.world.render import box
from finetune.world.scene import COLOURS, SHAPES, Scene, Thing
from finetune.world.speech import Speech


class Made(NamedTuple):
    """What fills a phrase, the answer, and which phrases fit (those of the kind, or others of the same meaning)."""

    words: dict[str, str]
    answer: str
    phrases: str = ""


Maker = Callable[[Scene, random.Random, Speech], Made | None]


# -- naming things --------------------------------------------------------------------------------------------------


def refer(scene: Scene, thing: Thing, rng: random.Random, say: Speech, by: str = "any") -> str | None:
    """A way to name one thing that fits no other: by its shape, its colour, or both."""
    ways = []
    others = [t for t in scene.things if t is not thing]
    if by != "colour" and all(t.shape != thing.shape for t in others):
        ways.append((thing.shape, ""))
    colours = {c for t in others for c in (t.colour, t.turned)}
    # what changes its colour is not named by it
    if by != "shape" and thing.event != "turns" and thing.colour not in colours:
        ways.append(("", thing.colour))
    if by == "any" and thing.event != "turns":
        ways.append((thing.shape, thing.colour))
    style = rng.randrange(3)
    return say.the(say.named(*rng.choice(ways), style)) if ways else None


def one(scene: Scene, rng: random.Random, say: Speech, by: str = "any") -> tuple[Thing, str] | None:
    """Any thing that can be named, with its name."""
    thing = rng.choice(scene.things)
    reference = refer(scene, thing, rng, say, by)
    return (thing, reference) if reference else None


# -- what one thing is ----------------------------------------------------------------------------------------------


def _colour(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    if rng.random() < 0.06:
        absent = [s for s in SHAPES if all(t.shape != s for t in scene.things)]
        shape = rng.choice(absent)
        return Made({"the": say.the(say.named(shape))}, say.no_shape(shape))
    found = one(scene, rng, say, "shape")
    if found is None or found[0].event == "turns":
        return None
    return Made({"the": found[1]}, say.colour(found[0].colour))


def _shape(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say, "colour")
    return Made({"the": found[1]}, say.shape(found[0].shape)) if found else None


def _size(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    return Made({"the": found[1]}, say.word("big" if found[0].big else "small")) if found else None


def _texture(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    # most things are plain: asked of all, "plain" would nearly always be right
    if found is None or (found[0].texture == "plain" and rng.random() < 0.8):
        return None
    return Made({"the": found[1]}, say.word(found[0].texture))


def _exists(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    thing = rng.choice(scene.things)
    if thing.event == "turns":
        return None
    style = rng.random()
    shape, colour = thing.shape, thing.colour
    true = rng.random() < 0.5
    if true:
        shape, colour = (shape, "") if style < 0.35 else ("", colour) if style < 0.5 else (shape, colour)
    else:
        shapes = {t.shape for t in scene.things}
        colours = {c for t in scene.things for c in (t.colour, t.turned)}
        if style < 0.35:
            shape, colour = rng.choice([s for s in SHAPES if s not in shapes]), ""
        elif style < 0.5:
            shape, colour = "", rng.choice([c for c in COLOURS if c not in colours])
        else:
            # One half right is what makes the question hard.
            wrong_colour = rng.choice([c for c in COLOURS if c != colour])
            wrong_shape = rng.choice([s for s in SHAPES if s != shape])
            shape, colour = (shape, wrong_colour) if rng.random() < 0.5 else (wrong_shape, colour)
            if any(t.shape == shape and colour in (t.colour, t.turned) for t in scene.things):
                return None
    return Made({"a": say.a(say.named(shape, colour))}, say.truth(true, there=True))


# -- where things are -----------------------------------------------------------------------------------------------


def _where(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    if found is None or not found[0].resting:
        return None
    width, height = scene.size
    x, y = found[0].x / width - 0.5, found[0].y / height - 0.5
    if abs(x) < 0.1 and abs(y) < 0.1:
        # a camera that drifts may carry it out of the middle
        return Made({"the": found[1]}, say.word("middle")) if scene.camera.kind == "none" else None
    if abs(x) < 0.08 or abs(y) < 0.08:
        return None
    return Made({"the": found[1]}, say.corner(y < 0, x < 0))


def two(scene: Scene, rng: random.Random, say: Speech) -> tuple[Thing, str, Thing, str] | None:
    """Two things that can be named, with their names."""
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(scene.things, 2)
    name_a, name_b = refer(scene, a, rng, say), refer(scene, b, rng, say)
    return (a, name_a, b, name_b) if name_a and name_b else None


def _relation(axis: str, before: str, after: str) -> Maker:
    def make(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
        pair = two(scene, rng, say)
        if pair is None or not pair[0].resting or not pair[2].resting:
            return None
        gap = getattr(pair[0], axis) - getattr(pair[2], axis)
        if abs(gap) < 0.12:
            return None
        return Made({"the": pair[1], "other": pair[3]}, say.side(before if gap < 0 else after))

    return make


def box_text(scene: Scene, thing: Thing) -> str:
    """The box of a thing as the model writes it: thousandths of the picture's width and height, in tens."""
    left, top, right, bottom = (min(99, max(0, round(share * 100))) * 10 for share in box(scene, thing))
    return f"<|box_start|>[[{left}, {top}, {right}, {bottom}]]<|box_end|>"


def _box(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    if found is None or not found[0].resting or found[0].event is not None or scene.camera.kind != "none":
        return None
    return Made({"the": found[1]}, box_text(scene, found[0]))


def _bigger(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    pair = two(scene, rng, say)
    if pair is None or pair[0].big == pair[2].big:
        return None
    winner, loser = (pair[0], pair[2]) if pair[0].big else (pair[2], pair[0])
    if winner.event == "turns" or winner.shape == loser.shape:
        return None
    unnamed = len(scene.things) == 2 and rng.random() < 0.4
    words = {"the": pair[1], "other": pair[3]}
    return Made(words, say.shape(winner.shape), "bigger_of_two" if unnamed else "bigger")


def neighbour(scene: Scene, rng: random.Random, say: Speech) -> tuple[Thing, str] | None:
    """The one thing on a side of another, and how it is named by that."""
    if len(scene.things) < 2:
        return None
    thing = rng.choice(scene.things)
    reference = refer(scene, thing, rng, say)
    side = rng.choice(("left", "right", "above", "below"))
    if reference is None or not thing.resting:
        return None
    axis, way = ("x", "dx") if side in ("left", "right") else ("y", "dy")
    sign = -1 if side in ("left", "above") else 1
    there = []
    for other in scene.things:
        if other is thing:
            continue
        starts = sign * (getattr(other, axis) - getattr(thing, axis))
        ends = starts + sign * getattr(other, way)
        if other.resting and starts >= 0.15:
            there.append(other)
        elif max(starts, ends) > -0.05 - other.sway:
            return None
    return (there[0], say.beside(side, reference)) if len(there) == 1 else None


# -- how many -------------------------------------------------------------------------------------------------------


def _count(scene: Scene, rng: random.Random, say: Speech) -> Made:
    return Made({}, say.number(len(scene.things)))


def _some_group(scene: Scene, rng: random.Random, by_shape: bool) -> str:
    thing = rng.choice(scene.things)
    if by_shape:
        return thing.shape if rng.random() < 0.75 else rng.choice(SHAPES)
    return thing.colour if rng.random() < 0.75 else rng.choice(COLOURS)


def _size_of(scene: Scene, word: str, by_shape: bool) -> int | None:
    """How many there are of a shape or a colour; None of a colour that something turns to or from."""
    if by_shape:
        return sum(t.shape == word for t in scene.things)
    if any(t.event == "turns" and word in (t.colour, t.turned) for t in scene.things):
        return None
    return sum(t.colour == word for t in scene.things)


def _group_name(say: Speech, word: str, by_shape: bool) -> str:
    return say.group(shape=word) if by_shape else say.group(colour=word)


def _count_of(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    by_shape = rng.random() < 0.6
    word = _some_group(scene, rng, by_shape)
    size = _size_of(scene, word, by_shape)
    return None if size is None else Made({"group": _group_name(say, word, by_shape)}, say.number(size))


def _sum(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    by_shape = rng.random() < 0.6
    wanted = 2 if rng.random() < 0.7 else 3
    words: list[str] = []
    while len(words) < wanted:
        word = _some_group(scene, rng, by_shape) if rng.random() < 0.8 else rng.choice(SHAPES if by_shape else COLOURS)
        if word not in words:
            words.append(word)
    sizes = [_size_of(scene, word, by_shape) for word in words]
    if None in sizes:
        return None
    groups = say.join([_group_name(say, word, by_shape) for word in words])
    return Made({"groups": groups}, say.number(sum(size or 0 for size in sizes)))


def _more(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    by_shape = rng.random() < 0.5
    word, other = _some_group(scene, rng, by_shape), _some_group(scene, rng, by_shape)
    a, b = _size_of(scene, word, by_shape), _size_of(scene, other, by_shape)
    if word == other or a is None or b is None or a == b == 0 or (a == b and rng.random() < 0.5):
        return None
    words = {"group": _group_name(say, word, by_shape), "other": _group_name(say, other, by_shape)}
    if a == b:
        return Made(words, say.equal)
    winner = word if a > b else other
    return Made(words, say.sentence(say.group(shape=winner)) if by_shape else say.colour(winner))


# -- the picture ----------------------------------------------------------------------------------------------------


def _text(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    if not scene.text:
        return Made({}, say.no_text) if rng.random() < 0.12 else None
    return Made({}, scene.text)


def _has_text(scene: Scene, rng: random.Random, say: Speech) -> Made:
    return Made({}, say.truth(bool(scene.text), there=True))


def _background(scene: Scene, rng: random.Random, say: Speech) -> Made:
    return Made({}, say.word(scene.background))


def _list(scene: Scene, rng: random.Random, say: Speech) -> Made:
    return Made({}, say.sentence(say.join([say.a(say.named(t.shape, t.colour)) for t in scene.things])))


PLACE_KINDS: dict[str, Maker] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "count_of": _count_of,
    "exists": _exists,
    "where": _where,
    "side": _relation("x", "left", "right"),
    "height": _relation("y", "above", "below"),
    "bigger": _bigger,
    "size": _size,
    "text": _text,
    "has_text": _has_text,
    "background": _background,
    "list": _list,
    "box": _box,
    "texture": _texture,
    "sum": _sum,
    "more": _more,
}
"""Those that a picture allows too."""
