"""The modes on the page: the switch, thoughts that fold, crops that are shown and seek, the budget, and stopping while
a tool runs. Over a runtime that follows a script, since what the shipped model thinks is its own affair."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.config import AppConfig
from app.page import launch
from app.studio import Studio
from engine.reasoning import tools
from engine.reasoning.sandbox import Limits, Output, run_code, unavailable
from tests.app.conftest import ScriptedRuntime
from tests.e2e.conftest import PATIENCE, free_port, open_page, unfold
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)
CALL = '<tool_call>{"name": "zoom", "arguments": {"time": 1.0, "box": [0, 0, 60, 60]}}</tool_call>'


class Turns(ScriptedRuntime):
    """Scripts by what the turn was begun with: one for a new turn, one for each time that it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[list[str]] = []

    def stream(self, messages, decoding, stop):  # type: ignore[no-untyped-def]
        begun = sum(m.role == "assistant" for m in messages[-1:])
        if not begun:
            self.turn = 0
        self.pieces = self.scripts[min(self.turn, len(self.scripts) - 1)]
        self.turn += 1
        said = 0
        for event in super().stream(messages, decoding, stop):
            if event.type == "done":
                event = replace(event, answer_tokens=said)
            said += event.type == "answer"
            if said > decoding.max_tokens:
                yield replace_done(decoding.max_tokens)
                return
            yield event


def replace_done(tokens: int):  # type: ignore[no-untyped-def]
    from engine.events import Done

    return Done(finish="length", text="", model="scripted", answer_tokens=tokens)


@pytest.fixture
def served(tmp_path: Path, browser: Browser) -> Iterator[tuple[Turns, Page]]:
    runtime = Turns()
    config = AppConfig(data=tmp_path / "data", port=free_port())
    studio = Studio(config, runtime)
    demo = launch(studio, config, block=False)
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = open_page(context, f"http://127.0.0.1:{config.port}")
    clip = tmp_path / "clip.mp4"
    make_clip(clip, frames=75, fps=25, size=(320, 240))
    page.locator("#ks-player input[type=file]").set_input_files(str(clip))
    expect(page.locator(".ks-frame")).not_to_have_count(0)
    yield runtime, page
    context.close()
    if runtime.gate is not None:
        for _ in range(16):
            runtime.gate.set()
    demo.close()
    studio.close()


def choose(page: Page, mode: str) -> None:
    page.locator("#ks-mode").get_by_role("radio", name=mode, exact=True).check()


def ask(page: Page, question: str = "What happens?") -> None:
    page.locator("#ks-question textarea").fill(question)
    page.locator("#ks-ask").click()


SWITCHES = {"Auto": "", "Think": "/think", "Direct": "/no_think", "Think with the image": "/agentic_think"}


@pytest.mark.parametrize(("mode", "switch"), SWITCHES.items())
def test_each_mode_is_asked_for_and_named_at_its_answer(served: tuple[Turns, Page], mode: str, switch: str) -> None:
    runtime, page = served
    runtime.scripts = [["<think>", "two and two", "</think>", "Four at 0:01."]]
    choose(page, mode)
    ask(page)
    expect(page.locator("#ks-ask")).to_be_visible()
    expect(page.locator("#ks-chat")).to_contain_text("Four at 0:01.")
    expect(page.locator("#ks-chat small").last).to_contain_text(mode)
    assert runtime.heard[0][-1].parts[-1] == f"What happens?{switch}"
    page.reload()  # the switch and the thought are as they were
    unfold(page, "Thought")
    expect(page.locator("#ks-chat")).to_contain_text("two and two")
    expect(page.locator("#ks-mode").get_by_role("radio", name=mode, exact=True)).to_be_checked()


def test_a_crop_is_shown_where_the_model_looked_and_its_time_seeks(served: tuple[Turns, Page]) -> None:
    runtime, page = served
    runtime.scripts = [["<think>", "Closer. ", CALL], ["I see it.", "</think>", "A board."]]
    choose(page, "Think with the image")
    ask(page)
    expect(page.locator("#ks-chat small").last).to_contain_text("visual tokens")
    page.reload()
    unfold(page, "Thought", "Tool: zoom")
    pictures = page.locator("#ks-chat img[src^='data:image/jpeg']")
    expect(pictures).to_have_count(2)
    sizes = pictures.evaluate_all("e => Promise.all(e.map(i => i.decode().then(() => i.naturalWidth)))")
    assert all(width > 0 for width in sizes)
    page.wait_for_function("document.querySelector('#ks-player video')?.readyState >= 1")
    page.locator("#ks-chat a[href*='#t=']").first.click()
    page.wait_for_function("Math.abs(document.querySelector('#ks-player video').currentTime - 1) < 0.1")


def test_a_budget_set_on_the_page_closes_the_thought(served: tuple[Turns, Page]) -> None:
    runtime, page = served
    runtime.scripts = [["<think>", "one ", "two ", "three ", "four "], ["Done."]]
    page.locator("#ks-settings button").first.click()
    budget = page.get_by_label("Thinking budget", exact=False).first
    budget.fill("3")
    budget.press("Tab")
    choose(page, "Think")
    ask(page)
    expect(page.locator("#ks-chat")).to_contain_text("budget of 3 tokens")
    expect(page.locator("#ks-chat")).to_contain_text("Done.")
    expect(page.locator("#ks-chat")).not_to_contain_text("three")


def test_a_thought_that_is_stopped_does_not_spin(served: tuple[Turns, Page]) -> None:
    runtime, page = served
    runtime.scripts = [["<think>two ", "and ", "two"]]
    runtime.gate = threading.Event()
    choose(page, "Think")
    ask(page)
    runtime.gate.set()
    expect(page.locator("#ks-chat")).to_contain_text("two")
    page.locator("#ks-stop").click()
    page.wait_for_timeout(300)
    runtime.gate.set()
    expect(page.locator("#ks-ask")).to_be_visible()
    expect(page.locator("#ks-chat")).to_contain_text("stopped")
    expect(page.locator("#ks-chat .loading-spinner")).to_have_count(0)


@pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "there is a sandbox")
def test_stopping_while_code_runs_ends_it(served: tuple[Turns, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, page = served
    began, ended = threading.Event(), threading.Event()

    def patient(code, pictures, limits=None, stop=None) -> Output:  # type: ignore[no-untyped-def]
        began.set()
        output = run_code(code, pictures, Limits(seconds=600, cpu_seconds=600), stop)
        ended.set()
        return output

    monkeypatch.setattr(tools, "run_code", patient)
    runtime.scripts = [["<think>", "```python\nimport time\ntime.sleep(500)\n```"], ["never"]]
    choose(page, "Think with the image")
    ask(page)
    assert began.wait(PATIENCE / 1000)
    expect(page.locator("#ks-chat")).to_contain_text("time.sleep")
    page.locator("#ks-stop").click()
    expect(page.locator("#ks-ask")).to_be_visible()
    assert ended.is_set() and len(runtime.heard) == 1
    expect(page.locator("#ks-chat")).to_contain_text("stopped")
