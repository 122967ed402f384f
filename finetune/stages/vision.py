"""Stage 0 (report, section 3.2): the tower learns to see, against texts, by SigLIP's sigmoid loss.

Pictures and clips keep their resolution: the position table is interpolated, rows and columns rotate, and all of a
batch go through the tower packed. Text tower and attention-pooling head are SigLIP's, learnt beside and not part of
the model; as in the report they are needed for this stage only. A small tower sees too few texts to learn from them
alone, so that each patch may also be asked what lies under it (`dense`)."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import SiglipTextConfig, SiglipTextModel, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from engine.errors import EngineError
from engine.keye import KeyeForConditionalGeneration, KeyeImageProcessor, KeyeProcessor
from engine.keye.loading import load_model
from engine.keye.positions import grid_rows
from engine.video import Sampling, sampling_for
from finetune.data.conversations import Example
from finetune.data.problems import BadRow
from finetune.data.rows import Footage, Row
from finetune.errors import FinetuneError
from finetune.packing.probes import Probes, probe_batch, tower_probes
from finetune.recipe import Part
from finetune.stages.reading import BESIDE, WORLD, Start, groups, load_beside, saver
from finetune.stages.sft import Talks, check, load, talks, write_facts
from finetune.training.ahead import ahead
from finetune.training.losses import siglip_loss
from finetune.training.trainer import Objective, Result, Scores, Work

__all__ = ["Encoder", "check", "load", "load_encoder", "work"]

TEXT_TOKENS = 48
"""Longer texts are cut, as SigLIP does at 64."""


@dataclass
class PairBatch:
    """Pictures or clips with the texts that belong to them."""

    pixels: Tensor  # float32 [patches, 3, 14, 14], packed
    grid: Tensor  # int64 [items, 3]
    texts: Tensor  # int64 [items, tokens], padded on the right
    labels: dict[str, Tensor]  # of every patch: finetune.packing.labels.patch_labels; empty where nothing is known


class Beside(nn.Module):
    """What the contrastive loss needs and the model does not keep."""

    def __init__(self, width: int, heads: int, vocabulary: int, probes: Probes | None) -> None:
        super().__init__()
        shape: dict[str, Any] = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
        kernel: dict[str, Any] = {"attn_implementation": "sdpa"}
        self.pool = SiglipMultiheadAttentionPoolingHead(SiglipVisionConfig(**shape))
        self.text = SiglipTextModel(
            SiglipTextConfig(
                **shape,
                **kernel,
                num_hidden_layers=2,
                vocab_size=vocabulary,
                max_position_embeddings=TEXT_TOKENS,
                projection_size=width,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )
        # SigLIP's own beginning: ten times the cosine, and most pairs do not belong together.
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))
        self.probes = probes

    def images(self, features: Tensor, grid: Tensor) -> Tensor:
        """Patch features [patches, width] to unit vectors [items, width]."""
        pieces = features.split([t * h * w for t, h, w in grid_rows(grid)])
        if len({len(piece) for piece in pieces}) == 1:
            pooled = self.pool(torch.stack(pieces))
        else:
            pooled = torch.cat([self.pool(piece.unsqueeze(0)) for piece in pieces])
        return F.normalize(pooled.float(), dim=-1)

    def sentences(self, ids: Tensor) -> Tensor:
        """Token ids [items, tokens] to unit vectors [items, width]. Padding is read, as SigLIP's is."""
        return F.normalize(self.text(ids).pooler_output.float(), dim=-1)


class Contrast(Objective):
    """Sigmoid contrastive loss of a batch's pictures and texts, and what each patch is asked."""

    def __init__(self, tower: nn.Module, beside: Beside, contrastive: float, dense: float) -> None:
        super().__init__()
        self.tower, self.beside, self.contrastive, self.dense = tower, beside, contrastive, dense

    def forward(self, batch: PairBatch) -> Result:
        device = self.beside.bias.device
        sentences = batch.texts.to(device)
        features = self.tower(batch.pixels.to(device), batch.grid)
        images, texts = self.beside.images(features, batch.grid), self.beside.sentences(sentences)
        value = siglip_loss(images, texts, self.beside.scale.exp(), self.beside.bias)
        found = (images.detach() @ texts.detach().T).argmax(1)
        same = (sentences[found] == sentences).all(1)  # two scenes may be told in the same words
        scores: Scores = {"picture to text": (int(same.sum()), len(same))}
        beside = value.new_zeros(())
        if self.beside.probes is not None:
            labels = {name: truth.to(device) for name, truth in batch.labels.items()}
            dense, right = self.beside.probes(features, labels)
            beside = self.dense * dense
            scores |= {f"patch {name}": score for name, score in right.items()}
        return Result(self.contrastive * len(batch.grid) * value, beside, scores)


class WorldPairs:
    """Scenes of the world and their descriptions, without end."""

    steps = 0

    def __init__(self, start: Start) -> None:
        self._seed, self._rank, self._tokenizer = start.seed, start.rank, start.processor.tokenizer

    def make(self, number: int) -> PairBatch:
        rng = random.Random(f"{self._seed}-{number}-{self._rank}")
        pixels, grid, labels, texts = probe_batch(rng)
        return PairBatch(pixels, grid, text_ids(self._tokenizer, texts), labels)

    def learnt(self, batch: PairBatch) -> int:
        return len(batch.grid)

    def size(self, batch: PairBatch) -> tuple[int, int]:
        return len(batch.grid), batch.pixels.shape[0] // 4


