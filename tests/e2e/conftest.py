"""The page in a real browser, over the real model, or over a scripted one where a test must hold an answer still."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from scripts.browser import chromium

ROOT = Path(__file__).resolve().parents[2]
QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE = 120_000  # milliseconds: only how long a broken test takes to fail


@dataclass(frozen=True)
class Site:
    url: str
    data: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in Path(str(item.fspath)).parts:
            item.add_marker(pytest.mark.e2e)


def started(data: Path) -> Iterator[Site]:
    """`python -m app` as a user starts it, over this folder; it is interrupted at the end, and must not have failed."""
    port = free_port()
    with (data / "app.log").open("a+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "--port", str(port), "--data", str(data)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(1500):
                if process.poll() is not None:
                    pytest.fail(f"the app ended: {(data / 'app.log').read_text()}")
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield Site(url, data)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail("the app did not end when it was interrupted")
    text = (data / "app.log").read_text()
    assert "Traceback" not in text, text


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One page for all tests that do not count what the others left in it."""
    yield from started(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A page of its own, for tests that change what is served or count all that was collected."""
    data = tmp_path / "data"
    data.mkdir()
    yield from started(data)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1360, "height": 900}, locale="en-US")
    context.set_default_timeout(PATIENCE)
    outside: list[str] = []
    context.on(
        "request",
        lambda r: outside.append(r.url) if not re.match(r"(https?://127\.0\.0\.1[:/]|data:|blob:)", r.url) else None,
    )
    yield context
    context.close()
    assert outside == []  # the page asks nobody but its own server


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    return open_page(context, site.url)


def open_page(context: BrowserContext, url: str) -> Page:
    """The page, once its model is ready."""
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#ks-model .ks-ready")
    return page


def unfold(page: Page, *titles: str) -> None:
    """Open the blocks with these titles, outer ones first, that are folded. After a reload, when none is moving."""
    for title in titles:
        block = page.locator("#ks-chat .title", has_text=title).first
        if "expanded" not in (block.get_attribute("class") or ""):
            block.click()
        expect(block).to_have_class(re.compile("expanded"))
