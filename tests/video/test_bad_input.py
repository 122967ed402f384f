"""Whatever a user hands over ends in frames or in one EngineError sentence, never in another exception."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.video import PRESETS, Clip, VideoInfo, content_hash, probe, sample
from tests.media import cut_short, index_of, make_clip, make_sound, scramble

PREVIEW = PRESETS["keye-vl-preview"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "four.mp4", frames=100, gop=12)


def refusal(path: Path, start: float | None = None, end: float | None = None) -> str:
    with pytest.raises(EngineError) as caught:
        sample(Clip(path, start, end), PREVIEW)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 300
    return text


def png(path: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\x00" + b"\xff" * 24) * 8)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("notes.mp4", b"Dear diary, this is not a video.\n" * 50, "text"),
        ("page.mp4", b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        ("list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n", "playlist"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nhttp://example.com/a.ts\n", "playlist"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile four.mp4\n", "playlist"),
        ("call.sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "session description"),
        ("paper.mp4", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        ("noise.mp4", np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes(), "not a video"),
        ("zeros.mp4", bytes(4096), "not a video"),
        ("empty.mp4", b"", "empty"),
        ("head.mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "damaged or cut off"),
        ("head.mkv", b"\x1aE\xdf\xa3", "damaged or cut off"),
        ("photo.mp4", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "JPEG picture"),
    ],
)
def test_files_that_are_not_videos(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert says in refusal(path)


def test_a_picture_named_mp4(tmp_path: Path) -> None:
    assert "PNG picture" in refusal(png(tmp_path / "photo.mp4"))


def test_missing_folder_pipe_and_address(tmp_path: Path) -> None:
    assert "no file" in refusal(tmp_path / "gone.mp4")
    assert "folder" in refusal(tmp_path)
    assert "no file" in refusal(Path("http://127.0.0.1:9/a.mp4"))
    assert "no file" in refusal(Path("concat:a.mp4|b.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "ordinary file" in refusal(tmp_path / "pipe.mp4")
    with pytest.raises(EngineError):
        probe("bad\x00name.mp4")
    with pytest.raises(EngineError):
        content_hash(tmp_path)


def test_a_playlist_cannot_reach_other_files(tmp_path: Path, clip: Path) -> None:
    """ffmpeg itself would follow each of these to the good clip next to it."""
    neighbour = tmp_path / "four.mp4"
    neighbour.write_bytes(clip.read_bytes())
    make_clip(tmp_path / "four.ts", frames=20)
    for name, text in {
        "a.mp4": "ffconcat version 1.0\nfile four.mp4\n",
        "b.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfour.ts\n#EXT-X-ENDLIST\n",
        "c.mp4": f"ffconcat version 1.0\nfile file:{neighbour}\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert "playlist" in refusal(tmp_path / name)


def test_a_name_that_looks_like_a_protocol_is_a_file(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.mp4", "concat:a|b.mp4", "%03d.mp4", "名前 'quoted' é.mp4", "-i.mp4"):
        Path(name).write_bytes(clip.read_bytes())
        assert probe(name).frame_count == 100


def test_sound_only(tmp_path: Path) -> None:
    assert "no pictures" in refusal(make_sound(tmp_path / "song.m4a"))
    assert "no pictures" in refusal(make_sound(tmp_path / "song.mp4"))


def test_index_at_the_end_and_cut_off(tmp_path: Path) -> None:
    assert "cut off" in refusal(cut_short(make_clip(tmp_path / "a.mp4"), 0.8))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_cut_off_file_gives_what_is_there(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = make_clip(tmp_path / name, frames=200, size=(320, 240), container_options=options)
    frames = sample(Clip(cut_short(path, 0.5)), PREVIEW)
    assert len(frames.images) >= 2
    assert max(frames.times) < 6
    for image, time in zip(frames.images, frames.times, strict=True):
        assert index_of(image) == round(time * 25)
    if name.endswith("mp4"):
        assert any("The file says it lasts 8.0 s" in note for note in frames.notes)


def test_nothing_left_of_the_pictures(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=100, container_options={"movflags": "faststart"})
    text = refusal(scramble(path, 0.25, 1.0))
    assert "damaged" in text or "cut off" in text


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.webm"])
def test_damage_in_the_middle(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    options = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = make_clip(tmp_path / name, frames=200, codec=codec, size=(320, 240), container_options=options)
    try:
        frames = sample(Clip(scramble(path, 0.5, 0.6)), PREVIEW)
    except EngineError:
        return
    assert list(frames.times) == sorted(set(frames.times))
    assert frames.total_tokens <= PREVIEW.budget
    first = [index_of(image) for image, time in zip(frames.images, frames.times, strict=True) if time < 2]
    assert first == [round(time * 25) for time in frames.times if time < 2]


def test_random_damage_never_raises_anything_else(tmp_path: Path, clip: Path) -> None:
    data = clip.read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / "x.mp4"
    for trial in range(60):
        broken = bytearray(data)
        for _ in range(int(rng.integers(1, 40))):
            broken[int(rng.integers(0, len(broken)))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(broken[: int(rng.integers(len(broken) // 2, len(broken) + 1))] if trial % 2 else broken))
        try:
            frames = sample(Clip(path), PRESETS["keye-vl-1.5" if trial % 3 else "keye-vl-preview"])
        except EngineError:
            continue
        assert frames.total_tokens <= frames.sampling.budget
        assert np.isfinite(frames.fps) and frames.fps > 0


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (3.0, 2.0),
        (2.0, 2.0),
        (-1.0, 2.0),
        (float("nan"), 2.0),
        (0.0, float("nan")),
        (0.0, float("inf")),
        (float("-inf"), None),
        (99.0, None),
        (99.0, 100.0),
        (None, -1.0),
        (4.0, 5.0),
    ],
)
def test_impossible_ranges(clip: Path, start: float | None, end: float | None) -> None:
    refusal(clip, start, end)


def test_range_between_two_frames_is_the_one_on_screen(clip: Path) -> None:
    frames = sample(Clip(clip, 1.05, 1.07), PREVIEW)
    assert [index_of(image) for image in frames.images] == [26]
    assert frames.times == (1.04,)
    assert any("on screen" in note for note in frames.notes)


def test_range_past_the_end_is_cut_and_said(clip: Path) -> None:
    frames = sample(Clip(clip, 3.0, 60.0), PREVIEW)
    assert frames.times[0] == 3.0 and frames.times[-1] == pytest.approx(3.96)
    assert any("4.00 s" in note for note in frames.notes)


def test_a_codec_without_a_decoder(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "alien.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz"))
    assert "decoder" in refusal(path)


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    monkeypatch.setattr("engine.video.container.MAX_PIXELS", 100)
    assert "128×96" in refusal(clip)


def test_extreme_shape(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "thin.mkv", frames=3, size=(4096, 16))
    assert "200 times" in refusal(path)


def test_a_file_that_vanishes_after_the_probe(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(clip.read_bytes())
    info = probe(path)
    path.unlink()
    with pytest.raises(EngineError):
        sample(Clip(path), PREVIEW, info=info)


def test_a_file_exchanged_after_the_probe(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(clip.read_bytes())
    info: VideoInfo = probe(path)
    make_clip(path, frames=5)
    frames = sample(Clip(path), PREVIEW, info=info)
    assert 1 <= len(frames.images) < 8
    assert any("left out" in note for note in frames.notes)


def test_a_start_that_is_not_a_number(clip: Path) -> None:
    refusal(clip, "1.0")  # type: ignore[arg-type]


def test_pictures_that_grow_beyond_the_limit_in_the_middle_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transport stream may change its size; the decoder itself refuses what is too large then."""
    small = make_clip(tmp_path / "small.ts", frames=50, size=(64, 48))
    large = make_clip(tmp_path / "large.ts", frames=50, size=(640, 480))
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames = sample(Clip(path), PREVIEW, cache=None)
    assert {image.shape for image in frames.images} == {(280, 392, 3)}
    monkeypatch.setattr("engine.video.container.MAX_PIXELS", 64 * 48 * 4)
    assert len(sample(Clip(path), PREVIEW, cache=None).images) <= len(frames.images)
