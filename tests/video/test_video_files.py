"""Real files of every kind: the frame at a time is really that frame, decoded once, within bounded memory."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.errors import EngineError
from engine.video import PRESETS, Cancelled, Clip, Frames, Sampling, content_hash, describe, plan, probe, sample
from engine.video import decode as decoding
from engine.video.cache import FrameCache, cache_key
from engine.video.decode import frames_at
from engine.video.scaling import resize
from tests.media import index_of, make_clip

PREVIEW, FAST_SLOW = PRESETS["keye-vl-preview"], PRESETS["keye-vl-1.5"]

KINDS = [
    ("libx264", "mp4", "h264"),
    ("libx264", "mov", "h264"),
    ("libx264", "mkv", "h264"),
    ("libx264", "ts", "h264"),
    ("libx264", "avi", "h264"),
    ("libx264", "mpg", "h264"),
    ("libx264", "flv", "h264"),
    ("libx265", "mp4", "hevc"),
    ("libx265", "mkv", "hevc"),
    ("libvpx-vp9", "webm", "vp9"),
    ("libvpx-vp9", "mp4", "vp9"),
    ("libvpx", "webm", "vp8"),
    ("libsvtav1", "mp4", "av1"),
    ("libsvtav1", "webm", "av1"),
    ("mpeg4", "avi", "mpeg4"),
    ("mjpeg", "avi", "mjpeg"),
    ("prores_ks", "mov", "prores"),
    ("gif", "gif", "gif"),
]
PIX_FMT = {"mjpeg": "yuvj420p", "gif": "rgb8", "prores_ks": "yuv422p10le"}


def seen(frames: Frames) -> list[int]:
    return [index_of(image) for image in frames.images]


@pytest.mark.parametrize(("codec", "suffix", "name"), KINDS)
def test_codecs_and_containers(tmp_path: Path, codec: str, suffix: str, name: str) -> None:
    path = make_clip(tmp_path / f"a.{suffix}", codec=codec, frames=75, pix_fmt=PIX_FMT.get(codec, "yuv420p"))
    info = probe(path)
    assert (info.codec, info.width, info.height, info.rotation) == (name, 128, 96, 0)
    assert (info.frame_count, info.fps, info.variable_rate) == (75, 25.0, False)
    assert info.duration == pytest.approx(3.0, abs=0.01)
    np.testing.assert_allclose(info.frame_times, np.arange(75) / 25, atol=0.002)
    frames = sample(Clip(path), PREVIEW, info=info)
    assert seen(frames) == [0, 15, 30, 44, 59, 74]
    np.testing.assert_allclose(frames.times, np.array([0, 15, 30, 44, 59, 74]) / 25, atol=0.002)
    assert frames.fps == pytest.approx(2.0)
    assert seen(sample(Clip(path, 1.0, 2.0), PREVIEW)) == [25, 33, 42, 50]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_pictures_are_shown_upright(tmp_path: Path, suffix: str, rotation: int) -> None:
    path = make_clip(tmp_path / f"a.{suffix}", rotation=rotation, size=(96, 160), frames=20, sound=True)
    info = probe(path)
    assert (info.width, info.height, info.rotation, info.audio_codec) == (96, 160, rotation, "aac")
    frames = sample(Clip(path), PREVIEW, info=info)
    assert seen(frames) == [round(t * 25) for t in frames.times]
    assert frames.images[0].shape[0] > frames.images[0].shape[1]
    player = cv2.VideoCapture(str(path))  # another reader that obeys the tag
    shown = [player.read()[1] for _ in range(6)][5]
    assert shown.shape[:2] == (160, 96) and index_of(shown) == 5


def test_sound_in_webm(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.webm", codec="libvpx-vp9", sound=True)
    assert probe(path).audio_codec == "opus"


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_varying_rate(tmp_path: Path, suffix: str) -> None:
    """Ten frames a second, then thirty: moments are even although frames are not."""
    times = [i / 10 for i in range(40)] + [4 + i / 30 for i in range(120)]
    path = make_clip(tmp_path / f"a.{suffix}", times=times)
    info = probe(path)
    assert info.variable_rate and info.frame_count == 160
    assert info.duration == pytest.approx(8, abs=0.1)
    np.testing.assert_allclose(info.frame_times, times, atol=0.001)
    frames = sample(Clip(path), PREVIEW, info=info)
    assert len(frames.images) in (14, 16)
    moments = np.linspace(times[0], times[-1], len(frames.times))
    assert np.abs(np.array(frames.times) - moments).max() <= 0.051
    assert [times[i] for i in seen(frames)] == pytest.approx(list(frames.times), abs=0.001)


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_time_stamps_that_do_not_start_at_zero(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"a.{suffix}", times=[100 + i / 25 for i in range(50)])
    info = probe(path)
    assert info.frame_times[0] == 0 and not info.variable_rate
    assert info.duration == pytest.approx(2.0, abs=0.01)
    assert seen(sample(Clip(path, 1.0, None), PREVIEW)) == [25, 33, 41, 49]


@pytest.mark.parametrize("options", [{"use_editlist": "0"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_mp4_without_edit_list_and_in_fragments(tmp_path: Path, options: dict[str, str]) -> None:
    path = make_clip(tmp_path / "a.mp4", container_options=options)
    info = probe(path)
    assert (info.frame_count, info.fps) == (50, 25.0)
    assert seen(sample(Clip(path), PREVIEW, info=info)) == [0, 16, 33, 49]


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "gif"])
@pytest.mark.parametrize("sampling", [PREVIEW, FAST_SLOW])
def test_hardly_any_frames(tmp_path: Path, frames: int, suffix: str, sampling: Sampling) -> None:
    codec, pixels = ("gif", "rgb8") if suffix == "gif" else ("libx264", "yuv420p")
    path = make_clip(tmp_path / f"a.{suffix}", frames=frames, codec=codec, pix_fmt=pixels)
    got = sample(Clip(path), sampling)
    assert 1 <= len(got.images) <= frames and seen(got)[0] == 0
    assert got.info.duration > 0 and got.fps > 0


def test_frames_shrink_to_multiples_of_28_and_are_shared_read_only(tmp_path: Path) -> None:
    frames = sample(Clip(make_clip(tmp_path / "a.mp4", size=(640, 360))), PREVIEW)
    assert {image.shape for image in frames.images} == {(364, 644, 3)}
    assert frames.tokens == (13 * 23,) * 4 and frames.total_tokens == 4 * 13 * 23
    assert not frames.images[0].flags.writeable and frames.images[0].dtype == np.uint8


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the pictures that the decoder delivers to the sampler."""
    counted = [0]
    real = decoding._pictures

    def pictures(*args: object) -> object:
        for frame in real(*args):  # type: ignore[arg-type]
            counted[0] += 1
            yield frame

    monkeypatch.setattr(decoding, "_pictures", pictures)
    return counted


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_long_clip_is_not_decoded_whole(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours at two frames a second, a key frame every ten seconds, 48 frames wanted."""
    path = make_clip(tmp_path / f"a.{suffix}", frames=14400, fps=2, size=(64, 48), gop=20, options={"crf": "40"})
    info = probe(path)
    assert info.duration == pytest.approx(7200) and info.frame_count == 14400
    counted = count_decoded(monkeypatch)
    sampling = PREVIEW.with_limits(max_frames=48)
    frames = sample(Clip(path), sampling, info=info)
    assert seen(frames) == list(plan(info, Clip(path), sampling).indices)
    assert counted[0] < 48 * 20


def test_dense_sampling_decodes_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=200, gop=50)
    counted = count_decoded(monkeypatch)
    sample(Clip(path), PREVIEW)
    assert counted[0] <= 200


def test_a_clip_in_the_middle_starts_at_its_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=1000, gop=25)
    counted = count_decoded(monkeypatch)
    frames = sample(Clip(path, 30.2, 31.0), PREVIEW)
    assert seen(frames) == [755, 762, 768, 775]
    assert counted[0] < 60


def test_an_index_that_lies_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=600, gop=10)
    info = probe(path)
    real = av.container.InputContainer.seek
    calls = []

    class Liar:
        """A container whose seeks land far behind."""

        def __init__(self, inner: av.container.InputContainer) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def seek(self, offset: int, **options: object) -> None:
            calls.append(offset)
            real(self.inner, offset + 20 * 512 * 25, **options)  # type: ignore[arg-type]

    opened = decoding.open_video

    @contextmanager
    def lying(given: Path):  # type: ignore[no-untyped-def]
        with opened(given) as (container, stream):
            yield Liar(container), stream

    monkeypatch.setattr(decoding, "open_video", lying)
    frames = sample(Clip(path), PREVIEW, info=info)
    assert calls
    assert seen(frames) == list(plan(info, Clip(path), PREVIEW).indices)


def test_slow_fast_over_budget_is_decoded_again_at_smaller_sizes(tmp_path: Path) -> None:
    """Gray turns to colour and back every second: many slow frames, and a budget that cannot hold them large."""
    path = make_clip(
        tmp_path / "a.mp4",
        frames=200,
        size=(640, 360),
        colour=lambda i: (235, 235, 235) if i // 25 % 2 else (235, 20, 20),
    )
    roomy = sample(Clip(path), FAST_SLOW)
    tight = sample(Clip(path), FAST_SLOW.with_limits(budget=1500))
    assert roomy.kinds == tight.kinds and 2 < roomy.kinds.count("slow") < len(roomy.kinds)
    assert roomy.total_tokens > 1500 >= tight.total_tokens
    assert seen(tight) == [round(t * 25) for t in tight.times] == seen(roomy)
    assert any("smaller" in note for note in tight.notes) and not roomy.notes
    slow = {image.shape for image, kind in zip(tight.images, tight.kinds, strict=True) if kind == "slow"}
    fast = {image.shape for image, kind in zip(tight.images, tight.kinds, strict=True) if kind == "fast"}
    assert len(slow) == len(fast) == 1


def test_progress_and_cancelling(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=100)
    heard: list[tuple[int, int]] = []
    sample(Clip(path), PREVIEW, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(i, 8) for i in range(1, 9)]
    stop = threading.Event()
    with pytest.raises(Cancelled):
        sample(Clip(path), PREVIEW, progress=lambda *_: stop.set(), cancelled=stop.is_set, cache=None)
    assert issubclass(Cancelled, EngineError)


def test_follow_up_questions_do_not_decode_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4")
    counted = count_decoded(monkeypatch)
    first = sample(Clip(path), PREVIEW)
    once = counted[0]
    again = sample(Clip(path), PREVIEW)
    assert counted[0] == once and again.images[0] is first.images[0]
    sample(Clip(path, 0.5), PREVIEW)
    sample(Clip(path), PREVIEW.with_limits(fps=1))
    assert counted[0] > once
    make_clip(path, frames=40)
    assert len(seen(sample(Clip(path), PREVIEW))) == 4 and sample(Clip(path), PREVIEW).info.frame_count == 40


def test_cache_keeps_its_limit_from_many_threads(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    frames = sample(Clip(path), PREVIEW)
    size = sum(image.nbytes for image in frames.images)
    cache = FrameCache(max_bytes=3 * size)
    keys = [cache_key(path, Clip(path, start=i / 100), PREVIEW) for i in range(8)]

    def work() -> None:
        for key in keys * 20:
            cache.put(key, frames)
            cache.get(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.bytes == 3 * size
    assert [cache.get(key) is not None for key in keys].count(True) == 3
    small = FrameCache(max_bytes=size - 1)
    small.put(keys[0], frames)
    assert small.bytes == 0 and small.get(keys[0]) is None


def test_8k(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=2, size=(7680, 4320), options={"crf": "45", "bf": "0", "refs": "1"})
    frames = sample(Clip(path), FAST_SLOW)
    assert (frames.info.width, frames.info.height) == (7680, 4320)
    assert seen(frames) == [0] and frames.images[0].shape == (560, 1008, 3)


@pytest.mark.parametrize("sampling", [PREVIEW, FAST_SLOW, FAST_SLOW.with_limits(budget=700)])
def test_one_full_picture_at_a_time(tmp_path: Path, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a picture is about to be converted to RGB, no earlier one is alive."""
    path = make_clip(tmp_path / "a.mp4", frames=200, rotation=90, colour=lambda i: (235, 235 - i % 120, 20))
    alive: list[weakref.ref[np.ndarray]] = []
    real = decoding.to_rgb

    def watched(frame: object) -> np.ndarray:
        assert all(ref() is None for ref in alive)
        rgb = real(frame)
        alive.append(weakref.ref(rgb))
        return rgb

    monkeypatch.setattr(decoding, "to_rgb", watched)
    assert len(sample(Clip(path), sampling).images) <= len(alive)
    assert len(alive) >= 10


@pytest.mark.parametrize(("space", "matrix"), [("bt709", (0.2126, 0.0722)), ("smpte170m", (0.299, 0.114))])
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_matrix_and_range_of_the_file(
    tmp_path: Path, space: str, matrix: tuple[float, float], full: bool
) -> None:
    """A flat picture given in YCbCr, so that the right RGB is plain arithmetic."""
    luma, blue, red = 110, 90, 170
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(10), options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = 1 if space == "bt709" else 6
        stream.codec_context.color_range = 2 if full else 1
        for index in range(4):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane, value in zip(frame.planes, (luma, blue, red), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    kr, kb = matrix
    y = luma / 255 if full else (luma - 16) / 219
    cb, cr = ((blue - 128) / 255, (red - 128) / 255) if full else ((blue - 128) / 224, (red - 128) / 224)
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    expected = np.clip(np.array([r, g, b]) * 255, 0, 255)
    rgb = next(frames_at(probe(path), (0,), 3, lambda slot, rgb: rgb))[2]
    assert np.abs(rgb[32, 32].astype(float) - expected).max() <= 3  # another matrix or range is off by 7 or more


def test_resizing_agrees_with_another_implementation() -> None:
    """Pillow antialiases the same way; it clips between its two passes, so the picture is neither black nor white."""
    from PIL import Image

    picture = np.random.default_rng(0).integers(80, 170, (90, 130, 3), np.uint8)
    for name, method in (("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)):
        for height, width in ((28, 56), (112, 140), (90, 130)):
            other = np.asarray(Image.fromarray(picture).resize((width, height), method)).astype(int)
            assert np.abs(resize(picture, height, width, name).astype(int) - other).max() <= 1


def test_report_is_json_and_adds_up(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", sound=True, rotation=90, frames=100)
    for sampling in (PREVIEW, FAST_SLOW):
        info = probe(path)
        for thing in (sample(Clip(path, 0.5, 3), sampling, info=info), plan(info, Clip(path, 0.5, 3), sampling)):
            report = json.loads(json.dumps(describe(thing)))
            assert report["tokens"] == sum(frame["tokens"] for frame in report["frames"]) <= report["budget"]
            assert report["frames"][0]["time"] == pytest.approx(0.52)
            assert (report["video"]["codec"], report["video"]["audio"], report["video"]["rotation"]) == (
                "h264",
                "aac",
                90,
            )
            assert report["clip"] == {"start": 0.5, "end": 3}


def test_content_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 9000)
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
