"""Sound as samples: at its time, at its level, in bounded memory, whatever the file does to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.sound.read import Track, read_sound, to_mono
from engine.video import Cancelled
from tests.media import make_clip, scramble
from tests.sound.tracks import babble, make_film, silence, sine


def samples(path: Path, **options: object) -> np.ndarray:
    """float [samples, channels] of what `read_sound` gives."""
    heard = read_sound(path, **options)  # type: ignore[arg-type]
    return np.array(heard.get_array_of_samples(), np.float64).reshape(-1, heard.channels) / 32768


def begins(wave: np.ndarray, rate: int = 48_000) -> float:
    """Second of the first sample that is heard."""
    return float(np.argmax(np.abs(wave).max(axis=1) > 0.05)) / rate


def test_lossless_sound_comes_back_sample_for_sample(tmp_path: Path) -> None:
    wave = np.stack((sine(1.5, 0.5, 440), sine(1.5, 0.25, 700)), axis=1)
    path = make_film(tmp_path / "a.mov", wave, layout="stereo", codec="pcm_s16le")
    heard = read_sound(path)
    assert (heard.channels, heard.frame_rate, heard.sample_width) == (2, 48_000, 2)
    given = np.clip(np.rint(wave * 32767), -32768, 32767)
    assert np.array_equal(np.array(heard.get_array_of_samples()).reshape(-1, 2), given)


@pytest.mark.parametrize("rate", [8_000, 44_100])
@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "flac"), ("mkv", "libopus"), ("mov", "alac")])
def test_every_codec_and_rate_keeps_its_level_and_its_time(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    """Half a second of silence, then a sine of amplitude 0.5: RMS 0.3536, -9.03 dBFS."""
    if codec == "libopus":
        rate = 48_000
    wave = np.concatenate((silence(0.5, rate), sine(1.5, 0.5, 500, rate)))
    path = make_film(tmp_path / f"a.{suffix}", wave, rate=rate, codec=codec)
    heard = samples(path)
    assert len(heard) == pytest.approx(2.0 * 48_000, abs=0.03 * 48_000)
    assert begins(heard) == pytest.approx(0.5, abs=0.02)
    assert read_sound(path, 0.7, 1.8).dBFS == pytest.approx(-9.03, abs=0.3)


def test_a_range_is_what_is_heard_there(tmp_path: Path) -> None:
    """A sine whose pitch climbs by 100 Hz a second: the pitch says which second was read."""
    wave = np.concatenate([sine(1, 0.5, 400 + 100 * second) for second in range(8)])
    path = make_film(tmp_path / "a.mp4", wave)
    for start in (0.0, 2.0, 5.0):
        heard = samples(path, start=start + 0.25, end=start + 0.75)[:, 0]
        assert len(heard) == 24_000
        peak = np.argmax(np.abs(np.fft.rfft(heard * np.hanning(len(heard))))) * 2
        assert peak == 400 + 100 * start
    assert read_sound(path, 6.0, 6.5).duration_seconds == pytest.approx(0.5, abs=1e-3)
    assert read_sound(path, 7.5, 60.0).duration_seconds == pytest.approx(0.5, abs=0.03)
    assert len(read_sound(path, 70.0, 71.0)) == 0


def test_zero_is_the_first_picture(tmp_path: Path) -> None:
    late = make_film(tmp_path / "late.mkv", sine(1), codec="pcm_s16le", late=0.7, seconds=2)
    assert begins(samples(late)) == pytest.approx(0.7, abs=0.01)
    early = np.concatenate((silence(1.0), sine(1)))
    shifted = make_film(tmp_path / "shifted.mkv", early, codec="pcm_s16le", picture_late=0.4, seconds=2)
    assert begins(samples(shifted)) == pytest.approx(0.6, abs=0.01)


def test_a_hole_is_silence_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    """Packets 20 to 39 are missing: 1024 samples each, so from 0.4267 s to 0.8533 s."""
    wave = sine(2, 0.5)
    path = make_film(tmp_path / "a.mkv", wave, codec="pcm_s16le", hole=(20, 40))
    heard = np.abs(samples(path)[:, 0])
    assert heard[21_000:40_000].max() == 0 and heard[:20_000].max() > 0.4
    assert begins(samples(path, start=0.5, end=1.5)) == pytest.approx(0.8533 - 0.5, abs=0.01)
    assert heard[44_000:].max() > 0.4 and len(heard) == pytest.approx(96_000, abs=60)  # mkv counts in milliseconds


def test_surround_is_mixed_as_one_hears_it(tmp_path: Path) -> None:
    """5.1 in the order left, right, centre, low, back left, back right. Centre and back go down by 3 dB, into both
    sides and into their own; the low one is left out (ITU-R BS.775)."""
    level = {0: (1, 0), 1: (0, 1), 2: (0.7071, 0.7071), 3: (0, 0), 4: (0.7071, 0), 5: (0, 0.7071)}
    for channel, (left, right) in level.items():
        wave = np.zeros((24_000, 6))
        wave[:, channel] = sine(0.5, 0.4)
        for name, codec in (("named.mkv", "flac"), ("unnamed.mkv", "pcm_s16le")):
            heard = samples(make_film(tmp_path / name, wave, layout="5.1", codec=codec))
            rms = np.sqrt(np.square(heard).mean(axis=0))
            assert rms == pytest.approx(np.array([left, right]) * 0.4 / 2**0.5, abs=0.005), (channel, codec)


def test_surround_in_an_mp4(tmp_path: Path) -> None:
    wave = np.zeros((48_000, 6))
    wave[:, 2] = sine(1, 0.4)
    heard = read_sound(make_film(tmp_path / "a.mp4", wave, layout="5.1"), 0.2, 0.8)
    # 0.4 of full scale in the centre: 20 log (0.4 / sqrt 2) - 3 = -13.98 on both sides
    assert heard.channels == 2 and heard.dBFS == pytest.approx(-13.98, abs=0.5)


def test_one_channel_is_the_mean_and_not_nothing_where_one_is_turned_over() -> None:
    left = (sine(0.1, 0.5) * 32767).astype(np.int16)
    both = to_mono(np.stack((left, left), axis=1))[:, 0]
    assert np.abs(both.astype(int) - left).max() <= 1
    turned = to_mono(np.stack((left, -left), axis=1))[:, 0]
    assert np.array_equal(turned, left)
    alone = to_mono(np.stack((left, np.zeros_like(left)), axis=1))[:, 0]
    assert np.abs(alone.astype(int) - left // 2).max() <= 1


def test_no_sound_is_empty_and_no_video_is_refused(tmp_path: Path) -> None:
    mute = make_clip(tmp_path / "mute.mp4", frames=25)
    assert len(read_sound(mute)) == 0
    (tmp_path / "notes.mp4").write_text("these are notes\n" * 50)
    with pytest.raises(EngineError, match="is text, not a video"):
        read_sound(tmp_path / "notes.mp4")


def test_damage_is_silence_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mkv", babble(4), codec="flac")
    whole = samples(path)
    scramble(path, 0.4, 0.5)
    track = Track(path, 48_000)
    heard = np.concatenate(list(track.blocks()))
    assert track.damaged > 0
    assert np.abs(heard[:48_000].astype(float) / 32768 - whole[:48_000]).max() < 1e-3
    assert np.abs(heard[-24_000:]).max() > 0


def test_sound_is_read_in_pieces_and_can_be_stopped(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", sine(5, 0.3))
    lengths = [len(block) for block in Track(path, 48_000).blocks()]
    assert max(lengths) < 1.1 * 48_000 and sum(lengths) == pytest.approx(5 * 48_000, abs=1500)
    with pytest.raises(Cancelled):
        list(Track(path, 48_000).blocks(cancelled=lambda: True))


def test_more_than_fits_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_film(tmp_path / "a.mp4", sine(3, 0.3))
    monkeypatch.setattr("engine.sound.read.MOST_SECONDS", 2.0)
    with pytest.raises(EngineError, match="longer than 2 s"):
        read_sound(path)
    assert read_sound(path, 1.0, 2.5).duration_seconds == pytest.approx(1.5, abs=1e-3)
