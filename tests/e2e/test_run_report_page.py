"""The report of a run in a real browser: one file that asks for nothing, and fits a phone and a desk."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from finetune.reports.run_report import write_report
from tests.finetune.made_up_run import made_up_run

_CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)" && c.startsWith("rgb(")) return c; } return "rgb(255, 255, 255)"; };
  const ratio = e => { const [a, b] = [getComputedStyle(e).color, behind(e)].map(light).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); };
  return Math.min(...[...document.querySelectorAll("td, th, p, dd, .kb-head b, .kr-rung span")].map(ratio));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_can_be_read(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    made_up_run(tmp_path / "nano")
    html = write_report(tmp_path / "nano")
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    events: list[str] = []
    page.on("request", lambda request: events.append(request.url) if request.url.startswith("http") else None)
    page.on("console", lambda message: events.append(message.text))
    page.goto(html.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("svg.kr-chart").count() == 10 and page.locator("svg.kr-spark").count() > 13
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.kr-tick')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 10  # pixels of a line of text
    assert page.evaluate(_CONTRAST) >= 4.5
    assert events == []
    context.close()
