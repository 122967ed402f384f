"""Seeing a video: probe a file, plan what a clip costs, sample its frames within a budget.

info = probe(path)
frames = sample(Clip(path, start=2.0, end=9.5), PRESETS["keye-vl-preview"], info=info)
"""

from engine.video.budget import plan
from engine.video.cache import FrameCache
from engine.video.presets import PRESETS, sampling_for
from engine.video.probe import content_hash, probe
from engine.video.report import describe, describe_video
from engine.video.sampler import sample
from engine.video.types import TOKEN_SIDE, Cancelled, Clip, Frames, Kind, Plan, Sampling, VideoInfo

__all__ = [
    "PRESETS",
    "TOKEN_SIDE",
    "Cancelled",
    "Clip",
    "FrameCache",
    "Frames",
    "Kind",
    "Plan",
    "Sampling",
    "VideoInfo",
    "content_hash",
    "describe",
    "describe_video",
    "plan",
    "probe",
    "sample",
    "sampling_for",
]
