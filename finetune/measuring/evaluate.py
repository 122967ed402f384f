"""Accuracy on held-out clips of the world, through real H.264 files and the path that serves answers."""

from __future__ import annotations

import dataclasses
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.events import Answer, Done, Error, Retraction
from engine.keye.loading import load_config
from engine.reasoning.parser import events_of
from engine.runtime.base import Decoding, Message, Part
from engine.runtime.local import LocalRuntime
from engine.video import Clip, Frames, Sampling, sample
from finetune.answers.scoring import clause_recall, floor, overlap, right, wilson
from finetune.errors import FinetuneError
from finetune.measuring.groups import COUNTED, GROUPS
from finetune.world.clips import encode_clip
from finetune.world.questions import PICTURE_KINDS, VIDEO_KINDS, Question, ask, small_talk
from finetune.world.render import render
from finetune.world.scene import Scene, make_scene
from finetune.world.speech import Language

FILES = ((448, 448, 30), (448, 448, 24), (480, 270, 30), (270, 480, 30), (400, 300, 25))
"""Width, height and frames per second of the files, in turn."""

LONG = (10.0, 12.0, 16.0)
"""Seconds of the long clips: about twice the usual."""

MAX_TOKENS = 192  # a thought and its answer; a direct answer ends long before
OFFSET = 10_000
"""Held-out scenes of an evaluation are numbered from here; the demo clips come from below."""


@dataclass
class Asked:
    """One question with what the model said to it, seeing and blind."""

    group: str  # one of GROUPS
    question: Question
    answer: str
    blind: str | None


class Answerer:
    """A model folder that answers greedily through `engine`'s own runtime, in float32 on the processor."""

    def __init__(self, folder: Path) -> None:
        # an absolute path: a folder that is not there must not be taken for a hub id
        self._runtime = LocalRuntime(str(folder.resolve()), device="cpu", dtype=torch.float32, four_bit=False)
        self.sampling: Sampling = self._runtime.info().sampling

    def answer(self, seen: Part | None, question: str) -> str:
        """The answer to one question about frames, about a picture (uint8 RGB [height, width, 3]), or about nothing.

        Raises FinetuneError where the model fails."""
        parts: tuple[Part, ...] = (question,) if seen is None else (seen, question)
        decoding = Decoding(max_tokens=MAX_TOKENS, greedy=True)
        text = ""
        for event in self._runtime.stream([Message("user", parts)], decoding, threading.Event()):
            if isinstance(event, Error):
                raise FinetuneError(event.message)
            if isinstance(event, Done):
                text = event.text
        return answer_in(text)


def answer_in(text: str) -> str:
    """The answer in what a model wrote, without an analysis or a thought before it."""
    answer = ""
    for event in events_of(text):
        if isinstance(event, Retraction):
            answer = ""
        elif isinstance(event, Answer):
            answer += event.text
    return answer


def blank(seen: Part) -> Part:
    """The same frames or picture, all grey: as long and as large, with nothing to see."""
    if isinstance(seen, Frames):
        return dataclasses.replace(seen, images=tuple(np.full_like(image, 127) for image in seen.images))
    assert isinstance(seen, np.ndarray)
    return np.full_like(seen, 127)


@dataclass(frozen=True)
class Setting:
    """A held-out scene, how its file is encoded, its questions (one of each kind it allows), and its group."""

    scene: Scene
    size: tuple[int, int]  # width, height
    fps: int
    questions: tuple[Question, ...]
    group: str


def held_out_scene(number: int, seed: int, long: bool = False) -> Setting:
    """Clip `number` of an evaluation, before it is encoded. Of eight, one holds an unseen pair and one an unseen
    triple; the long ones are others, and hold whatever a test scene may."""
    rng = random.Random(f"evaluate-{seed}-{number}{'-long' if long else ''}")
    width, height, fps = FILES[number % len(FILES)]
    duration = rng.choice(LONG if long else (2.0, 3.0, 4.0, 5.0, 6.0, 8.0))
    group = "long" if long else {3: "unseen", 7: "unseen triple"}.get(number % 8, "video")
    scene_number = OFFSET + seed + number
    if group.startswith("unseen"):  # even numbers hold pairs, odd ones triples
        scene_number = scene_number * 2 + (group == "unseen triple")
    scene = make_scene(scene_number, "unseen" if group.startswith("unseen") else "test", duration, width / height)
    return Setting(scene, (width, height), fps, questions_of(scene, number, seed), group)


