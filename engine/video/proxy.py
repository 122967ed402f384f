"""A copy of a video for the page's player: browsers show HEVC as silent black, and know nothing of mkv, avi or ts.

Packets are copied where only the container is in the way; else the pictures become a small H.264. The clock of the copy
is `VideoInfo.frame_times`. The model never sees the copy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.filter import Graph
from av.stream import Discard
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from engine.errors import EngineError
from engine.video.container import DECODE_ERRORS, open_video
from engine.video.probe import probe
from engine.video.types import Cancelled, VideoInfo

SHORT_SIDE = 480  # pixels of the shorter side of a re-encoded copy, at most

_TICK = Fraction(1, 90000)  # seconds: fine enough for every usual frame rate
_LONGEST_STEP = 2**31 - 1  # ticks, 6.6 hours: an mp4 cannot say that a picture is shown for longer
_RATE = 48000  # sound samples per second
_LONGEST_SILENCE = 10 * _RATE  # samples put in where sound is missing; a longer gap stays a gap in the time stamps
_PRIMING = 0.1  # seconds of sound before the first picture that a sound decoder may need in order to start

Progress = Callable[[float], None]
Stop = Callable[[], bool]

_EIGHT_BITS = ("yuv420p", "yuvj420p")
_TURNS: dict[int, list[tuple[str, str | None]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "cclock")],
}


class _Refused(Exception):
    """This kind of stream ("video" or "audio") cannot be had in the way that was tried."""


def plays_in_browsers(info: VideoInfo) -> bool:
    """Whether today's browsers play the file as it is; a doubtful one does not count, nor one that cannot be opened.

    The suffix matters as well as the content: it becomes the type that the browser is told."""
    suffix, sound = info.path.suffix.lower(), _sound_codec(info)
    if suffix in (".mp4", ".m4v", ".mov") and "mp4" in info.container:
        fits = info.codec in ("h264", "vp9", "av1") and sound in ("", "aac", "mp3", "opus")
    else:
        fits = suffix == ".webm" and info.codec in ("vp8", "vp9", "av1") and sound in ("", "opus", "vorbis")
    with suppress(EngineError, OSError):
        if fits and suffix == ".webm":
            with info.path.open("rb") as file:
                fits = b"\x42\x82\x84webm" in file.read(128)  # the field that tells it from other Matroska
        if fits:
            with open_video(info.path) as (_, stream):
                return stream.pix_fmt in (_EIGHT_BITS if info.codec == "h264" else ("yuv420p", "yuv420p10le"))
    return False


def make_player_copy(
    info: VideoInfo, target: Path, progress: Progress | None = None, cancelled: Stop | None = None
) -> None:
    """Write an mp4 of the video that plays everywhere, whatever the suffix of `target`.

    H.264 (8-bit 4:2:0) is copied packet by packet, and so are AAC and MP3 beside it. All else becomes H.264 of at most
    SHORT_SIDE pixels on the shorter side, upright, and AAC. Damaged packets are passed over; sound that cannot be read
    is left out. `progress` gets 0..1, starting over where another way must be tried. Raises Cancelled, and EngineError
    when it fails; then nothing is left at `target`."""
    same = False
    with suppress(OSError):
        same = target.samefile(info.path)
    if same:
        raise EngineError(f"{target.name} is the video itself; give another name for its copy.")
    copy = info.codec == "h264" and not info.counted
    sound = "none" if info.audio_codec in (None, "unknown") else "encode"
    if copy and _sound_codec(info) in ("aac", "mp3"):
        sound = "copy"
    done = False
    try:
        while not done:
            try:
                _write(info, target, copy, sound, progress or (lambda share: None), cancelled or (lambda: False))
                done = True
            except (_Refused, *DECODE_ERRORS) as problem:
                if problem.args == ("audio",):
                    sound = "encode" if sound == "copy" else "none"
                elif copy:
                    copy, sound = False, "none" if sound == "none" else "encode"
                else:
                    raise
    except (*DECODE_ERRORS, ArithmeticError) as error:  # time stamps may be absurd
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError("The disk is full: the player's copy cannot be written; free some space.") from None
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise EngineError(f"{info.path.name} cannot be converted for the player ({reason}); try an mp4.") from None
    finally:
        if not done:
            with suppress(OSError):
                target.unlink(missing_ok=True)


def _sound_codec(info: VideoInfo) -> str:
    """The codec's own name, "" without sound; a decoder's name is "mp3float" or "libopus"."""
    return (info.audio_codec or "").removeprefix("lib").removesuffix("float")


def _write(info: VideoInfo, target: Path, copy: bool, sound: str, progress: Progress, stop: Stop) -> None:
    """One attempt; `sound` is "copy", "encode" or "none". Raises _Refused to ask for another."""
    options = {"movflags": "+faststart", "movie_timescale": str(_TICK.denominator)}
    with open_video(info.path) as (source, video):
        streams: list[Any] = [video]
        if sound != "none" and (audio := source.streams.best("audio")) is not None:
            audio.discard = Discard.default  # only the pictures are read from a file opened for its pictures
            streams.append(audio)
        with av.open("file:" + os.fspath(target), "w", format="mp4", container_options=options) as out:
            try:
                tracks: list[Any] = [(_Copied if copy else _Pictures)(info, video, out)]
                tracks += [(_Copied if sound == "copy" else _Sound)(info, stream, out) for stream in streams[1:]]
                for packet in _packets(source, streams):
                    if stop():
                        raise Cancelled("Making the player copy was stopped.")
                    if packet.stream is video and packet.dts is not None:
                        done = float((packet.dts - info.first_pts) * info.time_base) / info.duration
                        progress(min(max(done, 0.0), 1.0))
                    tracks[streams.index(packet.stream)].write(packet)
                for track in tracks:
                    track.finish()
            except BaseException:
                with suppress(*DECODE_ERRORS):  # ending a file that is thrown away must not hide why it is
                    out.close()
                raise
    if copy:
        try:
            probe(target)  # what the file says about its pictures, which is copied too, may be damaged
        except EngineError:
            raise _Refused("video") from None
    progress(1.0)


def _packets(source: Any, streams: list[Any]) -> Iterator[Any]:
    """Packets with data, up to the end or to where the file is cut off."""
    with suppress(*DECODE_ERRORS, IndexError):  # the library's answer to a stream that begins in the middle
        yield from (packet for packet in source.demux(*streams) if packet.size)


def _decoded(packet: Any, stream: Any) -> list[Any]:
    """The frames of a packet, of None those the decoder still holds; none where they are damaged."""
    frames: list[Any] = []
    with suppress(*DECODE_ERRORS):
        frames = stream.codec_context.decode(packet)
    return frames


class _Copied:
    """Packets as they are, on a clock that starts at the first picture. Raises _Refused where that would do harm."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        self.info, self.stream, self.out = info, stream, out
        self.first = round(info.first_pts * info.time_base / stream.time_base)
        self.last: int | None = None  # ticks: decoding time of the packet before
        self.waiting: list[Any] = []  # Matroska's first packets do not say when they are decoded
        self._expect(stream.type == "audio" or stream.pix_fmt in _EIGHT_BITS)
        self.track = out.add_stream_from_template(stream, opaque=True)
        if stream.type == "video" and info.rotation:
            self.track.set_display_rotation(-info.rotation)  # the library counts counter-clockwise

    def _expect(self, fine: bool) -> None:
        if not fine:
            raise _Refused(self.stream.type)

    def write(self, packet: Any) -> None:
        self._expect(packet.pts is not None and not packet.is_corrupt and len(self.waiting) < 32)
        seconds = float((packet.pts - self.first) * packet.time_base)
        if self.stream.type == "video":
            # Hidden pictures, and those before the first key frame, need a decoder to be passed over without harm.
            begun = self.last is not None or bool(self.waiting)
            self._expect(not packet.is_discard and seconds >= 0 and (begun or packet.is_keyframe))
            # An mp4 tells how long pictures last in decoding order only: not enough where both vary.
            self._expect(not self.info.variable_rate or packet.pts == packet.dts)
        else:
            try:
                self.stream.codec_context.decode(packet)  # a browser stops at sound that cannot be decoded
            except DECODE_ERRORS:
                self._expect(False)
            if not -_PRIMING <= seconds < self.info.duration:
                return
        self.waiting.append(packet)
        if packet.dts is None:
            return
        known, step = packet.dts - self.first, packet.duration or 1
        for back, waiting in zip(range(len(self.waiting))[::-1], self.waiting, strict=True):
            waiting.pts, waiting.dts, waiting.stream = waiting.pts - self.first, known - back * step, self.track
            since = 1 if self.last is None else waiting.dts - self.last
            self._expect(since > 0 and since * waiting.time_base <= _LONGEST_STEP * _TICK)
            self.last = waiting.dts
            self.out.mux(waiting)
        self.waiting = []

    def finish(self) -> None:
        self._expect(self.last is not None and not self.waiting)


