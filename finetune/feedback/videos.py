"""A folder of videos, each kept once and named by its content: `<sha256><suffix>`."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from engine.video import VideoInfo, content_hash, probe

_BESIDE = (".player.mp4", ".sound.json", ".thumb.jpg", ".part")  # what lies beside a video and is none


def find_video(folder: Path, sha: str) -> Path | None:
    """The kept file with this content, if it is there."""
    files = (f for f in folder.glob(f"{sha}.*") if not f.name.endswith(_BESIDE))
    return next(files, None)


def keep_video(folder: Path, source: Path) -> tuple[str, VideoInfo]:
    """Take a file in: its content hash and what it is. The source is left where it is.

    Raises EngineError where it is not a video and OSError where it cannot be written."""
    info = probe(source)
    sha = content_hash(source)
    target = folder / f"{sha}{source.suffix.lower()[:8] or '.video'}"
    if (kept := find_video(folder, sha)) is not None:
        return sha, probe(kept)
    partial = target.with_suffix(f".{threading.get_ident()}.part")
    try:
        link_or_copy(source, partial)
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return sha, probe(target) if info.path != target else info


def link_or_copy(source: Path, target: Path) -> None:
    """No second copy of a large file where both are on one disk. Raises OSError."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
