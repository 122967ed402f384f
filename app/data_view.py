"""What the Data tab shows, as HTML made from plain data. Everything that came from a user, a file or a model is escaped
here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from app.dataset import Work
from app.i18n import Language, say, translate
from app.views import clock, problem_html
from finetune.feedback.browse import Entry, Page

_LONG = 240  # characters of a text that are shown; the rest opens with a click


def list_html(page: Page, picture: Callable[[Entry], Path | None], filtered: bool, lang: Language) -> str:
    """A page of the list as cards, or what to do where there is nothing."""
    if not page.entries:
        key = "data_none_yet" if not filtered and page.next is None else "data_none_fit"
        if page.next is not None:
            key = "data_further"
        return f'<div class="kx-empty"><p>{escape(say(key, lang))}</p></div>'
    cards = "".join(_card(entry, picture(entry), lang) for entry in page.entries)
    further = "" if page.complete else f'<p class="ks-note">{escape(say("data_further", lang))}</p>'
    words = {name: escape(say(f"data_{name}", lang)) for name in ("select_all", "exclude", "include")}
    return (
        f'<div class="kx-bar"><label><input type="checkbox" class="kx-all"> {words["select_all"]}</label>'
        f'<button type="button" data-many="exclude" disabled>{words["exclude"]}</button>'
        f'<button type="button" data-many="include" disabled>{words["include"]}</button></div>'
        f'<ul class="kx-list">{cards}</ul>{further}'
    )


def _card(entry: Entry, picture: Path | None, lang: Language) -> str:
    key = escape(entry.answer, quote=True)
    out = " kx-out" if entry.excluded is not None else ""
    act = "exclude" if entry.excluded is None else "include"
    select = escape(f"{say('data_select', lang)}: {entry.asked[:80]}", quote=True)
    return (
        f'<li class="kx-card{out}" data-answer="{key}">{_picture(entry, picture, lang)}<div class="kx-body">'
        f'<p class="kx-asked">{_text(entry.asked, lang)}</p>{_answer(entry, lang)}{_chips(entry, lang)}'
        f'<div class="kx-acts"><details class="kx-edit"><summary>{escape(say("data_correct", lang))}</summary>'
        f"<label><span>{escape(say('data_correct_label', lang))}</span>"
        f'<textarea rows="3" maxlength="20000">{escape(entry.correction or entry.said)}</textarea></label>'
        f'<button type="button" data-act="correct">{escape(say("data_save", lang))}</button></details>'
        f'<button type="button" data-act="{act}">{escape(say(f"data_{act}", lang))}</button></div></div>'
        f'<input type="checkbox" class="kx-pick" aria-label="{select}"></li>'
    )


def _picture(entry: Entry, picture: Path | None, lang: Language) -> str:
    """The clip's first frame, which may still be in the making (the page's script asks again), with its range."""
    if entry.video is None:
        return f'<div class="kx-still kx-no"><span>{escape(say("data_no_video", lang))}</span></div>'
    span = "" if entry.start is None and entry.end is None else clock(entry.start or 0.0)
    if entry.end is not None:
        span += f"–{clock(entry.end)}"
    label = f'<span class="ks-time">{span}</span>' if span else ""
    if picture is None:
        return f'<div class="kx-still kx-no"><span>{escape(say("data_video_gone", lang))}</span>{label}</div>'
    source = f"gradio_api/file={quote(str(picture.resolve()))}"
    return (
        f'<div class="kx-still"><img src="{source}" alt="{escape(entry.name or "", quote=True)}" loading="lazy" '
        f'width="144" height="108">{label}</div>'
    )


def _answer(entry: Entry, lang: Language) -> str:
    if entry.correction is None:
        return f'<p class="kx-said">{_text(entry.said, lang)}</p>'
    return (
        f'<p class="kx-said kx-wrong"><s>{_text(entry.said, lang)}</s></p>'
        f'<p class="kx-said kx-right">{_text(entry.correction, lang)}</p>'
    )


def _text(text: str, lang: Language) -> str:
    if len(text) <= _LONG:
        return escape(text)
    more = escape(say("data_more", lang))
    return f"{escape(text[:_LONG])}<details class='kx-more'><summary>… {more}</summary>{escape(text[_LONG:])}</details>"


def _chips(entry: Entry, lang: Language) -> str:
    chips = [(say(f"mode_{entry.mode}", lang), ""), (entry.model or "", "")]
    if entry.vote:
        chips.append((say(f"vote_{entry.vote}", lang), "kx-good" if entry.vote == "up" else "kx-bad"))
    if entry.preferred:
        chips.append((say("data_preferred", lang), "kx-good"))
    if entry.passed_over:
        chips.append((say("data_passed_over", lang), "kx-bad"))
    if entry.kin is not None:
        chips.append((say("data_kin", lang), ""))
    if entry.finding:
        chips.append((translate(entry.finding, lang), "kx-bad"))
    if entry.excluded is not None:
        chips.append((say("data_excluded", lang, why=translate(entry.excluded, lang)), "kx-bad"))
    shown = "".join(f'<span class="kx-chip {kind}">{escape(text)}</span>' for text, kind in chips if text)
    when = datetime.fromisoformat(entry.created).astimezone().strftime("%Y-%m-%d %H:%M")
    side = ""
    if entry.video is not None:
        other = "held_out" if entry.side == "train" else "train"
        side = (
            f'<button type="button" class="kx-chip kx-side kx-{entry.side}" data-act="side" data-side="{other}" '
            f'data-video="{escape(entry.video, quote=True)}" title="{escape(say("data_side_hint", lang), quote=True)}">'
            f"{escape(say(f'data_{entry.side}', lang))}</button>"
        )
    return f'<div class="kx-chips">{side}{shown}<small>{when}</small></div>'


def count_html(total: int, exact: bool, lang: Language) -> str:
    key = "data_count" if exact else "data_count_more"
    return f'<p class="ks-note" aria-live="polite">{escape(say(key, lang, n=f"{total:,}"))}</p>'


def work_html(work: Work, lang: Language) -> str:
    """How far an export, import or check is; what came of it; or what went wrong."""
    if work.error:
        return problem_html(translate(work.error, lang))
    if work.running:
        share = f"{100 * work.done / work.total:.1f}" if work.total else "100"
        words = say(f"data_doing_{work.what}", lang)
        number = f" {100 * work.done / work.total:.0f} %" if work.total else f" {work.done:,}"
        return (
            f'<div class="ks-cost" role="status"><span>{escape(words)} …{number}</span></div>'
            f'<div class="ks-bar"><i style="width:{share}%"></i></div>'
        )
    if work.found is not None:
        if not work.found:
            return f'<p class="ks-note" role="status">{escape(say("data_nothing_found", lang))}</p>'
        rows = sorted(work.found.items(), key=lambda pair: -pair[1])
        return _table(say("data_found", lang), [(many, why, ()) for why, many in rows], lang)
    parts = []
    for report in work.reports:
        title = say(f"data_done_{work.what}", lang, made=f"{report.made:,}", came=f"{report.came:,}")
        left = [(reason.count, why, tuple(reason.examples)) for why, reason in report.reasons.items()]
        parts.append(_table(title, sorted(left, key=lambda row: -row[0]), lang))
    if work.file is not None:
        link = f"gradio_api/file={quote(str(work.file.resolve()))}"
        parts.append(f'<p><a class="kb-chip" href="{link}" download>{escape(work.file.name)}</a></p>')
    return "".join(parts)


def _table(title: str, rows: list[tuple[int, str, tuple[str, ...]]], lang: Language) -> str:
    lines = "".join(
        f"<tr><td>{many:,}</td><td>{escape(translate(why, lang))}"
        f"{'<br><small>' + escape('; '.join(examples)) + '</small>' if examples else ''}</td></tr>"
        for many, why, examples in rows
    )
    table = f'<table class="kx-table"><tbody>{lines}</tbody></table>' if lines else ""
    return f'<div role="status"><p class="kx-done">{escape(title)}</p>{table}</div>'
