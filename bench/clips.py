"""The videos that are measured on: made here, the same on every machine, kept in `.bench/clips`.

The scene is a coloured texture with as much detail at every scale as photographs have, that pans, under three moving
discs and a little sensor noise. Every ten seconds it loses its colour for two, which slow/fast sampling notices."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench" / "clips"


def clip(seconds: float, width: int, height: int, fps: int = 30) -> Path:
    """An H.264 file of this length and size (x264 "veryfast", crf 23, key frames 250 apart), made if missing."""
    path = FOLDER / f"scene-{seconds:g}s-{width}x{height}-{fps}.mp4"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.mp4")
        _encode(partial, round(seconds * fps), width, height, fps)
        partial.replace(path)
    return path


def repeated(source: Path, times: int) -> Path:
    """`source` played `times` times over, as one file. The packets are copied: nothing is encoded."""
    path = source.with_name(f"{source.stem}-x{times}.mp4")
    if path.exists():
        return path
    partial = path.with_suffix(".part.mp4")
    with av.open(str(source)) as given, av.open(str(partial), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        assert stream.duration is not None
        for turn in range(times):
            given.seek(0)
            for packet in given.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts += turn * stream.duration
                packet.dts += turn * stream.duration
                packet.stream = copy
                made.mux(packet)
    partial.replace(path)
    return path


def _encode(path: Path, frames: int, width: int, height: int, fps: int) -> None:
    options = {"preset": "veryfast", "crf": "23", "g": "250"}
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in scene(frames, width, height, fps):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def scene(frames: int, width: int, height: int, fps: int) -> Iterator[np.ndarray]:
    """The pictures one after the other, uint8 RGB [height, width, 3]."""
    random = np.random.default_rng(7)
    texture = _texture(random, height + 256, width + 256)
    noise = random.integers(-3, 4, (height + 64, width + 64, 1), dtype=np.int16)
    rows, columns = np.ogrid[:height, :width]
    for index in range(frames):
        second = index / fps
        y, x = (round(128 + 127 * np.sin(second / period)) for period in (5.3, 3.1))
        picture = texture[y : y + height, x : x + width].copy()
        for disc in range(3):
            angle = second * (0.7 + 0.4 * disc) + 2 * disc
            middle = (height * (0.5 + 0.3 * np.sin(angle)), width * (0.5 + 0.35 * np.cos(1.3 * angle)))
            inside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (height / (8 + 2 * disc)) ** 2
            picture[inside] = ((220, 40, 40), (40, 200, 60), (50, 80, 230))[disc]
        if second % 10 >= 8:
            picture[:] = picture.mean(axis=2, keepdims=True).astype(np.uint8)
        shift = random.integers(0, 64, 2)
        grain = noise[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
        yield np.clip(picture.astype(np.int16) + grain, 0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls with frequency as in photographs: uint8 [height, width, 3]."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width)) ** 1.2
    channels = []
    for _ in range(3):
        plane = np.fft.irfft2(falloff * np.fft.rfft2(random.standard_normal((height, width))), s=(height, width))
        channels.append(127 + 45 * plane / plane.std())
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
