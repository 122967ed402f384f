"""What was read of a clip, as plain data for the page and the shell."""

from __future__ import annotations

from typing import Any

from engine.video.types import Frames, Plan, VideoInfo


def describe(frames: Frames | Plan) -> dict[str, Any]:
    """The clip, its frames (seconds, kind, tokens, size in pixels), what they cost and what was reduced, ready for
    JSON. Of a plan with slow/fast sampling the kinds are not known yet: every frame counts as slow."""
    if isinstance(frames, Plan):
        kinds: tuple[str, ...] = ("slow",) * frames.frame_count
        sizes = [(frames.height, frames.width)] * frames.frame_count
    else:
        kinds = frames.kinds
        sizes = [image.shape[:2] for image in frames.images]
    sampling = frames.sampling
    return {
        "video": describe_video(frames.info),
        "clip": {"start": frames.clip.start, "end": frames.clip.end},
        "sampling": {"name": sampling.name, "fps": sampling.fps, "max_frames": sampling.max_frames},
        "sampled_fps": frames.fps,
        "frames": [
            {"time": round(time, 6), "kind": kind, "tokens": tokens, "width": int(width), "height": int(height)}
            for time, kind, tokens, (height, width) in zip(frames.times, kinds, frames.tokens, sizes, strict=True)
        ],
        "tokens": frames.total_tokens,
        "budget": sampling.budget,
        "notes": list(frames.notes),
    }


def describe_video(info: VideoInfo) -> dict[str, Any]:
    """What a probe found, ready for JSON."""
    return {
        "path": str(info.path),
        "container": info.container,
        "codec": info.codec,
        "audio": info.audio_codec,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fps": info.fps,
        "variable_rate": info.variable_rate,
        "duration": info.duration,
        "frame_count": info.frame_count,
        "key_frames": len(info.key_times),
        "bytes": info.size_bytes,
        "notes": list(info.notes),
    }
