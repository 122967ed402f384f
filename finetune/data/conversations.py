"""A row to what one model learns from it, by the very path that serves answers: the same sampling of clips, the same
prompt, the same processor, the same positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import EngineError
from engine.keye import KeyeProcessor
from engine.keye.positions import PositionRule, rope_index
from engine.keye.processing import encode
from engine.pictures import read_picture
from engine.prompt import render
from engine.reasoning.modes import mode_of, with_switch
from engine.runtime.base import Message, Part
from engine.video import Sampling, VideoInfo, plan, probe, sample
from engine.video.cache import FrameKeeper
from finetune.data.problems import BadRow
from finetune.data.rows import Footage, Medium, Row
from finetune.errors import FinetuneError
from finetune.training.losses import IGNORE


@dataclass
class Example:
    """One conversation as tensors. Media are in the order of their placeholders, pictures and clips apart."""

    input_ids: Tensor  # int64 [length]
    labels: Tensor  # int64 [length]: the token itself where it is learnt, else IGNORE
    position_ids: Tensor  # int64 [3, length]: time, row, column
    pixel_values: Tensor | None = None  # float32 [patches, 3, side, side]
    image_grid_thw: Tensor | None = None  # int64 [pictures, 3]
    pixel_values_videos: Tensor | None = None
    video_grid_thw: Tensor | None = None  # int64 [clips (1.5: runs of equal frames), 3]

    @property
    def learnt(self) -> int:
        """How many tokens are learnt; the first can never be, nothing stands before it."""
        return int((self.labels[1:] != IGNORE).sum())


@dataclass
class Prompt:
    """A conversation up to an answer that is to come, for any number of answers to it."""

    messages: list[Message]  # as a runtime takes it
    seen: Example  # nothing of it is learnt
    following: int  # the position of an answer's first token, on all three axes

    def answered(self, answer: Sequence[int]) -> Example:
        """With an answer's tokens, which are learnt. Its media are the very tensors of every other answer."""
        ids, before = torch.tensor(answer, dtype=torch.long), self.seen.input_ids
        positions = (torch.arange(len(ids)) + self.following).expand(3, -1)
        return replace(
            self.seen,
            input_ids=torch.cat((before, ids)),
            labels=torch.cat((torch.full_like(before, IGNORE), ids)),
            position_ids=torch.cat((self.seen.position_ids, positions), dim=1),
        )


