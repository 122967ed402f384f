"""Clips with a sound that is known to the sample."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.media import board


def sine(seconds: float, amplitude: float = 1.0, hertz: float = 1000.0, rate: int = 48_000) -> np.ndarray:
    """float [samples]; its power is amplitude² / 2."""
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def silence(seconds: float, rate: int = 48_000) -> np.ndarray:
    return np.zeros(round(seconds * rate))


def noise(seconds: float, power: float, rate: int = 48_000) -> np.ndarray:
    """White noise with this mean square."""
    return np.random.default_rng(5).normal(0, power**0.5, round(seconds * rate))


def babble(seconds: float, rate: int = 48_000) -> np.ndarray:
    """What speech is like: noise of a voice's band that rises and falls four times a second."""
    wide = np.fft.rfft(noise(seconds, 0.02, rate))
    hertz = np.fft.rfftfreq(round(seconds * rate), 1 / rate)
    voice = np.fft.irfft(np.where((hertz > 300) & (hertz < 3400), wide, 0), round(seconds * rate))
    return voice * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * np.arange(len(voice)) / rate)) * 3


def make_film(
    path: Path,
    sound: np.ndarray | None,
    *,
    seconds: float | None = None,
    rate: int = 48_000,
    layout: str = "mono",
    codec: str = "aac",
    late: float = 0.0,
    picture_late: float = 0.0,
    hole: tuple[int, int] | None = None,
) -> Path:
    """A clip of 25 small pictures a second with a sound, float [samples] or [samples, channels], full scale 1.

    `late`: seconds after the file's zero at which the sound begins; `picture_late`: the same of the first picture.
    `hole`: of the packets of the sound, the first and the last but one that are left out."""
    given = None if sound is None else sound[:, None] if sound.ndim == 1 else sound
    length = seconds if seconds is not None else len(given) / rate if given is not None else 1.0
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0"})
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        pictures.codec_context.thread_count = 1
        pictures.codec_context.time_base = Fraction(1, 100)
        voice = None
        if given is not None:
            options = {"b": "256k"} if codec in ("aac", "libopus") else {}
            voice = file.add_stream(codec, rate=rate, layout=layout, options=options)
        for index in range(round(length * 25)):
            frame = av.VideoFrame.from_ndarray(board(index, 64, 64), format="rgb24")
            frame.pts, frame.time_base = round(picture_late * 100) + index * 4, Fraction(1, 100)
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode())
        if voice is not None and given is not None:
            for number, packet in enumerate(_packets(voice, given, rate, layout, late)):
                if hole is None or not hole[0] <= number < hole[1]:
                    file.mux(packet)
    return path


def _packets(stream: av.AudioStream, sound: np.ndarray, rate: int, layout: str, late: float) -> Sequence[av.Packet]:
    whole = np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)
    packets: list[av.Packet] = []
    for first in range(0, len(whole), 1024):
        piece = np.ascontiguousarray(whole[first : first + 1024].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(late * rate)
        packets += stream.encode(frame)
    return packets + list(stream.encode())
