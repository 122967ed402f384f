"""The videos on the disk: each kept once, named by its content, with a copy the browser can play where it needs one."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

from app.errors import AppError
from engine.errors import EngineError
from engine.video import VideoInfo, probe
from engine.video.proxy import make_player_copy, plays_in_browsers
from finetune.feedback.videos import find_video, keep_video


class Library:
    """A folder of videos. Files are `<sha256><suffix>`; player copies are `<sha256>.player.mp4`, and what was measured
    of the sound is in `<sha256>.sound.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._converting = threading.Lock()  # one conversion at a time: it takes all the processor it gets
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AppError(
                f"The folder {folder} cannot be made ({error.strerror}); name another with --data."
            ) from error

    def keep(self, upload: Path) -> tuple[str, VideoInfo]:
        """Take a file in: its content hash and what it is. The upload itself is left where it is.

        Raises EngineError where it is not a video and AppError where the disk is full."""
        try:
            return keep_video(self.folder, upload)
        except OSError as error:
            raise disk_problem(error, self.folder) from error

    def find(self, sha: str) -> Path | None:
        """The kept file with this content, if it is still there."""
        return find_video(self.folder, sha)

    def player_file(self, sha: str) -> Path | None:
        """What the browser should play: the file itself, a copy made earlier, or None if a copy must be made."""
        copy = self.folder / f"{sha}.player.mp4"
        if copy.is_file():
            return copy
        source = self.find(sha)
        return source if source is not None and plays_in_browsers(probe(source)) else None

    def make_player_file(self, sha: str, report: Callable[[float], None] | None = None) -> Path | None:
        """Make the copy that `player_file` found missing; None where the video cannot be converted."""
        with self._converting:
            if (ready := self.player_file(sha)) is not None:
                return ready
            source = self.find(sha)
            if source is None:
                return None
            target = self.folder / f"{sha}.player.mp4"
            partial = target.with_suffix(".part")
            try:
                make_player_copy(probe(source), partial, progress=report)
                partial.replace(target)
            except (EngineError, OSError):
                partial.unlink(missing_ok=True)
                return None
            return target

    def remove(self, sha: str) -> None:
        """Delete the video and its player copy."""
        for file in self.folder.glob(f"{sha}.*"):
            file.unlink(missing_ok=True)


def disk_problem(error: OSError, folder: Path) -> AppError:
    """What to tell the user about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AppError(f"The disk that holds {folder} is full; free some space and try again.")
    return AppError(
        f"{folder} cannot be written ({error.strerror}); check its permissions or name another with --data."
    )
