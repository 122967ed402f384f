"""One evening with the studio, measured:  python -m scripts.evening [--out DIR] [--others N] [--old N] [NUMBER…]

Somebody asks about ten clips of a kind that keye-nano does not know (a ring, a zigzag: the world's split `new`), votes
for the right answers and corrects the wrong ones. What was said is learnt with recipes/feedback.toml, as the shell or
the page does it. The new model and keye-nano are then asked about other clips of that kind, and about the held-out
clips of the old world. NUMBERs replace those of the recipe, as for `python -m finetune run`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from app.config import AppConfig
from app.studio import ClipChoice, Limits, Studio
from engine.runtime.local import LocalRuntime
from engine.runtime.source import NANO
from engine.video import Clip, sample
from finetune.__main__ import main as finetune
from finetune.answers.scoring import plain, right
from finetune.feedback import Runs, Store
from finetune.measuring.evaluate import FILES, Answerer, run
from finetune.measuring.intervals import Estimate, paired, share
from finetune.world.clips import encode_clip
from finetune.world.questions import Question, ask
from finetune.world.scene import NEW_MOTIONS, NEW_SHAPES, Scene, make_scene

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "feedback.toml"
KINDS = ("shape", "motion", "list")
"""What is asked of every clip: what shape something is, how it moves, what is there."""

OTHERS = 1000
"""Clips that nobody corrected are numbered from here."""


@dataclass(frozen=True)
class Film:
    """A clip of the new kind, and what is asked about it."""

    path: Path
    new: tuple[Question, ...]  # whose true answer names the new shape or motion
    known: tuple[Question, ...]  # of the same kinds about what the model knows


def film(number: int, folder: Path, each: int) -> Film:
    """Clip `number` as a file, with at most `each` questions of every kind about what is new, and as many others."""
    rng = random.Random(f"evening-{number}")
    width, height, fps = FILES[number % len(FILES)]
    scene = make_scene(number, "new", rng.choice((4.0, 5.0, 6.0)), width / height, most=3)
    path = folder / f"new-{number}.mp4"
    if not path.is_file():
        encode_clip(scene, path, (width, height), fps)
    asked = [question for kind in KINDS for question in _several(scene, rng, kind)]
    new = [question for question in asked if is_new(question.answer)]
    known = [question for question in asked if not is_new(question.answer)]
    return Film(path, _at_most(new, each), _at_most(known, each))


def is_new(text: str) -> bool:
    return bool({*NEW_SHAPES, *NEW_MOTIONS} & set(plain(text).split()))


def _several(scene: Scene, rng: random.Random, kind: str) -> list[Question]:
    """Different questions of one kind. The switch of the mode at a question's end is the page's to set."""
    found: dict[str, Question] = {}
    for _ in range(30):
        question = ask(scene, rng, kind)
        if question is not None and "/" not in question.text:
            found.setdefault(plain(question.text), question)
    return list(found.values())


def _at_most(questions: Iterable[Question], each: int) -> tuple[Question, ...]:
    kept: list[Question] = []
    for question in questions:
        if sum(one.kind == question.kind for one in kept) < each:
            kept.append(question)
    return tuple(kept)


def converse(studio: Studio, films: Sequence[Film]) -> tuple[int, int]:
    """Ask about every film in conversations of one question each, vote for what is right and correct what is wrong;
    how many of the questions about what is new were right, and how many there were."""
    hits = total = 0
    for one in films:
        sha, _ = studio.add_video(one.path, one.path.name)
        for question in (*one.new, *one.known):
            _, job = studio.ask(None, question.text, ClipChoice(sha), Limits())
            job.join()
            said = job.snapshot()
            hit = right(said.text, question.answer)
            if hit:
                studio.store.votes.vote(said.answer, "up")
            else:
                studio.store.votes.correct(said.answer, question.answer)
            hits, total = hits + (hit and question in one.new), total + (question in one.new)
    return hits, total


@dataclass(frozen=True)
class Skill:
    """The same questions before and after: which of them were right."""

    name: str
    before: tuple[bool, ...]
    after: tuple[bool, ...]

    @property
    def change(self) -> Estimate:
        both = [(b, a) for b, a in zip(self.before, self.after, strict=True)]
        return paired(*(both.count(pair) for pair in ((True, True), (False, True), (True, False), (False, False))))

    def line(self) -> str:
        told = [f"{one.value:.3f} ({one.low:.3f}–{one.high:.3f})" for one in (_of(self.before), _of(self.after))]
        change = self.change
        return (
            f"{self.name}: {len(self.before)} questions, before {told[0]}, after {told[1]}, "
            f"change {100 * change.value:+.1f} points ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
        )


def _of(hits: Sequence[bool]) -> Estimate:
    return share(sum(hits), len(hits))


def answers_right(folder: Path, films: Sequence[Film]) -> dict[str, tuple[bool, ...]]:
    """Which of the films' questions a model has right: what is new by kind, and all that is known."""
    answerer = Answerer(folder)
    found: dict[str, list[bool]] = {}
    for one in films:
        frames = sample(Clip(one.path), answerer.sampling, cache=None)
        for question in (*one.new, *one.known):
            name = f"new, {question.kind}" if question in one.new else "the rest of these clips"
            found.setdefault(name, []).append(right(answerer.answer(frames, question.text), question.answer))
    return {name: tuple(hits) for name, hits in found.items()}


