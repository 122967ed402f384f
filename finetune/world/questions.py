"""Questions about a scene with their true answers.

Every answer of a kind begins with a token of its own: where two answers share their first word, the more frequent
one wins whatever the pixels say."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from finetune.world.phrases import ANSWERS, FOREIGN, GREETINGS, PHRASES, THANKS, WHO, vary
from finetune.world.scene import COLOURS, SHAPES, Scene, Thing

NUMBERS = ("Zero", "One", "Two", "Three")
STILL = "Nowhere, it stays still."


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str


Maker = Callable[[Scene, random.Random], tuple[dict[str, str], str] | None]
"""What fills the phrase, and the answer; None where the scene does not allow such a question."""


def ask(scene: Scene, rng: random.Random, kind: str, plain: bool = False) -> Question | None:
    """One question of this kind, None where the scene has no such question or its answer would be unclear.

    `plain` keeps the first phrasing and spelling of the kind."""
    made = _MAKERS[kind](scene, rng)
    if made is None:
        return None
    words, answer = made
    words = {"video": _video_word(scene, rng, plain), **words}
    phrases = PHRASES[kind]
    if kind == "bigger" and len(scene.things) > 2:
        phrases = phrases[:3]
    if kind == "moves" and words.get("negated"):
        phrases = phrases[2:]
    elif kind == "moves":
        phrases = phrases[:2]
    text = (phrases[0] if plain else rng.choice(phrases)).format(
        **words, The=words.get("the", "").capitalize() if "the" in words else ""
    )
    return Question(kind, text if plain else vary(text, rng), answer)


def draw(scene: Scene, rng: random.Random, count: int) -> list[Question]:
    """`count` questions of kinds drawn by weight; the same question may come twice in other words."""
    kinds, weights = (PICTURE_KINDS, PICTURE_WEIGHTS) if scene.still else (VIDEO_KINDS, VIDEO_WEIGHTS)
    out: list[Question] = []
    while len(out) < count:
        for kind in rng.choices(kinds, weights, k=count):
            question = ask(scene, rng, kind)
            if question is not None:
                out.append(question)
    return out[:count]


def small_talk(rng: random.Random, kind: str, with_clip: bool = True) -> Question:
    """A greeting and the like, or a question about something that is no moving shape; without a clip, a question
    about shapes has one honest answer."""
    if kind == "no_clip" or (not with_clip and kind == "foreign" and rng.random() < 0.3):
        text = rng.choice(PHRASES[rng.choice(("list", "caption", "count", "text"))]).format(video="video")
        return Question("no_clip", vary(text, rng), ANSWERS["no_clip"])
    text = rng.choice({"greeting": GREETINGS, "who": WHO, "thanks": THANKS, "foreign": FOREIGN}[kind])
    return Question(kind, vary(text, rng), ANSWERS[kind])


# -- naming things --------------------------------------------------------------------------------------------------


def name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _refer(scene: Scene, thing: Thing, rng: random.Random, by: str = "any") -> str | None:
    """A way to name one thing that fits no other: by its shape, its colour, or both."""
    ways = []
    others = [t for t in scene.things if t is not thing]
    if by != "colour" and all(t.shape != thing.shape for t in others):
        ways.append(f"the {thing.shape}")
    colours = {c for t in others for c in (t.colour, t.turned)}
    # what changes its colour is not named by it
    if by != "shape" and thing.event != "turns" and thing.colour not in colours:
        ways.append(rng.choice((f"the {thing.colour} shape", f"the {thing.colour} one", f"the {thing.colour} object")))
    if by == "any" and thing.event != "turns":
        ways.append(f"the {name(thing)}")
    return rng.choice(ways) if ways else None


def _video_word(scene: Scene, rng: random.Random, plain: bool) -> str:
    if scene.still:
        return "picture" if plain else rng.choice(("picture", "image", "picture", "photo", "video"))
    return "video" if plain else rng.choice(("video", "video", "clip"))


def _one(scene: Scene, rng: random.Random, by: str = "any") -> tuple[Thing, str] | None:
    thing = rng.choice(scene.things)
    reference = _refer(scene, thing, rng, by)
    return (thing, reference) if reference else None


# -- kinds ----------------------------------------------------------------------------------------------------------


def _colour(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    if rng.random() < 0.06:
        absent = [s for s in SHAPES if all(t.shape != s for t in scene.things)]
        shape = rng.choice(absent)
        return {"the": f"the {shape}"}, f"There is no {shape}."
    found = _one(scene, rng, "shape")
    if found is None or found[0].event == "turns":
        return None
    return {"the": found[1]}, f"{found[0].colour.capitalize()}."


def _shape(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    found = _one(scene, rng, "colour")
    return ({"the": found[1]}, f"{found[0].shape.capitalize()}.") if found else None


def _count(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str]:
    return {}, f"{NUMBERS[len(scene.things)]}."


def _count_of(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    if rng.random() < 0.6:
        shape = rng.choice(scene.things).shape if rng.random() < 0.75 else rng.choice(SHAPES)
        plural = f"{shape}es" if shape == "cross" else f"{shape}s"
        return {"group": plural}, f"{NUMBERS[sum(t.shape == shape for t in scene.things)]}."
    colour = rng.choice(scene.things).colour if rng.random() < 0.75 else rng.choice(COLOURS)
    if any(t.event == "turns" and colour in (t.colour, t.turned) for t in scene.things):
        return None
    return {"group": f"{colour} shapes"}, f"{NUMBERS[sum(t.colour == colour for t in scene.things)]}."


def _count_end(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str]:
    return {}, f"{NUMBERS[sum(t.visible(scene.duration) for t in scene.things)]}."


def _exists(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    thing = rng.choice(scene.things)
    if thing.event == "turns":
        return None
    style = rng.random()
    if rng.random() < 0.5:
        noun = thing.shape if style < 0.35 else f"{thing.colour} shape" if style < 0.5 else name(thing)
        return {"a": with_article(noun)}, "Yes."
    shapes = {t.shape for t in scene.things}
    colours = {c for t in scene.things for c in (t.colour, t.turned)}
    if style < 0.35:
        noun = rng.choice([s for s in SHAPES if s not in shapes])
    elif style < 0.5:
        noun = rng.choice([c for c in COLOURS if c not in colours]) + " shape"
    else:
        # One half right is what makes the question hard.
        wrong_colour = rng.choice([c for c in COLOURS if c != thing.colour])
        wrong_shape = rng.choice([s for s in SHAPES if s != thing.shape])
        pair = (wrong_colour, thing.shape) if rng.random() < 0.5 else (thing.colour, wrong_shape)
        if any(t.shape == pair[1] and pair[0] in (t.colour, t.turned) for t in scene.things):
            return None
        noun = f"{pair[0]} {pair[1]}"
    return {"a": with_article(noun)}, "No."


def _where(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    found = _one(scene, rng)
    if found is None or found[0].motion != "still":
        return None
    width, height = scene.size
    x, y = found[0].x / width - 0.5, found[0].y / height - 0.5
    if abs(x) < 0.1 and abs(y) < 0.1:
        return {"the": found[1]}, "In the middle."
    if abs(x) < 0.08 or abs(y) < 0.08:
        return None
    return {"the": found[1]}, f"{'Top' if y < 0 else 'Bottom'} {'left' if x < 0 else 'right'}."


def _two(scene: Scene, rng: random.Random) -> tuple[Thing, str, Thing, str] | None:
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(scene.things, 2)
    name_a, name_b = _refer(scene, a, rng), _refer(scene, b, rng)
    return (a, name_a, b, name_b) if name_a and name_b else None


def _relation(axis: str, before: str, after: str) -> Maker:
    def make(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
        pair = _two(scene, rng)
        if pair is None or pair[0].motion != "still" or pair[2].motion != "still":
            return None
        gap = getattr(pair[0], axis) - getattr(pair[2], axis)
        if abs(gap) < 0.12:
            return None
        return {"the": pair[1], "other": pair[3]}, f"{before if gap < 0 else after}."

    return make


def _bigger(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    pair = _two(scene, rng)
    if pair is None or pair[0].big == pair[2].big:
        return None
    winner = pair[0] if pair[0].big else pair[2]
    loser = pair[2] if pair[0].big else pair[0]
    if winner.event == "turns" or winner.shape == loser.shape:
        return None
    return {"the": pair[1], "other": pair[3]}, f"{winner.shape.capitalize()}."


def _size(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    found = _one(scene, rng)
    return ({"the": found[1]}, "Big." if found[0].big else "Small.") if found else None


def _motion(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    found = _one(scene, rng)
    if found is None or found[0].event is not None:
        return None
    thing = found[0]
    if thing.motion == "still":
        return ({"the": found[1]}, STILL) if rng.random() < 0.35 else None
    return {"the": found[1]}, f"{thing.motion.capitalize()}."


def _moves(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    found = _one(scene, rng)
    if found is None or found[0].event is not None:
        return None
    moving, negated = found[0].motion != "still", rng.random() < 0.3
    words = {"the": found[1]} | ({"negated": "yes"} if negated else {})
    return words, "Yes." if moving != negated else "No."


def doing(thing: Thing) -> str:
    """What one thing does, as the end of a sentence."""
    if thing.event == "turns":
        return f"turns {thing.turned}"
    if thing.event is not None:
        return thing.event
    return "stays still" if thing.motion == "still" else f"moves {thing.motion}"


def _event(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    found = _one(scene, rng)
    if found is None or (found[0].event is None and rng.random() < 0.5):
        return None
    text = doing(found[0])
    return {"the": found[1]}, "Stays still." if text == "stays still" else f"{text.capitalize()}."


def _which(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    thing = rng.choice(scene.things)
    does = doing(thing)
    if thing.event == "turns":
        does = "changes colour"
        same = [t for t in scene.things if t.event == "turns"]
    else:
        same = [t for t in scene.things if doing(t) == does]
    if len(same) > 1 or (thing.event is None and rng.random() < 0.5):
        return None
    return {"does": does}, f"{name(thing).capitalize()}."


def _becomes(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    turning = [t for t in scene.things if t.event == "turns"]
    if not turning:
        return None
    thing = rng.choice(turning)
    reference = _refer(scene, thing, rng, "shape")
    return ({"the": reference}, f"{thing.turned.capitalize()}.") if reference else None


def _when(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    eventful = [t for t in scene.things if t.event is not None]
    if not eventful:
        return None
    thing = rng.choice(eventful)
    reference = _refer(scene, thing, rng)
    if reference is None:
        return None
    do = {"appears": "appear", "disappears": "disappear", "turns": "change colour"}[str(thing.event)]
    return {"the": reference, "do": do}, f"At {int(thing.at // 60)}:{int(thing.at % 60):02d}."


def _text(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str] | None:
    if not scene.text:
        return ({}, "There is no text.") if rng.random() < 0.12 else None
    return {}, scene.text


def _has_text(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str]:
    return {}, "Yes." if scene.text else "No."


def _background(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str]:
    return {}, f"{scene.background.capitalize()}."


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _list(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str]:
    text = _join([with_article(name(t)) for t in scene.things])
    return {}, f"{text[0].upper()}{text[1:]}."


def _caption(scene: Scene, rng: random.Random) -> tuple[dict[str, str], str]:
    text = _join([f"{with_article(name(t))} {doing(t)}" for t in scene.things])
    return {}, f"{text[0].upper()}{text[1:]}."


_MAKERS: dict[str, Maker] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "count_of": _count_of,
    "count_end": _count_end,
    "exists": _exists,
    "where": _where,
    "side": _relation("x", "Left", "Right"),
    "height": _relation("y", "Above", "Below"),
    "bigger": _bigger,
    "size": _size,
    "motion": _motion,
    "moves": _moves,
    "event": _event,
    "which": _which,
    "becomes": _becomes,
    "when": _when,
    "text": _text,
    "has_text": _has_text,
    "background": _background,
    "list": _list,
    "caption": _caption,
}

_VIDEO_WEIGHT = {
    **dict.fromkeys(_MAKERS, 1.0),
    "motion": 3.0,
    "event": 2.0,
    "when": 2.0,
    "text": 2.0,
    "which": 1.5,
    "caption": 1.0,
    "list": 0.8,
    "where": 2.5,
    "side": 2.0,
    "height": 2.0,
    "has_text": 0.3,
    "background": 0.3,
}
_TIME_KINDS = {"count_end", "motion", "moves", "event", "which", "becomes", "when", "caption"}
_PICTURE_WEIGHT = {k: w for k, w in _VIDEO_WEIGHT.items() if k not in _TIME_KINDS}
VIDEO_KINDS, VIDEO_WEIGHTS = tuple(_VIDEO_WEIGHT), tuple(_VIDEO_WEIGHT.values())
PICTURE_KINDS, PICTURE_WEIGHTS = tuple(_PICTURE_WEIGHT), tuple(_PICTURE_WEIGHT.values())
