"""A benchmark's report in a real browser: hostile text stays text, and it fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from finetune.bench.open_runtime import open_runtime
from finetune.bench.report import write_report
from tests.bench.made_up import hostile


@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_is_one_harmless_file_that_fits(browser: Browser, tmp_path: Path, width: int) -> None:
    runtime = open_runtime(None)
    plan, out = hostile(tmp_path, runtime)
    write_report(plan, runtime.info(), out)
    runtime.close()
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    events: list[str] = []
    page.on("dialog", lambda dialog: events.append(dialog.message))
    page.on("request", lambda request: events.append(request.url) if request.url.startswith("http") else None)
    page.goto((out / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator(".kb-example").count() == 3
    assert events == []
    context.close()
