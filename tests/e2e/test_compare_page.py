"""Two modes side by side on the page: both stream, one click says which is better, and nothing is lost on the way.
Over a runtime whose two answers a test can hold still, each by itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.config import AppConfig
from app.page import launch
from app.studio import Studio
from engine.events import Answer, Done, Error, Event
from engine.runtime.base import Decoding, Message
from tests.app.conftest import ScriptedRuntime
from tests.e2e.conftest import PATIENCE, free_port, open_page
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)


class Part:
    """What is said in one mode, and how much of it may be said so far."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.allowed = threading.Semaphore(0)
        self.failure = ""

    def go_on(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            self.allowed.release()


class Duet(ScriptedRuntime):
    """Two parts, told apart by the mode's switch at the end of the question."""

    def __init__(self) -> None:
        super().__init__()
        self.think = Part("<think>", "two and ", "two", "</think>", "Four ", "at 0:01.")
        self.direct = Part("It is ", "five.")

    def stream(self, messages: list[Message], decoding: Decoding, stop: threading.Event) -> Iterator[Event]:
        part = self.direct if str(messages[-1].parts[-1]).endswith("/no_think") else self.think
        self.heard.append(messages)
        text, said = "", 0
        for piece in part.pieces:
            while not part.allowed.acquire(timeout=0.05):
                if stop.is_set():
                    yield Done(finish="stopped", text=text, model="scripted", answer_tokens=said)
                    return
            if part.failure:
                yield Error(part.failure)
                yield Done(finish="error", text=text, model="scripted", answer_tokens=said)
                return
            text, said = text + piece, said + 1
            yield Answer(piece)
        yield Done(
            finish="stop",
            text=text,
            model="scripted",
            visual_tokens=7,
            answer_tokens=said,
            first_token_seconds=0.5,
        )


class Table:
    """The page with a clip, ready to compare thinking with answering at once."""

    def __init__(self, page: Page, runtime: Duet, studio: Studio) -> None:
        self.page, self.runtime, self.studio = page, runtime, studio

    def begin(self, blind: bool = False) -> None:
        page = self.page
        page.locator("#ks-mode").get_by_role("radio", name="Think", exact=True).check()
        expect(page.locator("#ks-mode")).to_contain_text("thinks before it answers")
        page.locator("#ks-compare input").check()
        expect(page.locator("#ks-against").get_by_role("radio", name="Direct", exact=True)).to_be_checked()
        expect(page.locator("#ks-ask")).to_have_text("Compare")
        if blind:
            page.locator("#ks-blind input").check()
        page.locator("#ks-question textarea").fill("How many?")
        page.locator("#ks-ask").click()
        expect(page.locator(".ks-side")).to_have_count(2)
        expect(page.locator("#ks-stop")).to_be_visible()

    def side(self, number: int) -> Locator:
        return self.page.locator(".ks-side").nth(number)

    def finish(self) -> None:
        for part in (self.runtime.think, self.runtime.direct):
            part.go_on(9)
        expect(self.page.locator("#ks-ask")).to_be_visible()

    def verdict(self, name: str) -> Locator:
        return self.page.locator(f"[data-verdict={name}]")

    def kept(self) -> list[tuple[str, str, str]]:
        """(mode of the chosen answer, mode of the other, verdict) as the store has them."""
        store = self.studio.store
        (conversation,) = store.conversations()
        modes = {a.id: a.mode for turn in store.conversation(conversation.id).turns for a in turn.answers}
        said = store.preferences.of_conversation(conversation.id)
        return [(modes[p.chosen or ""], modes[p.rejected], p.verdict) for p in said]


@pytest.fixture
def table(tmp_path: Path, browser: Browser) -> Iterator[Table]:
    runtime = Duet()
    config = AppConfig(data=tmp_path / "data", port=free_port())
    studio = Studio(config, runtime)
    served = launch(studio, config, block=False)
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = open_page(context, f"http://127.0.0.1:{config.port}")
    clip = tmp_path / "clip.mp4"
    make_clip(clip, frames=50, fps=25, size=(160, 120))
    page.locator("#ks-player input[type=file]").set_input_files(str(clip))
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    yield Table(page, runtime, studio)
    context.close()
    served.close()
    studio.close()


def test_both_stream_at_once_and_one_click_says_which_is_better(table: Table) -> None:
    left, right = table.side(0), table.side(1)
    table.runtime.direct = Part("It is ", "five ${6*7} {{value}} <b>.")
    table.begin()
    table.runtime.think.go_on(2)
    expect(left).to_contain_text("two and")
    table.runtime.direct.go_on(1)
    expect(right).to_contain_text("It is")
    expect(right).not_to_contain_text("five")
    table.runtime.think.go_on(1)
    expect(left.locator("details")).to_contain_text("two and two")
    for name in ("left", "right", "both_good", "both_bad"):
        expect(table.verdict(name)).to_be_disabled()
    table.finish()
    expect(left).to_contain_text("Think")
    expect(left).to_contain_text("6 tokens")
    expect(left).to_contain_text("thought for")
    expect(right).to_contain_text("2 tokens")
    expect(right).to_contain_text("five ${6*7} {{value}} <b>.")  # as it was written, whatever else it may mean
    for side in (left, right):
        expect(side.locator(".ks-facts")).to_contain_text(re.compile(r"\d\.\d s"))
    boxes = [side.bounding_box() for side in (left, right)]
    assert boxes[0] and boxes[1] and abs(boxes[0]["y"] - boxes[1]["y"]) < 2 and boxes[0]["x"] < boxes[1]["x"]
    table.verdict("left").click()
    expect(table.verdict("left")).to_have_attribute("aria-pressed", "true")
    expect(left).to_have_class(re.compile("ks-better"))
    assert table.kept() == [("think", "no_think", "better")]


def test_a_choice_is_kept_over_a_reload_changed_and_taken_back(table: Table) -> None:
    page = table.page
    table.begin()
    table.finish()
    table.verdict("right").click()
    expect(table.verdict("right")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(table.verdict("right")).to_have_attribute("aria-pressed", "true")
    expect(table.side(1)).to_have_class(re.compile("ks-better"))
    expect(page.locator("#ks-compare input")).to_be_checked()  # as it was asked
    expect(page.locator("#ks-against").get_by_role("radio", name="Direct", exact=True)).to_be_checked()
    table.verdict("both_bad").click()
    expect(table.verdict("both_bad")).to_have_attribute("aria-pressed", "true")
    expect(table.verdict("right")).to_have_attribute("aria-pressed", "false")
    assert table.kept() == [("think", "no_think", "both_bad")]
    table.verdict("both_bad").click()
    expect(table.verdict("both_bad")).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(table.verdict("both_bad")).to_have_attribute("aria-pressed", "false")
    assert table.kept() == []


def test_a_reload_in_the_middle_finds_both_sides_again(table: Table) -> None:
    page = table.page
    table.begin()
    table.runtime.think.go_on(2)
    table.runtime.direct.go_on(1)
    expect(table.side(0)).to_contain_text("two and")
    expect(table.side(1)).to_contain_text("It is")
    page.reload()
    expect(table.side(0)).to_contain_text("two and")
    expect(table.side(1)).to_contain_text("It is")
    expect(page.locator("#ks-stop")).to_be_visible()
    table.finish()
    expect(table.side(0)).to_contain_text("Four at 0:01.")
    expect(table.side(1)).to_contain_text("It is five.")


def test_stop_ends_both_and_what_was_written_stays(table: Table) -> None:
    page = table.page
    table.begin()
    table.runtime.think.go_on(2)
    table.runtime.direct.go_on(1)
    expect(table.side(0)).to_contain_text("two and")
    expect(table.side(1)).to_contain_text("It is")
    page.locator("#ks-stop").click()
    expect(page.locator("#ks-ask")).to_be_visible()
    for number in (0, 1):
        expect(table.side(number)).to_contain_text("stopped")
    page.reload()
    expect(table.side(0)).to_contain_text("stopped")
    expect(table.side(1)).to_contain_text("It is")
    expect(page.locator(".ks-duel")).to_contain_text("nothing to choose")  # the left one only thought


def test_a_side_that_fails_leaves_the_other(table: Table) -> None:
    page = table.page
    table.runtime.think.failure = "The memory ran out: lower the visual token budget."
    table.begin()
    table.finish()
    expect(table.side(0)).to_contain_text("The memory ran out")
    expect(table.side(1)).to_contain_text("It is five.")
    expect(page.locator(".ks-duel")).to_contain_text("nothing to choose")
    expect(page.locator("#ks-problem .ks-problem")).to_have_count(0)
    page.locator("#ks-compare input").uncheck()
    expect(page.locator("#ks-ask")).to_have_text("Ask")
    table.runtime.think.failure = ""
    table.runtime.think.go_on(9)
    page.locator("#ks-question textarea").fill("And now?")
    page.locator("#ks-ask").click()
    expect(page.locator("#ks-chat small").last).to_contain_text("visual tokens")
    assert table.runtime.heard[-1][1].parts == ("It is five.",)  # the conversation goes on from the side that answered


def test_blind_tells_nothing_before_the_choice(table: Table) -> None:
    page = table.page
    table.begin(blind=True)
    table.runtime.think.go_on(3)
    table.runtime.direct.go_on(1)
    expect(page.locator(".ks-duel")).to_contain_text("It is")
    table.finish()
    duel = page.locator(".ks-duel")
    expect(duel).to_contain_text("Four at 0:01.")
    page.reload()
    expect(duel).to_contain_text("Four at 0:01.")
    for told in ("Think", "Direct", "two and two", "tokens", "thought for"):
        expect(duel).not_to_contain_text(told)
    assert "two and two" not in duel.evaluate("e => e.outerHTML")
    side = 0 if "Four" in table.side(0).inner_text() else 1
    table.verdict(("left", "right")[side]).click()
    expect(table.side(side)).to_contain_text("Think")
    expect(table.side(1 - side)).to_contain_text("Direct")
    expect(duel.locator("details")).to_contain_text("two and two")
    assert table.kept() == [("think", "no_think", "better")]
    table.verdict(("left", "right")[side]).click()  # taken back: what was seen stays seen
    expect(table.verdict("left")).to_have_attribute("aria-pressed", "false")
    expect(table.side(side)).to_contain_text("Think")


def test_what_was_unfolded_stays_so_while_answers_grow(table: Table) -> None:
    fold = table.page.locator(".ks-fold")
    table.begin()
    table.runtime.think.go_on(2)
    expect(fold).to_have_attribute("open", "")
    fold.locator("summary").click()
    table.runtime.think.go_on(1)
    table.runtime.direct.go_on(1)
    expect(table.side(1)).to_contain_text("It is")
    expect(fold).not_to_have_attribute("open", "")
    fold.locator("summary").click()
    table.finish()
    expect(table.side(0)).to_contain_text("thought for")
    expect(fold).to_have_attribute("open", "")


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_the_sides_stand_one_under_the_other(table: Table, dark: bool) -> None:
    page = table.page
    table.begin()
    table.finish()
    if dark:
        page.locator("#ks-theme").click()
    page.locator("#ks-language label").nth(1).click()
    expect(page.locator("#ks-ask")).to_have_text("对比")
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    expect(table.verdict("left")).to_have_text("A 更好")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [table.side(number).bounding_box() for number in (0, 1)]
    assert boxes[0] and boxes[1] and boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    for locator in (table.side(0), table.side(1), *(table.verdict(v) for v in ("left", "both_bad"))):
        box = locator.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["width"] > 100
    table.verdict("both_good").click()
    expect(table.verdict("both_good")).to_have_attribute("aria-pressed", "true")
    expect(table.side(0)).to_contain_text("思考")
