"""The player's copy shows the same pictures at the same times as the file, upright and with its sound."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engine.errors import EngineError
from engine.video import Cancelled, VideoInfo, probe, proxy
from engine.video.proxy import make_player_copy, plays_in_browsers
from tests.media import FAST_OPTIONS, board, cut_short, index_of, make_clip, scramble

VARYING = (0.0, 0.04, 0.1, 0.5, 0.52, 1.3, 1.31)


def make_talkie(
    path: Path,
    codec: str = "mpeg4",
    sound: str = "aac",
    layout: str = "stereo",
    rate: int = 48000,
    silent: Callable[[float], bool] = lambda second: False,
    first_picture: float = 0.0,
    seconds: float = 2.0,
    size: tuple[int, int] = (128, 96),
) -> Path:
    """25 pictures a second and a tone of mean level 0.15; nothing is written where `silent` says so."""
    with av.open(str(path), "w") as file:
        picture: Any = file.add_stream(codec, rate=25, options=FAST_OPTIONS.get(codec, {}))
        picture.width, picture.height = size
        picture.codec_context.gop_size = 12
        tone: Any = file.add_stream(sound, rate=rate, layout=layout)
        channels = tone.codec_context.layout.nb_channels
        block = 960 if sound == "libopus" else 1024
        for index in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(board(index, *size), format="rgb24")
            frame.pts, frame.time_base = index + round(first_picture * 25), Fraction(1, 25)
            file.mux(picture.encode(frame))
            for start in range(index * rate // 25 // block * block, (index + 1) * rate // 25 // block * block, block):
                if silent(start / rate):
                    continue
                wave = 8000 * np.sin(np.arange(start, start + block) * 2 * np.pi * 440 / rate)
                packed = np.repeat(wave.astype(np.int16), channels)[None]
                note = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
                note.sample_rate, note.pts, note.time_base = rate, start, Fraction(1, rate)
                file.mux(tone.encode(note))
        file.mux(picture.encode())
        file.mux(tone.encode())
    return path


def spoil(source: Path, target: Path, spoiled: Callable[[Any], bool], drop: bool = False) -> Path:
    """The same file with the chosen packets overwritten with noise or left out."""
    noise = np.random.default_rng(0)
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        tracks = {
            s.index: new.add_stream_from_template(s, opaque=True) for s in (*old.streams.video, *old.streams.audio)
        }
        for packet in old.demux():
            if not packet.size or (drop and spoiled(packet)):
                continue
            if spoiled(packet):
                bad = av.Packet(noise.integers(0, 256, packet.size, np.uint8).tobytes())
                bad.pts, bad.dts, bad.duration, bad.time_base = (
                    packet.pts,
                    packet.dts,
                    packet.duration,
                    packet.time_base,
                )
                bad.is_keyframe, bad.stream = packet.is_keyframe, packet.stream
                packet = bad
            packet.stream = tracks[packet.stream_index if packet.stream is None else packet.stream.index]
            new.mux(packet)
    return target


def copied(path: Path) -> tuple[VideoInfo, VideoInfo]:
    """Probes of a file and of its copy, after checking what holds for every copy."""
    info, target = probe(path), path.parent / "copy.part"
    shares: list[float] = []
    make_player_copy(info, target, shares.append)
    assert shares[-1] == 1.0 and all(0 <= share <= 1 for share in shares)
    data = target.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    copy = probe(target)
    assert (copy.container, copy.codec, copy.frame_times[0]) == ("mov,mp4,m4a,3gp,3g2,mj2", "h264", 0.0)
    assert plays_in_browsers(replace(copy, path=target.rename(path.parent / "copy.mp4")))
    assert copy.duration == pytest.approx(info.duration, abs=0.5 / info.fps)
    return info, replace(copy, path=path.parent / "copy.mp4")


def pictures(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times in seconds and pictures as a player shows them."""
    with av.open(str(path)) as file:
        shown = [(f.time, np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90)) for f in file.decode(video=0)]
    return [time for time, _ in shown], [picture for _, picture in shown]


