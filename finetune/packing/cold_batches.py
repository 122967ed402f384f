"""Packed batches of the modes: questions about the world with the switch of a mode and what is written to them there.

What is written is learnt from the first token of the assistant's turn to its end, but for the result of a tool call,
which only the loop writes. Such a result lies in the turn exactly as engine.reasoning.loop puts it there."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.keye import KeyeProcessor
from engine.keye.positions import PositionRule, rope_index
from engine.reasoning import operations as op
from engine.reasoning.modes import RESULT_CLOSE, RESULT_OPEN, ModeName
from engine.reasoning.operations import Box, fitted
from engine.video.budget import frame_size
from engine.video.types import TOKEN_SIDE
from finetune.packing.batches import CHINESE, TALK, Batches, Media
from finetune.packing.footage import Setting, draw_setting, frames_of, scenes_of, to_patches
from finetune.packing.labels import batch_labels, token_labels
from finetune.packing.packed import PackedBatch
from finetune.world.clips import sampled_times
from finetune.world.details import with_details
from finetune.world.questions import draw
from finetune.world.render import render
from finetune.world.scene import Scene
from finetune.world.steps import STEPS as KINDS_OF_STEPS
from finetune.world.thoughts import (
    BESIDE_DETAILS,
    SIMPLE_PICTURE,
    SIMPLE_VIDEO,
    Problem,
    Turn,
    detail_problem,
    draw_steps,
    plain_problem,
    simple_problem,
    talk_problem,
    turn_of,
)

ROW_LENGTHS = (64, 80, 96, 112, 128, 160, 192)
"""Tokens of a row: for each batch the length with which its conversations leave the least unused."""

PUBLISHED: dict[ModeName, int] = {
    "no_think": 330_000 + 2 * 80_000,
    "think": 230_000 + 2 * 24_000,
    "auto": 20_000,
    "think_with_image": 100_000,
}
"""Examples of each mode, videos among them and each of these twice (report, section 4.2.1)."""

TURNS = 96
"""Of a batch, so that shares of turns are shares of batches too."""

VIDEOS, PER_VIDEO = 12, 8
LONG_VIDEOS, PER_LONG, MANY = 6, 16, 8
"""The tower reads a clip as one sequence: of those with more than so many frames there are fewer, with more turns."""

STILLS, PER_STILL = 16, 6
DETAILED, PER_DETAILED, LOOKS = 12, 4, 2
"""Clips of a batch and turns about each; so many of the turns look closer, each at a detail of its own."""

CALLED = 0.8
"""Share of the turns with the image that look closer; the others need not, and are answered after a thought alone."""

PICTURES = 0.25
"""Share of the batches without details that are pictures."""

STEPS: dict[ModeName, float] = {"no_think": 0.3, "think": 0.8, "auto": 0.5, "think_with_image": 0.5}
"""Share of a mode's turns that take several steps; the rest are of one fact."""

FOLLOW_UPS = 0.1
"""Share of turns before which another question was asked and answered."""

SMALL_TALK = 0.03
DETAIL_FILES = ((448, 448), (448, 448), (400, 300))
"""Width and height of the files whose clips hold details: four times what the model sees."""


class Planned(NamedTuple):
    """What batch a number stands for, before anything is drawn."""

    media: Media
    detailed: bool
    setting: Setting | None  # None: no clip
    clips: int
    turns: int  # about each clip
    looks: int  # of those with a tool call


@dataclass(frozen=True)
class Talk:
    """What was said before, and the turn that is learnt."""

    before: tuple[tuple[str, str], ...]
    turn: Turn


_Written = tuple[Talk, list[int], list[bool]]
"""A conversation, its tokens, and which of them are learnt."""


