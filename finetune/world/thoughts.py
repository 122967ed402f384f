"""Questions that take several steps, with what a thought needs to say to answer them, and any question as a turn in one
of the modes (report, section 4.2.1).

A thought holds only the facts that its question needs, each of them one that is answered well alone, and then the step
from these to the answer. Thoughts are in English; what is asked in Chinese is answered directly."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.reasoning.modes import (
    CALL_CLOSE,
    CALL_OPEN,
    MODES,
    RESULT_CLOSE,
    RESULT_OPEN,
    ModeName,
    written,
)
from engine.reasoning.operations import Box
from finetune.world.details import look_at
from finetune.world.kinds import neighbour, refer
from finetune.world.questions import MAKERS, PICTURE_KINDS, VIDEO_KINDS, Question, small_talk
from finetune.world.scene import COLOURS, SHAPES, Scene, Thing
from finetune.world.speech import SPEECH, Language, Speech, timestamp

Group = Literal["simple", "steps", "detail", "talk"]
"""One look is enough; several facts are needed; it is too small for the frames; it is not about a clip."""

MOST = 12
"""The largest number that is an answer."""

ANALYSIS: dict[Group, str] = {
    "simple": "One fact.",
    "steps": "Several facts.",
    "detail": "One fact.",
    "talk": "No fact.",
}
PHRASES: dict[str, tuple[str, ...]] = {
    "most": (
        "Which are there most of, {groups}?",
        "Which do you see most of, {groups}?",
        "What are there most of, {groups}?",
    ),
    "arithmetic": ("What is {expression}?", "How much is {expression}?", "Tell me {expression}."),
    "gap": (
        "How many seconds are between the two events?",
        "How many seconds lie between the two events?",
        "How long is it from the first event to the last, in seconds?",
    ),
    "same_colour": (
        "How many other shapes have the same colour as {the}?",
        "How many other shapes have the colour of {the}?",
    ),
    "same_shape": (
        "How many other shapes have the same shape as {the}?",
        "How many others have the same shape as {the}?",
    ),
    "tiny_text": (
        "What does the tiny text say?",
        "What is written in the tiny text?",
        "Read the tiny text.",
        "What is the tiny text?",
    ),
    "tiny_shape": (
        "What shape is the tiny shape?",
        "What is the tiny shape?",
        "Which shape is the tiny one?",
    ),
}
_OPERATIONS = ("plus", "minus", "times")


class Traced(NamedTuple):
    """What fills a phrase, what the thought says, the answer, and the phrases."""

    words: dict[str, str]
    thought: str
    answer: str
    phrases: str


@dataclass(frozen=True)
class Problem:
    """A question with its answer and the thought that leads to it; `look` is the part of a frame that shows it."""

    kind: str
    group: Group
    text: str
    answer: str
    thought: str
    language: Language = "en"
    look: Box | None = None


@dataclass(frozen=True)
class Turn:
    """A question with its mode's switch, and what the model writes to it: in one piece, or before and after the
    picture of what it looks at."""

    kind: str
    mode: ModeName
    text: str
    said: tuple[str, ...]
    look: Box | None = None


# -- groups of things and their numbers -----------------------------------------------------------------------------


class _Group(NamedTuple):
    name: str  # as asked for: stars, red shapes
    word: str  # the answer that names it, or nothing
    members: tuple[str, ...]  # from left to right, each by what the group does not say

    @property
    def fact(self) -> str:
        return f"{_capital(self.name)}: {', '.join(self.members) or 'none'}, {len(self.members)}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _of_shape(scene: Scene, shape: str, say: Speech) -> _Group:
    name = say.group(shape=shape)
    return _Group(name, say.sentence(name), tuple(t.colour for t in scene.things if t.shape == shape))


def _of_colour(scene: Scene, colour: str, say: Speech) -> _Group | None:
    """None of a colour that something turns to or from."""
    if any(t.event == "turns" and colour in (t.colour, t.turned) for t in scene.things):
        return None
    members = tuple(t.shape for t in scene.things if t.colour == colour)
    return _Group(say.group(colour=colour), say.colour(colour), members)


def _some(scene: Scene, rng: random.Random, say: Speech, by_shape: bool) -> _Group | None:
    """All of one shape or colour, more often of one that is there."""
    thing, there = rng.choice(scene.things), rng.random() < 0.8
    if by_shape:
        return _of_shape(scene, thing.shape if there else rng.choice(SHAPES), say)
    return _of_colour(scene, thing.colour if there else rng.choice(COLOURS), say)


def _several(scene: Scene, rng: random.Random, say: Speech, count: int) -> list[_Group] | None:
    """Groups of shapes or groups of colours, all different."""
    by_shape = rng.random() < 0.6
    found: dict[str, _Group] = {}
    for _ in range(20):
        group = _some(scene, rng, say, by_shape)
        if group is not None:
            found[group.name] = group
        if len(found) == count:
            return list(found.values())
    return None


def _sum(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    groups = _several(scene, rng, say, 2 if rng.random() < 0.5 else 3)
    if groups is None:
        return None
    numbers = [len(group.members) for group in groups]
    step = f"{' plus '.join(map(str, numbers))} is {sum(numbers)}."
    return Traced(
        {"groups": say.join([group.name for group in groups])},
        _facts(groups, step),
        say.number(sum(numbers)),
        "sum",
    )


def _facts(groups: Sequence[_Group], step: str) -> str:
    return " ".join([*(group.fact for group in groups), step])


def _more(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    groups = _several(scene, rng, say, 2)
    if groups is None:
        return None
    (one_, other), (a, b) = groups, [len(group.members) for group in groups]
    if a == b == 0 or (a == b and rng.random() < 0.5):
        return None
    words = {"group": one_.name, "other": other.name}
    if a == b:
        return Traced(words, _facts(groups, f"{a} and {b} are equal."), say.equal, "more")
    step = f"{max(a, b)} is more than {min(a, b)}."
    return Traced(words, _facts(groups, step), (one_ if a > b else other).word, "more")


def _most(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    groups = _several(scene, rng, say, 3)
    if groups is None:
        return None
    ranked = sorted(groups, key=lambda group: -len(group.members))
    most = len(ranked[0].members)
    if most == len(ranked[1].members):
        return None
    names = [group.name for group in groups]
    return Traced(
        {"groups": f"{', '.join(names[:-1])} or {names[-1]}"},
        _facts(groups, f"{most} is the most."),
        ranked[0].word,
        "most",
    )


def _arithmetic(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    """Two or three numbers of things, worked out from left to right."""
    groups: list[_Group] = []
    for _ in range(20):
        draw = rng.random()
        if draw < 0.25:
            group: _Group | None = _Group("shapes", "", tuple(t.shape for t in scene.things))
        elif draw < 0.4 and not scene.still:
            left = tuple(t.shape for t in scene.things if t.visible(scene.duration))
            group = _Group("shapes at the end", "", left)
        else:
            group = _some(scene, rng, say, rng.random() < 0.6)
        if group is not None and all(group.name != other.name for other in groups):
            groups.append(group)
        if len(groups) == 3:
            break
    groups = groups[: 2 if rng.random() < 0.4 else 3]
    if len(groups) < 2:
        return None
    chosen = [rng.choice(_OPERATIONS) for _ in groups[1:]]
    if chosen[-1] == "times" and len(chosen) == 2:  # from left to right it would be read in two ways
        chosen[-1] = "plus"
    value = len(groups[0].members)
    expression, steps = f"the number of {groups[0].name}", []
    for operation, group in zip(chosen, groups[1:], strict=True):
        number = len(group.members)
        before, value = value, _worked(operation, value, number)
        if not 0 <= value <= MOST:
            return None
        steps.append(f"{before} {operation} {number} is {value}.")
        expression += f" {operation} the number of {group.name}"
    return Traced({"expression": expression}, _facts(groups, " ".join(steps)), say.number(value), "arithmetic")


def _worked(operation: str, a: int, b: int) -> int:
    return {"plus": a + b, "minus": a - b, "times": a * b}[operation]


# -- events and their times -----------------------------------------------------------------------------------------


def _happening(thing: Thing, say: Speech) -> str:
    return say.thing_does(thing).rstrip(".")


def _two_events(scene: Scene) -> list[Thing] | None:
    """Two things to which something happens in seconds that are told apart at one frame a second, from left to
    right."""
    eventful = [t for t in scene.things if t.event is not None]
    gap = 1 if scene.duration <= 8 else 2
    if len(eventful) != 2 or abs(int(eventful[1].at) - int(eventful[0].at)) < gap:
        return None
    return eventful


def _event_facts(things: Sequence[Thing], say: Speech) -> str:
    return " ".join(f"{_happening(t, say)} at {timestamp(t.at)}." for t in things)


def _gap(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    things = _two_events(scene)
    if things is None:
        return None
    early, late = sorted(int(t.at) for t in things)
    if late - early > MOST:
        return None
    thought = f"{_event_facts(things, say)} {late} minus {early} is {late - early}."
    return Traced({}, thought, say.number(late - early), "gap")


def _order(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    things = _two_events(scene)
    if things is None:
        return None
    first = rng.random() < 0.5
    early, late = sorted(things, key=lambda t: t.at)
    thought = f"{_event_facts(things, say)} {int(early.at)} is before {int(late.at)}."
    return Traced({"first": say.first(first)}, thought, say.thing_does(early if first else late), "order")


# -- from one thing to another --------------------------------------------------------------------------------------


def _alone(scene: Scene, thing: Thing) -> bool:
    return sum((t.event, t.motion) == (thing.event, thing.motion) for t in scene.things) == 1


def _hop(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    """The thing beside another, or the thing that does something, and what it is."""
    if scene.still or rng.random() < 0.6:
        found = neighbour(scene, rng, say)
        if found is None:
            return None
        thing, that = found
    else:
        thing = rng.choice(scene.things)
        if not _alone(scene, thing) or (thing.resting and thing.event is None):
            return None
        that = say.doer(say.does(thing))
    if thing.event == "turns":
        return None
    thought = f"{_capital(that)} is {say.the(say.named(thing.shape, thing.colour))}."
    if rng.random() < 0.5:
        return Traced({"that": that}, thought, say.colour(thing.colour), "hop_colour")
    return Traced({"that": that}, thought, say.shape(thing.shape), "hop_shape")


def _same(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    """How many others are like a thing: which it is, what colour or shape that has, and how many others have it."""
    by_colour = rng.random() < 0.5
    thing = rng.choice(scene.things)
    if any(t.event == "turns" for t in scene.things):
        return None
    if _alone(scene, thing) and not (thing.resting and thing.event is None) and rng.random() < 0.5:
        reference = say.doer(say.does(thing))
        known = f"{_capital(reference)} is {say.the(say.named(thing.shape, thing.colour))}."
    else:
        named = refer(scene, thing, rng, say, "shape" if by_colour else "colour")
        if named is None:
            return None
        reference = named
        what = thing.colour if by_colour else say.a(thing.shape)
        known = f"{_capital(reference)} is {what}."
    others = [t for t in scene.things if t is not thing]
    if by_colour:
        members = tuple(t.shape for t in others if t.colour == thing.colour)
        group = _Group(f"other {say.group(colour=thing.colour)}", "", members)
    else:
        members = tuple(t.colour for t in others if t.shape == thing.shape)
        group = _Group(f"other {say.group(shape=thing.shape)}", "", members)
    if not members and rng.random() < 0.6:  # else nothing would nearly always be right
        return None
    phrases = "same_colour" if by_colour else "same_shape"
    return Traced({"the": reference}, f"{known} {group.fact}", say.number(len(members)), phrases)


STEPS: dict[str, Callable[[Scene, random.Random, Speech], Traced | None]] = {
    "sum": _sum,
    "more": _more,
    "most": _most,
    "arithmetic": _arithmetic,
    "same": _same,
    "hop": _hop,
    "order": _order,
    "gap": _gap,
}
"""Kinds that take several steps; `order` and `gap` in clips only."""

STEP_WEIGHTS = {"arithmetic": 1.5, "order": 6.0, "gap": 6.0, "same": 1.5, "hop": 2.0}
"""How often a kind is drawn, 1 where nothing is said. Few scenes hold two events."""

SIMPLE_VIDEO = tuple(kind for kind in VIDEO_KINDS if kind not in STEPS)
SIMPLE_PICTURE = tuple(kind for kind in PICTURE_KINDS if kind not in STEPS)
BESIDE_DETAILS = ("shape", "where", "side", "height", "bigger", "size", "motion", "moves", "event", "becomes", "when")
"""Kinds that ask about one thing by its name: a detail changes no answer to them."""


# -- problems -------------------------------------------------------------------------------------------------------


def step_problem(scene: Scene, rng: random.Random, kind: str, plain: bool = False) -> Problem | None:
    """A question of several steps; None where the scene has none of this kind."""
    if len(scene.things) < 2:
        return None
    say = SPEECH["en"]
    made = STEPS[kind](scene, rng, say)
    if made is None:
        return None
    phrases = PHRASES.get(made.phrases) or say.phrases[made.phrases]
    words = {"video": say.video(scene, rng, plain), **made.words}
    text = say.ask(phrases[0] if plain else rng.choice(phrases), words)
    return Problem(kind, "steps", text if plain else _typed(text, rng, say), made.answer, made.thought)


def simple_problem(
    scene: Scene, rng: random.Random, kind: str, plain: bool = False, language: Language = "en"
) -> Problem | None:
    """A question of one fact, of any of the usual kinds; None where the scene has none of this kind."""
    say = SPEECH[language]
    made = MAKERS[kind](scene, rng, say)
    if made is None:
        return None
    words = {"video": say.video(scene, rng, plain), **made.words}
    phrases = say.phrases[made.phrases or kind]
    text = say.ask(phrases[0] if plain else rng.choice(phrases), words)
    about = made.words.get("the", "")
    if about and "other" in made.words:
        about += f" and {made.words['other']}"
    thought = f"The question is about {about or 'all of it'}. I look at {'it' if 'other' not in words else 'both'}."
    if len(made.answer.split()) <= 3 and "<" not in made.answer:
        thought += f" {made.answer}"
    text = text if plain else _typed(text, rng, say)
    return Problem(kind, "simple", text, made.answer, thought, language)


def plain_problem(question: Question) -> Problem:
    """A question of the earlier stages, to be answered directly."""
    group: Group = "steps" if question.kind in STEPS else "simple"
    text = _unswitched(question.text)
    return Problem(question.kind, group, text, question.answer, "", question.language)


def detail_problem(scene: Scene, rng: random.Random, size: tuple[int, int], plain: bool = False) -> Problem:
    """A question about one of the scene's details, whose frames of `size` (height, width) do not show it."""
    say = SPEECH["en"]
    detail = rng.choice(scene.details)
    kind, seen = ("tiny_text", "text") if detail.text else ("tiny_shape", "shape")
    text = PHRASES[kind][0] if plain else _typed(rng.choice(PHRASES[kind]), rng, say)
    answer = detail.text or say.shape(detail.shape)
    return Problem(kind, "detail", text, answer, f"The {seen} is tiny.", look=look_at(scene, detail, size))


