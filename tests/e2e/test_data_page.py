"""The Data tab in a real browser: what was asked is found, corrected, excluded, put on a side, taken along and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from finetune.feedback import Store
from tests.e2e.conftest import PATIENCE, Site
from tests.e2e.test_page import ask
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)


def open_tab(page: Page) -> None:
    page.get_by_role("tab", name="Data", exact=True).click()
    expect(page.locator("#kx-intro")).to_be_visible()


def search(page: Page, text: str) -> None:
    page.locator("#kx-search").locator("input, textarea").fill(text)


@pytest.fixture
def rows(tmp_path: Path) -> list[str]:
    """A file that somebody else wrote, with its video: two rows that are good and two that are not."""
    make_clip(tmp_path / "zebra.mp4", frames=10, fps=10, size=(96, 64))
    said = [{"role": "user", "content": "<video>Is there a zebra?"}, {"role": "assistant", "content": "Two zebras."}]
    texts = [
        {"messages": said, "videos": ["zebra.mp4"]},
        {"prompt": "有斑马吗？", "completion": "有两匹斑马。"},
        {"messages": said, "videos": ["../../etc/passwd"]},
        {"messages": said, "videos": ["lion.mp4"]},
    ]
    file = tmp_path / "zebras.jsonl"
    file.write_text("\n".join(json.dumps(text) for text in texts), "utf-8")
    return [str(file), str(tmp_path / "zebra.mp4")]


def test_what_was_asked_is_found_corrected_excluded_and_taken_along(page: Page, site: Site, rows: list[str]) -> None:
    page.locator(".ks-demo").first.click()
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    ask(page, "What do you see in the data?")
    open_tab(page)
    search(page, "in the data")
    card = page.locator(".kx-card")
    expect(card).to_have_count(1)
    expect(page.locator("#kx-count")).to_contain_text("1 answer")
    page.wait_for_function("document.querySelector('.kx-still img')?.naturalWidth > 0")  # its picture has been made

    page.keyboard.press("Tab")
    card.get_by_text("Correct").focus()
    page.keyboard.press("Enter")  # opens, with the answer to be changed and the keyboard in it
    expect(card.locator("textarea")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("A zebra <b>crossing</b>")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#kx-problem")).to_contain_text("Nothing can be learnt from this correction")
    expect(card.locator("textarea")).to_have_value("A zebra <b>crossing</b>")  # nothing that was typed is lost
    card.locator("textarea").fill("A zebra crossing.")
    card.get_by_role("button", name="Save").click()
    expect(card.locator(".kx-right")).to_have_text("A zebra crossing.")
    expect(page.locator("#kx-problem")).to_be_hidden()

    card.get_by_role("button", name="Exclude").click()
    expect(card).to_contain_text("excluded: by hand")
    card.locator(".kx-pick").check()
    page.locator(".kx-bar").get_by_role("button", name="Include").click()
    expect(card).not_to_contain_text("excluded")
    side = card.locator(".kx-side")
    before = side.inner_text()
    side.click()
    expect(side).to_have_text("training" if before == "measuring" else "measuring")
    side.click()
    expect(side).to_have_text(before)

    page.locator("#kx-files .label-wrap").click()
    page.locator("#kx-format").get_by_text("TRL: conversations").click()
    page.locator("#kx-export").click()
    expect(page.locator("#kx-work")).to_contain_text("1 row written, of 1")
    with page.expect_download() as download:
        page.locator("#kx-work a").click()
    (line,) = Path(download.value.path()).read_text("utf-8").splitlines()
    assert json.loads(line)["messages"][-1] == {"role": "assistant", "content": "A zebra crossing."}

    page.locator("#kx-import input[type=file]").set_input_files(rows)
    expect(page.locator("#kx-work")).to_contain_text("2 rows taken in, of 4")
    expect(page.locator("#kx-work")).to_contain_text("names a path outside of the file's folder")
    expect(page.locator("#kx-work")).to_contain_text("lion.mp4")
    search(page, "zebra")
    expect(card).to_have_count(2)
    search(page, "斑马")
    expect(card).to_have_count(1)
    search(page, "nobody ever said this")
    expect(page.locator(".kx-empty")).to_contain_text("Nothing fits")
    search(page, "zebra")
    expect(card).to_have_count(2)
    page.locator("#kx-sift .label-wrap").click()
    page.locator("#kx-check").click()
    expect(page.locator("#kx-work")).to_contain_text("Nothing was found")

    page.reload()  # all of it is still there
    page.wait_for_selector("#ks-model .ks-ready")
    open_tab(page)
    search(page, "zebra crossing")
    expect(card.locator(".kx-right")).to_have_text("A zebra crossing.")
    page.locator("#ks-language").get_by_text("中文").click()
    expect(page.get_by_role("tab", name="数据")).to_be_visible()
    expect(card.get_by_text("排除")).to_be_visible()
    page.locator("#ks-language").get_by_text("EN").click()
    expect(page.get_by_role("tab", name="Data", exact=True)).to_be_visible()
    store = Store(site.data / "studio.sqlite")
    assert [pair.chosen_text for pair in store.preferences.pairs("correction")] == ["A zebra crossing."]
    store.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(site.url)
    page.wait_for_selector("#ks-model .ks-ready")
    expect(page.locator("#ks-sidebar.open")).to_have_count(0)  # it begins closed
    open_tab(page)
    expect(page.locator(".kx-card, .kx-empty").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for card in page.locator(".kx-card").all()[:3]:
        box = card.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
