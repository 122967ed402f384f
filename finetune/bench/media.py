"""The pictures and clips of an item, as the model gets them and as a report shows them."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from engine.errors import EngineError
from engine.runtime.base import Part
from engine.video import Clip, Frames, Sampling, sample
from engine.video.cache import FrameCache
from finetune.bench.base import Medium
from finetune.errors import FinetuneError

_THUMB = (320, 200)  # pixels, most
_THUMBS = 4  # pictures shown of one item
_LARGEST = 100_000_000  # pixels of one picture


def load(media: tuple[Medium, ...], sampling: Sampling, cache: FrameCache, cancelled: Callable[[], bool]) -> list[Part]:
    """Each medium as a part of a message. Raises FinetuneError for a picture and EngineError for a video that cannot
    be read."""
    return [
        sample(medium, sampling, cache=cache, cancelled=cancelled)
        if isinstance(medium, Clip)
        else np.asarray(read_picture(medium))
        for medium in media
    ]


def read_picture(path: Path) -> Image.Image:
    """A picture as RGB; what is transparent shows white, as the published utilities do (KEYE.md §7.2)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > _LARGEST:
                    raise FinetuneError(f"{path.name} has more than {_LARGEST:,} pixels; scale it down.")
                if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                    seen = picture.convert("RGBA")
                    white = Image.new("RGBA", seen.size, "white")
                    return Image.alpha_composite(white, seen).convert("RGB")
                return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EOFError) as error:
        raise FinetuneError(
            f"{path.name} cannot be read as a picture ({type(error).__name__}); download it again."
        ) from error


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
                pictures = [read_picture(medium)]
        except (EngineError, FinetuneError):
            continue
        out += [_data_url(picture) for picture in pictures]
    return out[:_THUMBS]


def _data_url(picture: Image.Image) -> str:
    picture.thumbnail(_THUMB)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
