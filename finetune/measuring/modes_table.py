"""What the modes are worth: accuracy and tokens of each mode on each kind of question, on held-out clips of the world;
how often auto decides to think, and how often an answer goes round in circles (report, table 7).

Every question is asked in every mode, greedily, by the loop that serves answers (engine.reasoning.loop), so that the
differences between modes are of the same questions."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engine.events import Analysis, Done, Error, ToolResult
from engine.keye.loading import load_config
from engine.reasoning.loop import reason
from engine.reasoning.modes import MODE_NAMES, MODES, ModeName
from engine.reasoning.operations import Box
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from engine.video import Clip, Frames, sample
from engine.video.types import TOKEN_SIDE
from finetune.answers.rewards import repeats
from finetune.answers.scoring import right
from finetune.errors import FinetuneError
from finetune.measuring.evaluate import OFFSET, encode_held_out, held_out_scene
from finetune.measuring.groups import MODE_TITLES
from finetune.measuring.intervals import Estimate, paired, share
from finetune.world.clips import encode_clip
from finetune.world.details import detail_box, with_details
from finetune.world.scene import make_scene
from finetune.world.steps import STEPS
from finetune.world.thoughts import SIMPLE_VIDEO, Group, Problem, detail_problem, simple_problem, step_problem

FACTS = "modes.json"
MAX_TOKENS = 256
SIMPLE_EACH, DETAIL_EACH = 4, 2
"""Questions of one fact about a clip, and about a clip with details."""

DETAIL_FILE = (448, 448, 30)
GROUPS: dict[Group, str] = {
    "simple": "one fact",
    "steps": "several steps",
    "detail": "too small at the frame's resolution",
}


@dataclass(frozen=True)
class Told:
    """What was answered to one question in one mode."""

    clip: int
    question: int  # of the clip
    group: Group
    kind: str
    mode: ModeName
    text: str
    truth: str
    answer: str
    right: bool
    tokens: int  # written, thought and answer together
    thought_tokens: int
    chose: str  # by auto: think or no_think; empty in the other modes
    overlap: float | None  # of the box looked at with the one that would have been best, 0 where nothing was looked at
    holds: bool | None  # whether the box holds the whole detail
    repeating: bool  # it went round in circles: the guard ended it, or the tighter rule for short answers says so
    raw: str


@dataclass(frozen=True)
class _Asked:
    """A clip's frames with the questions about it, and where each one's detail lies in the frame."""

    frames: Frames
    problems: tuple[Problem, ...]
    details: tuple[tuple[float, float, float, float] | None, ...]


class Ended(NamedTuple):
    """An answer that is over, its analysis, and the last part of a frame that was looked at."""

    done: Done
    analysis: str
    box: Box | None


class Table:
    """A model folder asked in all modes, in float32 on the processor."""

    def __init__(self, folder: Path) -> None:
        self._runtime = LocalRuntime(str(folder.resolve()), device="cpu", dtype=torch.float32, four_bit=False)
        self.sampling = self._runtime.info().sampling

    def run(self, clips: int, seed: int = 0, part: tuple[int, int] = (0, 1)) -> list[Told]:
        """Ask about `clips` held-out clips and as many with details. `part` (n, of) takes every so-manieth from the
        n-th on. Raises FinetuneError where the model fails."""
        out: list[Told] = []
        first, step = part
        with tempfile.TemporaryDirectory() as name:
            for number in range(first, clips, step):
                for n, asked in enumerate(
                    (self._usual(number, seed, Path(name)), self._detailed(number, seed, Path(name)))
                ):
                    out += self._ask(asked, 2 * number + n)
        return out

    def ask(self, frames: Frames, question: str, mode: ModeName) -> Ended:
        """One question in one mode, greedily, as the page asks it. Raises FinetuneError where the model fails."""
        analysis, box = "", None
        messages = [Message("user", (frames, question))]
        decoding = Decoding(max_tokens=MAX_TOKENS, greedy=True)
        for event in reason(self._runtime, messages, decoding, threading.Event(), MODES[mode]):
            if isinstance(event, Error):
                raise FinetuneError(event.message)
            if isinstance(event, Analysis):
                analysis += event.text
            elif isinstance(event, ToolResult):
                box = event.box or box
            elif isinstance(event, Done):
                return Ended(event, analysis, box)
        raise AssertionError("a stream ends with Done")

    def _usual(self, number: int, seed: int, folder: Path) -> _Asked:
        """A clip of an evaluation with one question of each kind of several steps that it allows, and some of one
        fact."""
        setting = held_out_scene(number, seed)
        rng = random.Random(f"modes-{seed}-{number}")
        problems = [
            problem
            for kind in STEPS
            if (problem := next(filter(None, (step_problem(setting.scene, rng, kind) for _ in range(8))), None))
        ]
        simple: list[Problem] = []
        for kind in rng.sample(SIMPLE_VIDEO, len(SIMPLE_VIDEO)):
            problem = simple_problem(setting.scene, rng, kind)
            if problem is not None and len(simple) < SIMPLE_EACH:
                simple.append(problem)
        frames = sample(Clip(encode_held_out(setting, folder / "clip.mp4")), self.sampling, cache=None)
        every = (*simple, *problems)
        return _Asked(frames, every, (None,) * len(every))

    def _detailed(self, number: int, seed: int, folder: Path) -> _Asked:
        """A clip with a tiny text and a tiny shape, and a question about each."""
        rng = random.Random(f"details-{seed}-{number}")
        width, height, fps = DETAIL_FILE
        bare = make_scene(OFFSET * 3 + seed + number, "test", rng.choice((2.0, 3.0, 4.0)), width / height)
        size = (4 * TOKEN_SIDE, 4 * TOKEN_SIDE)
        scene = with_details(bare, rng, min(size))
        if scene is None:
            return self._detailed(number + 1_000_000, seed, folder)
        frames = sample(
            Clip(encode_clip(scene, folder / "detail.mp4", (width, height), fps)), self.sampling, cache=None
        )
        seen = frames.images[0].shape[:2]
        problems = [detail_problem(replace(scene, details=(detail,)), rng, seen) for detail in scene.details]
        return _Asked(frames, tuple(problems), tuple(detail_box(scene, detail, seen) for detail in scene.details))

    def _ask(self, asked: _Asked, clip: int) -> list[Told]:
        out = []
        for n, (problem, detail) in enumerate(zip(asked.problems, asked.details, strict=True)):
            for mode in MODE_NAMES:
                out.append(self._told(asked.frames, problem, detail, mode, clip, n))
        return out

    def _told(
        self,
        frames: Frames,
        problem: Problem,
        detail: tuple[float, float, float, float] | None,
        mode: ModeName,
        clip: int,
        number: int,
    ) -> Told:
        done, analysis, box = self.ask(frames, problem.text, mode)
        chose = ""
        if mode == "auto":
            chose = "think" if MODES["think"].switch in analysis else "no_think"
        looked = mode == "think_with_image" and detail is not None
        assert problem.look is not None or not looked
        return Told(
            *(clip, number, problem.group, problem.kind, mode, problem.text, problem.answer, done.text),
            right(done.text, problem.answer),
            done.answer_tokens,
            done.thought_tokens,
            chose,
            _overlap(box, problem.look) if looked and problem.look is not None else None,
            _holds(box, detail) if looked and detail is not None else None,
            any("repeated itself" in note for note in done.notes) or repeats(done.raw_text, MAX_TOKENS),
            done.raw_text,
        )


def _overlap(box: Box | None, best: Box) -> float:
    """What two boxes share of what they cover together, 0..1."""
    if box is None:
        return 0.0
    across, down = min(box[2], best[2]) - max(box[0], best[0]), min(box[3], best[3]) - max(box[1], best[1])
    common = max(0, across) * max(0, down)
    return common / (_area(box) + _area(best) - common)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _holds(box: Box | None, detail: tuple[float, float, float, float]) -> bool:
    if box is None:
        return False
    left, top, right_, bottom = detail
    return box[0] <= left and box[1] <= top and box[2] >= right_ and box[3] >= bottom


# -- the report -----------------------------------------------------------------------------------------------------


def report(told: Sequence[Told]) -> dict[str, Any]:
    """Counts, shares and means of each mode on each group and kind, the differences between modes on the same
    questions, what auto chose, and where was looked."""
    groups = {
        group: {mode: _row([t for t in told if t.group == group and t.mode == mode]) for mode in MODE_NAMES}
        for group in GROUPS
        if any(t.group == group for t in told)
    }
    kinds: dict[str, dict[str, Any]] = {}
    for group in groups:
        for kind in sorted({t.kind for t in told if t.group == group}):
            kinds[kind] = {"group": group} | {
                mode: _row([t for t in told if t.kind == kind and t.mode == mode]) for mode in MODE_NAMES
            }
    usual = [t for t in told if t.group != "detail"]
    looked = [t for t in told if t.holds is not None]
    facts: dict[str, Any] = {"groups": groups, "kinds": kinds}
    facts["all_but_details"] = {mode: _row([t for t in usual if t.mode == mode]) for mode in MODE_NAMES}
    facts["differences"] = {
        "thinking − direct, several steps": _compared(told, "steps", "think", "no_think"),
        "thinking − direct, one fact": _compared(told, "simple", "think", "no_think"),
        "auto − thinking, several steps": _compared(told, "steps", "auto", "think"),
        "auto − direct, one fact": _compared(told, "simple", "auto", "no_think"),
        "with the image − direct, details": _compared(told, "detail", "think_with_image", "no_think"),
        "with the image − thinking, details": _compared(told, "detail", "think_with_image", "think"),
    }
    facts["auto_thinks"] = {
        group: _estimate(sum(t.chose == "think" for t in several), len(several))
        for group in groups
        if (several := [t for t in told if t.group == group and t.mode == "auto"])
    }
    facts["repeating"] = {
        mode: _estimate(sum(t.repeating for t in several), len(several))
        for mode in MODE_NAMES
        if (several := [t for t in told if t.mode == mode])
    }
    if looked:
        facts["boxes"] = {
            "looked": sum((t.overlap or 0) > 0 for t in looked),
            "mean_overlap": round(sum(t.overlap or 0.0 for t in looked) / len(looked), 4),
            "hold_the_detail": _estimate(sum(bool(t.holds) for t in looked), len(looked)),
        }
    return facts


def _row(several: Sequence[Told]) -> dict[str, Any]:
    if not several:
        return {"questions": 0}
    row = _estimate(sum(t.right for t in several), len(several))
    return row | {
        "tokens": round(sum(t.tokens for t in several) / len(several), 2),
        "thought_tokens": round(sum(t.thought_tokens for t in several) / len(several), 2),
    }


def _estimate(hits: int, total: int) -> dict[str, Any]:
    return {"questions": total, "right": hits, **_rounded(share(hits, total))}


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {
        "value": round(estimate.value, 4),
        "low": round(estimate.low, 4),
        "high": round(estimate.high, 4),
    }


def _compared(told: Sequence[Told], group: Group, first: ModeName, second: ModeName) -> dict[str, Any] | None:
    """The difference of two modes on the same questions; None where there are none."""
    by_question: dict[tuple[int, int], dict[str, bool]] = defaultdict(dict)
    for t in told:
        if t.group == group:
            by_question[t.clip, t.question][t.mode] = t.right
    pairs = [(modes[first], modes[second]) for modes in by_question.values() if {first, second} <= set(modes)]
    if not pairs:
        return None
    counts = [pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))]
    return {"questions": len(pairs), **_rounded(paired(*counts))}


def table(facts: dict[str, Any]) -> str:
    """The report as Markdown."""
    head = "".join(f" {MODE_TITLES[mode]} | tokens |" for mode in MODE_NAMES)
    line = "|---|---|" + "---|---|" * len(MODE_NAMES) + "\n"

    def cells(row: dict[str, Any]) -> str:
        out = ""
        for mode in MODE_NAMES:
            r = row[mode]
            if r["questions"]:
                out += f" {r['value']:.2f} ({r['low']:.2f}–{r['high']:.2f}) | {r['tokens']:.1f} |"
            else:
                out += " – | – |"
        return out

    def count(row: dict[str, Any]) -> int:
        return max(int(row[mode]["questions"]) for mode in MODE_NAMES)

    text = f"| questions | number |{head}\n{line}"
    for group, row in facts["groups"].items():
        text += f"| **{GROUPS[group]}** | {count(row)} |{cells(row)}\n"
    usual = facts["all_but_details"]
    if count(usual):
        text += f"| all but what is too small | {count(usual)} |{cells(usual)}\n"
    text += f"\n| kind | number |{head}\n{line}"
    for kind, row in facts["kinds"].items():
        text += f"| {kind.replace('_', ' ')} | {count(row)} |{cells(row)}\n"
    text += "\n| difference on the same questions | number | points | 95 % interval |\n|---|---|---|---|\n"
    for name, r in facts["differences"].items():
        if r is not None:
            text += f"| {name} | {r['questions']} | {100 * r['value']:+.1f} | "
            text += f"{100 * r['low']:+.1f} to {100 * r['high']:+.1f} |\n"
    chosen = ", ".join(
        f"{GROUPS[group]} {r['value']:.0%} ({r['low']:.0%}–{r['high']:.0%})"
        for group, r in facts["auto_thinks"].items()
    )
    text += f"\nAuto chose to think: {chosen}.\n"
    circling = ", ".join(
        f"{MODE_TITLES[mode]} {r['value']:.1%} ({r['low']:.1%}–{r['high']:.1%})"
        for mode, r in facts["repeating"].items()
    )
    text += f"\nOf the answers, so many went round in circles: {circling}.\n"
    if boxes := facts.get("boxes"):
        held = boxes["hold_the_detail"]
        text += (
            f"\nOf {held['questions']} details, {boxes['looked']} were looked at near the right place; the part that "
            f"was cut out held the whole detail in {held['value']:.0%} ({held['low']:.0%}–{held['high']:.0%}), and "
            f"overlapped with the best one by {boxes['mean_overlap']:.2f} on average.\n"
        )
    return text


# -- the command ----------------------------------------------------------------------------------------------------


def measure(folder: Path, clips: int, seed: int = 0, processes: int = 1, out: Path | None = None) -> str:
    """Measure a model folder in all modes, write modes.json, modes.md and modes.jsonl (every answer) into `out`
    (default: the folder), and return the tables. `processes` share the clips, each on one thread.

    Raises FinetuneError for senseless numbers and EngineError where the folder holds no Keye model."""
    if clips < 1:
        raise FinetuneError(f"At least one clip is needed, not {clips}.")
    if processes < 1:
        raise FinetuneError(f"At least one process is needed, not {processes}.")
    load_config(folder)  # a folder that is none is said so once
    began = time.monotonic()
    if processes == 1:
        told = _part_of(folder, clips, seed, (0, 1))
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = [pool.submit(_part_of, folder, clips, seed, (n, processes)) for n in range(processes)]
            told = [one for part in parts for one in part.result()]
    about = {
        "command": f"python -m finetune modes {folder} --clips {clips} --seed {seed}",
        "clips": clips,
        "seed": seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    return write(told, about, out or folder)


def write(told: Sequence[Told], about: dict[str, Any], where: Path) -> str:
    """Write what was answered and the figures into a folder; `about` says how it was measured. The tables.

    Raises FinetuneError where the folder cannot be written."""
    facts = {**about, **report(told)}
    try:
        where.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(t), ensure_ascii=False) + "\n" for t in told]
        (where / "modes.jsonl").write_text("".join(lines), "utf-8")
        (where / "modes.md").write_text(table(facts), "utf-8")
        scratch = where / ".modes.part"
        scratch.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
        os.replace(scratch, where / FACTS)
    except OSError as error:
        raise FinetuneError(f"The tables cannot be written to {where} ({error}); give another --out.") from error
    return table(facts)


def _part_of(folder: Path, clips: int, seed: int, part: tuple[int, int]) -> list[Told]:
    torch.set_num_threads(1)
    return Table(folder).run(clips, seed, part)


def add_commands(commands: Any) -> None:
    modes = commands.add_parser("modes", help="accuracy and tokens of a model folder in each mode, on held-out clips")
    modes.add_argument("model", type=Path)
    modes.add_argument("--clips", type=int, default=100, help="held-out clips, and as many with details (default 100)")
    modes.add_argument("--seed", type=int, default=0, help="number of the first held-out scene")
    modes.add_argument("--processes", type=int, default=1, help="share the clips among so many (default 1)")
    modes.add_argument(
        "--out", type=Path, help="folder for modes.json, modes.md and modes.jsonl (default: the model's)"
    )
    modes.set_defaults(act=_modes)


def _modes(args: argparse.Namespace) -> int:
    print(measure(args.model, args.clips, args.seed, args.processes, args.out))
    return 0
