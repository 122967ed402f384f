"""A new user's way through the page, in a real browser with the model that ships."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from finetune.feedback import Store
from finetune.world.scene import SHAPES
from tests.e2e.conftest import PATIENCE, ROOT, Site, open_page, unfold
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)
DEMOS = json.loads((ROOT / "assets" / "demo" / "demo.json").read_text())["clips"]


@pytest.fixture(scope="module")
def phone_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a phone films: stored lying, shown upright by its tag, with sound."""
    path = tmp_path_factory.mktemp("phone") / "IMG_0001.mov"
    make_clip(path, frames=150, fps=30, size=(360, 640), rotation=90, sound=True)
    return path


def ask(page: Page, question: str) -> str:
    """Ask and wait for the finished answer; its text."""
    bots = page.locator("#ks-chat .message.bot:not(:has(.ks-said))")
    told = page.locator("#ks-chat small", has_text="visual tokens")  # once for each answer, whatever was thought before
    before = told.count()
    page.locator("#ks-question textarea").fill(question)
    page.locator("#ks-ask").click()
    expect(told).to_have_count(before + 1)
    expect(page.locator("#ks-ask")).to_be_visible()
    expect(bots.last).to_contain_text("visual tokens")
    return bots.last.inner_text()


def upload(page: Page, path: Path) -> None:
    page.locator("#ks-player input[type=file]").set_input_files(str(path))


def current_time(page: Page) -> float:
    return float(page.evaluate("document.querySelector('#ks-player video').currentTime"))


def test_a_demo_clip_is_asked_about_and_the_answer_names_what_is_in_it(page: Page) -> None:
    page.locator(".ks-demo").first.click()
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    truth = next(q["answer"] for q in DEMOS[0]["questions"] if q["kind"] == "caption")
    named = ask(page, "What shapes do you see?")
    assert all(shape in named for shape in SHAPES if shape in truth), (named, truth)
    count = next(q for q in DEMOS[0]["questions"] if q["kind"] == "count")
    assert count["answer"].rstrip(".") in ask(page, count["question"])
    expect(page.locator(".ks-list li")).not_to_have_count(0)


def test_a_question_about_a_detail_brings_its_mode_and_the_model_looks_closer(page: Page) -> None:
    page.locator(".ks-demo").last.click()
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    truth = next(q for q in DEMOS[-1]["questions"] if q["kind"] == "tiny_shape")
    page.locator(".ks-chip", has_text=truth["question"]).click()
    expect(page.locator("#ks-question textarea")).to_have_value(truth["question"])
    expect(page.locator("#ks-mode").get_by_role("radio", name="Think with the image")).to_be_checked()
    answer = ask(page, truth["question"])
    assert truth["answer"] in answer and "Think with the image" in answer
    page.reload()
    unfold(page, "Thought", "Tool: crop")
    expect(page.locator("#ks-chat img[src^='data:image/jpeg']")).to_have_count(2)  # the box on its frame, and the part


def test_a_phone_clip_shows_its_frames_and_budget_and_an_answer_streams(page: Page, phone_clip: Path) -> None:
    upload(page, phone_clip)
    probe = subprocess.run(
        [sys.executable, "-m", "engine", "probe", str(phone_clip), "--json"], cwd=ROOT, capture_output=True, text=True
    )
    facts = json.loads(probe.stdout)
    expect(page.locator(".ks-frame")).to_have_count(len(facts["frames"]))
    shown = [float(t or "") for t in page.locator(".ks-frame").evaluate_all("e => e.map(f => f.dataset.seek)")]
    assert shown == pytest.approx([f["time"] for f in facts["frames"]], abs=1e-3)
    expect(page.locator(".ks-cost")).to_contain_text(f"{facts['tokens']:,} of {facts['budget']:,} visual tokens")
    sizes = page.locator(".ks-frame img").evaluate_all(
        "e => Promise.all(e.map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
    )
    assert all(width < height for width, height in sizes)  # upright
    page.wait_for_function("document.querySelector('#ks-player video')?.readyState >= 1")
    assert "visual tokens" in ask(page, "What do you see?")


def test_a_shorter_range_costs_less_and_is_what_is_asked_about(page: Page, phone_clip: Path, site: Site) -> None:
    upload(page, phone_clip)
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    page.locator("#ks-range input").last.fill("2")
    last = page.locator(".ks-frame").last
    expect(last).to_have_attribute("data-seek", re.compile(r"^(1\.|2\.0)"))
    ask(page, "What do you see here?")
    with_range = [
        t.question
        for c in Store(site.data / "studio.sqlite").conversations()
        for t in Store(site.data / "studio.sqlite").conversation(c.id).turns
        if t.question.text == "What do you see here?"
    ]
    assert with_range[0].end == pytest.approx(2.0) and with_range[0].start is None


