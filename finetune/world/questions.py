"""Questions about a scene and their true answers, in the words a person would use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from finetune.world.scene import COLOURS, SHAPES, Scene, Thing

COUNTS = ("Zero", "One", "Two", "Three")
_MOTION_ANSWERS = {"still": "Nowhere, it stays still.", "left": "Left.", "right": "Right.", "up": "Up.", "down": "Down."}
_MOTION_WORDS = {
    "still": "stays still",
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
}


@dataclass(frozen=True)
class QA:
    """`kind` is what accuracy is counted by."""

    kind: str
    question: str
    answer: str


_PHRASES: dict[str, tuple[str, ...]] = {
    "colour": (
        "What colour is the {shape}?",
        "What color is the {shape}?",
        "Which colour does the {shape} have?",
        "Which color is the {shape}?",
        "The {shape} is what colour?",
        "Tell me the color of the {shape}.",
    ),
    "shape": (
        "What shape is the {colour} object?",
        "What is the {colour} shape?",
        "What shape is the {colour} one?",
        "What is the {colour} object?",
        "What is the {colour} thing?",
        "Which shape is {colour}?",
    ),
    "exists": (
        "Is there a {name}?",
        "Do you see a {name}?",
        "Can you see a {name}?",
        "Is there a {name} in the video?",
        "Does a {name} appear?",
    ),
    "count": (
        "How many shapes are there?",
        "How many objects are there?",
        "How many shapes do you see?",
        "How many things are in the video?",
        "Count the shapes.",
        "How many shapes are in the video?",
    ),
    "count_colour": ("How many {colour} shapes are there?", "How many {colour} objects do you see?"),
    "count_shape": ("How many {shape}s are there?", "How many {shape}s do you see?", "Count the {shape}s."),
    "where": (
        "Where is the {name}?",
        "In which corner is the {name}?",
        "Which part of the picture is the {name} in?",
        "Where do you see the {name}?",
    ),
    "motion": (
        "Which way does the {name} move?",
        "In which direction does the {name} move?",
        "Where does the {name} go?",
        "Which direction is the {name} moving?",
        "How does the {name} move?",
        "Where is the {name} moving?",
    ),
    "moving": ("Does the {name} move?", "Is the {name} moving?"),
    "count_moving": ("How many shapes move?", "How many shapes are moving?", "How many objects move?"),
    "bigger": ("Which is bigger, the {a} or the {b}?", "Which is larger, the {a} or the {b}?"),
    "event": ("What happens to the {name}?", "What does the {name} do?"),
    "when": ("When does the {name} {verb}?", "At what time does the {name} {verb}?"),
    "caption": (
        "What happens in this video?",
        "Describe the video.",
        "Describe this video.",
        "What is in the video?",
        "What do you see?",
        "What happens?",
        "What is happening in this video?",
    ),
    "picture": ("What is in the picture?", "Describe the picture.", "What do you see?", "What is this?"),
}
KINDS = tuple(_PHRASES)

_OFF_TOPIC = (
    "Who are you?",
    "What is the capital of France?",
    "Who is in the video?",
    "What is the person wearing?",
    "Write a poem.",
    "What language is spoken?",
    "Is there a dog?",
    "What is the weather like?",
    "Translate this.",
    "What song is playing?",
)
_GREETINGS = ("Hello", "Hi", "Hello!", "Hi there", "hey", "Good morning")
OFF_TOPIC_ANSWER = "I only know coloured shapes that move."
GREETING_ANSWER = "Hello! Ask me about the shapes."


def clock(seconds: float) -> str:
    """Whole seconds as the page links them: 3.7 → 0:03."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def ask(scene: Scene, rng: np.random.Generator) -> list[QA]:
    """Every question the scene has an unambiguous answer to, one phrasing each, in random order."""
    made = list(_questions(scene, rng))
    return [made[i] for i in rng.permutation(len(made))]


def small_talk(rng: np.random.Generator) -> QA:
    """A question that has nothing to do with the scene, with an honest answer."""
    if rng.random() < 0.4:
        return QA("talk", _pick(rng, _GREETINGS), GREETING_ANSWER)
    return QA("talk", _pick(rng, _OFF_TOPIC), OFF_TOPIC_ANSWER)


