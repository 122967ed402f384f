"""The kinds of questions that take several steps: what fills their phrase, what a thought needs to say, and the answer.

A thought holds only the facts that its question needs, each of them one that is answered well alone, and then the step
from these to the answer. So a number is said as it is seen: to list what is counted is harder.
What is counted is named in the words of the question: the same words in capitals are other tokens, and what a model has
learnt to see in answer to a word it does not see in answer to another token."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from finetune.world.kinds import refer
from finetune.world.kinds_in_time import does_alone, led_to
from finetune.world.scene import COLOURS, SHAPES, Scene, Thing
from finetune.world.speech import Speech, timestamp

MOST = 12
"""The largest number that is an answer."""

_OPERATIONS = ("plus", "minus", "times")


class Traced(NamedTuple):
    """What fills a phrase, what the thought says, the answer, and the phrases."""

    words: dict[str, str]
    thought: str
    answer: str
    phrases: str


# -- numbers of things -----------------------------------------------------------------------------


class _Group(NamedTuple):
    name: str  # as asked for: stars, red shapes
    word: str  # the answer that names it, or nothing
    number: int


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _of_shape(scene: Scene, shape: str, say: Speech) -> _Group:
    name = say.group(shape=shape)
    return _Group(name, say.sentence(name), sum(t.shape == shape for t in scene.things))


def _of_colour(scene: Scene, colour: str, say: Speech) -> _Group | None:
    """None of a colour that something turns to or from."""
    if any(t.event == "turns" and colour in (t.colour, t.turned) for t in scene.things):
        return None
    number = sum(t.colour == colour for t in scene.things)
    return _Group(say.group(colour=colour), say.colour(colour), number)


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
    numbers = [group.number for group in groups]
    step = f"{' plus '.join(map(str, numbers))} is {sum(numbers)}."
    return Traced(
        {"groups": say.join([group.name for group in groups])},
        _facts(groups, step),
        say.number(sum(numbers)),
        "sum",
    )


def counted(groups: Sequence[tuple[str, int]]) -> str:
    """How many there are of each group, as a thought says it."""
    return f"I count {', '.join(f'{name}: {number}' for name, number in groups)}."


def _facts(groups: Sequence[_Group], step: str) -> str:
    return f"{counted([(group.name, group.number) for group in groups])} {step}"


def _more(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    groups = _several(scene, rng, say, 2)
    if groups is None:
        return None
    (one_, other), (a, b) = groups, [group.number for group in groups]
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
    ranked = sorted(groups, key=lambda group: -group.number)
    most = ranked[0].number
    if most == ranked[1].number:
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
            group: _Group | None = _Group("shapes", "", len(scene.things))
        elif draw < 0.4 and not scene.still:
            left = sum(t.visible(scene.duration) for t in scene.things)
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
    value = groups[0].number
    expression, steps = f"the number of {groups[0].name}", []
    for operation, group in zip(chosen, groups[1:], strict=True):
        before, value = value, _worked(operation, value, group.number)
        if not 0 <= value <= MOST:
            return None
        steps.append(f"{before} {operation} {group.number} is {value}.")
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


def _hop(scene: Scene, rng: random.Random, say: Speech) -> Traced | None:
    """The thing beside another, or the thing that does something, and what it is."""
    found = led_to(scene, rng, say)
    if found is None:
        return None
    thing, that = found
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
    if does_alone(scene, thing) and not (thing.resting and thing.event is None) and rng.random() < 0.5:
        reference = say.doer(say.does(thing))
        known = f"{_capital(reference)} is {say.the(say.named(thing.shape, thing.colour))}."
    else:
        named = refer(scene, thing, rng, say, "shape" if by_colour else "colour")
        if named is None:
            return None
        reference = named
        what = thing.colour if by_colour else say.a(thing.shape)
        known = f"{_capital(reference)} is {what}."
    group = _of_colour(scene, thing.colour, say) if by_colour else _of_shape(scene, thing.shape, say)
    assert group is not None  # nothing turns
    others = group.number - 1
    if not others and rng.random() < 0.6:  # else nothing would nearly always be right
        return None
    phrases = "same_colour" if by_colour else "same_shape"
    thought = f"{known} {_facts([group], f'{group.number} minus 1 is {others}.')}"
    return Traced({"the": reference}, thought, say.number(others), phrases)


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
