"""The Models tab in a real browser, with the model that ships: compare blind, promote, ask, roll back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from engine.runtime.adapters import adapter_name
from finetune.feedback import Runs, Store
from tests.e2e.conftest import PATIENCE, Site, open_page, started
from tests.models import trained_adapter

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_adapter(tmp_path_factory.mktemp("runs") / "evening" / "sft" / "adapter", 0.05)


@pytest.fixture
def site_with_a_run(tmp_path: Path, adapter: Path) -> Iterator[Site]:
    """A page of its own: what is served must not change under other tests. Its store knows one run."""
    data = tmp_path / "data"
    Store(data / "studio.sqlite").close()
    runs = Runs(data / "studio.sqlite")
    run = runs.begin("evening", {}, adapter.parents[1], seed=0, code="1")
    runs.stage_begun(run.id, "sft", 0)
    runs.stage_done(run.id, "sft", folder=adapter.parent / "model")
    runs.finished(run.id, "done")
    runs.close()
    yield from started(data)


def question_shown(page: Page, total: int) -> int:
    """The number of the pair that is judged now."""
    found = re.search(rf"Question (\d) of {total}", page.locator("#kp-pair .kp-head").inner_text())
    assert found is not None
    return int(found[1])


def ask(page: Page, question: str) -> str:
    """Ask about the first demo clip; the line that says how it was answered."""
    page.get_by_role("tab", name="Ask").click()
    if not page.locator("#ks-strip .ks-frame").count():
        page.locator(".ks-demo").first.click()
        page.wait_for_selector("#ks-strip .ks-frame")
    page.locator("#ks-question textarea").fill(question)
    count = page.locator("#ks-chat small", has_text="visual tokens").count()
    page.locator("#ks-ask").click()
    facts = page.locator("#ks-chat small", has_text="visual tokens")
    expect(facts).to_have_count(count + 1)
    return facts.last.inner_text()


def test_compare_blind_promote_ask_roll_back(context: BrowserContext, site_with_a_run: Site, adapter: Path) -> None:
    name = adapter_name(adapter)
    page = open_page(context, site_with_a_run.url)
    assert name not in ask(page, "How many shapes are there?")
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#kp-now")).to_contain_text("keye-nano")
    expect(page.locator("#kp-back")).to_be_hidden()
    page.locator("#kp-start").click()
    expect(page.locator("#kp-problem")).to_contain_text("Choose what a run has made")
    page.locator("#kp-candidate input").click()
    page.get_by_role("option", name=re.compile("evening · sft")).click()
    page.locator("#kp-world input").fill("4")
    page.locator("#kp-start").click()

    pair = page.locator("#kp-pair .kp-pair")
    expect(page.locator("#kp-start")).to_be_visible()  # both have answered
    expect(pair).to_contain_text(re.compile(r"Question \d of 4"))
    expect(pair.locator("video")).to_be_visible()
    verdicts = ("A is better", "B is better", "Both good", "Both bad")
    open_ones = {1, 2, 3, 4}
    while open_ones:  # the first that both had answered is shown first, then those that are open in order
        assert name not in page.locator("#kp-pair").inner_text()  # blind
        assert "points" not in page.locator("#kp-summary").inner_text()
        at = question_shown(page, 4)
        open_ones.remove(at)
        pair.get_by_role("button", name=verdicts[at - 1]).click()
        if open_ones:
            expect(page.locator("#kp-pair .kp-head")).to_contain_text(f"Question {min(open_ones)} of 4")
    summary = page.locator("#kp-summary .kp-card")
    expect(summary).to_contain_text("Right by the references, 4 questions")
    expect(summary).to_contain_text("sign test")
    expect(page.locator("#kp-pair")).to_contain_text(name)  # it is told now

    store = Store(site_with_a_run.data / "studio.sqlite")
    trial = store.trials.newest()
    assert trial is not None
    said = [p.verdict for p in store.trials.pairs(trial.id)]
    lefts = [p.left for p in store.trials.pairs(trial.id)]
    others = {"base": "candidate", "candidate": "base"}
    assert said == [lefts[0], others[lefts[1]], "both_good", "both_bad"]  # what stood on that side
    expect(page.locator("#kp-promote")).to_have_text(f"Promote keye-nano + {name}")
    page.locator("#kp-promote").click()
    expect(page.locator("#kp-now .kp-name")).to_have_text(f"keye-nano + {name}")
    expect(page.locator("#ks-model")).to_contain_text(name)
    assert f"keye-nano + {name}" in ask(page, "How many shapes are there?")

    page.reload()
    page.wait_for_selector("#ks-model .ks-ready")
    expect(page.locator("#ks-model")).to_contain_text(name)
    page.get_by_role("tab", name="Models").click()
    page.locator("#ks-language").get_by_text("中文").click()
    expect(page.locator("#kp-back")).to_have_text("撤回")
    page.locator("#kp-back").click()
    expect(page.locator("#kp-now .kp-name")).to_have_text("keye-nano")
    page.locator("#ks-language").get_by_text("EN").click()
    expect(page.locator("#kp-back")).to_be_hidden()
    assert name not in ask(page, "How many shapes are there?")
    [talk] = store.conversations()
    speakers = [turn.answers[-1].adapter for turn in store.conversation(talk.id).turns]
    assert speakers == [None, name, None]
    texts = [turn.answers[-1].checkpoint for turn in store.conversation(talk.id).turns]
    assert len(set(texts)) == 1
    store.close()