class FilePairs(Talks):
    """Rows of files that show one picture or one clip, with what the assistant says of it."""

    def _make(self, chosen: list[int]) -> PairBatch:
        # A process without a row takes the step with the others all the same.
        found = list(self._read(chosen or [0], self.conversations.example))
        if not found:
            raise FinetuneError("What stage 0 learns from cannot be read any more; bring the files back.")
        pixels, grids = zip(*(_shown(example) for _, example in found), strict=True)
        texts = [
            " ".join(turn.text for turn in row.turns if turn.role == "assistant")
            for row in (self.rows[i] for i, _ in found)
        ]
        return PairBatch(
            torch.cat(pixels), torch.cat(grids), text_ids(self.conversations.processor.tokenizer, texts), {}
        )

    def learnt(self, batch: PairBatch) -> int:
        return len(batch.grid)

    def size(self, batch: PairBatch) -> tuple[int, int]:
        return len(batch.grid), batch.pixels.shape[0] // 4


def _shown(example: Example) -> tuple[Tensor, Tensor]:
    """The patches and the grid of an example's one picture or clip."""
    pixels, grid = example.pixel_values, example.image_grid_thw
    if pixels is None:
        pixels, grid = example.pixel_values_videos, example.video_grid_thw
    assert pixels is not None and grid is not None  # rows that show nothing do not fit
    return pixels, grid


def _fits(sampling: Sampling) -> Callable[[Row], None]:
    def check(row: Row) -> None:
        if len(row.media) != 1:
            raise BadRow("does not show one picture or clip", f"{len(row.media)} of them")
        if sampling.slow_fast and isinstance(row.media[0], Footage):
            raise BadRow("is a clip, and frames of two sizes are no one picture", "give pictures")

    return check


def text_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """int64 [texts, TEXT_TOKENS], cut or padded on the right."""
    pad = tokenizer.pad_token_id
    rows = [tokenizer(text)["input_ids"][:TEXT_TOKENS] for text in texts]
    return torch.tensor([row + [pad] * (TEXT_TOKENS - len(row)) for row in rows])


def work(start: Start, part: Part) -> Work:
    """The tower against a text tower. FinetuneError where the part trains anything else."""
    if part.train != ("tower",):
        raise FinetuneError('Stage 0 trains the tower alone; leave train out or give train = ["tower"].')
    torch.manual_seed(zlib.crc32(start.seed.encode()))  # a part that is gone on with begins with the same weights
    beside = _beside(start.model, tower_probes(start.model) if part.dense else None)
    load_beside(beside, start.beside)
    objective = Contrast(start.model.visual, beside, part.contrastive, part.dense)
    moved, save = groups(start, part, {"beside": beside}), saver(start, beside)
    if part.data == WORLD:
        return Work(objective, ahead(WorldPairs(start), start.processes), moved, save)
    if part.dense:
        raise FinetuneError("What lies under a patch is known of the world alone; give dense = 0 with files.")
    source, problems = talks(start, part, FilePairs, _fits(sampling_for(start.folder)))

    def save_all(folder: Path) -> None:
        save(folder)
        write_facts(folder, part, len(source.rows), problems, source.lost)

    return Work(objective, source, moved, save_all)


def _beside(model: Any, probes: Probes | None) -> Beside:
    vision = model.config.vision
    return Beside(vision.hidden_size, vision.num_attention_heads, model.config.vocab_size, probes)


class Encoder:
    """What stage 0 has learnt: pictures and texts as vectors of one space, of unit length."""

    def __init__(self, folder: Path) -> None:
        """From the folder of the stage, which holds the model and what was trained beside it. FinetuneError where
        that is missing or does not fit."""
        try:
            self._model = cast(KeyeForConditionalGeneration, load_model(folder / "model", torch.float32))
            state = load_file(folder / BESIDE)
            self._beside = _beside(self._model, None)
            self._beside.load_state_dict({k: v for k, v in state.items() if not k.startswith("probes.")})
            self._tokenizer = KeyeProcessor.from_pretrained(folder / "model").tokenizer
            self._pictures = KeyeImageProcessor.from_pretrained(folder / "model")
        except (EngineError, OSError, RuntimeError, ValueError) as error:
            raise FinetuneError(f"{folder} is not the folder of a finished stage 0 ({error}).") from error
        self._beside.eval()

    @torch.no_grad()
    def image_features(self, pictures: list[np.ndarray]) -> Tensor:
        """uint8 RGB pictures [height, width, 3] of any sizes to float32 [n, width]."""
        made = self._pictures(images=list(pictures), return_tensors="pt")
        grid = made["image_grid_thw"]
        return self._beside.images(self._model.visual(made["pixel_values"], grid), grid)

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Tensor:
        """float32 [n, width]."""
        return self._beside.sentences(text_ids(self._tokenizer, texts))


def load_encoder(folder: Path) -> Encoder:
    return Encoder(folder)