def talk_problem(rng: random.Random, kind: str, with_clip: bool, language: Language = "en") -> Problem:
    """Small talk, as `questions.small_talk` draws it."""
    talk = small_talk(rng, kind, with_clip, language)
    return Problem(talk.kind, "talk", _unswitched(talk.text), talk.answer, "This is about no shape.", language)


def _typed(text: str, rng: random.Random, say: Speech) -> str:
    return _unswitched(say.vary(text, rng))


def _unswitched(text: str) -> str:
    """Without the switch that a question of the earlier stages may carry: here it says what is to be written."""
    for mode in MODES.values():
        if mode.switch:
            text = text.removesuffix(mode.switch)
    return text


# -- turns ----------------------------------------------------------------------------------------------------------


def call_of(look: Box) -> str:
    """The tool call that looks closer, with its marks."""
    call = {"name": "crop", "arguments": {"box": list(look)}}
    return f"{CALL_OPEN}{json.dumps(call)}{CALL_CLOSE}"


def turn_of(problem: Problem, mode: ModeName) -> Turn:
    """What is written to a problem in a mode. With the image only a detail is looked at closer; a frame shows the
    rest."""
    text = problem.text + MODES[mode].switch
    if mode == "no_think":
        return Turn(problem.kind, mode, text, (problem.answer,))
    if mode == "auto":
        thought = problem.thought if problem.group == "steps" and problem.thought else None
        said = written(problem.answer, analysis=ANALYSIS[problem.group], thought=thought)
        return Turn(problem.kind, mode, text, (said,))
    if mode == "think" or problem.look is None:
        return Turn(problem.kind, mode, text, (written(problem.answer, thought=problem.thought),))
    result = f"{RESULT_OPEN}{RESULT_CLOSE}"
    thought = f"{problem.thought} I look closer.{call_of(problem.look)}{result}Now it is large."
    before, after = written(problem.answer, thought=thought).split(result)
    return Turn(problem.kind, mode, text, (before, after), problem.look)


def draw_steps(scene: Scene, rng: random.Random) -> Problem | None:
    """A question of several steps that the scene allows; None where twenty tries found none."""
    kinds = [kind for kind in STEPS if not (scene.still and kind in ("order", "gap"))]
    for kind in rng.choices(kinds, [STEP_WEIGHTS.get(kind, 1.0) for kind in kinds], k=20):
        problem = step_problem(scene, rng, kind)
        if problem is not None:
            return problem
    return None