def test_times_and_frames_seek_the_player(context: BrowserContext, site: Site, phone_clip: Path) -> None:
    page = open_page(context, site.url)
    upload(page, phone_clip)
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    ask(page, "Remember this clip")
    store = Store(site.data / "studio.sqlite")
    answer = store.turns(store.conversations()[0].id)[-1][1]
    assert answer is not None
    store.finish_answer(answer.id, "stop", text="It turns blue at 0:03, then stops.")
    page.reload()
    page.wait_for_selector("#ks-chat a")
    page.wait_for_function("document.querySelector('#ks-player video')?.readyState >= 1")
    page.get_by_role("link", name="0:03").click()
    page.wait_for_function("Math.abs(document.querySelector('#ks-player video').currentTime - 3) < 0.05")
    assert len(context.pages) == 1  # no new tab
    page.locator(".ks-frame").first.click()
    page.wait_for_function("document.querySelector('#ks-player video').currentTime < 0.05")


def test_reload_restores_new_empties_and_delete_removes(page: Page) -> None:
    page.locator(".ks-demo").nth(1).click()
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    first = ask(page, "How many shapes are there?")
    ask(page, "What shapes do you see?")
    frames = page.locator(".ks-frame").count()
    page.reload()
    page.wait_for_selector("#ks-model .ks-ready")
    expect(page.locator("#ks-chat")).to_contain_text("What shapes do you see?")
    expect(page.locator("#ks-chat")).to_contain_text(first.splitlines()[0])
    expect(page.locator(".ks-frame")).to_have_count(frames)

    page.locator("#ks-new").click()
    expect(page.locator("#ks-chat")).not_to_contain_text("What shapes do you see?")
    expect(page.locator(".ks-frame")).to_have_count(0)

    kept = page.locator(".ks-list li")
    before = kept.count()
    kept.first.locator(".ks-open").click()
    expect(page.locator("#ks-chat")).to_contain_text("How many shapes are there?")
    page.on("dialog", lambda dialog: dialog.accept())
    kept.first.locator(".ks-delete").click()
    expect(kept).to_have_count(before - 1)
    expect(page.locator("#ks-chat")).not_to_contain_text("How many shapes are there?")
    page.reload()
    page.wait_for_selector("#ks-model .ks-ready")
    expect(kept).to_have_count(before - 1)


def test_what_is_no_video_is_a_sentence_and_the_question_stays(page: Page, tmp_path: Path) -> None:
    page.locator("#ks-question textarea").fill("What is this?")
    for name, content in (("notes.mp4", b"these are notes\n" * 50), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(content)
        upload(page, tmp_path / name)
        problem = page.locator("#ks-problem .ks-problem")
        expect(problem).to_be_visible()
        expect(problem).to_contain_text(name)
        assert "Traceback" not in page.content()
    expect(page.locator("#ks-question textarea")).to_have_value("What is this?")
    page.locator("#ks-ask").click()
    expect(page.locator("#ks-problem .ks-problem")).to_contain_text("Drop a video first")
    expect(page.locator("#ks-question textarea")).to_have_value("What is this?")


def test_a_codec_the_browser_cannot_play_gets_a_copy_it_can(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    make_clip(path, frames=50, fps=25, size=(160, 120), codec="libx265")
    upload(page, path)
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    page.wait_for_function("document.querySelector('#ks-player video')?.videoWidth == 160")


def test_english_and_chinese_are_switched_live_and_remembered(page: Page) -> None:
    expect(page.locator("#ks-ask")).to_have_text("Ask")
    page.locator("#ks-language label").nth(1).click()
    expect(page.locator("#ks-ask")).to_have_text("提问")
    expect(page.locator("#ks-new")).to_have_text("新对话")
    expect(page.locator("#ks-question textarea")).to_have_attribute("placeholder", "视频里发生了什么？")
    page.reload()
    expect(page.locator("#ks-ask")).to_have_text("提问")


def test_dark_is_switched_and_remembered(page: Page) -> None:
    assert not page.evaluate("document.body.classList.contains('dark')")
    page.locator("#ks-theme").click()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.reload()
    page.wait_for_function("document.body.classList.contains('dark')")


def test_a_phones_width_has_no_sideways_scroll_and_everything_in_reach(
    context: BrowserContext, site: Site, phone_clip: Path
) -> None:
    page = open_page(context, site.url)
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    page.wait_for_selector("#ks-model .ks-ready")
    upload(page, phone_clip)
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    ask(page, "What is in the video?")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("#ks-ask", "#ks-question textarea", "#ks-player video", "#ks-strip"):
        box = page.locator(name).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, name
