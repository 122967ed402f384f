"""The Benchmarks tab in a real browser, with the model that ships."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.bench import made_up
from tests.e2e.conftest import PATIENCE, Site

expect.set_options(timeout=PATIENCE)


def test_a_benchmark_is_started_watched_and_its_report_fetched(page: Page, site: Site, tmp_path: Path) -> None:
    data = made_up.kc_mmbench(tmp_path / "data", each=60)
    page.get_by_role("tab", name="Benchmarks").click()
    expect(page.locator("#kb-data")).to_contain_text("subsets/*.tsv")
    page.locator("#kb-start").click()
    expect(page.locator("#kb-progress").get_by_text("Give the folder")).to_be_visible()
    page.locator("#kb-data").locator("input, textarea").fill(str(data))
    page.locator("#kb-mode").get_by_text("Auto").click()
    page.locator("#kb-start").click()
    expect(page.locator("#kb-progress .ks-bar")).to_be_visible()
    expect(page.locator("#kb-progress .ks-cost")).to_contain_text(re.compile(r"\d+ of 360 · \d+:\d\d left"))
    page.locator("#kb-stop").click()
    expect(page.locator("#kb-result")).to_contain_text("of 360 items answered")
    page.locator("#kb-limit input").fill("2")
    page.locator("#kb-start").click()
    expect(page.locator("#kb-result table")).to_contain_text("Hot_Videos_Aggregation")
    expect(page.locator("#kb-result")).to_contain_text("of 12 items answered")
    expect(page.locator("#kb-start")).to_be_visible()
    links = page.locator("#kb-result a")
    expect(links).to_have_text(["report.html", "report.json", "items.csv", "predictions.jsonl"])
    with page.expect_download() as download:
        links.nth(1).click()
    facts = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert facts["answered"] == 12 and facts["settings"]["mode"] == "auto"
    assert (site.data / "bench" / "kc-mmbench-keye-nano-auto" / "predictions.jsonl").is_file()

    page.reload()  # what was measured is still there
    page.wait_for_selector("#ks-model .ks-ready")
    page.get_by_role("tab", name=re.compile("Benchmarks")).click()
    expect(page.locator("#kb-result table")).to_contain_text("SPU")
    page.locator("#ks-language").get_by_text("中文").click()
    expect(page.locator("#kb-result table")).to_contain_text("各任务平均")
    expect(page.get_by_role("tab", name="评测")).to_be_visible()
    page.locator("#ks-language").get_by_text("EN").click()
    expect(page.get_by_role("tab", name="Benchmarks")).to_be_visible()