def _questions(scene: Scene, rng: np.random.Generator) -> Iterator[QA]:
    things = scene.things

    def qa(kind: str, answer: str, **words: str) -> QA:
        return QA(kind, _spoken(rng, _pick(rng, _PHRASES[kind]).format(**words)), answer)

    for thing in things:
        if _only(things, lambda t, me=thing: t.shape == me.shape):
            yield qa("colour", f"{thing.colour.capitalize()}.", shape=thing.shape)
        if _only(things, lambda t, me=thing: t.colour == me.colour):
            yield qa("shape", f"{thing.shape.capitalize()}.", colour=thing.colour)
        if thing.motion == "still":
            yield qa("where", f"{_corner(scene, thing).capitalize()}.", name=thing.name)
        yield qa("exists", "Yes.", name=thing.name)
    yield from (qa("exists", "No.", name=name) for name in _absent(things, rng, len(things)))
    yield qa("count", f"{COUNTS[len(things)]}.")
    colour = _pick(rng, tuple(COLOURS)) if rng.random() < 0.4 else _pick(rng, tuple(t.colour for t in things))
    yield qa("count_colour", f"{COUNTS[sum(t.colour == colour for t in things)]}.", colour=colour)
    shape = _pick(rng, SHAPES) if rng.random() < 0.4 else _pick(rng, tuple(t.shape for t in things))
    yield qa("count_shape", f"{COUNTS[sum(t.shape == shape for t in things)]}.", shape=shape)
    for a in things:
        for b in things:
            if a.big and not b.big:
                first, second = (a, b) if rng.random() < 0.5 else (b, a)
                yield qa("bigger", f"The {a.name}.", a=first.name, b=second.name)
    if scene.duration:
        yield from _about_time(scene, qa)
        yield qa("caption", caption(scene))
    else:
        yield qa("picture", caption(scene))


def _about_time(scene: Scene, qa: Callable[..., QA]) -> Iterator[QA]:
    for thing in scene.things:
        moment = thing.appears if thing.appears is not None else thing.disappears
        if moment is None:
            yield qa("motion", _MOTION_ANSWERS[thing.motion], name=thing.name)
            yield qa("moving", "No." if thing.motion == "still" else "Yes.", name=thing.name)
        else:
            verb = "appear" if thing.appears is not None else "disappear"
            yield qa("when", f"At {clock(moment)}.", name=thing.name, verb=verb)
        yield qa("event", f"It {_deed(thing)}.", name=thing.name)
    yield qa("count_moving", f"{COUNTS[sum(t.motion != 'still' for t in scene.things)]}.")


def caption(scene: Scene) -> str:
    """One sentence that says everything, things from left to right."""
    from_left = sorted(scene.things, key=lambda t: t.x)
    if scene.duration:
        parts = [f"a {t.name} {_deed(t)}" for t in from_left]
    else:
        parts = [f"a {t.name} at the {_corner(scene, t)}" for t in from_left]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return text.replace("a orange", "an orange").capitalize() + "."


def _deed(thing: Thing) -> str:
    if thing.appears is not None:
        return f"appears at {clock(thing.appears)}"
    if thing.disappears is not None:
        return f"disappears at {clock(thing.disappears)}"
    return _MOTION_WORDS[thing.motion]


def _corner(scene: Scene, thing: Thing) -> str:
    width, height = scene.extent
    return f"{'top' if thing.y < height / 2 else 'bottom'} {'left' if thing.x < width / 2 else 'right'}"


def _absent(things: tuple[Thing, ...], rng: np.random.Generator, count: int) -> list[str]:
    """Names of things that are not there but share a colour or a shape with one that is, where that is possible."""
    here = {t.name for t in things}
    names: list[str] = []
    for _ in range(count):
        near = things[rng.integers(len(things))]
        name = f"{near.colour} {_pick(rng, SHAPES)}" if rng.random() < 0.5 else f"{_pick(rng, tuple(COLOURS))} {near.shape}"
        if name not in here:
            names.append(name)
    return names


def _only(things: tuple[Thing, ...], same: Callable[[Thing], bool]) -> bool:
    return sum(same(t) for t in things) == 1


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _spoken(rng: np.random.Generator, question: str) -> str:
    """People do not always type capitals and question marks."""
    question = question.replace("a orange", "an orange")
    if rng.random() < 0.12:
        question = question[0].lower() + question[1:]
    return question.rstrip("?.") if rng.random() < 0.08 else question