class _Pictures:
    """H.264 without B-frames, so that decoding and showing share one clock that every player agrees on."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        self.info, self.stream = info, stream
        self.counted = self.last = -1  # pictures decoded; ticks of the last one encoded
        self.held: Any = None  # (ticks, picture) not yet encoded
        self.mux, self.reformat = out.mux, VideoReformatter().reformat
        shrink = min(1.0, SHORT_SIDE / min(info.width, info.height))
        width, height = (max(2, int(side * shrink + 1e-6) // 2 * 2) for side in (info.width, info.height))
        lying = bool(info.rotation % 180)
        self.size = (height, width) if lying else (width, height)
        self.turn = Graph()
        shape = av.VideoFormat("yuv420p", *self.size)
        start = self.turn.add_buffer(width=shape.width, height=shape.height, format=shape, time_base=_TICK)
        turns = [self.turn.add(name, args) for name, args in _TURNS[info.rotation]]
        self.turn.link_nodes(start, *turns, self.turn.add("buffersink")).configure()
        options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        self.track: Any = out.add_stream("libx264", rate=max(1, min(240, round(info.fps))), options=options)
        self.track.time_base = _TICK
        context, coded = self.track.codec_context, stream.codec_context
        context.width, context.height, context.pix_fmt, context.time_base = width, height, "yuv420p", _TICK
        context.gop_size = 48  # a key frame every second or two: jumping to the evidence must be quick
        if aspect := stream.sample_aspect_ratio:
            context.sample_aspect_ratio = 1 / aspect if lying else aspect
        # A player guesses the colours of an untagged file by its size, which changes here: say what it would guess.
        guess = Colorspace.ITU709 if min(info.width, info.height) >= 720 else Colorspace.ITU601
        context.colorspace = guess if coded.colorspace in (0, 2) else coded.colorspace
        context.color_primaries, context.color_trc = coded.color_primaries, coded.color_trc
        context.color_range = ColorRange.MPEG

    def write(self, packet: Any) -> None:
        for frame in _decoded(packet, self.stream):
            self.counted += 1
            tick = self._tick(frame)
            if not 0 < tick - self.last <= _LONGEST_STEP:
                continue
            # A picture waits for the next one: where that is earlier, the time stamp of the first one was damaged.
            if self.held is not None and self.held[0] < tick:
                self._encode_held()
            self.turn.vpush(self.reformat(frame, *self.size, "yuv420p", dst_color_range=ColorRange.MPEG))
            self.held = (tick, self.turn.vpull())

    def _encode_held(self) -> None:
        tick, picture = self.held
        picture.pict_type = 0  # the encoder chooses its own key frames
        # Where the first pictures are lost, the first good one stands in for them: the clock starts at zero.
        picture.pts, picture.time_base = (0 if self.last < 0 else tick), _TICK
        self.last = tick
        self.mux(self.track.encode(picture))

    def _tick(self, frame: Any) -> int:
        """When a picture is shown, in ticks; -1 where that is unknown."""
        times = self.info.frame_times
        if self.info.counted or frame.pts is None:
            return round(times[self.counted] / float(_TICK)) if self.counted < len(times) else -1
        return round((frame.pts - self.info.first_pts) * self.info.time_base / _TICK)

    def finish(self) -> None:
        self.write(None)
        if self.held is None:
            raise EngineError(f"No picture of {self.info.path.name} can be read; copy or upload it again.")
        self._encode_held()
        packets = self.track.encode(None)
        if packets:  # only the last one must be told how long it is shown
            left = round(self.info.duration / float(_TICK)) - self.last
            packets[-1].duration = min(max(1, left), _LONGEST_STEP)
        self.mux(packets)


class _Sound:
    """AAC stereo; silence where sound is missing, so that it stays beside its pictures."""

    def __init__(self, info: VideoInfo, stream: Any, out: Any) -> None:
        self.stream, self.mux = stream, out.mux
        self.first = info.first_pts * info.time_base  # seconds
        self.end = round(info.duration * _RATE)  # samples: sound before the first picture or after the last is cut
        self.next = 0  # samples: where the next one is due
        self.leap = -_RATE  # samples: where sound last went on after a long gap
        self.resampler: Any = None
        self.shape: Any = None
        self.track = out.add_stream("aac", rate=_RATE, bit_rate=96000, layout="stereo")

    def write(self, packet: Any) -> None:
        for frame in _decoded(packet, self.stream):
            if frame.pts is None or not frame.sample_rate:
                continue
            start = round((frame.pts * self.stream.time_base - self.first) * _RATE)
            if start + frame.samples * _RATE // frame.sample_rate <= 0 or start >= self.end:
                continue
            frame.pts, frame.time_base = start, Fraction(1, _RATE)
            gap = start - self.next > _LONGEST_SILENCE
            if gap and not 0 <= start - self.leap < _RATE:
                self.leap = start  # believed when the next piece says the same
                continue
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            if gap or shape != self.shape:
                self._encode(None)
                # Fill gaps and cut overlaps; many channels must not add up to more than full level.
                first = str(start if gap else self.next)
                options = {"async": "1", "first_pts": first, "rematrix_maxval": "1"}
                self.resampler = av.AudioResampler("fltp", "stereo", _RATE, frame_size=1024, options=options)
                self.shape = shape
            self._encode(frame)

    def _encode(self, frame: Any) -> None:
        try:
            for piece in self.resampler.resample(frame) if self.resampler is not None else ():
                if piece.samples and piece.pts < self.end:
                    self.next = piece.pts + piece.samples
                    self.mux(self.track.encode(piece))
        except DECODE_ERRORS:
            raise _Refused("audio") from None

    def finish(self) -> None:
        self.write(None)
        self._encode(None)
        if not self.next:
            raise _Refused("audio")
        self.mux(self.track.encode(None))
