"""The Comment and Skills tabs in a real browser: with the model that ships, and over one that a test can hold still."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.config import AppConfig
from app.page import launch
from app.studio import Studio
from finetune.feedback import Store
from finetune.feedback.comments import comment_lessons
from tests.app.test_commenting import Writer
from tests.e2e.conftest import PATIENCE, Site, free_port, open_page
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)


def ready(page: Page) -> None:
    page.wait_for_selector("#ks-model .ks-ready")


def test_comments_by_the_model_that_ships_are_judged_chosen_and_still_there_after_a_reload(
    page: Page, site: Site
) -> None:
    page.locator(".ks-demo").first.click()
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    page.get_by_role("tab", name="Comment").click()
    expect(page.locator("#kd-comment-demo")).to_contain_text("keye-nano is a demonstration model")
    expect(page.locator("#kd-player video")).to_be_visible()  # the clip of the Ask tab
    page.locator("#kd-comment-start").click()
    cards = page.locator("#kd-comment-drafts .kd-card")
    expect(cards).not_to_have_count(0)
    expect(page.locator("#kd-comment-start")).to_be_visible()
    expect(page.locator("#kd-comment-drafts")).to_contain_text("the rules alone decided what is shown")
    cards.first.get_by_role("button", name="Edit", exact=True).click()
    cards.first.locator("textarea").fill("Look at it go!")
    cards.first.get_by_role("button", name="Save").click()
    expect(cards.first).to_contain_text("Your text will be learnt as an example")
    store = Store(site.data / "studio.sqlite")  # it is on the disk when the page says so
    (made,) = store.comments.rounds()
    assert len(made.drafts) == 4 and all(draft.moderation is not None for draft in made.drafts)
    lessons = comment_lessons(store)
    assert [one["row"]["messages"][-1]["content"] for one in lessons if one["use"] == "example"] == ["Look at it go!"]
    store.close()

    page.reload()
    ready(page)
    page.get_by_role("tab", name="Comment").click()
    expect(cards.first).to_contain_text("Look at it go!")
    page.locator("#ks-language").get_by_text("中文").click()
    expect(cards.first).to_contain_text("已保存")
    expect(page.get_by_role("tab", name="评论")).to_be_visible()
    page.get_by_role("tab", name="技能").click()
    expect(page.locator("#kd-skill-demo")).to_contain_text("演示模型")
    page.locator("#ks-language").get_by_text("EN").click()
    expect(page.get_by_role("tab", name="Skills")).to_be_visible()


@dataclass
class Desk:
    page: Page
    runtime: Writer
    studio: Studio

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab).click()

    def card(self, text: str) -> Locator:
        return self.page.locator("#kd-comment-drafts .kd-card").filter(has_text=text)

    def say(self, text: str, choice: str) -> None:
        self.card(text).get_by_role("button", name=choice, exact=True).click()


@pytest.fixture
def desk(tmp_path: Path, browser: Browser) -> Iterator[Desk]:
    runtime = Writer()
    config = AppConfig(data=tmp_path / "data", port=free_port())
    studio = Studio(config, runtime)
    for name, colour in (("first.mp4", (235, 235, 235)), ("second.mp4", (0, 120, 255))):
        clip = make_clip(tmp_path / name, frames=50, fps=25, size=(160, 120), colour=lambda index, c=colour: c)
        studio.add_video(clip, name)
    served = launch(studio, config, block=False)
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield Desk(open_page(context, f"http://127.0.0.1:{config.port}"), runtime, studio)
    context.close()
    runtime.hold.release(1000)
    served.close()
    studio.close()


def choose(box: Locator, option: str) -> None:
    box.locator("input").click()
    box.page.get_by_role("option", name=re.compile(option)).click()


def test_comments_arrive_one_by_one_and_what_is_being_written_stays(desk: Desk) -> None:
    page, runtime = desk.page, desk.runtime
    runtime.drafts = ["So calm!", "see www.shop.com now", "What a twist", "never written to its end"]
    runtime.hold = threading.Semaphore(0)
    desk.open("Comment")
    page.locator("#kd-comment-start").click()
    expect(page.locator("#kd-comment-progress")).to_contain_text("Drop a video first")
    choose(page.locator("#kd-kept"), "first.mp4")
    expect(page.locator("#kd-player video")).to_be_visible()
    page.locator("#kd-comment-start").click()
    runtime.hold.release(1)
    expect(page.locator("#kd-comment-progress")).to_contain_text(re.compile("Comment 1 of 4: writing · 1 token(?!s)"))
    expect(page.locator("#kd-comment-drafts")).not_to_contain_text("So")  # not before it was judged
    runtime.hold.release(2)
    expect(desk.card("So calm!")).to_be_visible()
    desk.say("So calm!", "Edit")
    area = desk.card("So calm!").locator("textarea")
    area.fill("So calm, I could watch")
    runtime.hold.release(3 + 4)  # the second breaks a rule; the third comes while the first is rewritten
    expect(desk.card("What a twist")).to_be_visible()
    expect(page.locator("#kd-comment-drafts summary")).to_have_text("Withheld: 1")
    expect(area).to_have_value("So calm, I could watch")
    page.reload()  # in the middle
    ready(page)
    desk.open("Comment")
    expect(desk.card("What a twist")).to_be_visible()
    expect(page.locator("#kd-comment-progress")).to_contain_text("Comment 4 of 4")
    page.locator("#kd-comment-stop").click()
    expect(page.locator("#kd-comment-start")).to_be_visible()
    expect(page.locator("#kd-comment-progress")).to_contain_text("Ended after 3 of 4.")
    desk.say("So calm!", "Pick")
    expect(desk.card("So calm!")).to_contain_text("Kept.")
    desk.say("What a twist", "Reject")
    expect(desk.card("What a twist")).to_contain_text("worse one of a pair")
    (pair,) = [one["row"] for one in comment_lessons(desk.studio.store) if one["use"] == "pair"]
    assert (pair["chosen"], pair["rejected"]) == ("So calm!", "What a twist")
    desk.say("What a twist", "Reject")  # once more takes it back
    expect(desk.card("What a twist")).to_contain_text("Not chosen yet.")
    page.locator("#kd-comment-drafts summary").click()
    expect(page.locator(".kd-withheld")).to_contain_text("it holds a link")
    desk.say("What a twist", "Edit")
    desk.card("What a twist").locator("textarea").fill(" ")
    desk.card("What a twist").get_by_role("button", name="Save").click()
    expect(page.locator("#kd-comment-progress")).to_contain_text("Write the better text first")
    for file in desk.studio.library.folder.glob("*"):
        file.unlink()
    page.locator("#kd-comment-start").click()
    expect(page.locator("#kd-comment-progress")).to_contain_text("first.mp4 is no longer on the disk")


def test_a_ready_made_question_about_two_clips_is_read_corrected_and_found_again(desk: Desk) -> None:
    page, runtime = desk.page, desk.runtime
    runtime.drafts = ["[Video 2, Video 1]", '{"colour": "red"}']
    desk.open("Skills")
    page.locator("#kd-which").get_by_text("Order of a collection").click()
    choose(page.locator("#kd-skill-kept"), "first.mp4")
    page.locator("#kd-skill-start").click()
    expect(page.locator("#kd-skill-progress")).to_contain_text("wants 2 to 6 clips and there are 1")
    choose(page.locator("#kd-skill-kept"), "second.mp4")
    expect(page.locator(".kd-clip")).to_have_count(2)
    expect(page.locator(".kd-clip").nth(1)).to_contain_text("Video 2 second.mp4")
    page.keyboard.press("Escape")
    page.locator("#kd-skill-start").click()
    expect(page.locator("#kd-skill-drafts .kd-list li")).to_have_text(["Video 2", "Video 1"])
    card = page.locator("#kd-skill-drafts .kd-card")
    card.get_by_role("button", name="Correct it").click()
    card.locator("textarea").fill("[Video 1, Video 2]")
    card.get_by_role("button", name="Save").click()
    expect(page.locator("#kd-skill-drafts .kd-list li")).to_have_text(["Video 1", "Video 2"])
    (example, pair) = comment_lessons(desk.studio.store)
    assert example["row"]["messages"][0]["content"].startswith("Video 1: <video>Video 2: <video>These 2 videos")
    assert (pair["row"]["chosen"], pair["row"]["rejected"]) == ("[Video 1, Video 2]", "[Video 2, Video 1]")

    page.locator("#kd-which").get_by_text("Attributes as JSON").click()
    page.locator("#kd-dimensions textarea").fill("colour: red, blue")
    page.locator("#kd-skill-kept .token .token-remove").last.click()
    expect(page.locator(".kd-clip")).to_have_count(1)
    page.locator("#kd-skill-start").click()
    expect(page.locator(".kd-table td")).to_have_text(["colour", "red"])
    page.reload()
    ready(page)
    desk.open("Skills")
    expect(page.locator(".kd-table td")).to_have_text(["colour", "red"])
    expect(page.locator("#kd-dimensions textarea")).to_have_value("colour: red, blue")
