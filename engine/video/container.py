"""Opening a file the user gave: local video files only, and every refusal is one sentence.

A hostile "video" can be a playlist that names other files or addresses. Therefore only container formats that carry
their own pictures are recognised, only the file protocol is allowed, and only existing regular files are opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from engine.errors import EngineError

FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "gif", "apng", "asf", "ivf")
SOUND_FORMATS = ("mp3", "wav", "flac", "aac")
"""Recognised only to be able to say that the file holds sound and no pictures."""

MAX_PIXELS = 8192 * 8192
"""Largest picture that is decoded. Two of them at once fit the memory of a small machine; 8K video has half as many."""

MAX_THREADS = 8
"""Decoder threads hold one picture each: a machine with many cores must not hold many 8K pictures."""

_SUFFIXES = "mp4, mov, webm, mkv, avi, mpg, ts, flv, ogv, wmv or gif"

DECODE_ERRORS = (av.FFmpegError, ValueError, OSError, IndexError)
"""What the decoder raises for damaged data; IndexError where a damaged file starts a new stream midway."""


def regular_file(path: str | Path) -> Path:
    """The file at `path` as an absolute path. Raises EngineError unless it is an existing, readable, non-empty file."""
    try:
        file = Path(path)
        shown = file.name or str(path)
        if file.is_dir():
            raise EngineError(f"{shown} is a folder; give a video file.")
        if not file.exists():
            raise EngineError(f"There is no file {path}; give the path of a video file on this machine.")
        if not file.is_file():
            raise EngineError(f"{shown} is not an ordinary file; give a video file.")
        if file.stat().st_size == 0:
            raise EngineError(f"{shown} is empty (0 bytes); copy or upload it again.")
        with file.open("rb"):
            pass
        return file.absolute()
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EngineError(f"{path!s:.200} cannot be read ({reason}); give a video file on this machine.") from None


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local video file: the container and its (best) stream of pictures, whose decoder is set to use threads.

    Other streams are discarded while demuxing. Raises EngineError when the file is not a video that can be decoded."""
    file = regular_file(path)
    with _opened(file) as container:
        stream = _pictures(container, file)
        _only(container, stream)
        context = stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = min(os.cpu_count() or 1, MAX_THREADS)
        context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may grow in the middle of a file
        yield container, stream


@contextmanager
def open_sound(path: str | Path) -> Iterator[tuple[InputContainer, AudioStream | None]]:
    """Open a local video file for what is heard: the container and its (best) sound track, None where it has none.

    Raises EngineError when the file is not a video, or its sound is coded in an unknown way."""
    file = regular_file(path)
    with _opened(file) as container:
        stream = container.streams.best("audio")
        if stream is not None and stream.codec_context is None:
            raise EngineError(f"The sound of {file.name} is coded in a way this studio has no decoder for.")
        _only(container, stream)
        yield container, stream


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        container: Any = av.open(
            # The prefix keeps a name such as "concat:a|b" or "http:x" from being read as a protocol.
            "file:" + os.fspath(file),
            mode="r",
            container_options={
                "format_whitelist": ",".join(FORMATS + SOUND_FORMATS),
                "protocol_whitelist": "file",
            },
            metadata_errors="replace",
        )
    except (*DECODE_ERRORS, UnicodeError) as error:
        raise EngineError(_refusal(file, error)) from None
    with container:
        yield container


def _only(container: Any, stream: Any) -> None:
    """Leave every other stream out while demuxing."""
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all


def _pictures(container: Any, file: Path) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            raise EngineError(f"{file.name} holds sound but no pictures; give a file with a video track.")
        raise EngineError(f"{file.name} holds no video track; give a video file ({_SUFFIXES}).")
    best = container.streams.best("video")
    stream: Any = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise EngineError(
            f"{file.name} is coded in a way this studio has no decoder for; convert it to H.264 (mp4) first."
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise EngineError(f"{file.name} is {width}×{height} pixels; the largest picture that is read is 8192×8192.")
    return stream


_MAGIC = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"v=0", "a session description"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF document"),
)


def _refusal(file: Path, error: Exception) -> str:
    """Say what the file seems to be instead of a video."""
    try:
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError:
        head = b""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return f"{file.name} is {what}, not a video; give a video file ({_SUFFIXES})."
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return f"{file.name} is a WebP picture, not a video; give a video file ({_SUFFIXES})."
    if start[:1] == b"<":
        return f"{file.name} is a web page or XML, not a video; give a video file ({_SUFFIXES})."
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return (
            f"{file.name} is damaged or cut off: its index cannot be read; "
            "copy or upload it again, or repair it with the program that recorded it."
        )
    if head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:11] == b"AVI"):
        return f"{file.name} is damaged or cut off before its first picture; copy or upload it again."
    if head and b"\x00" not in head and all(byte >= 9 for byte in head):
        return f"{file.name} is text, not a video; give a video file ({_SUFFIXES})."
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"{file.name} is not a video this studio can read ({reason}); give a video file ({_SUFFIXES})."
