"""The Fine-tune tab in a real browser, with the model that ships: a run from corrections is weighed, started, watched,
paused, resumed and finished; another is ended early; and both stand in the list afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from app.library import Library
from engine.video import describe_video
from finetune.feedback import Runs, Store
from tests.e2e.conftest import PATIENCE, ROOT, Site, open_page

expect.set_options(timeout=PATIENCE)

NANO = ROOT / "assets" / "keye-nano"
FEW = "sft.replay=0 sft.batch_tokens=200 sft.look=30 threads=1"


def teach(data: Path) -> list[str]:
    """Six answers about the demo clips with a correction each; the last clip is held out. Their questions' ids."""
    from finetune.feedback.splits import set_side

    store, library = Store(data / "studio.sqlite"), Library(data / "videos")
    asked = []
    for clip in sorted((ROOT / "assets" / "demo").glob("*.mp4"))[:6]:
        sha, info = library.keep(clip)
        store.add_video(sha, name=clip.name, path=str(info.path), probe=describe_video(info))
        talk = store.new_conversation("Which shelf?")
        limits = {"fps": None, "max_frames": 2, "budget": 24}
        question = store.add_question(talk.id, "Which shelf?", video=sha, mode="no_think", sampling=limits)
        answer = store.begin_answer(question.id, mode="no_think", model="keye-nano")
        store.finish_answer(answer.id, "stop", text="One.", raw_text="One.")
        store.preferences.prefer(None, answer.id, source="correction", text="Two.")
        set_side(store, sha, "train")
        asked.append(question.id)
    set_side(store, sha, "held_out")
    store.close()
    return asked


def open_tab(page: Page) -> None:
    page.get_by_role("tab", name="Fine-tune").click()
    expect(page.locator("#kt-base input")).to_have_value(re.compile("keye-nano"))


def fill(page: Page, name: str, numbers: str) -> None:
    page.locator("#kt-name").locator("input, textarea").fill(name)
    if not page.locator("#kt-numbers").is_visible():
        page.locator("#kt-more > button").click()
    page.locator("#kt-numbers").locator("input, textarea").fill(numbers)


def test_corrections_become_a_model_that_can_be_paused_and_resumed(context: BrowserContext, own_site: Site) -> None:
    site = own_site
    page = open_page(context, site.url)
    open_tab(page)
    page.locator("#kt-start").click()
    expect(page.locator("#kt-offer")).to_contain_text("There is nothing to learn from yet")
    asked = teach(site.data)
    fill(page, "shelves", f"sft.steps=60 {FEW}")
    page.locator("#kt-estimate").click()
    offer = page.locator("#kt-offer")
    expect(offer).to_contain_text("5 SFT examples")
    expect(offer).to_contain_text("corrections 5")
    expect(offer).to_contain_text("It needs at least 100 preference pairs; there are 5.")
    expect(offer).to_contain_text("Held out: 1.")
    expect(offer).to_contain_text("by formula")
    page.locator("#kt-start").click()
    shown = page.locator("#kt-run")
    expect(shown).to_contain_text("shelves")
    expect(shown.locator(".ks-bar")).to_be_visible()
    expect(shown).to_contain_text(re.compile(r"step \d+ of 60"))
    expect(shown).to_contain_text(re.compile(r"Loss \d"))
    page.locator("#kt-pause").click()
    expect(shown.locator(".kt-state")).to_have_text("paused")
    expect(page.locator("#kt-resume")).to_be_visible()

    page.reload()  # what was begun is still there, and so are its curves
    page.wait_for_selector("#ks-model .ks-ready")
    open_tab(page)
    expect(shown.locator(".kt-state")).to_have_text("paused")
    page.locator("#kt-resume").click()
    expect(shown.locator(".kt-state")).to_have_text("done", timeout=5 * PATIENCE)
    expect(shown.locator("svg.kr-chart")).to_have_count(3)
    expect(shown).to_contain_text("Questions that are held out")
    expect(shown).to_contain_text("sft, after 60 steps")
    shown.get_by_text("What made it").click()
    expect(shown).to_contain_text("example.jsonl:1")
    for question in asked[:5]:
        expect(shown).to_contain_text(question)

    runs = Runs(site.data / "studio.sqlite")
    run = next(run for run in runs.list() if run.name == "shelves")
    result = runs.result(run.id)
    runs.close()
    assert (
        result is not None and (result / "model.safetensors").read_bytes() != (NANO / "model.safetensors").read_bytes()
    )
    learnt = (Path(run.folder) / "data" / "example.jsonl").read_text()
    assert learnt.count("\n") == 5 and json.loads((Path(run.folder) / "data" / "lessons.json").read_text())["made"]

    fill(page, "ended early", f"sft.steps=4000 {FEW}")
    page.locator("#kt-start").click()
    expect(shown).to_contain_text("ended early")
    expect(shown).to_contain_text(re.compile(r"step \d+ of 4,000"))
    page.locator("#kt-keep").click()
    expect(shown.locator(".kt-state")).to_have_text("done", timeout=5 * PATIENCE)
    expect(shown).to_contain_text("what was learnt until then is kept")
    history = page.locator("#kt-history")
    expect(history.locator("tbody tr")).to_have_count(2)
    expect(history.locator("svg.kr-chart").first).to_be_visible()
    expect(history).to_contain_text("shelves")
    page.locator("#ks-language").get_by_text("中文").click()
    expect(shown.locator(".kt-state")).to_have_text("完成")
    expect(page.get_by_role("tab", name="微调")).to_be_visible()
    page.locator("#ks-language").get_by_text("EN").click()
    expect(page.get_by_role("tab", name="Fine-tune")).to_be_visible()
