"""The sound of a clip in the page: seen, clicked, written under the picture, searched, and given to the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.config import AppConfig
from app.page import launch
from app.studio import Studio
from finetune.feedback import Store
from tests.app.conftest import ScriptedRuntime
from tests.e2e.conftest import PATIENCE, Site, free_port, open_page
from tests.e2e.test_page import ask, current_time, upload
from tests.media import make_clip
from tests.sound.tracks import babble, make_film, silence, sine
from tests.sound.whispers import make_whisper

expect.set_options(timeout=PATIENCE)
SRT = """1
00:00:01,000 --> 00:00:02,500
The <i>red</i> ball rolls.

2
00:00:04,000 --> 00:00:05,500
<script>alert(1)</script> A dog barks.

3
00:00:06,000 --> 00:00:07,000
The ball again.
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds: talk, silence from 3 to 5, a loud tone from 5 to 6, talk."""
    wave = np.concatenate((babble(3), silence(2), sine(1, 0.8), babble(2)))
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", wave)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lines") / "film.srt"
    path.write_text(SRT)
    return path


def open_film(page: Page, film: Path) -> None:
    upload(page, film)
    expect(page.locator("#ks-sound .ks-wave")).to_be_visible()
    page.wait_for_function("document.querySelector('#ks-player video')?.readyState >= 1")


def open_lines(page: Page) -> None:
    if not page.locator("#ks-lines").is_visible():
        page.locator("#ks-said > button").click()
    expect(page.locator("#ks-lines")).to_be_visible()


def give_lines(page: Page, path: Path) -> None:
    open_lines(page)
    page.locator("input[type=file][accept*='.srt']").set_input_files(str(path))


def test_the_waveform_is_seen_and_a_click_and_the_arrows_seek(page: Page, film: Path) -> None:
    open_film(page, film)
    wave = page.locator("#ks-sound .ks-wave")
    for kind in ("speech", "silence", "loud"):
        assert page.locator(f"#ks-sound .ks-w-{kind}").count() == 1
    expect(page.locator("#ks-sound .ks-legend")).to_contain_text("silence 25 %")
    expect(page.locator("#ks-sound .ks-legend")).to_contain_text("dBFS")
    box = wave.bounding_box()
    assert box is not None
    wave.click(position={"x": box["width"] * 0.5, "y": 20})
    page.wait_for_function("Math.abs(document.querySelector('#ks-player video').currentTime - 4) < 0.1")
    expect(wave).to_have_attribute("aria-valuetext", "0:04")
    wave.press("ArrowRight")
    page.wait_for_function("Math.abs(document.querySelector('#ks-player video').currentTime - 5) < 0.1")
    wave.press("Home")
    page.wait_for_function("document.querySelector('#ks-player video').currentTime < 0.05")


def test_the_chosen_range_is_shown_in_it(page: Page, film: Path) -> None:
    open_film(page, film)
    page.locator("#ks-range input").last.fill("2")
    expect(page.locator(".ks-frame").last).to_be_visible()
    after = page.locator("#ks-sound .ks-after")
    page.wait_for_function(
        "(() => { const a = document.querySelector('#ks-sound .ks-after').getBoundingClientRect(),"
        " w = document.querySelector('#ks-sound .ks-wave').getBoundingClientRect();"
        " return Math.abs((a.left - w.left) / w.width - 0.25) < 0.02 })()"
    )
    assert after.count() == 1


def test_a_clip_without_sound_says_so(page: Page, tmp_path: Path) -> None:
    mute = make_clip(tmp_path / "mute.mp4", frames=50, fps=25, size=(160, 120))
    upload(page, mute)
    expect(page.locator("#ks-sound")).to_contain_text("has no sound")
    assert page.locator("#ks-sound .ks-wave").count() == 0
    page.locator(".ks-demo").first.wait_for(state="hidden")


def test_subtitles_are_shown_searched_kept_and_given_to_the_model(
    context: BrowserContext, site: Site, film: Path, lines: Path
) -> None:
    page = open_page(context, site.url)
    open_film(page, film)
    give_lines(page, lines)
    rows = page.locator("#ks-lines li")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("A dog barks.")
    # On the player: the browser's own reading of the track.
    cues = page.wait_for_function(
        "(() => { const t = document.querySelector('#ks-player track.ks-track-said');"
        " const c = t && t.track.mode === 'showing' && t.track.cues;"
        " return c && c.length === 3 && [...c].map(one => [one.startTime, one.endTime, one.text]) })()"
    ).json_value()
    assert [cue[:2] for cue in cues] == [[1, 2.5], [4, 5.5], [6, 7]]
    assert cues[0][2] == "The red ball rolls."
    page.locator("#ks-sound .ks-cc").click()
    page.wait_for_function("document.querySelector('#ks-player track.ks-track-said').track.mode === 'hidden'")
    # A line seeks; a word leaves the lines that hold it.
    rows.nth(2).locator("button").click()
    page.wait_for_function("Math.abs(document.querySelector('#ks-player video').currentTime - 6) < 0.1")
    page.locator("#ks-lines .ks-search").fill("BALL")
    expect(page.locator("#ks-lines li:visible")).to_have_count(2)
    expect(page.locator("#ks-lines .ks-hits")).to_have_text("2")
    # Given to the model only where that is wanted.
    ask(page, "Without words?")
    page.locator("#ks-give input").check()
    ask(page, "With words?")
    store = Store(site.data / "studio.sqlite")
    asked = {q.text: (q, a) for q, a in store.turns(store.conversations()[0].id)}
    assert asked["Without words?"][0].sampling["speech"] is False
    question, answer = asked["With words?"]
    assert question.sampling["speech"] is True and answer is not None and answer.frames is not None
    assert answer.frames["said_by"] == "film.srt"
    page.reload()
    page.wait_for_selector("#ks-model .ks-ready")
    open_lines(page)
    expect(page.locator("#ks-lines li")).to_have_count(3)
    expect(page.locator("#ks-give input")).to_be_checked()
    assert current_time(page) < 0.1


def test_what_is_no_subtitle_file_is_a_sentence_and_nothing_is_lost(page: Page, film: Path, tmp_path: Path) -> None:
    open_film(page, film)
    (tmp_path / "notes.srt").write_text("no times here\n")
    give_lines(page, tmp_path / "notes.srt")
    expect(page.locator("#ks-lines .ks-problem")).to_contain_text("notes.srt holds no line with a time")


def test_on_a_phone_and_in_the_dark_it_stays_in_its_place(
    context: BrowserContext, site: Site, film: Path, lines: Path
) -> None:
    page = open_page(context, site.url)
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    page.wait_for_selector("#ks-model .ks-ready")
    open_film(page, film)
    page.locator("#ks-theme").click()
    give_lines(page, lines)
    expect(page.locator("#ks-lines li")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("#ks-sound .ks-wave", "#ks-lines .ks-search", "#ks-subtitles"):
        box = page.locator(name).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, name


@pytest.fixture
def hearing(tmp_path: Path, browser: Browser) -> Iterator[tuple[Studio, Page]]:
    """The page with a speech model, over a runtime that only listens."""
    asr = make_whisper(tmp_path / "whisper-made-up")
    config = AppConfig(data=tmp_path / "data", port=free_port(), asr=asr, device="cpu")
    studio = Studio(config, ScriptedRuntime())
    served = launch(studio, config, block=False)
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield studio, open_page(context, f"http://127.0.0.1:{config.port}")
    context.close()
    served.close()
    studio.close()


def test_a_speech_model_writes_down_what_is_said_once(hearing: tuple[Studio, Page], film: Path) -> None:
    studio, page = hearing
    open_film(page, film)
    open_lines(page)
    expect(page.locator("#ks-lines")).to_contain_text("Nothing is written down yet")
    page.locator("#ks-write").click()
    expect(page.locator("#ks-said")).to_contain_text("whisper-made-up")
    expect(page.locator("#ks-write")).to_be_hidden()
    expect(page.locator("#ks-halt")).to_be_hidden()
    (sha,) = (file.stem for file in studio.library.folder.glob("*.mp4"))
    found = studio.hearing.transcript(sha)
    assert found is not None and (found.by, found.source) == ("whisper-made-up", "speech")
    expect(page.locator("#ks-lines li")).to_have_count(len(found.cues))
    page.reload()
    open_film(page, film)
    open_lines(page)
    expect(page.locator("#ks-lines li")).to_have_count(len(found.cues))
