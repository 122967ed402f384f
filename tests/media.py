"""Makes small clips whose frames can be told apart, so that a test can see which frame it really got.

Every frame carries its index as a 4×4 board of bright and dark cells, readable at any size and after any codec:
`make_clip(path, frames=50)` writes, `index_of(rgb)` reads back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BOARD = 4  # cells on a side: 16 bits

FAST_OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "2", "b-adapt": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
}


def board(index: int, width: int, height: int, colour: tuple[int, int, int] = (235, 235, 235)) -> np.ndarray:
    """The picture of frame `index`: uint8 RGB [height, width, 3]; a cell is `colour` where the bit is set."""
    bits = np.array([(index >> bit) & 1 for bit in range(BOARD * BOARD)], bool).reshape(BOARD, BOARD)
    rows = np.arange(height) * BOARD // height
    columns = np.arange(width) * BOARD // width
    lit = bits[rows][:, columns]
    return np.where(lit[..., None], np.array(colour, np.uint8), np.uint8(16)).astype(np.uint8)


def index_of(rgb: np.ndarray) -> int:
    """The index a picture made by `board` carries, after scaling and lossy coding."""
    height, width = rgb.shape[:2]
    value = 0
    for bit in range(BOARD * BOARD):
        row, column = divmod(bit, BOARD)
        top, bottom = (row * 4 + 1) * height // (BOARD * 4), (row * 4 + 3) * height // (BOARD * 4)
        left, right = (column * 4 + 1) * width // (BOARD * 4), (column * 4 + 3) * width // (BOARD * 4)
        cell = rgb[top : max(bottom, top + 1), left : max(right, left + 1)]
        value |= int(cell.max(axis=-1).mean() > 110) << bit
    return value


def make_clip(
    path: Path,
    *,
    frames: int = 50,
    fps: int | Fraction = 25,
    size: tuple[int, int] = (128, 96),
    codec: str = "libx264",
    container: str | None = None,
    times: Sequence[float] | None = None,
    gop: int = 12,
    rotation: int = 0,
    sound: bool = False,
    pix_fmt: str = "yuv420p",
    colour: Callable[[int], tuple[int, int, int]] = lambda index: (235, 235, 235),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode a clip and return its path.

    `size`: (width, height) as displayed. `times`: seconds of each frame, for a varying rate. `rotation`: degrees
    clockwise that a player must turn the stored picture; it is stored turned the other way, so that it shows upright.
    `container_options`: for the muxer, such as {"movflags": "faststart"}."""
    width, height = size
    stored = (height, width) if rotation % 180 else (width, height)
    base = Fraction(1, 90000) if times is not None else 1 / Fraction(fps)
    with av.open(str(path), "w", format=container, options=container_options or {}) as file:
        chosen = {**FAST_OPTIONS.get(codec, {}), **(options or {})}
        stream = file.add_stream(codec, rate=Fraction(fps), options=chosen)
        stream.width, stream.height = stored
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(-rotation)  # the library counts counter-clockwise
        tone = file.add_stream("libopus" if _is_webm(path, container) else "aac", rate=48000) if sound else None
        count = frames if times is None else len(times)
        for index in range(count):
            picture = np.rot90(board(index, width, height, colour(index)), rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = index if times is None else round(times[index] / base)
            frame.time_base = base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if tone is not None:
            _silence(file, tone, seconds=count / float(fps))
    return path


def _is_webm(path: Path, container: str | None) -> bool:
    return (container or path.suffix.lstrip(".")) in ("webm", "ogg")


def _silence(file: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    size = 960
    for start in range(0, max(size, int(seconds * 48000)), size):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        frame.pts = start
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def make_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as file:
        _silence(file, file.add_stream("aac", rate=48000), seconds)
    return path


def cut_short(path: Path, share: float) -> Path:
    """Throw the end of a file away, as a broken upload does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def scramble(path: Path, first: float, last: float) -> Path:
    """Overwrite part of a file (shares of its length) with noise, as a bad disk does."""
    data = bytearray(path.read_bytes())
    a, b = int(len(data) * first), int(len(data) * last)
    data[a:b] = np.random.default_rng(0).integers(0, 256, b - a, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    return path
