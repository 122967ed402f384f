"""Picture files to pixels: what becomes of transparency, and what is no picture."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import EngineError
from engine.pictures import Transparent, read_picture

RED, GREEN = (200, 0, 0), (0, 100, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def two_pixels(first: int, second: int) -> Image.Image:
    """Red and green with these opacities, 0…255."""
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (*RED, first))
    image.putpixel((1, 0), (*GREEN, second))
    return image


@pytest.mark.parametrize(
    ("transparent", "seen"),
    [("dropped", [RED, GREEN]), ("white", [(255, 255, 255), GREEN])],
)
def test_what_is_transparent_keeps_its_colour_or_shows_white(
    transparent: Transparent, seen: list[tuple[int, int, int]]
) -> None:
    pixels = read_picture(encoded(two_pixels(0, 255)), "it", transparent)
    assert pixels.dtype == np.uint8 and pixels.shape == (1, 2, 3) and pixels.tolist() == [[list(c) for c in seen]]


def test_half_transparent_is_half_white() -> None:
    (first, second) = read_picture(encoded(two_pixels(51, 204)), "it", "white")[0].tolist()
    # opacity a of 255: colour · a/255 + white · (1 − a/255)
    assert first == pytest.approx([244, 204, 204], abs=1) and second == pytest.approx([51, 131, 51], abs=1)


@pytest.mark.parametrize("transparent", ["dropped", "white"])
def test_without_transparency_there_is_no_choice(transparent: Transparent, tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    image = Image.fromarray(grey)
    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("GIF", {}), ("WEBP", {"lossless": True})):
        (tmp_path / "it").write_bytes(encoded(image, kind, **options))
        assert np.array_equal(read_picture(tmp_path / "it", "it", transparent), np.repeat(grey[:, :, None], 3, 2)), kind


def test_a_transparent_colour_of_a_palette_shows_white_too() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=0)
    assert read_picture(data, "it", "white").tolist() == [[[255, 255, 255], list(GREEN)]]
    assert read_picture(data, "it", "dropped").tolist() == [[list(RED), list(GREEN)]]


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is that large and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read as a picture"),
        (b"hello", "cannot be read as a picture"),
        (b"P6 2 2 255 " + bytes(12), "cannot be read as a picture"),  # a format that is not taken
        (encoded(Image.new("RGB", (400, 400), RED))[:300], "cut off"),
        (bomb(8193, 8192), "too many pixels"),
        (bomb(60_000, 60_000), "too many pixels"),
        (bomb(64, 64), "cut off|damaged"),
    ],
)
def test_what_is_no_picture_is_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(EngineError, match=words) as told:
        read_picture(data, "beach.png", "dropped")
    assert str(told.value).startswith("beach.png ") and "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file"):
        read_picture(tmp_path / "beach.png", "beach.png", "white")
