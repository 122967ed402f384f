"""The demo clips: held-out scenes as real H.264 files, with questions to suggest, the mode that shows what a question
needs, and the true answers."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from engine.reasoning.modes import ModeName
from engine.video.budget import frame_size
from finetune.answers.scoring import right
from finetune.errors import FinetuneError
from finetune.world.clips import encode_clip
from finetune.world.details import with_details
from finetune.world.questions import ask
from finetune.world.scene import Scene, make_scene
from finetune.world.steps import STEPS
from finetune.world.thoughts import detail_problem, step_problem

MAX_BYTES = 100_000
FRAME_TOKENS = 16
"""Of a frame as keye-nano sees it: what is to be too small for it is measured on that."""


@dataclass(frozen=True)
class Demo:
    """One clip. `seed` is a test scene, chosen for what is in it before any model was asked about it."""

    file: str
    title: str
    seed: int
    duration: float  # seconds
    size: tuple[int, int]  # width, height
    fps: int
    asks: tuple[tuple[str, str], ...]
    """Kind of question, and a word that the question names, because most kinds can be asked of several things."""
    details: bool = False  # with a tiny text and a tiny shape, which the frames do not show


@dataclass(frozen=True)
class Suggested:
    """A question with its true answer, and the mode that it is best asked in; none: whichever is set."""

    kind: str
    text: str
    answer: str
    mode: ModeName | None = None


DEMOS = (
    Demo(
        "heart-and-cross.mp4",
        "A heart passes by",
        5513,
        5.0,
        (448, 448),
        30,
        (("colour", "heart"), ("motion", "heart"), ("count", ""), ("exists", "star"), ("caption", "")),
    ),
    Demo(
        "square-appears.mp4",
        "Something appears",
        987,
        5.0,
        (480, 270),
        30,
        (("which", "appears"), ("colour", "triangle"), ("when", "square"), ("event", "square"), ("caption", "")),
    ),
    Demo(
        "circle-disappears.mp4",
        "Three, then two",
        3722,
        6.0,
        (448, 448),
        24,
        (("count", ""), ("count_end", ""), ("which", "disappears"), ("where", "heart"), ("list", "")),
    ),
    Demo(
        "colour-change.mp4",
        "A circle changes colour",
        5581,
        4.0,
        (270, 480),
        30,
        (("event", "circle"), ("becomes", "circle"), ("motion", "star"), ("count", ""), ("caption", "")),
    ),
    Demo(
        "word-on-screen.mp4",
        "A word on the screen",
        49,
        4.0,
        (480, 270),
        25,
        (("text", ""), ("shape", "purple"), ("motion", "circle"), ("background", ""), ("caption", "")),
    ),
    Demo(
        "three-shapes.mp4",
        "Three shapes at once",
        111,
        5.0,
        (448, 448),
        30,
        (("count", ""), ("colour", "square"), ("motion", "circle"), ("motion", "square"), ("list", "")),
    ),
    Demo(
        "words-too-small.mp4",
        "Something too small to read",
        274,
        3.0,
        (448, 448),
        30,
        (("tiny_text", ""), ("tiny_shape", ""), ("colour", "cross"), ("motion", "square"), ("sum", "")),
        details=True,
    ),
)


def scene_of(demo: Demo) -> Scene:
    """What a clip shows."""
    scene = make_scene(demo.seed, "test", demo.duration, demo.size[0] / demo.size[1])
    if not demo.details:
        return scene
    detailed = with_details(scene, random.Random(f"demo-{demo.seed}"), min(_seen(demo)))
    if detailed is None:
        raise FinetuneError(f"The scene of {demo.file} has no room for details; choose another seed.")
    return detailed


def _seen(demo: Demo) -> tuple[int, int]:
    """Height and width of a frame as keye-nano sees it."""
    size = frame_size(demo.size[1], demo.size[0], 1, FRAME_TOKENS, FRAME_TOKENS)
    assert size is not None
    return size


def questions(demo: Demo) -> list[Suggested]:
    """The suggested questions of a clip with the truth about its scene."""
    scene = scene_of(demo)
    out = []
    for number, (kind, word) in enumerate(demo.asks):
        rng = random.Random(f"demo-{demo.seed}-{number}")
        for _ in range(500):
            found = _suggested(demo, scene, kind, rng)
            named = found is not None and (word in found.text.split("?")[0].split() if word else True)
            # One name at most, so that the question reads as people would ask it.
            if found is not None and named and " one" not in found.text and " object" not in found.text:
                out.append(found)
                break
        else:
            raise FinetuneError(f"The scene of {demo.file} has no question of kind {kind} about {word or 'it'}.")
    return out


def _suggested(demo: Demo, scene: Scene, kind: str, rng: random.Random) -> Suggested | None:
    if kind.startswith("tiny"):
        problem = detail_problem(scene, rng, _seen(demo), plain=True)
        wanted = problem.kind == kind
        return Suggested(kind, problem.text, problem.answer, "think_with_image") if wanted else None
    if kind in STEPS:
        made = step_problem(scene, rng, kind, plain=True)
        return Suggested(kind, made.text, made.answer, "think") if made is not None else None
    question = ask(scene, rng, kind, plain=True)
    return Suggested(kind, question.text, question.answer) if question is not None else None


def make_demo(out: Path, model: Path | None = None) -> str:
    """Write the clips and demo.json into `out`; with a model folder, ask it everything. Returns what was done.

    Raises FinetuneError where a clip grows too large, and EngineError where the folder holds no Keye model."""
    out.mkdir(parents=True, exist_ok=True)
    clips = []
    for demo in DEMOS:
        path = encode_clip(scene_of(demo), out / demo.file, demo.size, demo.fps)
        if path.stat().st_size > MAX_BYTES:
            raise FinetuneError(f"{demo.file} has {path.stat().st_size} bytes, more than {MAX_BYTES}; shorten it.")
        asked = [
            {"question": q.text, "answer": q.answer, "kind": q.kind} | ({"mode": q.mode} if q.mode else {})
            for q in questions(demo)
        ]
        clips.append({"file": demo.file, "title": demo.title, "seed": demo.seed, "questions": asked})
    (out / "demo.json").write_text(json.dumps({"clips": clips}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    lines = [f"{len(clips)} clips in {out}"]
    return "\n".join(lines + (_try(out, model) if model else []))


def _try(folder: Path, model: Path) -> list[str]:
    """What a model says to the suggested questions, right or wrong."""
    from engine.video import Clip, sample
    from finetune.measuring.modes_table import Table

    asked = Table(model)
    lines, hits, total = [], 0, 0
    for demo in DEMOS:
        frames = sample(Clip(folder / demo.file), asked.sampling, cache=None)
        for question in questions(demo):
            answer = asked.ask(frames, question.text, question.mode or "auto").done.text
            good = right(answer, question.answer)
            hits, total = hits + good, total + 1
            truth = "" if good else f"  (true: {question.answer})"
            lines.append(f"{'+' if good else '-'} {demo.file}: {question.text} {answer}{truth}")
    return [*lines, f"{hits} of {total} right"]
