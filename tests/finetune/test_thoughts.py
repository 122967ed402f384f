"""What thoughts say, checked against the scenes by other means than those that wrote them."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from engine.events import Analysis, Answer, Thought, ToolCall
from engine.reasoning.modes import MODE_NAMES, MODES
from engine.reasoning.parser import events_of
from finetune.world.details import LOOK, detail_box, look_at, with_details
from finetune.world.render import render
from finetune.world.scene import COLOURS, SHAPES, Scene, Thing, make_scene
from finetune.world.thoughts import (
    SIMPLE_VIDEO,
    STEPS,
    Problem,
    detail_problem,
    simple_problem,
    step_problem,
    talk_problem,
    turn_of,
)

NUMBERS = ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]
PLURALS = {f"{shape}es" if shape == "cross" else f"{shape}s": shape for shape in SHAPES}


def _problems(count: int) -> list[tuple[Scene, Problem]]:
    rng = random.Random(5)
    out = []
    for seed in range(count):
        scene = make_scene(seed, rng.choice(("train", "test")), rng.choice((0, 2.0, 4.0, 8.0, 16.0)))
        for kind in STEPS:
            if scene.still and kind in ("order", "gap"):
                continue
            problem = step_problem(scene, rng, kind)
            if problem is not None:
                out.append((scene, problem))
    return out


def _group(scene: Scene, name: str) -> list[Thing]:
    if name == "shapes":
        return list(scene.things)
    if name == "shapes at the end":
        gone = [t for t in scene.things if t.event == "disappears"]
        return [t for t in scene.things if t not in gone]
    if name in PLURALS:
        return [t for t in scene.things if t.shape == PLURALS[name]]
    colour = name.removesuffix(" shapes")
    assert colour in COLOURS, name
    assert all(t.event != "turns" or colour not in (t.colour, t.turned) for t in scene.things)
    return [t for t in scene.things if t.colour == colour]


def _does(thing: Thing, words: str) -> bool:
    if words.startswith("turns "):
        return thing.event == "turns" and thing.turned == words.removeprefix("turns ")
    if words in ("appears", "disappears"):
        return thing.event == words
    if words == "stays still":
        return thing.event is None and thing.motion == "still"
    return thing.event is None and words == f"moves {thing.motion}"


def _named(scene: Scene, name: str) -> list[Thing]:
    """The things that a name such as `red star`, `star` or `red object` may mean."""
    words = name.split()
    shapes = [w for w in words if w in SHAPES]
    colours = [w for w in words if w in COLOURS]
    assert len(words) == len(shapes) + len(colours) + (not shapes), name
    return [
        t
        for t in scene.things
        if (not shapes or t.shape == shapes[0]) and (not colours or colours[0] in (t.colour, t.turned))
    ]


def _meant(scene: Scene, name: str) -> Thing:
    """The one thing that a description means."""
    if found := re.fullmatch(r"the shape that (.+)", name):
        (thing,) = [t for t in scene.things if _does(t, found[1])]
        return thing
    if found := re.fullmatch(r"the shape (left of|right of|above|below) the (.+)", name):
        (anchor,) = _named(scene, found[2])
        axis, sign = {"left of": ("x", -1), "right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}[found[1]]
        (thing,) = [
            t for t in scene.things if t is not anchor and sign * (getattr(t, axis) - getattr(anchor, axis)) > 0.1
        ]
        return thing
    (thing,) = _named(scene, name.removeprefix("the "))
    return thing


class _Reader:
    """Checks a thought sentence by sentence; `value` is the last number that it came to."""

    def __init__(self, scene: Scene, question: str) -> None:
        self.scene, self.question = scene, question.lower()
        self.counts: dict[str, int] = {}
        self.events: list[tuple[Thing, int]] = []
        self.known: Thing | None = None
        self.value: int | None = None
        self.last = ""

    def read(self, sentence: str) -> None:
        self.last = sentence
        if found := re.fullmatch(r"I count (.+)", sentence):
            for group in found[1].split(", "):
                name, number = group.split(": ")
                self._count(name, int(number))
        elif found := re.fullmatch(r"(\w+ \w+) (.+) at (\d+):(\d\d)", sentence):
            colour, shape = found[1].lower().split()
            (thing,) = [t for t in self.scene.things if (t.colour, t.shape) == (colour, shape)]
            assert _does(thing, found[2])
            second = int(found[3]) * 60 + int(found[4])
            assert second <= thing.at < second + 1
            self.events.append((thing, second))
        elif found := re.fullmatch(r"(\d+)((?: plus \d+)+| minus \d+| times \d+) is (\d+)", sentence):
            self._worked(found[1] + found[2], int(found[3]))
        elif found := re.fullmatch(r"(\d+) is more than (\d+)", sentence):
            assert sorted(self.counts.values()) == [int(found[2]), int(found[1])] and found[1] != found[2]
        elif found := re.fullmatch(r"(\d+) and (\d+) are equal", sentence):
            assert list(self.counts.values()) == [int(found[1]), int(found[2])] and found[1] == found[2]
        elif found := re.fullmatch(r"(\d+) is the most", sentence):
            ranked = sorted(self.counts.values())
            assert ranked[-1] == int(found[1]) > ranked[-2]
        elif found := re.fullmatch(r"(\d+) is before (\d+)", sentence):
            assert sorted(s for _, s in self.events) == [int(found[1]), int(found[2])]
        elif found := re.fullmatch(r"(The .+) is (.+)", sentence):
            self._known(found[1][0].lower() + found[1][1:], found[2])
        else:
            raise AssertionError(f"not understood: {sentence}")

    def _count(self, name: str, count: int) -> None:
        things = _group(self.scene, name)
        assert name in self.question or self.known in things  # asked for, or those like what was asked for
        assert len(things) == count
        self.counts[name] = self.value = count

    def _worked(self, expression: str, result: int) -> None:
        numbers = [int(n) for n in re.findall(r"\d+", expression)]
        if "minus" in expression:
            assert numbers[0] - numbers[1] == result
        else:
            assert (numbers[0] * numbers[1] if "times" in expression else sum(numbers)) == result
        self.value = result

    def _known(self, name: str, what: str) -> None:
        self.known = _meant(self.scene, name)
        assert name in self.question
        if what.startswith("the "):
            assert what == f"the {self.known.colour} {self.known.shape}"
        else:
            assert what in (self.known.colour, f"a {self.known.shape}")


def _led_to(kind: str, reader: _Reader) -> set[str]:
    """The answers that the facts of a thought allow."""
    if kind in ("sum", "arithmetic", "gap", "same"):
        assert reader.value is not None
        return {NUMBERS[reader.value]}
    if kind in ("more", "most"):
        best = max(reader.counts.values())
        winners = [name for name, count in reader.counts.items() if count == best]
        return {"Equal"} if len(winners) > 1 else {winners[0].removesuffix(" shapes").capitalize()}
    if kind == "order":
        (thing, _) = sorted(reader.events, key=lambda e: e[1])[0 if "first" in reader.question else 1]
        return {f"{thing.colour} {thing.shape} {d}".capitalize() for d in (_did(thing),)}
    assert kind == "hop" and reader.known is not None
    return {(reader.known.colour if "colo" in reader.question else reader.known.shape).capitalize()}


def _did(thing: Thing) -> str:
    return f"turns {thing.turned}" if thing.event == "turns" else str(thing.event)


def test_every_fact_of_a_thought_is_true_and_they_lead_to_the_answer() -> None:
    met: Counter[str] = Counter()
    for scene, problem in _problems(400):
        reader = _Reader(scene, problem.text)
        for sentence in problem.thought.rstrip(".").split(". "):
            reader.read(sentence)
        assert problem.answer.rstrip(".") in _led_to(problem.kind, reader), (problem, reader.last)
        met[problem.kind] += 1
    assert set(met) == set(STEPS) and min(met.values()) >= 20


def test_arithmetic_is_asked_as_it_is_worked_out() -> None:
    for _, problem in _problems(150):
        if problem.kind != "arithmetic":
            continue
        counts = dict(re.findall(r"(?:I count|,) ([\w ]+): (\d+)", problem.thought))
        assert len(counts) == problem.thought.count(":")
        text = problem.text.lower().rstrip("?.")
        for name in sorted(counts, key=len, reverse=True):
            text = text.replace(f"the number of {name}", counts[name])
        digits = re.search(r"\d+(?: (?:plus|minus|times) \d+)+", text)
        assert digits is not None, problem.text
        worked = digits[0].split()
        value = int(worked[0])
        assert worked[1:].count("times") == 0 or worked[1] == "times"  # so that every reading gives the same
        for sign, number in zip(worked[1::2], worked[2::2], strict=True):
            value = {"plus": value + int(number), "minus": value - int(number), "times": value * int(number)}[sign]
        assert problem.answer == f"{NUMBERS[value]}."


def test_a_turn_is_read_as_what_it_was_written_from() -> None:
    rng = random.Random(3)
    for seed in range(60):
        scene = make_scene(seed, duration=4.0)
        detailed = with_details(scene, rng, 112)
        if detailed is None:
            continue
        problems = [step_problem(scene, rng, kind) for kind in STEPS]
        problems += [simple_problem(scene, rng, rng.choice(SIMPLE_VIDEO)), detail_problem(detailed, rng, (112, 112))]
        problems.append(talk_problem(rng, "foreign", True))
        for problem in filter(None, problems):
            for mode in MODE_NAMES:
                turn = turn_of(problem, mode)
                assert turn.text == problem.text + MODES[mode].switch
                events = events_of("".join(turn.said), tools=MODES[mode].tools)
                answer = "".join(e.text for e in events if isinstance(e, Answer))
                thought = "".join(e.text for e in events if isinstance(e, Thought))
                analysis = [e.text for e in events if isinstance(e, Analysis)]
                assert answer == problem.answer
                thinks = mode in ("think", "think_with_image") or (mode == "auto" and problem.group == "steps")
                assert thought.startswith(problem.thought) if thinks else not thought
                if mode == "auto":
                    chosen = "/think" if problem.group == "steps" else "/no_think"
                    assert analysis and analysis[0].endswith(f"Therefore, {chosen} mode is more appropriate.")
                calls = [e for e in events if isinstance(e, ToolCall)]
                assert len(calls) == (mode == "think_with_image" and problem.group == "detail")
                for call in calls:
                    told = json.loads(call.text)
                    assert told == {"name": "crop", "arguments": {"box": list(problem.look or ())}}


@pytest.mark.parametrize("size", [(112, 112), (84, 112), (140, 84)])
def test_the_part_looked_at_holds_the_detail_and_lies_in_the_frame(size: tuple[int, int]) -> None:
    rng = random.Random(1)
    scenes = [
        with_details(make_scene(seed, duration=3.0, aspect=size[1] / size[0]), rng, min(size)) for seed in range(80)
    ]
    found = [scene for scene in scenes if scene is not None]
    assert len(found) > 70  # where there is no room, there are none
    for scene in found:
        assert len(scene.details) == 2
        for detail in scene.details:
            left, top, right, bottom = detail_box(scene, detail, size)
            look = look_at(scene, detail, size)
            assert look[0] <= left and look[1] <= top and look[2] >= right and look[3] >= bottom
            assert look[0] >= 0 and look[1] >= 0 and look[2] <= size[1] and look[3] <= size[0]
            assert (look[2] - look[0], look[3] - look[1]) == (LOOK, LOOK)
            assert bottom - top < 6  # pixels: too small for a letter


def test_a_detail_is_drawn_where_its_box_is_and_nothing_comes_over_it() -> None:
    rng = random.Random(2)
    for seed in range(12):
        scene = with_details(make_scene(seed, duration=4.0), rng, 112)
        if scene is None:
            continue
        times = [0.0, 1.0, 2.0, 3.0, 3.9]
        bare = Scene(**{**scene.__dict__, "details": ()})
        changed = (render(scene, times, 448, 448) != render(bare, times, 448, 448)).any(3)
        for frame in changed:
            ys, xs = frame.nonzero()
            boxes = [detail_box(scene, d, (448, 448)) for d in scene.details]
            inside = [((xs >= b[0] - 4) & (xs <= b[2] + 4) & (ys >= b[1] - 4) & (ys <= b[3] + 4)).sum() for b in boxes]
            assert sum(inside) == len(xs) and min(inside) > 20
        assert (changed == changed[0]).all()
        for detail in scene.details:
            assert detail.text or all((t.shape, t.colour) != (detail.shape, detail.colour) for t in scene.things)
