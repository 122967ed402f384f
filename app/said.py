"""What was thought of an answer, as HTML that the chat shows under it: the vote, what is wrong, the marked moments, a
correction, the drafts to choose from, and what all of it will be used for. From plain data; keeping it is in
`app.votes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from app.i18n import Language, say
from app.sides import markdown_html
from app.views import answer_markdown, clock
from finetune.feedback import REASONS, Answer, DraftSet, Store, Vote
from finetune.feedback.lessons import Use, Why, gather

if TYPE_CHECKING:
    from app.jobs import Snapshot
    from app.studio import Turn

Span = tuple[float, float]

# Drawn, because a machine without a font of pictures would show a box.
_THUMB = (
    '<svg viewBox="0 0 24 24" width="16" height="16" aria-hidden="true"><path d="M7 11v9H4a1 1 0 0 1-1-1v-7a1 1 0 0 1 '
    "1-1h3Zm3 0 3.6-8a2.4 2.4 0 0 1 2.2 3L15 9h4a2 2 0 0 1 2 2.3l-1.2 7a2 2 0 0 1-2 1.7H10Z"
    '" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round"/></svg>'
)


@dataclass(frozen=True)
class Said:
    """What was thought of one answer."""

    vote: Vote | None = None
    correction: str = ""
    uses: tuple[Use, ...] = ()
    why: Why | None = None  # it is used for nothing
    measures: bool = False  # it is not learnt from, its video is kept for measuring


def said_of(store: Store, conversation: str) -> dict[str, Said]:
    """What was thought of the answers of a conversation and is in force, by their ids."""
    votes = store.votes.of_conversation(conversation)
    preferences = store.preferences.of_conversation(conversation)
    if not votes and not preferences:
        return {}
    taught = gather(store, conversation)
    corrections = {one.rejected: one.chosen_text or "" for one in preferences if one.source == "correction"}
    picked = {one.chosen for one in preferences if one.source == "draft" and one.chosen is not None}
    return {
        answer: Said(
            votes.get(answer),
            corrections.get(answer, ""),
            tuple(taught.uses(answer)),
            taught.why(answer),
            taught.measures(answer),
        )
        for answer in {*votes, *corrections, *picked}
    }


def said_html(turn: Turn, now: Mapping[str, Snapshot], lang: Language) -> str:
    """What can be said of the answers of a turn and what was. `now` is how far its drafts are while they are written,
    by the id of the answer."""
    assert turn.answer is not None
    parts = []
    if turn.drafts is not None:
        parts.append(_drafts(turn.drafts, turn.said, now, turn.span, lang))
    answer = turn.answer
    said = turn.said.get(answer.id, Said())
    thumbs = _thumbs(answer, said, lang) if answer.text else ""
    again = _button("again", answer.id, f"↻ {say('again', lang)}", disabled=bool(now))
    parts.append(
        f'<div class="ks-say" role="group" aria-label="{_quoted(say("vote_ask", lang))}">{thumbs}{again}</div>'
    )
    if answer.text:
        if said.vote is not None:
            parts.append(_about(said.vote, lang))
        parts.append(_correction(answer, said, lang))
    if line := _use(said, lang):
        parts.append(f'<p class="ks-use" role="status">{escape(line)}</p>')
    return f'<section class="ks-said">{"".join(parts)}</section>'


# -- the vote ---------------------------------------------------------------------------------------------------


def _thumbs(answer: Answer, said: Said, lang: Language) -> str:
    value = said.vote.value if said.vote is not None else ""
    return "".join(
        _button(name, answer.id, "", pressed=name == value, label=say(f"vote_{name}", lang), drawing=_THUMB)
        for name in ("up", "down")
    )


def _about(vote: Vote, lang: Language) -> str:
    """What is wrong, and the moments of the video it is about."""
    parts = []
    if vote.value == "down":
        chips = "".join(
            _button("reason", vote.answer, say(f"reason_{name}", lang), value=name, pressed=name in vote.reasons)
            for name in REASONS
        )
        label = _quoted(say("reasons_ask", lang))
        parts.append(f'<div class="ks-reasons" role="group" aria-label="{label}">{chips}</div>')
    moments = "".join(
        f'<span class="ks-moment"><button type="button" data-seek="{at:g}" '
        f'aria-label="{_quoted(say("seek", lang, time=clock(at, tenths=True)))}">{clock(at, tenths=True)}</button>'
        + _button("unmark", vote.answer, "×", value=f"{at:g}", label=f"{say('delete', lang)}: {clock(at, tenths=True)}")
        + "</span>"
        for at in vote.moments
    )
    mark = _button("mark", vote.answer, f"⚑ {say('moment_mark', lang)}")
    label = _quoted(say("moments", lang))
    return f'{"".join(parts)}<div class="ks-moments" role="group" aria-label="{label}">{moments}{mark}</div>'


def _correction(answer: Answer, said: Said, lang: Language) -> str:
    title = say("correction_kept" if said.correction else "correction_write", lang)
    take_back = _button("uncorrect", answer.id, say("correction_back", lang)) if said.correction else ""
    text = said.correction or answer.text
    key = _quoted(answer.id)
    # A text area drops a line end at its beginning: the one here is not of the text.
    return (
        f'<details class="ks-fold ks-correct" data-fold="correct-{key}"><summary>✎ {escape(title)}</summary>'
        f'<textarea data-correction="{key}" rows="3" aria-label="{_quoted(say("correction_write", lang))}">\n'
        f"{escape(text)}</textarea>"
        f'<div class="ks-say">{_button("correct", answer.id, say("correction_save", lang))}{take_back}</div></details>'
    )


def _use(said: Said, lang: Language) -> str:
    """Where it went."""
    if said.measures:
        return say("use_measure", lang)
    if said.uses:
        return say("use_as", lang, uses=" · ".join(say(f"use_{use}", lang) for use in said.uses))
    if said.why is not None:
        return say(f"use_not_{said.why}", lang)
    if said.vote is not None:
        return say("use_later" if said.vote.value == "down" else "use_other", lang)
    return say("use_other", lang) if said.correction else ""


# -- drafts -----------------------------------------------------------------------------------------------------


def _drafts(drafts: DraftSet, said: Mapping[str, Said], now: Mapping[str, Snapshot], span: Span, lang: Language) -> str:
    running = drafts.running or any(answer.id in now for answer in drafts.answers)
    cards = "".join(
        _draft(answer, number, drafts.picked, now.get(answer.id), running, said.get(answer.id, Said()), span, lang)
        for number, answer in enumerate(drafts.answers, 1)
    )
    open_ = "" if drafts.picked and not running else " open"
    same = len({answer.text for answer in drafts.answers}) == 1
    hint = "drafts_wait" if running else "drafts_undo" if drafts.picked else "drafts_same" if same else "drafts_ask"
    return (
        f'<details class="ks-fold ks-drafts" data-fold="drafts-{_quoted(drafts.question)}"{open_}>'
        f"<summary>{escape(say('drafts', lang, n=len(drafts.answers)))}</summary>"
        f'<div class="ks-sides">{cards}</div><p class="ks-note">{escape(say(hint, lang))}</p></details>'
    )


def _draft(
    answer: Answer,
    number: int,
    picked: str | None,
    now: Snapshot | None,
    running: bool,
    said: Said,
    span: Span,
    lang: Language,
) -> str:
    text, error = (now.text, now.error) if now is not None else (answer.text, answer.error or "")
    parts = [f"<header><b>{number}</b></header>"]
    if text:
        parts.append(f'<div class="ks-answer">{markdown_html(answer_markdown(text, *span))}</div>')
    elif not error:
        parts.append(f'<p class="ks-note">{escape(say("prefill" if running else "draft_empty", lang))}</p>')
    if error:
        parts.append(f'<p class="ks-note">⚠ {escape(error)}</p>')
    mine = answer.id == picked
    if text and not running:
        thumbs = _thumbs(answer, said, lang)
        take = _button("pick", answer.id, say("draft_picked" if mine else "draft_pick", lang), pressed=mine)
        parts.append(f'<div class="ks-say">{take}{thumbs}</div>')
    standing = "" if picked is None else " ks-better" if mine else " ks-worse"
    growing = " ks-running" if now is not None and now.done is None else ""
    label = _quoted(say("draft", lang, n=number))
    return f'<article class="ks-side{standing}{growing}" aria-label="{label}">{"".join(parts)}</article>'


# -- buttons ----------------------------------------------------------------------------------------------------


def _button(
    what: str,
    answer: str,
    text: str,
    *,
    value: str = "",
    pressed: bool | None = None,
    label: str = "",
    disabled: bool = False,
    drawing: str = "",
) -> str:
    """A button whose click `app.votes` hears."""
    facts: Sequence[str] = (
        f'data-say="{what}" data-answer="{_quoted(answer)}"',
        f' data-value="{_quoted(value)}"' if value else "",
        "" if pressed is None else f' aria-pressed="{"true" if pressed else "false"}"',
        f' aria-label="{_quoted(label)}" title="{_quoted(label)}"' if label else "",
        " disabled" if disabled else "",
    )
    return f'<button type="button" {"".join(facts)}>{drawing}{escape(text)}</button>'


def _quoted(text: str) -> str:
    return escape(text, quote=True)
