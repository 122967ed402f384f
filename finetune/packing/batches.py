"""From scenes and questions to packed training batches, in the words of the served chat template."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from engine.keye import KeyeProcessor
from engine.keye.positions import PositionRule, rope_index
from finetune.packing.footage import draw_setting, shoot, to_patches
from finetune.packing.labels import batch_labels, token_labels
from finetune.packing.packed import PackedBatch
from finetune.world.clips import sampled_times
from finetune.world.questions import Question, draw, small_talk
from finetune.world.scene import Scene
from finetune.world.speech import Language

Media = Literal["video", "image", "none"]
ROW = 64
"""Tokens of a row of packed conversations; longer conversations are left out."""

ROWS: dict[Media, int] = {"video": 5, "image": 3, "none": 2}
FOLLOW_UPS = 0.2
"""Share of conversations that go on after the first answer."""

PICTURES = 0.3
"""Share of the batches among the videos that are pictures, which bind colour to shape and place at a third of the
cost."""

SMALL_TALK = 0.05
CHINESE = 0.2
"""Share of the questions, and of the small talk, that are asked and answered in Chinese."""

TALK = 0.015
"""Share of the batches without a clip."""

MOST_TEXTS = 200_000
"""Texts whose tokens are kept."""


@dataclass(frozen=True)
class Diet:
    """What batches are made of."""

    still: bool  # pictures only
    things: int  # the most that a scene holds
    seconds: float = 8.0  # of the longest clip
    mixture: dict[str, float] = field(default_factory=dict)  # how much more often a kind of question is asked
    chinese: float = CHINESE
    plain: bool = False  # things without a pattern, before a camera that stands still


@dataclass(frozen=True)
class Pieces:
    """What the chat template writes around the words of a conversation."""

    opening: str  # all before the first question: system turn, user turn, placeholder
    answer: str  # between a question and its answer
    again: str  # between an answer and the next question: ends with the next user turn's start


def chat_pieces(processor: KeyeProcessor, media: Media) -> Pieces:
    """The pieces, by rendering a conversation of marks and cutting it at them."""
    marks = ["[first]", "[second]", "[third]"]
    content = [] if media == "none" else [{"type": media}]
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": [*content, {"type": "text", "text": marks[0]}]},
        {"role": "assistant", "content": marks[1]},
        {"role": "user", "content": [{"type": "text", "text": marks[2]}]},
    ]
    text = processor.apply_chat_template(chat)
    opening, rest = text.split(marks[0])
    answer, rest = rest.split(marks[1])
    again, _ = rest.split(marks[2])
    return Pieces(opening, answer, again)


def _language(rng: random.Random, chinese: float) -> Language:
    return "zh" if rng.random() < chinese else "en"


class Batches:
    """An endless source of packed batches; the same seed and number always make the same batch, in any process."""

    def __init__(self, rule: PositionRule, processor: KeyeProcessor, seed: str = "0") -> None:
        self.rule, self.tokenizer, self.seed = rule, processor.tokenizer, seed
        self.marks = {"video": processor.video_token, "image": processor.image_token}
        self.pieces = {media: chat_pieces(processor, media) for media in ROWS}
        self._ids: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, which the world says again and again."""
        known = self._ids.get(text)
        if known is None:
            if len(self._ids) >= MOST_TEXTS:
                self._ids.clear()
            known = self._ids[text] = tuple(self.tokenizer(text)["input_ids"])
        return known

    def make(self, number: int, diet: Diet, rank: int = 0) -> PackedBatch:
        """Batch `number` of what a `diet` asks for. A few batches have no clip at all, and videos are joined by
        pictures.

        `rank` tells apart the batches that several processes take at one step; they are of one size, so that none
        waits for another."""
        common = random.Random(f"{self.seed}-{number}")
        own = random.Random(f"{self.seed}-{number}-{rank}")
        if common.random() < TALK:
            return self._talk(own, diet)
        still = diet.still or common.random() < PICTURES
        setting = draw_setting(common, still, diet.seconds)
        per_frame = setting.size[0] * setting.size[1] // 784
        frames = 1 if still else max(4, min(16, setting.duration * setting.sampling.fps))
        clips = 20 if still else max(5, min(16, round(3400 / (frames * per_frame + 200))))
        first = own.getrandbits(44)
        scenes, images, fps = shoot(setting, range(first, first + clips), diet.things, diet.plain)
        media: Media = "image" if still else "video"
        pixels, grid = to_patches(images)
        conversations = [self._conversations(scene, own, media, diet) for scene in scenes]
        batch = self.pack(media, conversations, pixels, grid, fps)
        times = np.zeros(1) if still else sampled_times(setting.duration, setting.video_fps, setting.sampling)[0]
        batch.truth = batch_labels([token_labels(scene, times, setting.size) for scene in scenes])
        return batch

    def _talk(self, rng: random.Random, diet: Diet) -> PackedBatch:
        kinds = ("greeting", "who", "thanks", "foreign", "no_clip")
        conversations = [
            [[small_talk(rng, rng.choice(kinds), False, _language(rng, diet.chinese))] for _ in range(30)]
            for _ in range(8)
        ]
        return self.pack("none", conversations, None, None, 0.0)

    def _conversations(self, scene: Scene, rng: random.Random, media: Media, diet: Diet) -> list[list[Question]]:
        """More conversations about one clip than its rows hold."""
        questions = draw(scene, rng, ROWS[media] * 7, diet.chinese, diet.mixture)
        for i in range(len(questions)):
            if rng.random() < SMALL_TALK:
                kind = rng.choice(("greeting", "who", "thanks", "foreign", "foreign", "foreign"))
                questions[i] = small_talk(rng, kind, language=_language(rng, diet.chinese))
        out: list[list[Question]] = []
        while questions:
            turns = 1 if rng.random() > FOLLOW_UPS else rng.choice((2, 2, 3))
            out.append(questions[:turns])
            questions = questions[turns:]
        return out

    def pack(
        self,
        media: Media,
        conversations: list[list[list[Question]]],
        pixels: torch.Tensor | None,
        grid: torch.Tensor | None,
        fps: float,
    ) -> PackedBatch:
        """Pack as many conversations of each clip as fit into its rows. `conversations[clip][i]` is a list of turns;
        `grid` int64 [clips, 3] has one row per clip, all equal; `fps` is the rate the model is told of."""
        clips, rows = len(conversations), ROWS[media]
        prefix_ids, positions, start = self.prefix(media, clips, grid, fps)
        shape = (clips, rows, ROW)
        row_ids = torch.zeros(shape, dtype=torch.long)
        row_positions = torch.zeros(shape, dtype=torch.long)
        segments = torch.full(shape, -1)
        labels = torch.full(shape, -100)
        kind_of = torch.full(shape, -1)
        kinds: list[str] = []
        for c, several in enumerate(conversations):
            used = [0] * rows
            for s, turns in enumerate(several):
                tokens, targets = self.tokens(turns, self.pieces[media])
                length = len(tokens) - 1  # the last token is only ever a target
                row = next((r for r in range(rows) if used[r] + length <= ROW), None)
                if row is None:
                    continue
                at = slice(used[row], used[row] + length)
                used[row] += length
                row_ids[c, row, at] = torch.tensor(tokens[:-1])
                row_positions[c, row, at] = torch.arange(start, start + length)
                segments[c, row, at] = s
                goals = torch.tensor(targets[1:])
                labels[c, row, at] = torch.where(goals >= 0, torch.tensor(tokens[1:]), -100)
                kind_of[c, row, at] = torch.where(goals >= 0, goals + len(kinds), -1)
                kinds += [turn.kind for turn in turns]
        return PackedBatch(
            prefix_ids, positions, row_ids, row_positions, segments, labels, pixels, grid, kinds, kind_of
        )

    def prefix(
        self, media: Media, clips: int, grid: torch.Tensor | None, fps: float
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Ids int64 [clips, length], positions int64 [3, clips, length], and the position of what follows."""
        text = self.pieces[media].opening
        kwargs = {}
        if grid is not None:
            token = self.marks[media]
            text = text.replace(token, token * (int(grid[0].prod()) // 4))
            kwargs[f"{media}_grid_thw"] = grid[:1]
            if media == "video":
                kwargs["second_per_grid_ts"] = torch.tensor([1 / fps])
        ids = torch.tensor([self.ids(text)])
        positions, delta = rope_index(ids, self.rule, **kwargs)
        start = ids.shape[1] + int(delta)
        return ids.expand(clips, -1), positions.expand(3, clips, -1), start

    def tokens(self, turns: list[Question], pieces: Pieces) -> tuple[list[int], list[int]]:
        """A conversation after its opening, and for each token the turn whose answer it belongs to, -1 elsewhere.

        An answer's tokens are those of its text and the <|im_end|> after it. Prompt and answer are tokenised apart,
        because that is how they meet when the model answers."""
        end = self.ids("<|im_end|>")[0]
        tokens: list[int] = []
        targets: list[int] = []
        for i, turn in enumerate(turns):
            asked = self.ids(turn.text) + self.ids(pieces.answer)
            if i:
                asked = self.ids(pieces.again)[1:] + asked  # its <|im_end|> is there already
            said = (*self.ids(turn.answer), end)
            tokens += asked + said
            targets += [-1] * len(asked) + [i] * len(said)
        return tokens, targets