def old_right(folder: Path, clips: int) -> tuple[bool, ...]:
    """Which questions about the held-out clips of `python -m finetune evaluate` a model has right."""
    return tuple(right(one.answer, one.question.answer) for one in run(Answerer(folder), clips, blind=False))


def skills(before: dict[str, tuple[bool, ...]], after: dict[str, tuple[bool, ...]]) -> list[Skill]:
    found = [Skill(name, before[name], after[name]) for name in sorted(before)]
    new = [one for one in found if one.name.startswith("new")]
    everything = Skill("new, all", sum((one.before for one in new), ()), sum((one.after for one in new), ()))
    return [everything, *found]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.evening", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("numbers", nargs="*", metavar="stage.field=value")
    parser.add_argument("--out", type=Path, help="folder of the store, the clips and the run (default: a new one)")
    parser.add_argument("--clips", type=int, default=10, help="that somebody asks about (default 10)")
    parser.add_argument("--others", type=int, default=50, help="new clips to measure with (default 50)")
    parser.add_argument("--old", type=int, default=30, help="old clips to measure with (default 30)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    out = args.out or Path(tempfile.mkdtemp(prefix="evening-"))
    (out / "clips").mkdir(parents=True, exist_ok=True)
    data = out / "data"
    if not (data / "studio.sqlite").is_file():
        films = [film(number, out / "clips", 2) for number in range(args.clips)]
        studio = Studio(AppConfig(data=data), LocalRuntime(str(NANO), device="cpu"))
        studio.runtime.start()
        hits, total = converse(studio, films)
        studio.close()
        print(f"Asked about {len(films)} clips: {hits} of {total} questions about what is new were right.")
    began = time.monotonic()
    store, run_folder = data / "studio.sqlite", out / "run"
    told = [
        "run",
        str(RECIPE),
        f"sft.cache={out / 'frames'}",
        f"mpo.cache={out / 'frames'}",
        f"rl.cache={out / 'frames'}",
    ]
    if finetune([*told, *args.numbers, "--store", str(store), "--model", str(NANO), "--out", str(run_folder)]):
        return 1
    print(f"Trained in {(time.monotonic() - began) / 60:.1f} minutes.")
    Store(store).close()
    runs = Runs(store)
    result = runs.result(runs.list()[0].id)
    runs.close()
    assert result is not None
    others = [film(OTHERS + number, out / "clips", 1) for number in range(args.others)]
    for skill in skills(answers_right(Path(NANO), others), answers_right(result, others)):
        print(skill.line())
    if args.old:
        print(Skill("old skills", old_right(Path(NANO), args.old), old_right(result, args.old)).line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
