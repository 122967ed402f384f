"""A copy of a video for the page's player: browsers show HEVC as silent black, and know nothing of mkv, avi or ts.

if not plays_in_browsers(info):
    make_player_copy(info, Path("copy.mp4"))

Packets are copied where only the container is in the way; else the pictures become a small H.264. The clock of the copy
is `VideoInfo.frame_times`. The model never sees the copy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.filter import Graph
from av.stream import Discard
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from engine.errors import EngineError
from engine.video.container import DECODE_ERRORS, open_video
from engine.video.types import Cancelled, VideoInfo

SHORT_SIDE = 480
"""Pixels of the shorter side of a re-encoded copy, at most."""

_TICK = Fraction(1, 90000)  # seconds: fine enough for every usual frame rate
_RATE = 48000  # sound samples per second
_LONGEST_SILENCE = 10 * _RATE  # samples put in where sound is missing; a longer gap stays a gap in the time stamps
_PRIMING = 0.1  # seconds of sound before the first picture that a sound decoder may need in order to start
_YUV420 = ("yuv420p", "yuvj420p")

_PLAYS = {  # by kind of file: codecs of pictures with their pixel formats, codecs of sound
    "mp4": (
        {"h264": _YUV420, "vp9": ("yuv420p", "yuv420p10le"), "av1": ("yuv420p", "yuv420p10le")},
        ("aac", "mp3", "opus"),
    ),
    "webm": (
        {"vp8": ("yuv420p",), "vp9": ("yuv420p", "yuv420p10le"), "av1": ("yuv420p", "yuv420p10le")},
        ("opus", "vorbis"),
    ),
}

Sound = Literal["copy", "encode", "none"]


class _CannotCopy(Exception):
    """The packets of the pictures cannot go into an mp4 as they are."""


class _BadSound(Exception):
    """The sound cannot be had in the way that was tried."""


def plays_in_browsers(info: VideoInfo) -> bool:
    """Whether today's browsers play the file as it is; a doubtful one does not count, nor one that cannot be opened.

    The suffix matters as well as the content: it becomes the type that the browser is told."""
    suffix = info.path.suffix.lower()
    try:
        if suffix in (".mp4", ".m4v", ".mov") and "mp4" in info.container.split(","):
            kind = "mp4"
        elif suffix == ".webm" and _is_webm(info.path):
            kind = "webm"
        else:
            return False
        pictures, sounds = _PLAYS[kind]
        if info.codec not in pictures or (info.audio_codec and _sound_codec(info) not in sounds):
            return False
        with open_video(info.path) as (_, stream):
            return stream.codec_context.pix_fmt in pictures[info.codec]
    except (EngineError, OSError):
        return False


def make_player_copy(
    info: VideoInfo,
    target: Path,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write an mp4 of the video that plays everywhere, whatever the suffix of `target`.

    H.264 (8-bit 4:2:0) is copied packet by packet, and so are AAC and MP3 beside it. Everything else becomes H.264 of at
    most SHORT_SIDE pixels on the shorter side, turned upright, and AAC. Damaged packets are passed over; sound that
    cannot be read is left out. `progress` gets 0..1, never falling. Raises Cancelled, and EngineError when it fails; then
    nothing is left at `target`."""
    if target.exists() and info.path.exists() and target.samefile(info.path):
        raise EngineError(f"{target.name} is the video itself; give another name for its copy.")
    best = 0.0

    def report(share: float) -> None:
        nonlocal best
        if share > best:
            best = min(share, 1.0)
            if progress is not None:
                progress(best)

    copy = info.codec == "h264" and not info.counted
    sound: Sound = "none" if info.audio_codec in (None, "unknown") else "encode"
    if copy and _sound_codec(info) in ("aac", "mp3"):
        sound = "copy"
    done = False
    try:
        while not done:
            try:
                _write(info, target, copy, sound, report, cancelled or (lambda: False))
                done = True
            except _CannotCopy:
                copy, sound = False, "none" if sound == "none" else "encode"
            except _BadSound:
                sound = "encode" if sound == "copy" else "none"
    except DECODE_ERRORS as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError(
                f"The disk is full: no copy of {info.path.name} for the player; free some space."
            ) from None
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise EngineError(
            f"{info.path.name} cannot be converted for the player ({reason:.100}); convert it to H.264 (mp4) first."
        ) from None
    finally:
        if not done:
            with suppress(OSError):
                target.unlink(missing_ok=True)
    report(1.0)


