"""Questions that take several steps, with what a thought needs to say to answer them, and any question as a turn in one
of the modes (report, section 4.2.1).

What a thought says is in `steps`. Thoughts are in English; what is asked in Chinese is answered directly."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Literal

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
from finetune.world.questions import MAKERS, PICTURE_KINDS, VIDEO_KINDS, Question, small_talk
from finetune.world.scene import Scene
from finetune.world.speech import SPEECH, Language, Speech
from finetune.world.steps import MOST, STEP_WEIGHTS, STEPS, counted

Group = Literal["simple", "steps", "detail", "talk"]
"""One look is enough; several facts are needed; it is too small for the frames; it is not about a clip."""

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
    thought = _one_fact(kind, made.words, made.answer, say) if language == "en" else ""
    text = text if plain else _typed(text, rng, say)
    return Problem(kind, "simple", text, made.answer, thought, language)


_ABOUT = {"count": "shapes", "count_end": "shapes at the end", "background": "the background", "text": "the text"}
_LONGEST = 3  # words of an answer that a thought gives away


def _one_fact(kind: str, words: dict[str, str], answer: str, say: Speech) -> str:
    """What a question is about and the fact, as a thought of several steps says it."""
    about = _ABOUT.get(kind) or next((words[name] for name in ("the", "group", "a") if name in words), "all")
    if "other" in words:
        about += f" and {words['other']}"
    if kind in ("count", "count_of", "count_end"):
        return counted([(about, next(n for n in range(MOST + 1) if say.number(n) == answer))])
    about = about[0].upper() + about[1:]
    said = answer.rstrip(".")
    return f"{about}: {said}." if len(said.split()) <= _LONGEST and "<" not in said else f"{about}."


def plain_problem(question: Question) -> Problem:
    """A question of the earlier stages, to be answered directly."""
    group: Group = "steps" if question.kind in STEPS else "simple"
    text = unswitched(question.text)
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
    return Problem(talk.kind, "talk", unswitched(talk.text), talk.answer, "This is about no shape.", language)


def _typed(text: str, rng: random.Random, say: Speech) -> str:
    return unswitched(say.vary(text, rng))


def unswitched(text: str) -> str:
    """Without the switch that a question of the earlier stages may carry, where another says how it is answered."""
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
