"""Saying what an answer is worth, in a real browser: nothing that was said or typed is lost, and the page says where it
went."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.config import AppConfig
from app.page import launch
from app.studio import Studio
from engine.events import Answer, Done, Event
from engine.runtime.base import Decoding, Message
from finetune.feedback import Store
from tests.app.conftest import ScriptedRuntime
from tests.e2e.conftest import PATIENCE, free_port, open_page
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)
ANSWERS = ("A red circle at 0:01.", "A blue star.", "A green heart.", "It falls.")


class InTurn(ScriptedRuntime):
    """Gives one of ANSWERS after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        with self.lock:
            text = ANSWERS[len(self.heard)]
            self.heard.append(messages)
        yield Answer(text)
        yield Done(
            finish="stop", text=text, model="scripted", visual_tokens=7, answer_tokens=3, first_token_seconds=0.1
        )


class Desk:
    def __init__(self, page: Page, runtime: InTurn, data: Path) -> None:
        self.page, self.runtime, self.data = page, runtime, data

    def ask(self, question: str) -> None:
        asked = self.page.locator(".ks-said").count()
        self.page.locator("#ks-question textarea").fill(question)
        self.page.locator("#ks-ask").click()
        expect(self.page.locator(".ks-said")).to_have_count(asked + 1)

    def button(self, what: str, value: str = "") -> Locator:
        chosen = f"[data-say={what}]" + (f'[data-value="{value}"]' if value else "")
        return self.page.locator(f".ks-said > div {chosen}, .ks-correct {chosen}").first

    def use(self) -> Locator:
        return self.page.locator(".ks-use")

    def kept(self) -> Store:
        """The file as another program reads it."""
        return Store(self.data / "studio.sqlite")


@pytest.fixture
def desk(tmp_path: Path, browser: Browser) -> Iterator[Desk]:
    runtime = InTurn()
    config = AppConfig(data=tmp_path / "data", port=free_port())
    studio = Studio(config, runtime)
    served = launch(studio, config, block=False)
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = open_page(context, f"http://127.0.0.1:{config.port}")
    clip = tmp_path / "clip.mp4"
    make_clip(clip, frames=75, fps=25, size=(160, 120))
    page.locator("#ks-player input[type=file]").set_input_files(str(clip))
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    yield Desk(page, runtime, config.data)
    context.close()
    served.close()
    studio.close()


def test_a_vote_its_reasons_moments_and_correction_are_kept_restored_and_undone(desk: Desk) -> None:
    page = desk.page
    desk.ask("What is it?")
    for said in ("up", "down"):
        expect(desk.button(said)).to_have_attribute("aria-pressed", "false")
    expect(desk.use()).to_have_count(0)
    desk.button("down").click()
    expect(desk.button("down")).to_have_attribute("aria-pressed", "true")
    expect(desk.use()).to_contain_text("teaches once there is something better")
    desk.button("reason", "wrong").click()
    expect(desk.button("reason", "wrong")).to_have_attribute("aria-pressed", "true")
    page.evaluate("document.querySelector('#ks-player video').currentTime = 1.5")
    page.wait_for_function("!document.querySelector('#ks-player video').seeking")
    desk.button("mark").click()
    expect(page.locator(".ks-moment [data-seek]")).to_have_text("0:01.5")
    page.locator(".ks-correct summary").click()
    page.locator(".ks-correct textarea").fill("A blue circle at 0:01.")
    page.reload()  # before it was saved: what was typed is still there
    expect(page.locator(".ks-correct textarea")).to_have_value("A blue circle at 0:01.")
    desk.button("correct").click()
    expect(desk.use()).to_have_text(
        "Kept. Will be used as: training example · preference pair · question for reinforcement"
    )
    page.reload()
    expect(desk.button("down")).to_have_attribute("aria-pressed", "true")
    expect(desk.button("reason", "wrong")).to_have_attribute("aria-pressed", "true")
    expect(desk.button("reason", "dull")).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".ks-correct textarea")).to_have_value("A blue circle at 0:01.")
    expect(page.locator(".ks-correct summary")).to_contain_text("Your correction")
    page.locator(".ks-moment [data-seek]").click()
    page.wait_for_function("Math.abs(document.querySelector('#ks-player video').currentTime - 1.5) < 0.05")
    store = desk.kept()
    (vote,) = store.votes.in_force()
    assert (vote.value, vote.reasons, vote.moments) == ("down", ("wrong",), (1.5,))
    assert [p.chosen_text for p in store.preferences.pairs("correction")] == ["A blue circle at 0:01."]
    page.locator(".ks-correct summary").click()
    desk.button("uncorrect").click()
    expect(page.locator(".ks-correct summary")).to_contain_text("Write a correction")
    desk.button("unmark").click()
    expect(page.locator(".ks-moment")).to_have_count(0)
    desk.button("down").click()
    expect(desk.button("down")).to_have_attribute("aria-pressed", "false")
    expect(desk.use()).to_have_count(0)
    page.reload()
    expect(desk.button("down")).to_have_attribute("aria-pressed", "false")
    assert store.votes.in_force() == [] and store.preferences.pairs() == []
    store.close()


def test_the_conversation_goes_on_from_the_draft_that_was_picked(desk: Desk) -> None:
    page = desk.page
    desk.ask("What is it?")
    desk.button("again").click()
    drafts = page.locator(".ks-drafts article")
    expect(drafts).to_have_count(3)
    expect(page.locator(".ks-drafts")).to_contain_text("Which is best?")
    expect(drafts.nth(0)).to_contain_text(ANSWERS[0])
    best = drafts.filter(has_text="A green heart.")
    best.locator("[data-say=pick]").click()
    expect(page.locator(".ks-drafts")).to_contain_text("Kept. Choose another")
    expect(best.locator("[data-say=pick]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#ks-chat .message.bot").first).to_contain_text("A green heart.")
    expect(desk.use()).to_have_text("Kept. Will be used as: training example · preference pair")
    page.reload()
    expect(page.locator("#ks-chat .message.bot").first).to_contain_text("A green heart.")
    page.locator(".ks-drafts > summary").click()
    expect(best.locator("[data-say=pick]")).to_have_attribute("aria-pressed", "true")
    desk.ask("And then?")
    assert desk.runtime.heard[-1][1].parts == ("A green heart.",)
    store = desk.kept()
    assert len(store.preferences.pairs("draft")) == 2
    best.locator("[data-say=pick]").click()
    expect(page.locator("#ks-chat .message.bot").first).to_contain_text(ANSWERS[0])
    assert store.preferences.pairs() == []
    store.close()


def test_by_keyboard_on_a_phone_in_the_dark_and_in_chinese(desk: Desk) -> None:
    page = desk.page
    desk.ask("What is it?")
    page.locator("#ks-theme").click()
    page.locator("#ks-language label").nth(1).click()
    expect(page.locator("#ks-ask")).to_have_text("提问")
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    desk.button("down").focus()
    page.keyboard.press("Enter")
    expect(desk.button("down")).to_have_attribute("aria-pressed", "true")
    expect(desk.button("reason", "made_up")).to_have_text("凭空编造")
    desk.button("reason", "made_up").focus()
    page.keyboard.press("Space")
    expect(desk.button("reason", "made_up")).to_have_attribute("aria-pressed", "true")
    expect(desk.use()).to_contain_text("已保存")
    page.locator(".ks-correct summary").click()
    page.locator(".ks-correct textarea").fill("  ")
    desk.button("correct").click()
    expect(page.locator("#ks-problem")).to_contain_text("修改内容为空")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for chip in page.locator(".ks-said button:visible").all():
        box = chip.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
