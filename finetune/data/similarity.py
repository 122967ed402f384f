"""Whether a picture and a text belong together, by the cosine of their features (section 3.1 of the report).

The report keeps pairs of a high CLIP score and gives > 0.9 as its example; that is a score of its CLIP, on a scale that
it does not state. Cosines of SigLIP towers are far lower, so there is no threshold that would do here without looking:
the step's notes tell how the scores of your data lie."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine.errors import EngineError
from finetune.data.frames import looks
from finetune.data.items import Item, Region
from finetune.data.report import Report
from finetune.errors import FinetuneError

FRAMES = 4
"""Frames of a video that are compared with its text; their mean counts."""

_BATCH = 16  # pairs encoded at once


class Encoder(Protocol):
    """Two towers whose features can be compared."""

    def image_features(self, pictures: list[np.ndarray]) -> torch.Tensor:
        """Pictures, uint8 RGB [height, width, 3] of any size each, as rows of length 1: float32 [n, d]."""
        ...

    def text_features(self, texts: list[str]) -> torch.Tensor:
        """Texts as rows of length 1: float32 [n, d]. What is too long for the tower is cut."""
        ...


def open_encoder(folder: Path) -> Encoder:
    """The encoder in a local folder: a SigLIP of transformers, or a finished stage 0. Nothing is downloaded, no code of
    the folder is run and only safetensors are read. Raises FinetuneError where it is neither."""
    if (folder / "model" / "config.json").is_file():
        from finetune.stages.vision import load_encoder

        return load_encoder(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FinetuneError(
            f"{folder} has no config.json that can be read; give the folder of a SigLIP or of a finished stage 0."
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "siglip":
        raise FinetuneError(f"{folder} holds {kind!r:.40}, no SigLIP; give a folder whose model_type is siglip.")
    return SiglipEncoder(folder)


class SiglipEncoder:
    """A published SigLIP, as transformers runs it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

        local: dict[str, Any] = {"local_files_only": True}
        try:
            self._model = SiglipModel.from_pretrained(folder, use_safetensors=True, **local).eval()
            self._pictures = SiglipImageProcessorPil.from_pretrained(folder, **local)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **local)
        except Exception as error:  # the library raises many kinds for folders that are incomplete or damaged
            reason = " ".join(str(error).split())[:200]
            raise FinetuneError(
                f"The encoder in {folder} cannot be loaded ({reason}); it needs config.json, model.safetensors, "
                "preprocessor_config.json and tokenizer.json."
            ) from error
        self._length = int(self._model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def image_features(self, pictures: list[np.ndarray]) -> torch.Tensor:
        pixels = self._pictures(images=[_wide(picture) for picture in pictures], return_tensors="pt")["pixel_values"]
        return _unit(self._model.get_image_features(pixel_values=pixels))

    @torch.inference_mode()
    def text_features(self, texts: list[str]) -> torch.Tensor:
        # Filled up to the full length and without a mask: the text tower was trained so.
        inputs = self._tokenizer(
            texts, padding="max_length", max_length=self._length, truncation=True, return_tensors="pt"
        )
        return _unit(self._model.get_text_features(input_ids=inputs["input_ids"]))


def _wide(image: np.ndarray) -> np.ndarray:
    """Pictures of one or three rows are mistaken for channels first; those are doubled."""
    return np.repeat(np.repeat(image, 4, 0), 4, 1) if min(image.shape[:2]) < 4 else image


def _unit(features: Any) -> torch.Tensor:
    pooled = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(pooled.float(), dim=-1)


# -- filters --------------------------------------------------------------------------------------------------------


def similarity(items: Sequence[Item], folder: Path, encoder: Encoder, threshold: float) -> tuple[list[Item], Report]:
    """Takes the text from items whose medium is not more similar to it than `threshold` (a cosine, -1..1); the medium
    stays, to be captioned anew. Of a video the mean of FRAMES frames counts. Items without a caption, and documents,
    pass."""
    if not -1 <= threshold <= 1:
        raise FinetuneError(f"The similarity threshold is {threshold:g}; it is a cosine: give one from -1 to 1.")
    report = Report("similarity", "captions")
    pairs: list[tuple[Item, list[np.ndarray]]] = []
    scores: dict[str, float] = {}
    gone: set[str] = set()

    def score() -> None:
        if pairs:
            scores.update(zip((item.id for item, _ in pairs), _cosines(encoder, pairs), strict=True))
            pairs.clear()

    for item in items:
        if len(item.media) != 1 or not item.text or item.parts:
            continue
        report.came += 1
        try:
            pairs.append((item, looks(folder, item.media[0], FRAMES, longest=1024)))
        except (EngineError, FinetuneError) as error:
            gone.add(item.id)
            report.drop(item.id, "a medium cannot be read", str(error))
        if len(pairs) >= _BATCH:
            score()
    score()
    kept = []
    for item in items:
        if item.id in gone:
            continue
        if scores.get(item.id, 2.0) <= threshold:
            report.drop(item.id, "the text does not fit the medium", f"{scores[item.id]:.3f}, {item.text[:80]}")
            item = dataclasses.replace(item, text="")
        kept.append(item)
    report.made = report.came - report.left_out
    report.note(spread_of(list(scores.values())))
    return kept, report


def _cosines(encoder: Encoder, pairs: Sequence[tuple[Item, list[np.ndarray]]]) -> list[float]:
    pictures = encoder.image_features([picture for _, several in pairs for picture in several])
    texts = encoder.text_features([item.text for item, _ in pairs])
    out, at = [], 0
    for (_, several), words in zip(pairs, texts, strict=True):
        out.append(float((pictures[at : at + len(several)] @ words).mean()))
        at += len(several)
    return out


def spread_of(scores: Sequence[float]) -> str:
    """How scores lie, one sentence."""
    if not scores:
        return "There was nothing to score."
    tenths = np.quantile(scores, [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    return (
        "Cosines: lowest {:.3f}, a tenth below {:.3f}, a quarter below {:.3f}, half below {:.3f}, three quarters below "
        "{:.3f}, nine tenths below {:.3f}, highest {:.3f}.".format(*tenths)
    )


def crops(
    items: Sequence[Item],
    folder: Path,
    encoder: Encoder,
    *,
    threshold: float | None = None,
    share: float = 0.5,
) -> tuple[list[Item], Report]:
    """Takes noisy regions from pictures, as published: the region is cut out and compared with its name, and the more
    similar ones are kept: above `threshold` where one is given, else the best `share` of all. Points enclose nothing
    and pass."""
    if threshold is None and not 0 < share <= 1:
        raise FinetuneError(f"The share of regions to keep is {share:g}; give one above 0 and up to 1.")
    report = Report("crops", "regions")
    scores: dict[tuple[str, int], float] = {}
    for item in items:
        numbered = [(at, region) for at, region in enumerate(item.regions) if region.shape != "point"]
        if not item.is_image or not numbered:
            continue
        try:
            (picture,) = looks(folder, item.media[0], 1)
        except (EngineError, FinetuneError) as error:
            report.came += len(numbered)
            for at, _ in numbered:
                scores[item.id, at] = -2.0
                report.drop(item.id, "a medium cannot be read", str(error))
            continue
        for first in range(0, len(numbered), _BATCH):
            some = numbered[first : first + _BATCH]
            report.came += len(some)
            seen = encoder.image_features([crop(picture, region) for _, region in some])
            said = encoder.text_features([region.name for _, region in some])
            for (at, _), value in zip(some, (seen * said).sum(1).tolist(), strict=True):
                scores[item.id, at] = value
    readable = sorted(value for value in scores.values() if value > -2)
    # The best share, ties included: as many are below the limit as are to go.
    limit = threshold if threshold is not None else readable[int(len(readable) * (1 - share))] if readable else 0.0
    kept = []
    for item in items:
        regions = []
        for at, region in enumerate(item.regions):
            value = scores.get((item.id, at), 2.0)
            if value > limit or (threshold is None and value >= limit):
                regions.append(region)
            elif value > -2:
                report.drop(item.id, "the region does not fit its name", f"{value:.3f}, {region.name[:80]}")
        kept.append(dataclasses.replace(item, regions=tuple(regions)) if item.regions else item)
    report.made = report.came - report.left_out
    report.note(spread_of(readable))
    return kept, report


def crop(picture: np.ndarray, region: Region) -> np.ndarray:
    """The smallest upright box of a picture around a region, at least one pixel each way."""
    height, width = picture.shape[:2]
    across, down = [x for x, _ in region.points], [y for _, y in region.points]
    left, top = min(int(min(across) * width), width - 1), min(int(min(down) * height), height - 1)
    right = max(left + 1, round(max(across) * width))
    bottom = max(top + 1, round(max(down) * height))
    return np.ascontiguousarray(picture[top:bottom, left:right])
