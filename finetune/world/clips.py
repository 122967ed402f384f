"""Scenes as video files, and the moments at which such a file is sampled."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engine.video.rules import even_indices, preview_frame_count
from engine.video.types import Sampling
from finetune.errors import FinetuneError
from finetune.world.render import render
from finetune.world.scene import Scene


def encode_clip(scene: Scene, path: Path, size: tuple[int, int], fps: int = 30, crf: int = 23) -> Path:
    """Write `scene` as an H.264 MP4 of `size` (width, height; both even) and `fps` frames per second.

    `crf` is x264's quality, 0 (lossless) to 51. Raises FinetuneError for a picture, an odd size or a scene of
    another shape."""
    width, height = size
    if scene.still:
        raise FinetuneError("A picture cannot be written as a clip; make a scene with a duration.")
    if width % 2 or height % 2 or width < 16 or height < 16:
        raise FinetuneError(f"H.264 needs an even width and height of at least 16, not {width}×{height}.")
    if abs(width / height - scene.aspect) > 0.05:
        raise FinetuneError(f"A scene of aspect {scene.aspect:.2f} does not fit {width}×{height}; choose another size.")
    count = round(scene.duration * fps)
    with av.open(str(path), "w", format="mp4") as container:
        # Its look-ahead by macroblock trees reads memory that nobody has written: the same clip would not be the same.
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        stream.time_base = Fraction(1, fps)
        for first in range(0, count, 32):  # a few frames at a time: a long clip must not fill the memory
            for picture in render(scene, [i / fps for i in range(first, min(first + 32, count))], height, width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def sampled_times(duration: float, video_fps: float, sampling: Sampling) -> tuple[np.ndarray, float]:
    """The moments at which a file of `duration` seconds and `video_fps` is sampled, float64 [frames], and the frames
    per second that the model is told. The same rules as engine.video uses on a file of constant rate."""
    total = round(duration * video_fps)
    count = preview_frame_count(
        total,
        video_fps,
        fps=sampling.fps,
        min_frames=sampling.min_frames,
        max_frames=sampling.max_frames,
        multiple=sampling.frame_multiple,
    )
    times = np.array(even_indices(0, total - 1, count), np.float64) / video_fps
    return times, count / total * video_fps
