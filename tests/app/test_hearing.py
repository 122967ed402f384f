"""The sound of kept videos without a page, and what the pane shows of it; the speech model is the tiny one of tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.hearing import Hearing
from app.sound import lines_html, wave_html
from app.studio import ClipChoice, Limits, Studio
from engine.errors import EngineError
from engine.sound import measure, read_subtitles
from engine.sound.speech import SpeechModel, Transcript
from engine.timed import Timed
from engine.video import Cancelled, Frames
from finetune.errors import FinetuneError
from finetune.feedback.transcripts import Transcript as Kept
from tests.app.conftest import ScriptedRuntime
from tests.media import make_clip
from tests.sound.tracks import babble, make_film, silence

SRT = "1\n00:00:01,000 --> 00:00:02,500\nHello there.\n"


class Ear(SpeechModel):
    """A speech model whose words are given; everything around it is real."""

    def __init__(self) -> None:
        super().__init__("/models/ear")
        self.times = 0
        self.words: tuple[Timed, ...] = (Timed(0.5, 2.5, "Hello there."),)
        self.failure: Exception | None = None

    def transcribe(self, path, info=None, *, progress=None, cancelled=None):  # type: ignore[no-untyped-def]
        self.times += 1
        if self.failure is not None:
            raise self.failure
        if progress is not None:
            progress(1.0, 2.0)
        return Transcript(self.words, self.name, "en")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_film(tmp_path / "film.mp4", np.concatenate((babble(2), silence(2))))


@pytest.fixture
def sha(studio: Studio, film: Path) -> str:
    return studio.add_video(film, "film.mp4")[0]


def finished(hearing: Hearing) -> None:
    for thread in hearing._threads:
        thread.join(30)


def test_a_sound_is_measured_once_and_kept_beside_the_video(studio: Studio, sha: str, film: Path) -> None:
    sound = studio.hearing.sound(sha)
    assert sound == measure(film)
    kept = studio.library.folder / f"{sha}.sound.json"
    told = kept.stat().st_mtime_ns
    again = Hearing(studio.store, studio.library)
    assert again.sound(sha) == sound and kept.stat().st_mtime_ns == told
    assert studio.library.find(sha) == studio.library.folder / f"{sha}.mp4"
    kept.write_text(json.dumps({"spans": []}))  # cut off, or of an older form
    assert Hearing(studio.store, studio.library).sound(sha) == sound
    studio.library.remove(sha)
    assert not kept.exists()


def test_a_video_without_sound_is_called_by_the_name_it_came_with(studio: Studio, tmp_path: Path) -> None:
    make_clip(tmp_path / "upload.mp4", frames=10, fps=10, size=(64, 48))
    sha, _ = studio.add_video(tmp_path / "upload.mp4", "holiday.mp4")
    assert studio.hearing.sound(sha).note == "holiday.mp4 has no sound."  # on the disk it is named by its content


def test_what_is_said_is_heard_once_and_kept(studio: Studio, sha: str) -> None:
    ear = Ear()
    hearing = Hearing(studio.store, studio.library, ear)
    hearing.begin(sha)
    finished(hearing)
    found = hearing.transcript(sha)
    assert found is not None and (found.by, found.language, found.cues) == ("ear", "en", ear.words)
    assert not hearing.state(sha).running and hearing.state(sha).error == ""
    later = Hearing(studio.store, studio.library, ear)
    later.begin(sha)
    assert ear.times == 1


def test_a_file_takes_its_place_and_asking_again_brings_it_back(studio: Studio, sha: str, tmp_path: Path) -> None:
    ear = Ear()
    hearing = Hearing(studio.store, studio.library, ear)
    hearing.begin(sha)
    finished(hearing)
    (tmp_path / "film.srt").write_text(SRT)
    hearing.give(sha, tmp_path / "film.srt")
    found = hearing.transcript(sha)
    assert found is not None and (found.by, found.source) == ("film.srt", "file")
    hearing.begin(sha)
    found = hearing.transcript(sha)
    assert found is not None and found.by == "ear" and ear.times == 1


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (EngineError("The speech model in x cannot be read (y); download it again."), "cannot be read"),
        (FinetuneError("The disk is full."), "disk is full"),
        (RuntimeError("deep down"), "could not be written down (RuntimeError)"),
        (Cancelled("Stopped."), ""),
    ],
)
def test_what_goes_wrong_is_told_and_nothing_is_kept(studio: Studio, sha: str, failure: Exception, told: str) -> None:
    ear = Ear()
    ear.failure = failure
    hearing = Hearing(studio.store, studio.library, ear)
    hearing.begin(sha)
    finished(hearing)
    assert told in hearing.state(sha).error and (told or not hearing.state(sha).error)
    assert hearing.transcript(sha) is None and not hearing.state(sha).running


def test_the_model_is_given_what_is_said_only_where_it_is_wanted(
    studio: Studio, runtime: ScriptedRuntime, sha: str, tmp_path: Path, wait
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "film.srt").write_text(SRT)
    studio.hearing.give(sha, tmp_path / "film.srt")
    clip = ClipChoice(sha)
    talk, _ = studio.ask(None, "Silent?", clip, Limits())
    wait(studio, talk)
    studio.ask(talk, "Aloud?", clip, Limits(speech=True))
    wait(studio, talk)
    studio.ask(talk, "And?", clip, Limits(speech=True))
    wait(studio, talk)
    first, second, third = ([m.parts for m in heard if m.role == "user"] for heard in runtime.heard)
    assert [type(part) for part in first[0]] == [Frames, str]
    frames, said, *rest = second[-1]
    assert isinstance(frames, Frames) and (frames.start, frames.clip.end) == (
        0.0,
        4.0,
    )  # what is left is too short for a stretch
    assert said == "<|clip_time_start|>[1.0, 2.5]<|clip_time_end|> Hello there.\n" and rest[-1] == "Aloud?"
    assert third[-1] == ("And?",) and third[-2] == second[-1]  # it is not sent twice
    kept = [answer for _, answer in studio.store.turns(talk)]
    assert [bool(answer and answer.frames and answer.frames.get("said_by")) for answer in kept] == [False, True, True]
    shown = studio.frames(clip, Limits(speech=True))
    assert kept[1] is not None and kept[1].frames is not None
    assert kept[1].frames["times"] == [round(time, 3) for time in shown.times]
    assert shown.total_tokens <= shown.sampling.budget


def test_a_waveform_is_drawn_of_its_columns_and_subtitles_ride_along(film: Path) -> None:
    sound = measure(film)
    cues = (Timed(0.5, 1.5, "</pre><script>x</script> & co"),)
    html = wave_html(sound, Kept("a" * 64, "x.srt", "file", "", cues, "now"), ClipChoice("a" * 64, 1.0, 3.0), "en")
    assert html.count("M") == len(sound.low) and "--from:25.0" in html and "--to:75.0" in html
    assert "<script>" not in html and "WEBVTT" in html
    assert read_subtitles("WEBVTT\n\n00:01.000 --> 00:02.000\n&lt;b&gt;\n", "vtt")  # as it is written there
    assert wave_html(measure(film), None, ClipChoice("a" * 64), "zh").count("静音") == 1


def test_lines_are_escaped_and_seek() -> None:
    found = Kept("a" * 64, "x", "file", "", (Timed(61.5, 63.0, "<b>hi</b>"),), "now")
    html = lines_html(found, False, "en")
    assert ('data-seek="61.50"' in html and "&lt;b&gt;hi" in html and "1:02" in html) or "1:01" in html
    assert "--asr" in lines_html(None, False, "en") and "--asr" not in lines_html(None, True, "en")