def levels(path: Path) -> list[float]:
    """The mean level of each quarter of a second, of sound put where its time stamps say."""
    with av.open(str(path)) as file:
        track = np.zeros(48000 * 30)
        for frame in file.decode(audio=0):
            start = max(0, round((frame.time or 0.0) * frame.sample_rate))
            sound = np.abs(frame.to_ndarray()[0])
            track[start : start + len(sound)] = sound
    return [round(float(part.mean()), 3) for part in track.reshape(-1, 12000)]


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(p) for p in file.demux() if p.size and p.stream.type == kind]


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "plays"),
    [
        ("libx264", ".mp4", "yuv420p", True),
        ("libx264", ".mov", "yuvj420p", True),
        ("libx264", ".mp4", "yuv420p10le", False),
        ("libx264", ".mp4", "yuv444p", False),
        ("libx264", ".mkv", "yuv420p", False),
        ("libx264", ".avi", "yuv420p", False),
        ("libx264", ".ts", "yuv420p", False),
        ("libx265", ".mp4", "yuv420p", False),
        ("libvpx", ".webm", "yuv420p", True),
        ("libvpx-vp9", ".webm", "yuv420p", True),
        ("libvpx-vp9", ".mp4", "yuv420p", True),
        ("libvpx-vp9", ".mkv", "yuv420p", False),
        ("libsvtav1", ".mp4", "yuv420p10le", True),
        ("mpeg4", ".mp4", "yuv420p", False),
        ("mjpeg", ".mov", "yuvj420p", False),
        ("prores_ks", ".mov", "yuv422p10le", False),
    ],
)
def test_what_browsers_play(tmp_path: Path, codec: str, suffix: str, pix_fmt: str, plays: bool) -> None:
    path = make_clip(tmp_path / f"a{suffix}", codec=codec, pix_fmt=pix_fmt, frames=5, sound=True)
    info = probe(path)
    assert plays_in_browsers(info) is plays
    assert plays_in_browsers(replace(info, audio_codec=None)) is plays
    assert not plays_in_browsers(replace(info, audio_codec="ac3"))
    other = path.rename(path.with_suffix(".webm" if suffix != ".webm" else ".mp4"))
    assert not plays_in_browsers(probe(other)) and not plays_in_browsers(replace(info, path=tmp_path / "gone.mp4"))


@pytest.mark.parametrize("times", [None, VARYING], ids=["steady", "varying"])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libx265", "mp4"),
        ("libvpx-vp9", "webm"),
        ("libx264", "mkv"),
        ("libx264", "ts"),
        ("mjpeg", "mkv"),
        ("gif", "gif"),
    ],
)
def test_same_pictures_at_the_same_times(tmp_path: Path, codec: str, suffix: str, times: Any) -> None:
    pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    info, copy = copied(make_clip(tmp_path / f"a.{suffix}", codec=codec, times=times, pix_fmt=pix_fmt))
    shown, seen = pictures(copy.path)
    assert shown == pytest.approx(info.frame_times, abs=0.001)
    assert [index_of(picture) for picture in seen] == list(range(info.frame_count))
    if codec == "libx265":
        assert times or not np.isin(np.round(info.key_times, 3), np.round(copy.key_times, 3)).all()
    if codec == "libx264" and times is None and suffix == "mkv":
        assert packets(info.path, "video") == packets(copy.path, "video")


@pytest.mark.parametrize("suffix", ["avi", "mpg"])
def test_files_with_poor_time_stamps_follow_the_probe(tmp_path: Path, suffix: str) -> None:
    info, copy = copied(make_clip(tmp_path / f"a.{suffix}", codec="mpeg4" if suffix == "avi" else "mpeg2video"))
    shown, seen = pictures(copy.path)
    assert shown == pytest.approx(info.frame_times, abs=0.001)
    assert [index_of(picture) for picture in seen] == list(range(50))


@pytest.mark.parametrize("sound", ["aac", "libmp3lame"])
def test_remux_keeps_every_packet(tmp_path: Path, sound: str) -> None:
    info, copy = copied(make_talkie(tmp_path / "a.mkv", codec="libx264", sound=sound))
    for kind in ("video", "audio"):
        assert packets(info.path, kind) == packets(copy.path, kind)
    assert levels(copy.path)[1:7] == levels(info.path)[1:7] and min(levels(copy.path)[:8]) > 0.1


