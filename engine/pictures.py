"""Picture files to pixels: the one place that opens them. What a file holds is not trusted."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from engine.errors import EngineError

MOST_PIXELS = 8192 * 8192  # as for a video's pictures
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

Transparent = Literal["dropped", "white"]
"""What becomes of transparency: its pixels keep the colour that lies under it, as the published image processor has it
and the utilities of 1.5; or they show white, as the published utilities of the Preview have it."""


def read_picture(source: Path | bytes, name: str, transparent: Transparent) -> np.ndarray:
    """uint8 RGB [height, width, 3] of a picture file, or of one in memory. `name` is what the user calls it.

    Raises EngineError where it is no picture, is damaged, or has more than MOST_PIXELS."""
    from engine.keye.image_processing import (
        to_rgb,
    )  # not above: the model's code takes seconds, and the store none of it

    too_many = f"{name} has too many pixels (the most is 8192×8192); scale it down."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at below
            data = source.read_bytes() if isinstance(source, Path) else source
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise EngineError(too_many)
                return np.ascontiguousarray(to_rgb(_on_white(image) if transparent == "white" else image))
    except EngineError:
        raise
    except Image.DecompressionBombError:
        raise EngineError(too_many) from None
    except OSError as error:  # Pillow's refusals are OSErrors as well
        reason = error.strerror or f"not a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}, or cut off"
        raise EngineError(f"{name} cannot be read as a picture ({reason}); give another file.") from None
    except (ValueError, SyntaxError, EOFError) as error:
        raise EngineError(f"{name} is damaged ({type(error).__name__}); give another picture.") from None


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
