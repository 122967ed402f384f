"""One evening in a real browser, with the model that ships: somebody asks about clips of a kind that it does not know,
corrects what is wrong, trains on that, compares blind, promotes, and asks about other clips of that kind.

How much of it carries over to other clips, and that old skills stay, is measured by scripts/evening.py over many clips.
Here are few clips and few steps: what was corrected must be answered rightly afterwards, by the model that is named."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from finetune.answers.scoring import right
from finetune.feedback import Answer, Runs, Store
from finetune.world.questions import Question
from scripts.evening import OTHERS, Film, film
from tests.e2e.conftest import PATIENCE, Site, open_page
from tests.e2e.test_page import ask, upload
from tests.e2e.test_promote_page import question_shown

expect.set_options(timeout=PATIENCE)

CLIPS, OTHER_CLIPS = 4, 2
NUMBERS = "sft.steps=100 sft.replay=0.2 mpo.least=1000 rl.least=1000"


def show(page: Page, one: Film) -> None:
    """A new conversation about a clip."""
    page.get_by_role("tab", name="Ask").click()
    if page.locator("#ks-strip .ks-frame").count():  # on an empty page nothing tells when a new one was begun
        page.locator("#ks-new").click()
        expect(page.locator("#ks-chat .message")).to_have_count(0)
        expect(page.locator("#ks-strip .ks-frame")).to_have_count(0)
    upload(page, one.path)
    expect(page.locator("#ks-strip .ks-frame")).not_to_have_count(0)


def newest(store: Store) -> Answer:
    turn = store.conversation(store.conversations()[0].id).turns[-1]
    return turn.answers[-1]


def asked(page: Page, store: Store, question: Question) -> Answer:
    ask(page, question.text)
    return newest(store)


def correct(page: Page, text: str) -> None:
    """Write what the last answer should have been."""
    said = page.locator("#ks-chat .ks-said").last
    said.locator(".ks-correct summary").click()
    said.locator(".ks-correct textarea").fill(text)
    said.locator("[data-say=correct]").click()
    expect(page.locator("#ks-chat .ks-said").last.locator(".ks-use")).to_contain_text("training example")


def test_what_was_corrected_in_an_evening_is_answered_afterwards(
    context: BrowserContext, own_site: Site, tmp_path: Path
) -> None:
    films = [film(number, tmp_path, 1) for number in range(CLIPS)]
    others = [film(OTHERS + number, tmp_path, 1) for number in range(OTHER_CLIPS)]
    store = Store(own_site.data / "studio.sqlite")
    page = open_page(context, own_site.url)
    before = 0
    for one in films:
        for question in (*one.new, *one.known[:1]):
            show(page, one)
            answer = asked(page, store, question)
            hit = right(answer.text, question.answer)
            before += hit and question in one.new
            if hit:
                page.locator("#ks-chat .ks-said [data-say=up]").last.click()
                expect(page.locator("#ks-chat .ks-use").last).to_contain_text("training example")
            else:
                correct(page, question.answer)
    assert before == 0  # nobody ever taught it these words

    page.get_by_role("tab", name="Fine-tune").click()
    expect(page.locator("#kt-base input")).to_have_value(re.compile("keye-nano"))
    page.locator("#kt-name").locator("input, textarea").fill("evening")
    page.locator("#kt-more > button").click()
    page.locator("#kt-numbers").locator("input, textarea").fill(NUMBERS)
    page.locator("#kt-start").click()
    expect(page.locator("#kt-run .kt-state")).to_have_text("done", timeout=10 * PATIENCE)
    runs = Runs(own_site.data / "studio.sqlite")
    (run,) = runs.list()
    result = runs.result(run.id)
    runs.close()
    assert result is not None and result.parent.name == "sft"

    page.get_by_role("tab", name="Models").click()
    page.locator("#kp-candidate input").click()
    page.get_by_role("option", name=re.compile("evening · sft")).click()
    page.locator("#kp-yours input").fill("0")
    page.locator("#kp-world input").fill("2")
    page.locator("#kp-start").click()
    pair = page.locator("#kp-pair .kp-pair")
    expect(page.locator("#kp-start")).to_be_visible()
    first = question_shown(page, 2)
    for number in (first, 3 - first):
        expect(page.locator("#kp-pair .kp-head")).to_contain_text(f"Question {number} of 2")
        assert "evening-sft" not in page.locator("#kp-pair").inner_text()  # blind
        pair.get_by_role("button", name="Both good").click()
    expect(page.locator("#kp-summary .kp-card")).to_contain_text("Right by the references, 2 questions")
    page.locator("#kp-promote").click()
    expect(page.locator("#kp-now .kp-name")).to_have_text("evening-sft")

    def again(several: list[Film]) -> list[bool]:
        """Ask the promoted model about what is new in these clips; which answers are right."""
        hits = []
        for one in several:
            for question in one.new:
                show(page, one)
                answer = asked(page, store, question)
                assert answer.checkpoint == str(result)
                expect(page.locator("#ks-chat small", has_text="visual tokens").last).to_contain_text("evening-sft")
                hits.append(right(answer.text, question.answer))
        return hits

    hits = again(films)
    assert sum(hits) >= 2 * len(hits) / 3, hits
    again(others)
    store.close()