def _is_webm(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(128)
    return head.startswith(b"\x1aE\xdf\xa3") and b"\x42\x82\x84webm" in head


def _sound_codec(info: VideoInfo) -> str:
    """The codec's own name; a decoder's name is "mp3float" or "libopus"."""
    return (info.audio_codec or "").removeprefix("lib").removesuffix("float")


def _write(
    info: VideoInfo,
    target: Path,
    copy: bool,
    sound: Sound,
    report: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> None:
    """One attempt. Raises _CannotCopy or _BadSound when another way should be tried."""
    options = {"movflags": "+faststart", "movie_timescale": str(_TICK.denominator)}
    with open_video(info.path) as (source, video):
        audio: Any = source.streams.best("audio") if sound != "none" else None
        if audio is not None:
            audio.discard = Discard.default  # only the pictures are read from a file opened for its pictures
        with av.open("file:" + os.fspath(target), "w", format="mp4", container_options=options) as out:
            pictures: Any = _CopiedPictures(info, video, out) if copy else _EncodedPictures(info, video, out)
            tones: Any = None
            if audio is not None:
                tones = (_CopiedSound if sound == "copy" else _EncodedSound)(info, audio, out)
            for packet in _packets(source, [video] if audio is None else [video, audio], cancelled):
                if packet.stream is video:
                    pictures.write(packet)
                    report(pictures.seconds / info.duration)
                else:
                    tones.write(packet)
            pictures.finish()
            if tones is not None:
                tones.finish()


def _packets(source: Any, streams: list[Any], cancelled: Callable[[], bool]) -> Iterator[Any]:
    """Packets with data, up to the end or to where the file is cut off."""
    with suppress(*DECODE_ERRORS):
        for packet in source.demux(*streams):
            if cancelled():
                raise Cancelled("Making the player copy was stopped.")
            if packet.size:
                yield packet


def _decoded(packet: Any, stream: Any) -> list[Any]:
    """The frames of a packet, of None those the decoder still holds; none where they are damaged."""
    try:
        frames: list[Any] = stream.codec_context.decode(packet)
        return frames
    except DECODE_ERRORS:
        return []


class _CopiedPictures:
    """Packets as they are, on a clock that starts at the first picture."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        if stream.codec_context.pix_fmt not in _YUV420 or stream.time_base != info.time_base:
            raise _CannotCopy
        self.info = info
        self.out = out
        self.seconds = 0.0
        self.last: int | None = None  # ticks: decoding time of the packet before
        self.track = out.add_stream_from_template(stream, opaque=True)
        if info.rotation:
            self.track.set_display_rotation(-info.rotation)  # the library counts counter-clockwise

    def write(self, packet: Any) -> None:
        # Hidden, damaged or unstamped packets need a decoder to be passed over without harm.
        if packet.is_discard or packet.is_corrupt or packet.pts is None or packet.dts is None:
            raise _CannotCopy
        if packet.pts < self.info.first_pts or (packet.dts <= self.last if self.last is not None else False):
            raise _CannotCopy
        if self.last is None and not packet.is_keyframe:
            raise _CannotCopy
        self.last = packet.dts
        packet.pts -= self.info.first_pts
        packet.dts -= self.info.first_pts
        self.seconds = float(packet.pts * packet.time_base)
        packet.stream = self.track
        self.out.mux(packet)

    def finish(self) -> None:
        if self.last is None:
            raise _CannotCopy


class _EncodedPictures:
    """H.264 without B-frames, so that decoding and showing share one clock that every player agrees on."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        self.info = info
        self.stream = stream
        self.out = out
        self.seconds = 0.0
        self.held: Any = None  # a picture waits for the next one: only then is it known how long it is shown
        self.counted = -1
        self.end = round(info.duration / _TICK)
        self.reformatter = VideoReformatter()
        turned = bool(info.rotation % 180)
        shrink = min(1.0, SHORT_SIDE / min(info.width, info.height))
        width, height = (max(2, int(side * shrink + 1e-6) // 2 * 2) for side in (info.width, info.height))
        self.size = (height, width) if turned else (width, height)
        self.turn = _turner(self.size, info.rotation)
        options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        self.track = out.add_stream("libx264", rate=max(1, min(240, round(info.fps))), options=options)
        self.track.time_base = _TICK
        context, coded = self.track.codec_context, stream.codec_context
        context.width, context.height, context.pix_fmt, context.time_base = width, height, "yuv420p", _TICK
        context.gop_size = 48  # a key frame every second or two: jumping to the evidence must be quick
        shape = stream.sample_aspect_ratio
        if shape:
            context.sample_aspect_ratio = 1 / shape if turned else shape
        # A player guesses the colours of an untagged file by its size, which changes here: say what it would guess.
        self.rgb = coded.pix_fmt is not None and coded.pix_fmt.startswith(("rgb", "bgr", "gbr", "pal8", "argb", "abgr"))
        guess = Colorspace.ITU709 if min(info.width, info.height) >= 720 else 6
        context.colorspace = 6 if self.rgb else guess if coded.colorspace in (0, 2) else coded.colorspace
        context.color_primaries, context.color_trc = coded.color_primaries, coded.color_trc
        context.color_range = ColorRange.MPEG

    def write(self, packet: Any) -> None:
        for frame in _decoded(packet, self.stream):
            self.counted += 1
            tick = self._tick(frame)
            if tick is None or tick < 0 or (self.held is not None and tick <= self.held.pts):
                continue
            picture = self.turn(
                self.reformatter.reformat(
                    frame,
                    *self.size,
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU601 if self.rgb else None,
                    dst_color_range=ColorRange.MPEG,
                )
            )
            picture.pict_type = 0  # the encoder chooses its own key frames
            # Where the first pictures are lost, the first good one stands in for them: the clock starts at zero.
            picture.pts, picture.time_base = (0 if self.held is None else tick), _TICK
            self._encode_held(tick)
            self.held = picture
            self.seconds = float(tick * _TICK)

    def _tick(self, frame: Any) -> int | None:
        times = self.info.frame_times
        if self.info.counted or frame.pts is None:
            return round(float(times[self.counted]) / _TICK) if self.counted < len(times) else None
        return round((frame.pts * self.stream.time_base - self.info.first_pts * self.info.time_base) / _TICK)

    def _encode_held(self, until: int) -> None:
        if self.held is not None:
            self.held.duration = max(1, until - self.held.pts)
            self.out.mux(self.track.encode(self.held))

    def finish(self) -> None:
        self.write(None)
        if self.held is None:
            raise EngineError(f"No picture of {self.info.path.name} can be read; copy or upload it again.")
        self._encode_held(self.end)
        self.out.mux(self.track.encode(None))


def _turner(size: tuple[int, int], rotation: int) -> Callable[[Any], Any]:
    """What turns a yuv420p picture of this (width, height) by degrees clockwise."""
    turns = {90: [("transpose", "clock")], 180: [("hflip", None), ("vflip", None)], 270: [("transpose", "cclock")]}
    if rotation not in turns:
        return lambda picture: picture
    graph = Graph()
    nodes = [graph.add_buffer(width=size[0], height=size[1], format=av.VideoFormat("yuv420p"), time_base=_TICK)]
    nodes += [graph.add(name, args) for name, args in turns[rotation]]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()

    def turn(picture: Any) -> Any:
        graph.vpush(picture)
        return graph.vpull()

    return turn


class _CopiedSound:
    """Sound packets as they are; they are decoded as well, because a browser stops at one that cannot be."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        self.info = info
        self.out = out
        self.stream = stream
        self.track = out.add_stream_from_template(stream, opaque=True)
        self.first = round(info.first_pts * info.time_base / stream.time_base)
        self.last: int | None = None

    def write(self, packet: Any) -> None:
        if packet.pts is None or packet.dts is None or packet.is_corrupt:
            raise _BadSound
        try:
            self.stream.codec_context.decode(packet)
        except DECODE_ERRORS:
            raise _BadSound from None
        packet.pts -= self.first
        packet.dts -= self.first
        start = float(packet.pts * packet.time_base)
        if start < -_PRIMING or start >= self.info.duration:
            return
        if self.last is not None and packet.dts <= self.last:
            raise _BadSound
        self.last = packet.dts
        packet.stream = self.track
        self.out.mux(packet)

    def finish(self) -> None:
        if self.last is None:
            raise _BadSound


class _EncodedSound:
    """AAC stereo; silence where sound is missing, so that it stays beside its pictures."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        self.info = info
        self.out = out
        self.stream = stream
        self.first = info.first_pts * info.time_base
        self.end = round(info.duration * _RATE)  # samples: sound before the first picture or after the last is cut
        self.track = out.add_stream("aac", rate=_RATE, bit_rate=96000)
        self.track.codec_context.layout = "stereo"
        self.resampler: Any = None
        self.shape: Any = None
        self.next = 0  # samples given to the encoder so far
        self.heard = False

    def write(self, packet: Any) -> None:
        for frame in _decoded(packet, self.stream):
            if frame.pts is None or not frame.sample_rate:
                continue
            start = round((frame.pts * self.stream.time_base - self.first) * _RATE)
            length = frame.samples * _RATE // frame.sample_rate
            if start + length <= 0 or start >= self.end:
                continue
            frame.pts = round(Fraction(start, _RATE) / self.stream.time_base)
            frame.time_base = self.stream.time_base
            try:
                self._resample(frame, start)
            except DECODE_ERRORS:
                raise _BadSound from None

    def _resample(self, frame: Any, start: int) -> None:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self.resampler is None or shape != self.shape or start - self.next > _LONGEST_SILENCE:
            self._flush()
            first = start if start - self.next > _LONGEST_SILENCE else self.next
            options = {"async": "1", "first_pts": str(first)}  # fill gaps and cut overlaps, no stretching
            self.resampler = av.AudioResampler(format="fltp", layout="stereo", rate=_RATE, options=options)
            self.shape = shape
        self._encode(self.resampler.resample(frame))

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            if frame.samples and frame.pts < self.end:
                self.next = max(self.next, frame.pts + frame.samples)
                self.heard = True
                self.out.mux(self.track.encode(frame))

    def _flush(self) -> None:
        if self.resampler is not None:
            self._encode(self.resampler.resample(None))

    def finish(self) -> None:
        try:
            self.write(None)
            self._flush()
            if self.heard:
                self.out.mux(self.track.encode(None))
        except DECODE_ERRORS:
            raise _BadSound from None
        if not self.heard:
            raise _BadSound