class Conversations:
    """Rows as one checkpoint reads them.

    `sampling` is how the checkpoint wants its clips, `longest` the most tokens of a conversation; `frames` keeps
    decoded clips (None: nothing is kept). Threads may share it."""

    def __init__(
        self,
        processor: KeyeProcessor,
        rule: PositionRule,
        sampling: Sampling,
        longest: int,
        frames: FrameKeeper | None = None,
    ) -> None:
        self.processor, self.rule, self.sampling, self.longest, self.frames = processor, rule, sampling, longest, frames
        self._header, self._end_text, self._end = _turn_marks(processor)
        self._info = lru_cache(maxsize=256)(_probe)

    # -- looked at before training ------------------------------------------------------------------------------

    def length(self, row: Row) -> int:
        """The tokens of a row, without decoding clips (1.5: with it, for only then is it known which frames are
        fast); of a pair those of its two conversations, of a question without an answer. Raises BadRow where the row
        cannot be learnt from."""
        said = [turn.text for turn in row.turns if turn.role == "assistant"]
        for text in (*said, row.chosen, row.rejected):
            if self.processor.sanitize(text) != text:
                raise BadRow("has control tokens in an answer", text[:40])
        for medium in row.media:
            path = medium.clip.path if isinstance(medium, Footage) else medium
            if not path.is_file():
                raise BadRow("names a file that is missing", str(path)[-80:])
        if self.sampling.slow_fast and any(isinstance(medium, Footage) for medium in row.media):
            whole = self.example(row) if row.use == "example" else self.prompt(self.messages(row)).seen
            tokens = len(whole.input_ids)
        else:
            messages = self._messages(row, [np.zeros((28, 28, 3), np.uint8)] * len(row.media))
            text = render(messages, self.processor.apply_chat_template)[0]
            ids = self.processor.tokenizer(text + (self._end_text if row.use == "example" else ""))["input_ids"]
            if row.use == "example":
                self._labels(torch.tensor(ids), row)
            tokens = len(ids) + sum(self._tokens(medium) - 1 for medium in row.media)
        answers = [len(self.answer(text)) for text in (row.chosen, row.rejected) if text]
        longest = tokens + max(answers, default=0)
        if longest > self.longest:
            raise BadRow("is longer than fits", f"{longest:,} tokens, {self.longest:,} fit")
        return tokens * len(answers) + sum(answers) if answers else tokens

    def _tokens(self, medium: Medium) -> int:
        """Visual tokens of a picture or of a clip of the Preview."""
        images = self.processor.image_processor
        if isinstance(medium, Footage):
            try:
                stat = medium.clip.path.stat()
                info = self._info(medium.clip.path, stat.st_mtime_ns, stat.st_size)
                planned = plan(info, medium.clip, medium.sampling(self.sampling))
                height, width = images.size_for(planned.height, planned.width)
                return planned.frame_count * (height // images.factor) * (width // images.factor)
            except (EngineError, OSError) as error:
                raise BadRow("names a video that cannot be read", f"{error}") from None
        try:
            height, width = images.size_for(*read_picture(medium, medium.name, "dropped").shape[:2])
        except EngineError as error:
            raise BadRow("names a picture that cannot be read", f"{error}") from None
        return (height // images.factor) * (width // images.factor)

    # -- learnt from ------------------------------------------------------------------------------------------------

    def messages(self, row: Row) -> list[Message]:
        """The row as a runtime takes it, its clips sampled, its pictures read, its mode switched on; the last message
        of an example is the answer. Raises BadRow for media that cannot be read."""
        return self._messages(row, [self._load(medium) for medium in row.media])

    def _messages(self, row: Row, media: list[Any]) -> list[Message]:
        queue = iter(media)
        messages = [
            Message(turn.role, tuple(part if isinstance(part, str) else next(queue) for part in turn.parts))
            for turn in row.turns
        ]
        return with_switch(messages, mode_of(row.mode))

    def _load(self, medium: Medium) -> Part:
        if isinstance(medium, Footage):
            try:
                return sample(medium.clip, medium.sampling(self.sampling), cache=self.frames)
            except EngineError as error:
                raise BadRow("names a video that cannot be read", f"{error}") from None
        try:
            return read_picture(medium, medium.name, "dropped")
        except EngineError as error:
            raise BadRow("names a picture that cannot be read", f"{error}") from None

    def example(self, row: Row) -> Example:
        """The row as tensors. Raises BadRow for media that cannot be read, or where it is longer than fits."""
        found, _ = self._encoded(self.messages(row), self._end_text)
        return replace(found, labels=self._labels(found.input_ids, row))

    def prompt(self, messages: list[Message]) -> Prompt:
        """Messages that end with the user's, to be answered. Raises BadRow where they are longer than fits."""
        return Prompt(messages, *self._encoded(messages, ""))

    def answer(self, text: str) -> list[int]:
        """An answer as the tokens that a model writes, the end of its turn included. Prompt and answer are cut into
        tokens apart, because that is how they meet."""
        return [*self.processor.tokenizer(text)["input_ids"], self._end]

    def pair(self, row: Row) -> tuple[Example, Example]:
        """The chosen and the rejected conversation of a pair, of one prompt. Raises BadRow as `example` does."""
        prompt = self.prompt(self.messages(row))
        return prompt.answered(self.answer(row.chosen)), prompt.answered(self.answer(row.rejected))

    def _encoded(self, messages: list[Message], end: str) -> tuple[Example, int]:
        """Messages as tensors, and the position of what would follow."""
        text, media = render(messages, self.processor.apply_chat_template)
        try:
            inputs = encode(self.processor, text + end, media)
        except EngineError as error:
            raise BadRow("names a picture that cannot be read", f"{error}") from None
        ids = inputs["input_ids"]
        if ids.shape[1] > self.longest:
            raise BadRow("is longer than fits", f"{ids.shape[1]:,} tokens, {self.longest:,} fit")
        grids = {name: inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        positions, delta = rope_index(ids, self.rule, **grids, second_per_grid_ts=inputs.get("second_per_grid_ts"))
        found = Example(
            ids[0],
            torch.full_like(ids[0], IGNORE),
            positions[:, 0],
            inputs.get("pixel_values"),
            grids["image_grid_thw"],
            inputs.get("pixel_values_videos"),
            grids["video_grid_thw"],
        )
        return found, ids.shape[1] + int(delta)

    def _labels(self, ids: Tensor, row: Row) -> Tensor:
        """`ids` where the assistant speaks, the end of its turn included, and IGNORE elsewhere; with a mode's switch,
        or where the row says so, only the last turn. Nothing that was typed can look like the marks between turns, so
        these tell where."""
        labels = torch.full_like(ids, IGNORE)
        header = torch.tensor(self._header)
        opens = [
            int(at) + len(header)
            for at in (ids == header[0]).nonzero().flatten()
            if torch.equal(ids[at : at + len(header)], header)
        ]
        if len(opens) != row.answers:
            raise BadRow("has its roles out of order", f"{len(opens)} of {row.answers} answers found in its tokens")
        ends = (ids == self._end).nonzero().flatten()
        for begin in opens[-1:] if row.switched or row.last_only else opens:
            stop = int(ends[ends >= begin][0]) + 1
            labels[begin:stop] = ids[begin:stop]
        return labels


def _probe(path: Path, changed: int, size: int) -> VideoInfo:
    return probe(path)  # time of change and size are there to be remembered by


def _turn_marks(processor: KeyeProcessor) -> tuple[list[int], str, int]:
    """What opens the assistant's turn, as tokens, and what closes it, as text and as a token; by rendering a
    conversation and cutting it."""
    mark = "[answer]"
    user = {"role": "user", "content": "[question]"}
    before = processor.apply_chat_template([user])
    header = processor.apply_chat_template([user], add_generation_prompt=True)[len(before) :]
    closed = processor.apply_chat_template([user, {"role": "assistant", "content": mark}])
    ids = processor.tokenizer(closed.rpartition(mark)[2])["input_ids"]
    if not header or not ids:
        raise FinetuneError("The model's chat template does not mark the assistant's turns; use the published one.")
    end = int(ids[0])
    return list(processor.tokenizer(header)["input_ids"]), str(processor.tokenizer.convert_ids_to_tokens(end)), end
