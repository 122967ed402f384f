"""What a training batch looks at: scenes of one size and length, as pixels and as the questions' truth."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image

from engine.keye import KeyeImageProcessor
from engine.video import Clip, Sampling, sample
from engine.video.budget import frame_size
from engine.video.scaling import resize
from finetune.nano.shape import SAMPLING
from finetune.world.clips import encode_clip, sampled_times
from finetune.world.render import render
from finetune.world.scene import Scene, make_scene, plainer

Path_ = Literal["direct", "scaled", "full", "jpeg", "h264"]
"""How pixels come about: drawn at the model's size; drawn larger, or as large as the file, and scaled as the served
path does; compressed as a JPEG; a real H.264 file through engine.video."""

SHAPES_OF_FILES = ((448, 448), (448, 448), (448, 448), (480, 270), (480, 270), (270, 480), (400, 300))
"""Width and height of the files that clips are thought to come from."""

_PROCESSOR = KeyeImageProcessor()
_PATHS: tuple[Path_, ...] = ("direct", "scaled", "jpeg", "h264")
_PATH_SHARES = (0.62, 0.25, 0.1, 0.03)


@dataclass(frozen=True)
class Setting:
    """What all clips of a batch share, so that their sequences are equally long."""

    file: tuple[int, int]  # width, height
    size: tuple[int, int]  # height, width of a frame as the model sees it
    duration: float  # seconds; 0 for pictures
    video_fps: int
    sampling: Sampling
    path: Path_

    @property
    def still(self) -> bool:
        return self.duration == 0


LENGTHS = (2.0, 2.5, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 5.0, 6.0, 6.0, 8.0)
LONG = (10.0, 12.0, 16.0)
"""Seconds of the clips, and of those that are met less often."""


def draw_setting(rng: random.Random, still: bool, longest: float = 8.0) -> Setting:
    """Sizes, lengths and rates as they may be met: mostly the served ones, some others, so that none is foreign. No
    clip lasts more than `longest` seconds."""
    file = rng.choice(SHAPES_OF_FILES)
    tokens = rng.choices((16, 9, 12, 20), (0.76, 0.08, 0.08, 0.08))[0]
    fps = rng.choices((2.0, 1.0, 3.0, 4.0), (0.76, 0.1, 0.04, 0.1))[0]
    sampling = replace(Sampling(**SAMPLING), fps=fps, max_frame_tokens=tokens, budget=16 * tokens)
    duration = 0.0 if still else rng.choice(LENGTHS)
    if not still and longest >= LONG[0] and rng.random() < 0.12:
        duration = rng.choice([seconds for seconds in LONG if seconds <= longest])
    size = frame_size(file[1], file[0], sampling.min_frame_tokens, tokens, tokens)
    assert size is not None
    path = rng.choices(_PATHS, _PATH_SHARES)[0]
    if still and path == "h264":
        path = "scaled"
    return Setting(file, size, duration, rng.choice((24, 25, 30)), sampling, path)


def shoot(
    setting: Setting, seeds: range, most: int = 4, plain: bool = False
) -> tuple[list[Scene], list[np.ndarray], float]:
    """The training scenes with these numbers and at most `most` things, of each uint8 RGB [frames, height, width, 3],
    and the frames per second that the model is told of (0 for pictures). `plain`: as `plainer` makes them."""
    scenes = scenes_of(setting, seeds, most)
    if plain:
        scenes = [plainer(scene) for scene in scenes]
    return scenes, *frames_of(scenes, setting)


def scenes_of(setting: Setting, seeds: range, most: int = 4) -> list[Scene]:
    """The training scenes with these numbers, of at most `most` things."""
    aspect = setting.file[0] / setting.file[1]
    return [make_scene(seed, "train", setting.duration, aspect, most) for seed in seeds]


def frames_of(scenes: list[Scene], setting: Setting) -> tuple[list[np.ndarray], float]:
    """Of each scene uint8 RGB [frames, height, width, 3], and the frames per second that the model is told of."""
    if setting.still:
        return [_picture(scene, setting) for scene in scenes], 0.0
    times, fps = sampled_times(setting.duration, setting.video_fps, setting.sampling)
    return [_frames(scene, times, setting) for scene in scenes], fps


def _frames(scene: Scene, times: np.ndarray, setting: Setting) -> np.ndarray:
    height, width = setting.size
    if setting.path == "h264":
        return _through_file(scene, setting)
    if setting.path in ("scaled", "full"):
        large = setting.file if setting.path == "full" else _half(setting.file)
        return np.stack([resize(f, height, width, "bicubic") for f in render(scene, list(times), large[1], large[0])])
    frames = render(scene, list(times), height, width)
    return np.stack([_jpeg(f, scene.seed) for f in frames]) if setting.path == "jpeg" else frames


def _picture(scene: Scene, setting: Setting) -> np.ndarray:
    height, width = setting.size
    if setting.path == "scaled":  # pictures are scaled by Pillow, as the image processor does
        large = render(scene, [0.0], setting.file[1], setting.file[0])[0]
        return np.asarray(Image.fromarray(large).resize((width, height), Image.Resampling.BICUBIC))[None]
    frames = render(scene, [0.0], height, width)
    return _jpeg(frames[0], scene.seed)[None] if setting.path == "jpeg" else frames


def _half(file: tuple[int, int]) -> tuple[int, int]:
    """A file of half the size costs a quarter; scaled down, it looks the same."""
    return file[0] // 4 * 2, file[1] // 4 * 2


def _jpeg(frame: np.ndarray, seed: int) -> np.ndarray:
    quality = 40 + seed * 7919 % 55
    _, data = cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    read = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert read is not None  # it was written here
    return np.ascontiguousarray(read[:, :, ::-1])


def _through_file(scene: Scene, setting: Setting) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        crf = 20 + scene.seed * 7919 % 15
        path = encode_clip(scene, Path(folder) / "clip.mp4", _half(setting.file), setting.video_fps, crf)
        frames = sample(Clip(path), setting.sampling, cache=None)
        images = [im if im.shape[:2] == setting.size else resize(im, *setting.size, "bicubic") for im in frames.images]
    return np.stack(images)


def to_patches(frames: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [patches, 3, 14, 14] in raster order per frame and int64 [clips, 3], by the served image processor."""
    made = [_PROCESSOR.patchify(clip) for clip in frames]
    return torch.from_numpy(np.concatenate([p for p, _ in made])), torch.tensor([grid for _, grid in made])
