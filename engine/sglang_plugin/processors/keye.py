"""Requests to what the model reads, with the project's own video path and processor: the same tokens, pixels and
positions as in the local runtime."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem, MultimodalProcessorOutput
from sglang.srt.multimodal.processors.base_processor import BaseMultimodalProcessor
from sglang.srt.runtime_context import get_model
from torch import Tensor

from engine.errors import EngineError
from engine.keye.positions import PositionRule, grid_rows, rope_index
from engine.keye.processing import IMAGE_TOKEN, VIDEO_TOKEN, encode
from engine.sglang_plugin.limits import POSITIONS
from engine.sglang_plugin.media import Spool, picture, video_file
from engine.sglang_plugin.models.keye import KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration
from engine.video import Frames, sample, sampling_for
from engine.video.address import read_clip_url

_PLACE = re.compile("|".join(map(re.escape, (IMAGE_TOKEN, VIDEO_TOKEN))))


class KeyeMultimodalProcessor(BaseMultimodalProcessor):
    models = [KeyeForConditionalGeneration, KeyeVL1_5ForConditionalGeneration]  # noqa: RUF012
    gpu_image_decode = False
    supports_mm_processor_concurrency = False  # a request is prepared in a thread of its own already

    def __init__(self, hf_config: Any, server_args: Any, _processor: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(hf_config, server_args, _processor, *args, **kwargs)
        self.sampling = sampling_for(get_model().model_path)
        self.rule = PositionRule(
            hf_config.image_token_id,
            hf_config.video_token_id,
            hf_config.vision.spatial_merge_size,
            hf_config.vision.tokens_per_second,
            _processor.per_frame,
        )
        self.spool = Spool()

    async def process_mm_data_async(
        self, image_data: Any, audio_data: Any, input_text: Any, request_obj: Any, *args: Any, **kwargs: Any
    ) -> MultimodalProcessorOutput:
        """The prompt's ids, one item per picture and clip, and the positions. ValueError (HTTP 400) with a sentence."""
        if audio_data:
            raise ValueError("Keye-VL hears nothing; leave the sound out.")
        if not isinstance(input_text, str):
            raise ValueError("Pictures and videos come with a text; send text instead of token ids.")
        gone = threading.Event()
        try:
            return await asyncio.to_thread(
                self._prepare, input_text, list(image_data or ()), list(request_obj.video_data or ()), gone.is_set
            )
        except EngineError as error:
            raise ValueError(str(error)) from error
        finally:
            gone.set()  # the reader went away: decoding stops

    def _prepare(
        self, text: str, images: list[Any], videos: list[Any], cancelled: Callable[[], bool]
    ) -> MultimodalProcessorOutput:
        queues = {IMAGE_TOKEN: images, VIDEO_TOKEN: videos}
        places = _PLACE.findall(text)
        for token, queue in queues.items():
            if places.count(token) != len(queue):
                raise EngineError(f"The text has {places.count(token)} {token} but {len(queue)} were given.")
        media: list[Frames | np.ndarray] = []
        for token in places:
            item = queues[token].pop(0)
            media.append(self._frames(item, cancelled) if token == VIDEO_TOKEN else picture(_url(item)))
        inputs = encode(self._processor, text, media)
        ids = inputs["input_ids"]
        positions, delta = rope_index(
            ids,
            self.rule,
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            second_per_grid_ts=inputs.get("second_per_grid_ts"),
        )
        if int(positions.max()) + self.hf_config.max_position_embeddings >= POSITIONS:
            raise EngineError("The clip is too long for Keye-VL's counting of time; choose a shorter part of it.")
        return MultimodalProcessorOutput(
            mm_items=list(_items(inputs, ids[0], self.rule)),
            input_ids=ids[0].tolist(),
            im_token_id=self.rule.image_token_id,
            video_token_id=self.rule.video_token_id,
            mrope_positions=positions[:, 0],
            mrope_position_delta=delta,
        )

    def _frames(self, item: Any, cancelled: Callable[[], bool]) -> Frames:
        beside = dict(getattr(item, "preprocess_kwargs", None) or {})
        limits = {name: beside.pop(name, None) for name in ("fps", "max_frames")}
        if beside or getattr(item, "max_long_side_pixel", None) is not None:
            raise EngineError(
                "A video takes fps and max_frames; write everything else into its address: video.mp4#t=2,9&budget=512."
            )
        where, clip, sampling = read_clip_url(_url(item), self.sampling, **limits)
        file = video_file(where, self.spool)
        return sample(replace(clip, path=Path(file)), sampling, cancelled=cancelled)


def _url(item: Any) -> str:
    url = item if isinstance(item, str) else getattr(item, "url", None)
    if not isinstance(url, str):
        raise EngineError("A picture or a video must be named by an address.")
    return url


def _items(inputs: Any, ids: Tensor, rule: PositionRule) -> Iterator[MultimodalDataItem]:
    """One item per picture and clip, with the share of the packed patches and the runs of placeholders that are its."""
    pictures = [[row] for row in grid_rows(inputs.get("image_grid_thw"))]
    yield from _of_kind(
        Modality.IMAGE, ids == rule.image_token_id, inputs.get("pixel_values"), pictures, "image_grid_thw", rule, None
    )
    clips: list[list[tuple[int, int, int]]] = [[row] for row in grid_rows(inputs.get("video_grid_thw"))]
    if inputs.get("num_frames") is not None:
        rows = [clip[0] for clip in clips]
        clips = []
        for frames in inputs["num_frames"].tolist():
            clips.append([])
            while sum(t for t, _, _ in clips[-1]) < frames:
                clips[-1].append(rows.pop(0))
    yield from _of_kind(
        Modality.VIDEO,
        ids == rule.video_token_id,
        inputs.get("pixel_values_videos"),
        clips,
        "video_grid_thw",
        rule,
        inputs.get("second_per_grid_ts"),
    )


def _of_kind(
    modality: Modality,
    mask: Tensor,
    pixels: Tensor | None,
    grids: list[list[tuple[int, int, int]]],
    name: str,
    rule: PositionRule,
    seconds: Tensor | None,
) -> Iterator[MultimodalDataItem]:
    places = mask.nonzero().flatten().tolist()
    row = place = 0
    for i, grid in enumerate(grids):
        assert pixels is not None
        patches = sum(t * h * w for t, h, w in grid)
        tokens = patches // rule.merge**2
        feature = pixels[row : row + patches]
        item = MultimodalDataItem(
            modality=modality,
            feature=feature,
            offsets=_runs(places[place : place + tokens]),
            model_specific_data={name: torch.tensor(grid)},
        )
        # Equal pixels are not yet equal items: what the decoder caches depends on the grid and on the time between
        # frames as well, so they are part of the identity.
        rate = None if seconds is None else float(seconds[i])
        digest = hashlib.sha256(repr((modality.name, grid, rate)).encode())
        digest.update(feature.contiguous().numpy().data)
        item.set_identity(digest.digest())
        yield item
        row, place = row + patches, place + tokens


def _runs(places: list[int]) -> list[tuple[int, int]]:
    """First and last index of every run of neighbouring places."""
    breaks = [i for i in range(1, len(places)) if places[i] != places[i - 1] + 1]
    starts, ends = [0, *breaks], [*breaks, len(places)]
    return [(places[a], places[b - 1]) for a, b in zip(starts, ends, strict=True)]
