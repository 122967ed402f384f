"""Stopping, queueing and reloading in the middle of an answer: the page over a runtime that can be held still."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.config import AppConfig
from app.page import launch
from app.studio import Studio
from tests.app.conftest import ScriptedRuntime
from tests.e2e.conftest import PATIENCE, free_port, open_page
from tests.media import make_clip

expect.set_options(timeout=PATIENCE)


@pytest.fixture
def held(tmp_path: Path, browser: Browser) -> Iterator[tuple[ScriptedRuntime, Page]]:
    runtime = ScriptedRuntime()
    runtime.gate = threading.Event()
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
    page.locator("#ks-question textarea").fill("What happens?")
    page.locator("#ks-ask").click()
    expect(page.locator("#ks-stop")).to_be_visible()
    yield runtime, page
    context.close()
    for _ in range(8):
        runtime.gate.set()
    served.close()
    studio.close()


def test_a_stopped_answer_stays_stopped(held: tuple[ScriptedRuntime, Page]) -> None:
    runtime, page = held
    assert runtime.gate is not None
    runtime.gate.set()
    expect(page.locator("#ks-chat")).to_contain_text("A red circle")
    page.locator("#ks-stop").click()
    page.wait_for_timeout(300)
    runtime.gate.set()
    expect(page.locator("#ks-ask")).to_be_visible()
    expect(page.locator("#ks-chat")).to_contain_text("stopped")
    expect(page.locator("#ks-chat")).not_to_contain_text("moves left")
    page.reload()
    expect(page.locator("#ks-chat")).to_contain_text("stopped")
    expect(page.locator("#ks-chat")).not_to_contain_text("moves left")


def test_a_reload_in_the_middle_finds_the_running_answer_again(held: tuple[ScriptedRuntime, Page]) -> None:
    runtime, page = held
    assert runtime.gate is not None
    runtime.gate.set()
    expect(page.locator("#ks-chat")).to_contain_text("A red circle")
    page.reload()
    expect(page.locator("#ks-chat")).to_contain_text("A red circle")
    expect(page.locator("#ks-stop")).to_be_visible()
    for words in ("moves left", "at 0:01"):
        runtime.gate.set()
        expect(page.locator("#ks-chat")).to_contain_text(words)
    expect(page.locator("#ks-ask")).to_be_visible()