def test_only_the_sound_is_converted_where_that_is_enough(tmp_path: Path) -> None:
    info, copy = copied(make_talkie(tmp_path / "a.mov", codec="libx264", sound="pcm_s16le"))
    assert packets(info.path, "video") == packets(copy.path, "video") and min(levels(copy.path)[:8]) > 0.1


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mov"), ("libx264", "mkv"), ("libx265", "mov")])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_files_stand_upright(tmp_path: Path, codec: str, suffix: str, rotation: int) -> None:
    size = (640, 1001 - 1) if codec == "libx265" else (96, 128)
    info, copy = copied(make_clip(tmp_path / f"a.{suffix}", codec=codec, frames=4, rotation=rotation, size=size))
    assert info.rotation == rotation and copy.rotation == (rotation if codec == "libx264" else 0)
    assert (copy.width, copy.height) == ((480, 750) if codec == "libx265" else size)
    corner = pictures(copy.path)[1][1]  # picture 1 is lit in its top left corner only
    assert corner.shape[:2] == (copy.height, copy.width) and index_of(corner) == 1
    assert corner[5, 5].min() > 200 and max(corner[5, -5].max(), corner[-5, 5].max(), corner[-5, -5].max()) < 50


@pytest.mark.parametrize(
    ("size", "pix_fmt", "expected"),
    [
        ((1280, 720), "yuv420p10le", (852, 480)),
        ((129, 97), "yuv444p", (128, 96)),
        ((641, 961), "yuv444p", (480, 718)),
        ((16, 400), "yuv422p", (16, 400)),
        ((64, 64), "yuvj444p", (64, 64)),
    ],
)
def test_sizes_and_colours(tmp_path: Path, size: Any, pix_fmt: str, expected: Any) -> None:
    def orange(index: int) -> tuple[int, int, int]:
        return (230, 120, 40)

    path = make_clip(tmp_path / "a.mp4", pix_fmt=pix_fmt, size=size, colour=orange, frames=9, options={"crf": "10"})
    _, copy = copied(path)
    assert (copy.width, copy.height) == expected
    with av.open(str(copy.path)) as file:
        stream: Any = file.streams.video[0]
        tagged = 1 if min(size) >= 720 else 5  # what players take an untagged file of the source's size for
        assert (stream.pix_fmt, stream.colorspace, stream.color_range) == ("yuv420p", tagged, 1)
        frame = list(file.decode(video=0))[1]
    middle = frame.to_ndarray(format="rgb24", src_colorspace="ITU601")[copy.height // 8, copy.width // 8]
    assert np.abs(middle.astype(int) - orange(1)).max() < 16


@pytest.mark.parametrize(
    ("sound", "layout", "rate", "suffix"),
    [
        ("aac", "5.1", 48000, "mp4"),
        ("pcm_s16le", "mono", 8000, "mkv"),
        ("libmp3lame", "stereo", 44100, "avi"),
        ("libmp3lame", "stereo", 48000, "avi"),
        ("libopus", "stereo", 48000, "mkv"),
        ("mp2", "stereo", 48000, "ts"),
        ("flac", "3.0", 44100, "mkv"),
    ],
)
def test_every_sound_becomes_aac(tmp_path: Path, sound: str, layout: str, rate: int, suffix: str) -> None:
    _, copy = copied(make_talkie(tmp_path / f"a.{suffix}", sound=sound, layout=layout, rate=rate))
    assert copy.audio_codec == "aac"
    assert min(levels(copy.path)[:7]) > 0.09 and max(levels(copy.path)) < 0.2


@pytest.mark.parametrize("seconds", [1.0, 12.0])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_sound_stays_beside_its_pictures(tmp_path: Path, codec: str, seconds: float) -> None:
    def silent(second: float) -> bool:
        return second < 0.75 or 1.5 <= second < 1.5 + seconds

    path = make_talkie(tmp_path / "a.mkv", codec=codec, silent=silent, first_picture=0.5, seconds=seconds + 2)
    info, copy = copied(path)
    level, gap = levels(copy.path), round(seconds * 4)
    assert level[0] < 0.01 and min(level[1:4]) > 0.1 and max(level[5 : 4 + gap]) < 0.01 and level[5 + gap] > 0.1
    if codec == "mpeg4":  # short gaps are filled, long ones stay gaps
        filled = info.duration if seconds < 10 else info.duration - seconds
        assert len(packets(copy.path, "audio")) == pytest.approx(filled * 48000 / 1024, abs=26)


def test_damaged_sound(tmp_path: Path) -> None:
    whole = make_talkie(tmp_path / "whole.mkv", codec="libx264")
    some = spoil(whole, tmp_path / "a.mkv", lambda p: p.stream.type == "audio" and 0.5 < p.pts * p.time_base < 1.0)
    _, copy = copied(some)
    assert packets(some, "video") == packets(copy.path, "video") and min(levels(copy.path)[5:7]) > 0.1
    _, copy = copied(spoil(whole, tmp_path / "b.mkv", lambda p: p.stream.type == "audio"))
    assert copy.audio_codec is None and copy.frame_count == 50


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "ts"), ("libx265", "mp4"), ("libvpx-vp9", "webm")])
def test_damaged_pictures_are_passed_over(tmp_path: Path, codec: str, suffix: str) -> None:
    path = scramble(make_clip(tmp_path / f"a.{suffix}", codec=codec, frames=75, sound=True), 0.5, 0.6)
    info, copy = copied(path)
    shown, seen = pictures(copy.path)
    assert 30 < copy.frame_count <= info.frame_count
    near = [abs(time - index_of(picture) / 25) < 0.041 for time, picture in zip(shown, seen, strict=True)]
    assert sum(near) >= len(near) - 3  # a damaged picture may show anything, but those around it are on time


