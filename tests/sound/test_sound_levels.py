"""Loudness, waveform and spans against values worked by hand, and against pydub's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydub.silence import detect_nonsilent

from engine.sound import Sound, Span, measure, read_sound, with_transcript
from engine.timed import Timed
from engine.video import Cancelled
from tests.media import make_clip
from tests.sound.tracks import babble, make_film, noise, silence, sine


def spans(sound: Sound, kind: str) -> list[tuple[float, float]]:
    return [(span.start, span.end) for span in sound.spans if span.kind == kind]


@pytest.mark.parametrize(
    ("wave", "loudness", "peak"),
    [
        (sine(2, 1.0), -3.01, 0.0),  # 10 log 0.5
        (sine(2, 0.1), -23.01, -20.0),  # 10 log (0.01 / 2)
        (noise(2, 0.001), -30.0, None),
        (np.concatenate((sine(1, 0.5), silence(1))), -12.04, -6.02),  # 10 log (0.125 / 2)
    ],
)
def test_loudness_is_the_mean_power(tmp_path: Path, wave: np.ndarray, loudness: float, peak: float | None) -> None:
    path = make_film(tmp_path / "a.mp4", wave)
    sound = measure(path)
    assert sound.loudness == pytest.approx(loudness, abs=0.5)
    assert sound.loudness == pytest.approx(read_sound(path).dBFS, abs=0.1)  # pydub's own
    if peak is not None:  # which a lossy codec moves
        exact = measure(make_film(tmp_path / "a.mov", wave, codec="pcm_s16le"))
        assert exact.peak == pytest.approx(peak, abs=0.1)
        assert exact.loudness == pytest.approx(loudness, abs=0.1)


def test_levels_follow_the_track(tmp_path: Path) -> None:
    """A second each of -23.0, -43.0 and digital silence; levels come every tenth."""
    wave = np.concatenate((sine(1, 0.1), sine(1, 0.01), silence(1)))
    sound = measure(make_film(tmp_path / "a.mov", wave, codec="pcm_s16le"))
    assert sound.step == 0.1 and len(sound.levels) == 30
    assert sound.levels[1:9] == pytest.approx([-23.0] * 8, abs=0.1)
    assert sound.levels[11:19] == pytest.approx([-43.0] * 8, abs=0.1)
    assert set(sound.levels[21:]) == {-96.0}


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "flac")])
@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_the_edges_of_silence_are_found(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    made = [silence(0.6, rate), sine(1.1, 0.3, 600, rate), silence(0.8, rate), sine(1.0, 0.3, 600, rate)]
    path = make_film(tmp_path / f"a.{suffix}", np.concatenate(made), rate=rate, codec=codec)
    sound = measure(path)
    quiet = spans(sound, "silence")
    assert [edge for span in quiet for edge in span] == pytest.approx([0.0, 0.6, 1.7, 2.5], abs=0.05)
    other = detect_nonsilent(read_sound(path), min_silence_len=300, silence_thresh=-50, seek_step=10)
    heard = [edge / 1000 for span in other for edge in span]
    assert heard == pytest.approx([0.6, 1.7, 2.5, sound.spans[-1].end], abs=0.05)


def test_a_pause_between_words_is_no_silence_and_a_quiet_track_has_sound(tmp_path: Path) -> None:
    short = np.concatenate((sine(1, 0.3), silence(0.15), sine(1, 0.3)))
    assert spans(measure(make_film(tmp_path / "a.mp4", short)), "silence") == []
    # -60 dBFS beside pauses of digital silence: what is quiet here is the recording, not the talk.
    faint = np.concatenate((silence(0.5), sine(1, 0.001414), silence(0.5)))
    sound = measure(make_film(tmp_path / "b.mov", faint, codec="pcm_s16le"))
    assert [edge for span in spans(sound, "silence") for edge in span] == pytest.approx([0, 0.5, 1.5, 2.0], abs=0.05)


def test_what_sounds_like_speech_is_told_from_tones_and_noise(tmp_path: Path) -> None:
    parts = [babble(2), silence(1), sine(2, 0.1, 900), silence(1), noise(2, 0.005), silence(1), sine(1, 0.9)]
    sound = measure(make_film(tmp_path / "a.mp4", np.concatenate(parts)))
    middles = {second: next(s.kind for s in sound.spans if s.start <= second < s.end) for second in (1, 2.5, 4, 7, 9.6)}
    assert middles == {1: "speech", 2.5: "silence", 4: "sound", 7: "sound", 9.6: "loud"}


def test_where_words_are_known_they_are_the_speech(tmp_path: Path) -> None:
    wave = np.concatenate((babble(2), silence(1), sine(1, 0.1)))
    sound = with_transcript(measure(make_film(tmp_path / "a.mp4", wave)), [Timed(3.2, 3.8, "Beep.")])
    assert list(spans(sound, "speech")[0]) == pytest.approx([3.2, 3.8], abs=0.05)
    assert len(spans(sound, "speech")) == 1 and spans(sound, "silence")[0] == pytest.approx((2.0, 3.0), abs=0.06)


def test_spans_cover_the_track_once(tmp_path: Path) -> None:
    wave = np.concatenate((babble(1), silence(0.5), sine(0.7, 0.9), noise(1, 0.01)))
    sound = measure(make_film(tmp_path / "a.mp4", wave))
    edges = [edge for span in sound.spans for edge in (span.start, span.end)]
    assert edges[0] == 0 and edges[1:-1:2] == edges[2::2] and edges[-1] == pytest.approx(3.2, abs=0.04)
    assert all(one.kind != other.kind for one, other in zip(sound.spans, sound.spans[1:], strict=False))


def test_the_waveform_has_the_height_of_the_sound(tmp_path: Path) -> None:
    wave = np.concatenate((sine(1, 0.5), silence(1)))
    sound = measure(make_film(tmp_path / "a.mov", wave, codec="pcm_s16le"))
    assert len(sound.low) == len(sound.high) == 200
    assert set(sound.high[2:98]) == {50} and set(sound.low[2:98]) == {-50}
    assert set(sound.high[102:]) == {0}


def test_a_long_track_has_as_many_columns_and_keeps_its_peaks(tmp_path: Path) -> None:
    wave = silence(20, 8000)
    wave[80_000] = 0.8  # one sample
    sound = measure(make_film(tmp_path / "a.mov", wave, rate=8000, codec="pcm_s16le"))
    assert len(sound.high) == 600 and max(sound.high) > 50
    assert int(np.argmax(sound.high)) == pytest.approx(300, abs=1)


def test_facts_survive_json(tmp_path: Path) -> None:
    sound = measure(make_film(tmp_path / "a.mp4", np.concatenate((babble(1), silence(1)))))
    text = json.dumps(sound.to_dict())
    assert Sound.from_dict(json.loads(text)) == sound and len(text) < 10_000
    with pytest.raises((ValueError, KeyError, TypeError)):
        Sound.from_dict({**sound.to_dict(), "spans": [[0, 1, "music"]]})


def test_no_sound_says_so_and_work_can_be_stopped(tmp_path: Path) -> None:
    mute = make_clip(tmp_path / "mute.mp4", frames=25)
    sound = measure(mute)
    assert (sound.channels, sound.levels, sound.spans, sound.note) == (0, (), (), "mute.mp4 has no sound.")
    loud = make_film(tmp_path / "a.mp4", sine(1))
    with pytest.raises(Cancelled):
        measure(loud, cancelled=lambda: True)
    assert with_transcript(sound, [Timed(0, 1, "x")]).spans == (
        Span(0.0, 1.0, "silence"),
    )  # nothing is heard, whatever a transcript claims