def questions_of(scene: Scene, number: int, seed: int, language: Language = "en") -> tuple[Question, ...]:
    """One question of each kind that the scene allows; the same ones in either language."""
    kinds = PICTURE_KINDS if scene.still else VIDEO_KINDS
    asked = (
        ask(scene, random.Random(f"question-{seed}-{number}-{scene.duration:g}-{kind}"), kind, language=language)
        for kind in kinds
    )
    return tuple(question for question in asked if question is not None)


def encode_held_out(setting: Setting, path: Path) -> Path:
    """Write the clip as a file."""
    return encode_clip(setting.scene, path, setting.size, setting.fps)


def run(
    answerer: Answerer, clips: int, seed: int = 0, blind: bool = True, share: tuple[int, int] = (0, 1)
) -> list[Asked]:
    """Ask about `clips` held-out clips, an eighth as many long ones, a quarter as many pictures, and a little small
    talk. Every second clip is asked about in Chinese too, never blind. Without `blind` nothing is asked blind: half
    the time. `share` (n, of) takes every so-manieth clip and picture from the n-th on; the first share talks too."""
    out: list[Asked] = []
    first, step = share
    with tempfile.TemporaryDirectory() as name:
        settings = [held_out_scene(number, seed) for number in range(clips)]
        settings += [held_out_scene(number, seed, long=True) for number in range(-(-clips // 8))]
        for number, setting in list(enumerate(settings))[first::step]:
            path = encode_held_out(setting, Path(name) / "clip.mp4")
            frames = sample(Clip(path), answerer.sampling, cache=None)
            out += _ask_all(answerer, frames, setting.questions, setting.group, blind)
            if number < clips and number % 2 == 0:
                chinese = questions_of(setting.scene, number, seed, "zh")
                out += _ask_all(answerer, frames, chinese, "chinese", blind=False)
    for number in range(first, -(-clips // 4), step):
        width, height, _ = FILES[number % len(FILES)]
        scene = make_scene(OFFSET + seed + number, "test", 0.0, width / height)
        picture = render(scene, [0.0], height, width)[0]
        out += _ask_all(answerer, picture, questions_of(scene, number, seed), "picture", blind)
    rng = random.Random(f"talk-{seed}")
    if first:
        return out
    for kind in ("greeting", "who", "thanks", "foreign", "no_clip"):
        for _ in range(max(1, clips // 20)):
            question = small_talk(rng, kind, with_clip=False)
            out.append(Asked("talk", question, answerer.answer(None, question.text), None))
    return out


def _ask_all(answerer: Answerer, seen: Part, questions: Sequence[Question], group: str, blind: bool) -> list[Asked]:
    grey = blank(seen)
    return [
        Asked(group, q, answerer.answer(seen, q.text), answerer.answer(grey, q.text) if blind else None)
        for q in questions
    ]


def report(asked: list[Asked]) -> dict[str, Any]:
    """Counts and shares: of every kind over the clips of usual length, of each group over its kinds, and of every kind
    in Chinese. `blind` is 0 where nothing was asked blind. Boxes also have the mean of their overlap with the truth."""
    groups: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        groups[one.group].append(one)
    counted = [one for one in asked if one.group in COUNTED]
    told = [one for one in counted if one.question.kind in ("caption", "list")]
    return {
        **_by_kind(counted),
        "groups": {name: _row(groups[name]) for name in GROUPS if groups[name]},
        "chinese": _by_kind(groups["chinese"]),
        "asked_blind": [name for name in GROUPS if any(one.blind is not None for one in groups[name])],
        "facts_named": {
            kind: round(_mean([clause_recall(o.answer, o.question.answer) for o in told if o.question.kind == kind]), 4)
            for kind in ("caption", "list")
        },
    }


def _by_kind(asked: list[Asked]) -> dict[str, Any]:
    kinds: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        kinds[one.question.kind].append(one)
    rows = {kind: _row(several) for kind, several in kinds.items()}
    return {
        "kinds": dict(sorted(rows.items(), key=lambda item: -item[1]["accuracy"])),
        "mean_of_kinds": {name: _mean([row[name] for row in rows.values()]) for name in ("accuracy", "blind", "floor")},
    }


def _row(several: list[Asked]) -> dict[str, Any]:
    hits = sum(right(o.answer, o.question.answer) for o in several)
    low, high = wilson(hits, len(several))
    blind = [right(o.blind, o.question.answer) for o in several if o.blind is not None]
    boxes = [overlap(o.answer, o.question.answer) for o in several if o.question.kind == "box"]
    return {
        "questions": len(several),
        "right": hits,
        "accuracy": round(hits / len(several), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "blind": round(_mean([float(b) for b in blind]), 4),
        "floor": round(floor([o.question.answer for o in several]), 4),
        **({"overlap": _mean(boxes)} if len(boxes) == len(several) else {}),
    }


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


def table(facts: dict[str, Any]) -> str:
    """The report as Markdown."""
    head = "| {} | questions | right | 95 % interval | blind | most frequent answer |\n|---|---|---|---|---|---|\n"

    def line(name: str, r: dict[str, Any], *groups: str) -> str:
        blind = f"{r['blind']:.2f}" if set(groups) & set(facts["asked_blind"]) else "–"
        return (
            f"| {name.replace('_', ' ')} | {r['questions']} | {r['accuracy']:.2f} | {r['low']:.2f}–{r['high']:.2f} "
            f"| {blind} | {r['floor']:.2f} |\n"
        )

    mean = facts["mean_of_kinds"]
    blind = f"{mean['blind']:.2f}" if set(COUNTED) & set(facts["asked_blind"]) else "–"
    text = head.format("kind of question") + "".join(line(k, r, *COUNTED) for k, r in facts["kinds"].items())
    text += f"| **mean of kinds** | | **{mean['accuracy']:.2f}** | | {blind} | {mean['floor']:.2f} |\n"
    text += "\n" + head.format("group, all kinds")
    text += "".join(line(GROUPS[k], r, k) for k, r in facts["groups"].items())
    chinese = facts["chinese"]["mean_of_kinds"]["accuracy"]
    if facts["chinese"]["kinds"]:
        text += f"\nAsked in Chinese, the mean of kinds is {chinese:.2f}.\n"
    if "box" in facts["kinds"]:
        text += f"\nA box overlaps with the true one by {facts['kinds']['box']['overlap']:.2f} on average.\n"
    named = facts["facts_named"]
    text += (
        "\nOf the facts of a caption (which thing does what) "
        f"{named['caption']:.0%} are stated, of the things of a list {named['list']:.0%}.\n"
    )
    return text


def evaluate_folder(
    folder: Path, clips: int, seed: int = 0, processes: int = 1, out: Path | None = None, blind: bool = True
) -> str:
    """Measure a model folder, write evaluation.json and evaluation.md into `out` (default: the folder), there with
    every answer, and return the table. `processes` share the clips, each on one thread.

    Raises FinetuneError for senseless numbers and EngineError where the folder holds no Keye model."""
    if clips < 1:
        raise FinetuneError(f"At least one clip is needed, not {clips}.")
    if processes < 1:
        raise FinetuneError(f"At least one process is needed, not {processes}.")
    began = time.monotonic()
    if processes == 1:
        asked = _share_of(folder, clips, seed, blind, (0, 1))
    else:
        load_config(folder)  # a folder that is none is said so once
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            shares = [pool.submit(_share_of, folder, clips, seed, blind, (n, processes)) for n in range(processes)]
            asked = [one for share in shares for one in share.result()]
    command = f"python -m finetune evaluate {folder} --clips {clips} --seed {seed}{'' if blind else ' --no-blind'}"
    spent = {"minutes": round((time.monotonic() - began) / 60, 1)}
    facts = write_evaluation(asked, {"command": command, "clips": clips, "seed": seed, **spent}, out or folder)
    if out is None:
        (folder / ANSWERS).unlink()  # of use in a run's folder, and large in a model's
    return table(facts)


ANSWERS = "answers.jsonl"


def _share_of(folder: Path, clips: int, seed: int, blind: bool, share: tuple[int, int]) -> list[Asked]:
    torch.set_num_threads(1)
    return run(Answerer(folder), clips, seed, blind, share)


def write_evaluation(asked: list[Asked], about: dict[str, Any], where: Path) -> dict[str, Any]:
    """Write evaluation.json, evaluation.md and answers.jsonl into a folder; what the first says."""
    where.mkdir(parents=True, exist_ok=True)
    facts = {**about, **report(asked)}
    lines: list[dict[str, str | None]] = [
        {
            "group": o.group,
            "kind": o.question.kind,
            "question": o.question.text,
            "answer": o.answer,
            "truth": o.question.answer,
            "blind": o.blind,
        }
        for o in asked
    ]
    (where / ANSWERS).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    (where / "evaluation.md").write_text(table(facts), "utf-8")
    scratch = where / ".evaluation.part"  # last and in one step: where it is, the measuring has ended
    scratch.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    os.replace(scratch, where / "evaluation.json")
    return facts