def test_lost_beginning_and_end(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", options={"bf": "0"})
    headless = spoil(whole, tmp_path / "a.mkv", lambda p: p.pts == 0, drop=True)
    info, copy = copied(headless)
    shown, seen = pictures(copy.path)
    assert shown[0] == 0 and index_of(seen[-1]) == 49 and shown[-1] == pytest.approx(info.frame_times[-1], abs=0.001)
    assert copied(cut_short(whole, 0.6))[1].frame_count < 50


def test_one_wrong_time_stamp_costs_one_picture(tmp_path: Path) -> None:
    whole, path = make_clip(tmp_path / "whole.mkv", codec="mjpeg", pix_fmt="yuvj420p"), tmp_path / "a.mkv"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux():
            if packet.pts is not None:
                packet.pts += 100_000 if packet.pts == 800 else 0
                packet.stream = track
                new.mux(packet)
    target = tmp_path / "copy.mp4"
    make_player_copy(probe(path), target)
    shown, seen = pictures(target)
    assert [index_of(picture) for picture in seen] == [index for index in range(50) if index != 20]
    assert shown == pytest.approx([index / 25 for index in range(50) if index != 20], abs=0.001)


def test_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.sample_aspect_ratio = 96, 96, Fraction(4, 3)
        for index in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(board(index, 96, 96), format="rgb24")))
        file.mux(stream.encode())
    with av.open(str(copied(path)[1].path)) as file:
        assert file.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_stopping_and_failing_leave_nothing_behind(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = make_clip(tmp_path / "a.mkv", codec=codec), tmp_path / "copy.mp4"
    info, asked = probe(source), iter(range(1000))
    with pytest.raises(Cancelled):
        make_player_copy(info, target, cancelled=lambda: next(asked) >= 20)
    assert next(asked) < 25 and not target.exists()

    def refusal(target: Path = target) -> str:
        with pytest.raises(EngineError) as caught:
            make_player_copy(info, target)
        text = str(caught.value)
        assert text.endswith(".") and "\n" not in text and len(text) < 300 and not target.is_file()
        return text

    assert "a.mkv" in refusal(tmp_path / "missing" / "copy.mp4") and "a.mkv" in refusal(tmp_path)
    with pytest.raises(EngineError, match="itself"):
        make_player_copy(info, source)
    assert source.is_file()
    data = source.read_bytes()
    source.write_bytes(data[:600] + bytes(len(data) - 600))
    refusal()
    source.write_text("not a video")
    assert "text" in refusal()
    source.unlink()
    assert "no file" in refusal()

    def full(*_: Any) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(proxy, "_write", full)
    assert "disk is full" in refusal()
