"""Reading chosen frames of a file: one decoding pass, seeking only where that saves decoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from engine.video.container import DECODE_ERRORS, open_video
from engine.video.probe import clockwise
from engine.video.types import Cancelled, VideoInfo

T = TypeVar("T")

_WORTH_A_SEEK = 8
"""Frames that must be saved before a seek pays: it empties the decoder's threads."""

_AHEAD = 2
"""Frames that may be decoded and not used yet: enough that neither waits for the other, and few in memory."""

_LEAVES_OUT = ("h264", "hevc")
"""Codecs in which a packet is a picture and says whether others refer to it. In AV1 and VP9 a picture may be shown
from a packet before its own."""

_SEEKABLE = ("mov", "matroska")
"""Containers whose index leads exactly to a key frame. Elsewhere packets are read and dropped instead."""


def frames_at(
    info: VideoInfo,
    indices: tuple[int, ...],
    last_index: int,
    use: Callable[[int, np.ndarray], T],
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, float, T]]:
    """Decode the frames with these indices (ascending, in presentation order) and hand each to `use`.

    `use` gets the position in `indices` and the picture, uint8 RGB [height, width, 3] as displayed and in full size.
    It is called in order, on one other thread, so that decoding goes on meanwhile; as long as it keeps none, one full
    picture exists at a time, and at most _AHEAD that are decoded. Yields (position, true presentation time in
    seconds, what `use` returned). A frame that cannot be decoded is replaced by the next one that can before the
    following chosen frame (or up to `last_index`), or left out. Raises Cancelled, EngineError when the file cannot be
    opened, and what `use` raises."""
    reader = _Reader(info, indices, last_index, cancelled or (lambda: False))
    waiting: deque[tuple[int, float, Future[T]]] = deque()
    with ThreadPoolExecutor(1, "frames") as pool:
        for slot, time, frame in _chosen(reader):
            waiting.append((slot, time, pool.submit(lambda slot, frame: use(slot, to_rgb(frame)), slot, frame)))
            if len(waiting) > _AHEAD:
                yield _used(waiting)
        while waiting:
            yield _used(waiting)


def _used(waiting: deque[tuple[int, float, Future[T]]]) -> tuple[int, float, T]:
    slot, time, future = waiting.popleft()
    return slot, time, future.result()


def _chosen(reader: _Reader) -> Iterator[tuple[int, float, Any]]:
    try:
        yield from reader.read(seeking=True)
    except _SeekMissed:
        yield from reader.read(seeking=False)  # the index lies: start over without it, from the frame still missing


class _SeekMissed(Exception):
    pass


class _Reader:
    def __init__(
        self, info: VideoInfo, indices: tuple[int, ...], last_index: int, cancelled: Callable[[], bool]
    ) -> None:
        self.info = info
        self.cancelled = cancelled
        self.order = np.asarray(indices, dtype=np.int64)
        self.ticks = self._ticks(info.frame_times)
        self.keys = self._ticks(info.key_times)
        self.key_indices = np.searchsorted(self.ticks, self.keys)
        self.wanted = self.ticks[self.order]
        self.end = int(self.ticks[last_index])
        self.slot = 0  # the next position of `indices` to deliver

    def _ticks(self, seconds: np.ndarray) -> np.ndarray:
        base = self.info.time_base
        return np.rint(seconds * base.denominator / base.numerator).astype(np.int64) + self.info.first_pts

    def _jump(self, position: int) -> int | None:
        """The key frame (ticks) to go on from when frame `position` was the last one used, None to read on.

        Going there pays when the next chosen frame lies farther away than key frames lie apart."""
        if self.info.counted or not len(self.keys):
            return None
        target = int(self.order[self.slot])
        k = int(np.searchsorted(self.key_indices, target, side="right")) - 1
        if k <= 0 or self.key_indices[k] - position <= _WORTH_A_SEEK:
            return None
        distance = int(self.key_indices[k] - self.key_indices[k - 1])
        return int(self.keys[k]) if target - position > distance else None

    def read(self, seeking: bool) -> Iterator[tuple[int, float, Any]]:
        base = self.info.time_base
        with open_video(self.info.path) as (container, stream):
            seekable = seeking and container.format.name.split(",")[0] in _SEEKABLE
            jump = self._jump(-1)
            counted = -1  # pictures since the start, for files that do not say when a picture is shown
            while self.slot < len(self.order):
                check = None
                if jump is not None and seekable:
                    try:
                        container.seek(jump, stream=stream, backward=True)
                    except DECODE_ERRORS:
                        raise _SeekMissed from None
                    check = jump
                pictures = _pictures(
                    container, stream, self.cancelled, check, None if seekable else jump, self._needed()
                )
                jump = None
                for frame in pictures:
                    counted += 1
                    when = self._when(frame, counted)
                    if when is None or when < self.wanted[self.slot]:
                        continue
                    # A later frame than the wanted one stands in for it unless it is another wanted one.
                    self.slot += int(np.searchsorted(self.wanted[self.slot :], when, side="right")) - 1
                    if when > self.end:
                        return
                    slot = self.slot
                    self.slot += 1
                    yield slot, (when - self.info.first_pts) * base.numerator / base.denominator, frame
                    if self.slot == len(self.order):
                        return
                    jump = self._jump(int(np.searchsorted(self.ticks, when)))
                    if jump is not None:
                        break
                else:
                    return

    def _needed(self) -> frozenset[int] | None:
        """The ticks of the pictures still to be used; None where every picture must come."""
        if self.info.counted or self.info.codec not in _LEAVES_OUT:
            return None
        return frozenset(self.wanted[self.slot :].tolist())

    def _when(self, frame: Any, counted: int) -> int | None:
        if self.info.counted or frame.pts is None:
            return int(self.ticks[counted]) if counted < len(self.ticks) else None
        return int(frame.pts)


def _pictures(
    container: Any,
    stream: Any,
    cancelled: Callable[[], bool],
    check: int | None,
    skip_to: int | None,
    needed: frozenset[int] | None,
) -> Iterator[Any]:
    """Decoded frames from here on. `check`: raise _SeekMissed when the file stands behind these ticks. `skip_to`: drop
    packets undecoded until the key frame with these ticks. Damaged packets are passed over.

    `needed`: ticks of the pictures that will be used. Of the others those are not decoded to which no other picture
    refers: half of a usual H.264 file, and a quarter of the work. None: every picture comes."""
    context = stream.codec_context
    if skip_to is not None:
        context.flush_buffers()
    try:
        for packet in container.demux(stream):
            if cancelled():
                raise Cancelled("Reading the clip was stopped.")
            when = packet.pts if packet.pts is not None else packet.dts
            if check is not None and when is not None:
                if when > check:
                    raise _SeekMissed
                check = None
            if packet.size == 0 and packet.dts is not None:
                continue
            if skip_to is not None and packet.size:
                if not (packet.is_keyframe and when is not None and when >= skip_to):
                    continue
                skip_to = None
            if needed is not None:
                context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in needed else "NONREF"
            try:
                yield from packet.decode()
            except DECODE_ERRORS:
                continue
    except DECODE_ERRORS:
        return  # cut off: there is nothing more to read


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded frame as uint8 RGB [height, width, 3], turned as it is displayed.

    The conversion is swscale's default with the frame's own matrix and range, as in the decoder that the published
    utilities use."""
    rgb: np.ndarray = frame.reformat(format="rgb24").to_ndarray()
    turns = clockwise(frame) // 90
    return np.rot90(rgb, -turns) if turns else rgb
