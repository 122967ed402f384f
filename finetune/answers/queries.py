"""Questions with a known answer, to be answered by the model that is trained: of the world, or of files."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.reasoning.modes import MODES, ModeName, with_switch
from engine.runtime.base import Message, Part
from engine.video import Clip, Frames, Kind, VideoInfo
from finetune.answers.rewards import RewardName
from finetune.data.conversations import Conversations
from finetune.data.jsonl import Rows
from finetune.data.problems import BadRow, Problems
from finetune.packing.batches import Diet
from finetune.packing.footage import Setting, draw_setting, shoot
from finetune.world.clips import sampled_times
from finetune.world.questions import draw
from finetune.world.scene import Scene
from finetune.world.thoughts import unswitched

BY_KIND: dict[str, RewardName] = {"box": "box", "list": "set", "caption": "set", "when": "time"}
"""How answers to the world's kinds of questions are compared, where not word by word."""


@dataclass(frozen=True)
class Query:
    """One question. `messages` end with the user's turn, their media sampled, and carry no mode's switch."""

    where: str
    messages: list[Message]
    reference: str
    reward: RewardName
    kind: str = ""

    def asked(self, mode: ModeName) -> list[Message]:
        return with_switch(self.messages, MODES[mode])


class Queries(Protocol):
    """Where questions come from; the same number is always the same question."""

    steps: int
    """How many there are; 0 where they have no end."""

    def make(self, number: int) -> Query | None:
        """Question `number`; None where it was good once and cannot be read any more."""


class WorldQueries:
    """Questions about training scenes of the world, without end: drawn as its batches are."""

    steps = 0

    def __init__(self, seed: str, diet: Diet) -> None:
        self.seed, self.diet = seed, diet

    def make(self, number: int) -> Query:
        rng = random.Random(f"{self.seed}-query-{number}")
        setting = draw_setting(rng, self.diet.still, self.diet.seconds)
        if setting.path == "h264":  # a file for a single question: what it looks like is known from the rest
            setting = replace(setting, path="scaled")
        first = rng.getrandbits(44)
        scenes, images, fps = shoot(setting, range(first, first + 1), self.diet.things)
        question = draw(scenes[0], rng, 1, self.diet.chinese, self.diet.mixture)[0]
        seen: Part = images[0][0] if setting.still else _frames(scenes[0], images[0], setting, fps)
        messages = [Message("user", (seen, unswitched(question.text)))]
        reward = BY_KIND.get(question.kind, "exact")
        return Query(f"world {number}", messages, question.answer, reward, question.kind)


def _frames(scene: Scene, images: np.ndarray, setting: Setting, fps: float) -> Frames:
    """Drawn frames as a clip is sampled into; there never was a file of it."""
    times, _ = sampled_times(setting.duration, setting.video_fps, setting.sampling)
    height, width = images.shape[1:3]
    path = Path(f"scene-{scene.seed}")
    all_times = np.arange(round(setting.duration * setting.video_fps)) / setting.video_fps
    info = VideoInfo(
        path, "", "", width, height, 0, float(setting.video_fps), False, setting.duration, len(all_times), None, 0,
        all_times, all_times[:1],
    )  # fmt: skip
    kinds: tuple[Kind, ...] = tuple("slow" for _ in images)
    return Frames(Clip(path), info, setting.sampling, tuple(images), tuple(times.tolist()), kinds, fps)


class FileQueries:
    """The questions of files, in an order of their own in every epoch."""

    def __init__(self, rows: Rows, conversations: Conversations, seed: str) -> None:
        self.rows, self.conversations, self.seed = rows, conversations, seed
        self.steps = len(rows)
        self.lost = Problems()
        self._order: tuple[int, list[int]] = (-1, [])

    def make(self, number: int) -> Query | None:
        epoch, at = divmod(number, len(self.rows))
        if self._order[0] != epoch:
            order = list(range(len(self.rows)))
            random.Random(f"{self.seed}-{epoch}").shuffle(order)
            self._order = epoch, order
        row = self.rows[self._order[1][at]]
        try:
            # its own mode's switch is left out: in which modes it is answered is the stage's to say
            messages = self.conversations.messages(replace(row, mode="auto"))
        except BadRow as problem:
            self.lost.add(row.where, problem)
            return None
        return Query(row.where, messages, row.reference, row.reward)
