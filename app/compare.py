"""Comparing two modes: the controls beneath the switch of modes, and keeping which of two answers is better.

What is shown is in `app.sides`; the answers themselves run in `app.studio`."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from app.chat import mode_choices
from app.errors import AppError
from app.i18n import Language, say
from app.session import Session
from app.sides import VERDICTS, choice
from app.studio import Studio
from app.wiring import Updates
from engine.reasoning.modes import MODE_NAMES, ModeName, mode_of
from finetune.feedback import Store, Verdict

# The chat is drawn anew as answers grow, so its buttons are listened to from outside of it; once, however often this
# component is mounted.
_CHOOSE_JS = """
window.keyeChooser?.abort();
window.keyeChooser = new AbortController();
document.addEventListener('click', event => {
  const button = event.target.closest('#ks-chat [data-verdict]');
  if (button && !button.disabled) trigger('select', {...button.dataset});
}, {signal: window.keyeChooser.signal});
"""


class ComparePane:
    """Call `build` where the controls belong. What they are set to is in the session."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self, lang: Language) -> None:
        session = Session(lang=lang)
        with gr.Row(elem_id="ks-compare-row"):
            self.on = _on(session)
            self.against = _against(session)
            self.blind = _blind(session)
            self.note = self.noted(session)
        self.chooser = gr.HTML("", js_on_load=_CHOOSE_JS, elem_id="ks-chooser")
        self.controls = [self.on, self.against, self.blind]
        self.shows = [*self.controls, self.note]

    def shown(self, session: Session) -> Updates:
        """The controls as the session has them."""
        made = (_on(session), _against(session), _blind(session), self.noted(session))
        return dict(zip(self.shows, made, strict=True))

    def noted(self, session: Session) -> gr.HTML:
        """How the two are written, which their times depend on."""
        runtime = self.studio.runtime
        in_turn = runtime.status().state == "ready" and runtime.info().runtime == "local"
        said = say("compare_hint_local" if in_turn else "compare_hint", session.lang)
        return gr.HTML(
            f'<p class="ks-note">{escape(said)}</p>',
            visible=session.against is not None,
            padding=False,
            elem_id="ks-compare-note",
        )


def _on(session: Session) -> gr.Checkbox:
    return gr.Checkbox(
        value=session.against is not None, label=say("compare", session.lang), container=False, elem_id="ks-compare"
    )


def _against(session: Session) -> gr.Radio:
    return gr.Radio(
        [(label, name) for label, name in mode_choices(session.lang) if name != session.mode],
        value=session.against,
        label=say("compare_against", session.lang),
        show_label=False,
        container=False,
        visible=session.against is not None,
        elem_id="ks-against",
    )


def _blind(session: Session) -> gr.Checkbox:
    return gr.Checkbox(
        value=session.blind,
        label=say("compare_blind", session.lang),
        visible=session.against is not None,
        container=False,
        elem_id="ks-blind",
    )


def taken(session: Session, mode: str, on: bool, against: Any, blind: bool) -> Session:
    """The session with what the controls say; two different modes where they ask for a comparison."""
    session = replace(session, mode=mode_of(mode).name)
    if not on:
        return replace(session, against=None, blind=False)
    other = mode_of(str(against)).name if against and against != session.mode else other_mode(session.mode)
    return replace(session, against=other, blind=bool(blind))


def other_mode(mode: ModeName) -> ModeName:
    """A mode worth comparing with: thinking with not thinking, and the other way round."""
    wanted: ModeName = "no_think" if mode == "think" else "think"
    return wanted if wanted != mode else MODE_NAMES[0]


def choose(store: Store, conversation: str, question: str, verdict: str) -> None:
    """Keep which side of a comparison is better: left, right, both_good or both_bad. Saying the same once more takes it
    back. AppError where there are no two answers to choose between."""
    comparison = store.preferences.comparisons(conversation).get(question)
    if comparison is None or verdict not in VERDICTS:
        raise AppError("There are no two answers to choose between; ask in two modes first.")
    left, right = comparison.left, comparison.right
    if "running" in (left.finish, right.finish):
        raise AppError("Wait until both answers are written, then choose.")
    if not (left.text and right.text):
        raise AppError("One of the two says nothing, so there is nothing to choose; ask again.")
    if verdict == choice(comparison):
        assert comparison.preference is not None
        store.preferences.revoke(comparison.preference.id)
    elif verdict in ("left", "right"):
        chosen, rejected = (left, right) if verdict == "left" else (right, left)
        store.preferences.prefer(chosen.id, rejected.id, source="compare")
    else:
        tie: Verdict = "both_good" if verdict == "both_good" else "both_bad"
        store.preferences.prefer(left.id, right.id, source="compare", verdict=tie)
