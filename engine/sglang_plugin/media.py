"""Media that a request names to files and pictures on this machine. What a request says is not trusted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from engine.errors import EngineError
from engine.pictures import read_picture
from engine.video.address import local_path

_SECONDS = 60.0  # to fetch a file
_KEPT_BYTES = 2 * 1024**3  # of videos that came with requests; a follow-up names the same one again


class Spool:
    """Videos that came as data or from the web, as files under their content's hash: sent again, a file is found again.

    The least recently used go first. The folder goes with the process."""

    def __init__(self, max_bytes: int = _KEPT_BYTES) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keye-videos-")
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, data: bytes) -> Path:
        name = hashlib.sha256(data).hexdigest()
        file = Path(self._folder.name) / name
        with self._lock:
            if name not in self._sizes:
                try:
                    file.write_bytes(data)
                except OSError as error:
                    file.unlink(missing_ok=True)
                    raise EngineError(f"The server cannot keep the video ({error.strerror}); free some disk.") from None
                self._sizes[name] = len(data)
            self._sizes.move_to_end(name)
            while sum(self._sizes.values()) > self._max_bytes and len(self._sizes) > 1:
                dropped, _ = self._sizes.popitem(last=False)
                (Path(self._folder.name) / dropped).unlink(missing_ok=True)
        return file


def video_file(where: str, spool: Spool) -> Path:
    """The file of a video named by an absolute path, a file, http(s) or data URL. EngineError for anything else."""
    path = local_path(where)
    return Path(path) if path is not None else spool.keep(_bytes(where, "video"))


def picture(where: str) -> np.ndarray:
    """uint8 RGB [height, width, 3] of a picture named like a video. EngineError where it is none."""
    path = local_path(where)
    if path is None:
        return read_picture(_bytes(where, "picture"), "The picture", "dropped")
    return read_picture(Path(path), Path(path).name, "dropped")


def _bytes(where: str, what: str) -> bytes:
    """What an http(s) or data URL holds, within the limits that the server was started with."""
    if where.startswith("data:"):
        head, comma, body = where.partition(",")
        try:
            if not comma or not head.endswith(";base64"):
                raise ValueError
            return base64.b64decode(body, validate=True)
        except (ValueError, binascii.Error):
            raise EngineError(
                f"The {what}'s data URL is damaged; write data:…;base64, and the file in base64."
            ) from None
    if where.startswith(("http://", "https://")):
        from sglang.srt.utils.common import CLIENT_MEDIA_EXCEPTIONS, download_remote_media

        try:
            return bytes(download_remote_media(where, timeout=_SECONDS))
        except CLIENT_MEDIA_EXCEPTIONS as error:
            raise EngineError(
                f"The {what} {where:.200} cannot be fetched ({error!s:.200}); check its address."
            ) from None
    raise EngineError(f"{where:.80} is no address of a {what}; give an absolute path, or an http, file or data URL.")
