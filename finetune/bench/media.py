"""The pictures and clips of an item, as the model gets them and as a report shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

from PIL import Image

from engine.errors import EngineError
from engine.pictures import read_picture
from engine.runtime.base import Part
from engine.video import Clip, Frames, Sampling, sample
from engine.video.cache import FrameCache
from finetune.bench.base import Medium

_THUMB = (320, 200)  # pixels, most
_THUMBS = 4  # pictures shown of one item


def load(media: tuple[Medium, ...], sampling: Sampling, cache: FrameCache, cancelled: Callable[[], bool]) -> list[Part]:
    """Each medium as a part of a message; what is transparent in a picture shows white, as the harness has it. Raises
    EngineError for what cannot be read."""
    return [
        sample(medium, sampling, cache=cache, cancelled=cancelled)
        if isinstance(medium, Clip)
        else read_picture(medium, medium.name, "white")
        for medium in media
    ]


def frame_count(parts: list[Part]) -> int | None:
    """Frames of the videos among these parts; None where there is no video."""
    counts = [len(part.images) for part in parts if isinstance(part, Frames)]
    return sum(counts) if counts else None


def thumbnails(media: tuple[Medium, ...], sampling: Sampling) -> list[str]:
    """Small pictures of an item as data URLs: its first pictures, or frames spread over its video. Media that cannot
    be read are left out."""
    out: list[str] = []
    for medium in media:
        if len(out) >= _THUMBS:
            break
        try:
            if isinstance(medium, Clip):
                frames = sample(medium, sampling.with_limits(max_frames=_THUMBS), cache=None)
                pictures = [Image.fromarray(image) for image in frames.images]
            else:
                pictures = [Image.fromarray(read_picture(medium, medium.name, "white"))]
        except EngineError:
            continue
        out += [_data_url(picture) for picture in pictures]
    return out[:_THUMBS]


def _data_url(picture: Image.Image) -> str:
    picture.thumbnail(_THUMB)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
