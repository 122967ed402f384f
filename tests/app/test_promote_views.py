"""What the Models tab shows: blind until it is revealed, and nothing of a model's writing gets out of its text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.i18n import LANGUAGES, Language
from app.promote import _verdict
from app.promote_views import judged_html, pair_html, progress_html, serving_html, summary_html
from engine.runtime.base import Status
from finetune.errors import FinetuneError
from finetune.feedback.promotions import Promotion
from finetune.feedback.trials import AskedPair, Pair, Trial
from finetune.loop.serving import State
from finetune.loop.trial_figures import figures

FACTS = {"model": "keye-nano", "adapter": None}
NEW = {"model": "keye-nano", "adapter": "evening-1234"}
TRIAL = Trial("t", None, "/a", None, 7, FACTS, NEW, None, None, None, "2025-01-01T00:00:00.000Z")
SHOWN = replace(TRIAL, revealed="2025-01-01T00:00:01.000Z")


def pair(left: Any = "base", **changes: Any) -> Pair:
    asked = AskedPair("How many?", "count", reference="Two.")
    return replace(Pair(1, asked, left, {"text": "Three."}, {"text": "Two."}, None, None, None), **changes)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("left", ["base", "candidate"])
def test_nothing_tells_which_is_which_before_it_is_revealed(left: str, lang: Language) -> None:
    hidden = pair_html(pair(left), [0, 1, 2], 4, TRIAL, None, lang)
    for word in ("keye-nano", "evening", "base", "candidate"):
        assert word not in hidden
    first = "Three." if left == "base" else "Two."
    second = "Two." if left == "base" else "Three."
    assert hidden.index(first) < hidden.index(second)
    shown = pair_html(pair(left), [0, 1, 2], 4, SHOWN, None, lang)
    assert "evening-1234" in shown and "data-reveal" not in shown
    told = judged_html(figures([pair(verdict="candidate", judged="now")]), lang)
    assert "100" not in told and "data-verdict" not in told


@pytest.mark.parametrize(("left", "verdict", "wanted"), [
    ("base", "left", "base"), ("base", "right", "candidate"), ("candidate", "left", "candidate"),
    ("candidate", "right", "base"), ("base", "both_good", "both_good"), ("candidate", "both_bad", "both_bad"),
])  # fmt: skip
def test_a_side_means_the_one_that_stands_there(left: str, verdict: str, wanted: str) -> None:
    assert _verdict(pair(left), verdict) == wanted
    pressed = pair_html(pair(left, verdict=wanted, judged="now"), [1], 4, TRIAL, None, "en")
    assert f'data-verdict="{verdict}" aria-pressed="true"' in pressed and pressed.count('aria-pressed="true"') == 1
    with pytest.raises(FinetuneError):
        _verdict(pair(left), "base")  # no button says so


def test_what_models_and_files_say_is_text() -> None:
    bad = '<img src=x onerror="alert(1)"> ![x](http://evil/x.png)'
    asked = AskedPair(bad, "count", reference=bad)
    html = pair_html(
        pair(asked=asked, base={"text": bad}, candidate={"text": "", "error": bad}), [1], 4, SHOWN, None, "en"
    )
    assert "<img" not in html and "onerror" not in html.replace("onerror=&quot;", "")
    assert "says nothing" in html and "data-verdict" not in html
    video = pair_html(pair(), [1], 4, TRIAL, Path('/data/a"b#c.mp4'), "en")
    assert 'a%22b%23c.mp4"' in video
    assert "Question 2 of 4" in video  # of all that were asked, however many are answered yet
    history = [Promotion("p", "b", "promote", None, "/a", bad, None, None, bad, None, "2025-01-01T00:00:00.000Z")]
    assert "<img" not in serving_html(None, Status("failed", bad), None, history, "en")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_state_and_every_advice_has_its_words(lang: Language) -> None:
    for doing in ("compare", "promote", "roll_back"):
        assert "…" in progress_html(State(doing=doing, done=2, total=4), lang)
    assert progress_html(State(), lang) == ""
    for verdicts in ("", "wwwwwwwww", "lllllllll", "wlwlwlwlgb"):
        words: dict[str, Any] = {"w": "candidate", "l": "base", "g": "both_good", "b": "both_bad"}
        pairs = [pair(verdict=words[v], judged="now") for v in verdicts] or [pair()]
        assert "kp-advice" in summary_html(figures(pairs), replace(SHOWN, sentence="It was stopped."), lang)
