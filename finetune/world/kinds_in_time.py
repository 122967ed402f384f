"""The kinds of questions about what moves, what happens, and when."""

from __future__ import annotations

import random

from finetune.world.kinds import Made, Maker, neighbour, one, refer
from finetune.world.scene import Scene, Thing
from finetune.world.speech import Speech


def _motion(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    if found is None or found[0].event is not None:
        return None
    if found[0].resting:
        return Made({"the": found[1]}, say.still) if rng.random() < 0.35 else None
    return Made({"the": found[1]}, say.direction(found[0].motion))


def _moves(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    if found is None or found[0].event is not None:
        return None
    negated = rng.random() < 0.3
    return Made({"the": found[1]}, say.truth(found[0].resting == negated), "rests" if negated else "moves")


def _event(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = one(scene, rng, say)
    if found is None or (found[0].event is None and rng.random() < 0.5):
        return None
    return Made({"the": found[1]}, say.sentence(say.does(found[0])))


def does_alone(scene: Scene, thing: Thing) -> bool:
    """Whether nothing else does the same."""
    return sum((t.event, t.motion) == (thing.event, thing.motion) for t in scene.things) == 1


def _which(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    thing = rng.choice(scene.things)
    if not does_alone(scene, thing) or (thing.event is None and rng.random() < 0.5):
        return None
    does = say.does_roughly("turns") if thing.event == "turns" else say.does(thing)
    return Made({"does": does}, say.sentence(say.named(thing.shape, thing.colour)))


def _becomes(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    turning = [t for t in scene.things if t.event == "turns"]
    if not turning:
        return None
    thing = rng.choice(turning)
    reference = refer(scene, thing, rng, say, "shape")
    return Made({"the": reference}, say.colour(thing.turned)) if reference else None


def _eventful(scene: Scene, rng: random.Random, say: Speech) -> tuple[Thing, str] | None:
    eventful = [t for t in scene.things if t.event is not None]
    if not eventful:
        return None
    thing = rng.choice(eventful)
    reference = refer(scene, thing, rng, say)
    return (thing, reference) if reference else None


def _when(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = _eventful(scene, rng, say)
    if found is None:
        return None
    do = say.does_roughly(str(found[0].event), infinitive=True)
    return Made({"the": found[1], "do": do}, say.time(found[0].at))


def _order(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    eventful = sorted((t for t in scene.things if t.event is not None), key=lambda t: t.at)
    first = rng.random() < 0.5
    # a long clip is sampled at one frame a second: events of neighbouring seconds may fall together there
    gap = 1 if scene.duration <= 8 else 2
    if len(eventful) != 2 or int(eventful[1].at) - int(eventful[0].at) < gap:
        return None
    return Made({"first": say.first(first)}, say.thing_does(eventful[0 if first else 1]))


def _count_end(scene: Scene, rng: random.Random, say: Speech) -> Made:
    return Made({}, say.number(sum(t.visible(scene.duration) for t in scene.things)))


def _after(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    found = _eventful(scene, rng, say)
    if found is None or found[0].event == "turns":
        return None
    thing, reference = found
    # what comes or goes later makes "after" unclear
    if any(t.event in ("appears", "disappears") and t.at > thing.at for t in scene.things):
        return None
    words = {"the": reference, "does": say.does_roughly(str(thing.event))}
    number = sum(t.visible(thing.at) for t in scene.things)
    return Made(words, say.number(number), "left_after" if thing.event == "disappears" else "after")


def led_to(scene: Scene, rng: random.Random, say: Speech) -> tuple[Thing, str] | None:
    """A thing and what leads to it: it lies beside another, or it alone does something."""
    if scene.still or rng.random() < 0.6:
        return neighbour(scene, rng, say)
    thing = rng.choice(scene.things)
    if not does_alone(scene, thing) or (thing.resting and thing.event is None):
        return None
    return thing, say.doer(say.does(thing))


def _hop(scene: Scene, rng: random.Random, say: Speech) -> Made | None:
    """Two steps: the thing beside another, or the thing that does something, and what it is."""
    found = led_to(scene, rng, say)
    if found is None:
        return None
    thing, that = found
    if rng.random() < 0.5 and thing.event != "turns":
        return Made({"that": that}, say.colour(thing.colour), "hop_colour")
    return Made({"that": that}, say.shape(thing.shape), "hop_shape")


def _caption(scene: Scene, rng: random.Random, say: Speech) -> Made:
    return Made({}, say.caption(scene.things))


HOP: Maker = _hop  # of pictures too
TIME_KINDS: dict[str, Maker] = {
    "count_end": _count_end,
    "motion": _motion,
    "moves": _moves,
    "event": _event,
    "which": _which,
    "becomes": _becomes,
    "when": _when,
    "caption": _caption,
    "order": _order,
    "after": _after,
}