class ColdBatches(Batches):
    """An endless source of packed batches in the modes; the same seed and number always make the same batch.

    Two batches of videos in a row hold the same clips and turns, with twice as many frames in the second (the report
    uses every video sample with 16 and with 32 frames). `shares` says how often a mode is drawn."""

    def __init__(
        self,
        rule: PositionRule,
        processor: KeyeProcessor,
        seed: str = "0",
        shares: Mapping[str, float] | None = None,
        seconds: float = 8.0,
    ) -> None:
        super().__init__(rule, processor, seed)
        self.image_processor = processor.image_processor
        total = sum((shares or PUBLISHED).values())
        self.shares = {str(mode): count / total for mode, count in (shares or PUBLISHED).items()}
        self.seconds = seconds
        looked = CALLED * self.shares.get("think_with_image", 0.0)
        # so many of the batches have details that, with their smaller number of turns, the share is met
        small = DETAILED * PER_DETAILED
        self.detailed = min(1.0, looked * TURNS / (DETAILED * LOOKS + (TURNS - small) * looked))
        self._others = dict(self.shares)
        if "think_with_image" in self._others:
            self._others["think_with_image"] *= 1 - CALLED

    def plan(self, number: int) -> Planned:
        """What all processes' batches of this number have in common."""
        common = random.Random(f"{self.seed}-{number // 2}")
        more = number % 2 == 1
        if common.random() < TALK:
            return Planned("none", False, None, 8, TURNS // 8, 0)
        if common.random() < self.detailed:
            return Planned("video", True, _of_pair(_detail_setting(common), more), DETAILED, PER_DETAILED, LOOKS)
        if common.random() < PICTURES:
            return Planned("image", False, draw_setting(common, True), STILLS, PER_STILL, 0)
        setting = draw_setting(common, False, self.seconds)
        if setting.path == "h264":
            setting = replace(setting, path="scaled")
        frames = setting.duration * _of_pair(setting, True).sampling.fps
        clips, turns = (LONG_VIDEOS, PER_LONG) if frames > MANY else (VIDEOS, PER_VIDEO)
        return Planned("video", False, _of_pair(setting, more), clips, turns, 0)

    def turns(self, number: int, rank: int = 0) -> tuple[Planned, list[Scene], list[list[Talk]]]:
        """The scenes of a batch and what is said about each."""
        planned = self.plan(number)
        drawn = number // 2 if planned.media == "video" else f"{number} alone"
        own = random.Random(f"{self.seed}-{drawn}-{rank}")
        first = own.getrandbits(44)
        if planned.setting is None:
            talks = [[self._small_talk(own, False) for _ in range(planned.turns)] for _ in range(planned.clips)]
            return planned, [], talks
        scenes = scenes_of(planned.setting, range(first, first + planned.clips))
        if planned.detailed:
            scenes = [with_details(scene, own, min(planned.setting.size)) or scene for scene in scenes]
        return planned, scenes, [self._about(scene, own, planned) for scene in scenes]

    def make_modes(self, number: int, rank: int = 0) -> PackedBatch:
        """Batch `number` of process `rank`."""
        planned, scenes, talks = self.turns(number, rank)
        setting = planned.setting
        if setting is None:
            return self.pack_modes("none", talks, None, None, 0.0, {})
        images, fps = frames_of(scenes, setting)
        pixels, grid = to_patches(images)
        shown = {
            (c, talk.turn.look): look_closer(scene, talk.turn.look, setting)
            for c, (scene, several) in enumerate(zip(scenes, talks, strict=True))
            for talk in several
            if talk.turn.look is not None
        }
        batch = self.pack_modes(planned.media, talks, pixels, grid, fps, shown)
        times = np.zeros(1)
        if not setting.still:
            times = sampled_times(setting.duration, setting.video_fps, setting.sampling)[0]
        batch.truth = batch_labels([token_labels(scene, times, setting.size) for scene in scenes])
        return batch

    # -- what is asked ----------------------------------------------------------------------------------------------

    def _mode(self, rng: random.Random) -> ModeName:
        modes = list(self._others)
        mode: ModeName = rng.choices(modes, list(self._others.values()))[0]  # type: ignore[assignment]
        return mode

    def _about(self, scene: Scene, rng: random.Random, planned: Planned) -> list[Talk]:
        setting = planned.setting
        assert setting is not None
        out = []
        for n in range(planned.turns):
            if scene.details and n < planned.looks:
                alone = replace(scene, details=(scene.details[n % len(scene.details)],))
                out.append(Talk((), turn_of(detail_problem(alone, rng, setting.size), "think_with_image")))
                continue
            if rng.random() < SMALL_TALK:
                out.append(self._small_talk(rng, True))
                continue
            mode = self._mode(rng)
            problem = self._problem(scene, rng, mode, setting)
            before: tuple[tuple[str, str], ...] = ()
            if rng.random() < FOLLOW_UPS:
                earlier = _any_simple(scene, rng)
                before = ((earlier.text, earlier.answer),)
            out.append(Talk(before, turn_of(problem, mode)))
        return out

    def _problem(self, scene: Scene, rng: random.Random, mode: ModeName, setting: Setting) -> Problem:
        if scene.details:
            if rng.random() < 0.35:
                return detail_problem(scene, rng, setting.size)
            return _any_simple(scene, rng)
        if rng.random() < STEPS[mode]:
            problem = draw_steps(scene, rng)
            if problem is not None:
                return problem
        if mode not in ("no_think", "auto"):
            return _any_simple(scene, rng)
        # what the earlier stages asked, in their proportions: nothing of it is to be forgotten
        left_out = dict.fromkeys(KINDS_OF_STEPS, 0.0) if mode == "auto" else {}
        return plain_problem(draw(scene, rng, 1, CHINESE, left_out)[0])

    def _small_talk(self, rng: random.Random, with_clip: bool) -> Talk:
        kinds = ("greeting", "who", "thanks", "foreign", "foreign") + (() if with_clip else ("no_clip",))
        language = "zh" if rng.random() < CHINESE else "en"
        problem = talk_problem(rng, rng.choice(kinds), with_clip, "zh" if language == "zh" else "en")
        return Talk((), turn_of(problem, self._mode(rng)))

    # -- tokens -----------------------------------------------------------------------------------------------------

    def written(self, talk: Talk, media: Media, grid: Tensor | None) -> tuple[list[int], list[bool]]:
        """A conversation after its opening as tokens, and which of them are learnt. `grid` int64 [1, 3] is of the
        picture that the turn looks at."""
        pieces, end = self.pieces[media], self.ids("<|im_end|>")[0]
        asked: list[int] = []
        for question, answer in talk.before:
            asked += (*self.ids(question), *self.ids(pieces.answer), *self.ids(answer), *self.ids(pieces.again))
        asked += (*self.ids(talk.turn.text), *self.ids(pieces.answer))
        tokens, learnt = list(asked), [False] * len(asked)
        for n, text in enumerate(talk.turn.said):
            if n:
                assert grid is not None
                picture = self.marks["image"] * (int(grid.prod()) // 4)
                result = (
                    *self.ids(f"\n{RESULT_OPEN}"),
                    *self.ids(f"<|vision_start|>{picture}<|vision_end|>"),
                    *self.ids(f"{RESULT_CLOSE}\n"),
                )
                tokens += result
                learnt += [False] * len(result)
            said = self.ids(text)
            tokens += said
            learnt += [True] * len(said)
        return [*tokens, end], [*learnt, True]

    def pack_modes(
        self,
        media: Media,
        talks: list[list[Talk]],
        pixels: Tensor | None,
        grid: Tensor | None,
        fps: float,
        shown: Mapping[tuple[int, Box], np.ndarray],
    ) -> PackedBatch:
        """Every conversation of every clip, in as few rows as the fullest clip needs. `shown` are the results of the
        tool calls, by the number of the clip and the box."""
        prefix_ids, positions, start = self.prefix(media, len(talks), grid, fps)
        made = {key: self.image_processor.image(picture) for key, picture in shown.items()}
        written: list[list[_Written]] = []
        for c, several in enumerate(talks):
            looks = [talk.turn.look for talk in several]
            grids_ = [None if look is None else torch.tensor([made[c, look][1]]) for look in looks]
            written.append([(talk, *self.written(talk, media, own)) for talk, own in zip(several, grids_, strict=True)])
        packings = [[_in_rows(several, length) for several in written] for length in ROW_LENGTHS]
        rows_of = min(packings, key=lambda packing: math.prod(_extent(packing)))
        rows, length = _extent(rows_of)
        shape_ = (len(talks), rows, length)
        row_ids = torch.zeros(shape_, dtype=torch.long)
        row_positions = torch.zeros((3, *shape_), dtype=torch.long)
        segments, labels, kind_of = (torch.full(shape_, value) for value in (-1, -100, -1))
        kinds: list[str] = []
        patches, grids = [], []
        for c, several_rows in enumerate(rows_of):
            for r, row in enumerate(several_rows):
                used = 0
                for s, (talk, tokens, learnt) in enumerate(row):
                    at = slice(used, used + len(tokens) - 1)
                    used += len(tokens) - 1
                    ids = torch.tensor(tokens)
                    row_ids[c, r, at] = ids[:-1]
                    look, own = talk.turn.look, None
                    if look is not None:
                        picture, cells = made[c, look]
                        patches.append(torch.from_numpy(picture))
                        grids.append(cells)
                        own = torch.tensor([cells])
                    places, _ = rope_index(ids[None], self.rule, image_grid_thw=own)
                    row_positions[:, c, r, at] = places[:, 0, :-1] + start
                    segments[c, r, at] = s
                    mask = torch.tensor(learnt[1:])
                    labels[c, r, at] = torch.where(mask, ids[1:], -100)
                    kind_of[c, r, at] = torch.where(mask, len(kinds), -1)
                    kinds.append(_logged(talk.turn))
        return PackedBatch(
            *(prefix_ids, positions, row_ids, row_positions, segments, labels, pixels, grid, kinds, kind_of),
            row_pixels=torch.cat(patches) if patches else None,
            row_grid=torch.tensor(grids) if grids else None,
        )


def _logged(turn: Turn) -> str:
    """How a turn is called in the log: few enough names to be read."""
    own = turn.kind in KINDS_OF_STEPS or turn.kind.startswith("tiny")
    return f"{turn.mode}: {turn.kind if own else 'one fact'}"


def look_closer(scene: Scene, look: Box, setting: Setting) -> np.ndarray:
    """What the tool shows of a box on the first frame: cut out of the file's own picture, and no larger than a frame
    of the clip may be (engine.reasoning.tools)."""
    width, height = setting.file
    full = render(scene, [0.0], height, width)[0]
    seen = (setting.size[1], setting.size[0])
    part = op.crop(full, op.scaled(look, seen, setting.file))
    return fitted(part, setting.sampling.max_frame_tokens * TOKEN_SIDE**2)


def _in_rows(written: Sequence[_Written], length: int) -> list[list[_Written]]:
    """Conversations in as few rows of `length` tokens as first-fit by falling length finds; one that is longer has a
    row of its own."""
    rows: list[list[_Written]] = []
    room: list[int] = []
    for one in sorted(written, key=lambda item: -len(item[1])):
        needed = len(one[1]) - 1
        at = next((r for r, left in enumerate(room) if left >= needed), None)
        if at is None:
            rows.append([])
            room.append(length)
            at = len(rows) - 1
        rows[at].append(one)
        room[at] -= needed
    return rows


def _extent(packing: list[list[list[_Written]]]) -> tuple[int, int]:
    """The most rows of a clip, and the most tokens of a row."""
    rows = max(len(several) for several in packing)
    return rows, max(sum(len(tokens) - 1 for _, tokens, _ in row) for several in packing for row in several)


def _any_simple(scene: Scene, rng: random.Random) -> Problem:
    """A question of one fact in English that the scene allows, each kind as often."""
    kinds = BESIDE_DETAILS if scene.details else SIMPLE_PICTURE if scene.still else SIMPLE_VIDEO
    for kind in rng.choices(kinds, k=60):
        problem = simple_problem(scene, rng, kind)
        if problem is not None:
            return problem
    problem = simple_problem(scene, rng, "background")
    assert problem is not None
    return problem


def _of_pair(setting: Setting, more: bool) -> Setting:
    """The setting with the frames of the first or of the second of two batches: twice as many, as far as the least and
    the most that a clip may have allow. One of the two is at the rate that is served."""
    low = 2.0 if setting.duration <= 2.5 else 1.0 if setting.duration <= 8 else 0.5
    return replace(setting, sampling=replace(setting.sampling, fps=2 * low if more else low))


def _detail_setting(rng: random.Random) -> Setting:
    """Short clips from large files, at the size of frame that is served, drawn at the file's size and scaled down."""
    file = rng.choice(DETAIL_FILES)
    setting = draw_setting(rng, False)
    tokens = 16
    sampling = replace(setting.sampling, max_frame_tokens=tokens, budget=16 * tokens)
    size = frame_size(file[1], file[0], sampling.min_frame_tokens, tokens, tokens)
    assert size is not None
    duration = rng.choice((2.0, 2.0, 3.0, 4.0))  # few frames: what is looked at costs as much as one more each
    return replace(setting, file=file, size=size, duration=duration, sampling=sampling, path="full")
