"""What the Models tab shows, as HTML made from plain data; what a model wrote comes through `app.sides`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from app.i18n import Language, say, translate
from app.sides import VERDICTS, markdown_html
from app.views import answer_markdown, clock, model_html
from engine.runtime.base import ModelInfo, Status, speaker
from finetune.feedback.promotions import Promotion
from finetune.feedback.trials import Pair, Trial
from finetune.loop.serving import State
from finetune.loop.trial_figures import SURE, Figures
from finetune.measuring.intervals import Estimate

_NAMES = ("A", "B")


def serving_html(
    info: ModelInfo | None, status: Status, promotion: Promotion | None, history: Sequence[Promotion], lang: Language
) -> str:
    """The card that says which model answers, since when and by what, and what was served before."""
    if info is None:
        head = model_html(status, None, lang)
    else:
        since = ""
        if promotion is not None and info.note == "":
            key = "models_started_with" if promotion.is_base else "models_promoted"
            since = say(key, lang, when=_moment(promotion.created), before=promotion.replaced)
        elif promotion is None:
            since = say("models_started_with", lang)
        note = f'<p class="ks-problem" role="alert">{escape(translate(info.note, lang))}</p>' if info.note else ""
        head = (
            f'<p class="kp-label">{escape(say("models_now", lang))}</p>'
            f'<p class="kp-name">{escape(speaker(info.name, info.adapter))}</p>'
            f'<p class="ks-note">{escape(since)}</p>{note}'
        )
    rows = "".join(
        f"<tr><td>{escape(_moment(one.created))}</td><td>{escape(say(f'models_{one.action}_row', lang))}</td>"
        f"<td>{escape(one.name)}</td><td>{escape(one.replaced)}</td></tr>"
        for one in history
    )
    heads = "".join(f"<th>{escape(say(f'models_col_{key}', lang))}</th>" for key in ("when", "what", "name", "before"))
    fold = (
        f'<details class="kp-fold"><summary>{escape(say("models_history", lang))}</summary>'
        f'<div class="kp-scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
        if rows
        else ""
    )
    return f'<section class="kp-card">{head}{fold}</section>'


def paused_html(seconds: float | None, lang: Language) -> str:
    """That questions wait while this candidate is there, and how long where it is known."""
    text = say("models_pauses", lang)
    if seconds is not None:
        text += " " + say("models_restart", lang, time=clock(seconds))
    return f'<p class="ks-note">{escape(text)}</p>'


def progress_html(state: State, lang: Language) -> str:
    """What goes on, with a bar where its length is known."""
    if not state.doing:
        return ""
    words = say(f"models_doing_{state.doing}", lang)
    if state.stopping:
        words = say("bench_stopping", lang)
    elif state.total:
        words = say("models_progress", lang, done=state.done, total=state.total)
        if state.done == state.total // 2:
            words += " · " + say("models_loading", lang)
    share = f"{100 * state.done / state.total:.1f}" if state.total else "0"
    return (
        f'<div class="ks-cost" role="status"><span>{escape(words)} …</span></div>'
        f'<div class="ks-bar" role="progressbar" aria-valuemin="0" aria-valuemax="{state.total}" '
        f'aria-valuenow="{state.done}"><i style="width:{share}%"></i></div>'
    )


# -- one pair -------------------------------------------------------------------------------------------------------


def pair_html(pair: Pair, positions: Sequence[int], total: int, trial: Trial, film: Path | None, lang: Language) -> str:
    """A question with both answers and the four buttons. `positions` are those of the pairs that can be looked at, of
    `total` that were asked; which answer is whose is shown once the trial is revealed."""
    at = positions.index(pair.position)
    steps = "".join(
        f'<button type="button" data-go="{positions[to] if 0 <= to < len(positions) else at}" '
        f'aria-label="{escape(say(label, lang), quote=True)}"{"" if 0 <= to < len(positions) else " disabled"}>'
        f"{sign}</button>"
        for to, label, sign in ((at - 1, "models_previous", "‹"), (at + 1, "models_next", "›"))
    )
    head = (
        f'<header class="kp-head"><span>{escape(say("models_pair", lang, n=pair.position + 1, total=total))}</span>'
        f'<span class="kp-steps">{steps}</span></header>'
    )
    video = ""
    if film is not None:
        url = f"gradio_api/file={quote(str(film.resolve()))}" + _fragment(pair.asked.start, pair.asked.end)
        label = escape(say("models_clip", lang), quote=True)
        source = escape(url, quote=True)
        video = f'<video controls muted loop preload="metadata" src="{source}" aria-label="{label}"></video>'
    sides = "".join(_side(pair, trial, left, lang) for left in (True, False))
    reference = reveal = ""
    if not trial.revealed:
        reveal = f'<button type="button" class="ks-chip" data-reveal="1">{escape(say("models_reveal", lang))}</button>'
    elif pair.asked.reference:
        reference = f'<p class="ks-note">{escape(say("models_reference", lang, text=pair.asked.reference))}</p>'
    return (
        f'<section class="kp-pair">{head}<div class="kp-clip">{video}'
        f'<p class="kp-question">{escape(pair.asked.text)}</p></div>'
        f'<div class="ks-sides">{sides}</div>{reference}{_buttons(pair, lang)}{reveal}</section>'
    )


def _side(pair: Pair, trial: Trial, left: bool, lang: Language) -> str:
    name = _NAMES[0 if left else 1]
    said = pair.side(left) or {}
    party = pair.left if left else ("candidate" if pair.left == "base" else "base")
    who = ""
    if trial.revealed:
        facts = trial.base if party == "base" else trial.candidate
        who = f" · {escape(speaker(str(facts.get('model')), facts.get('adapter')))}"
    chosen = pair.verdict
    standing = ""
    if chosen is not None:
        better = chosen in (party, "both_good")
        standing = "ks-better" if better else "ks-worse"
    text = str(said.get("text") or "")
    error = str(said.get("error") or "")
    if text:
        body = f'<div class="ks-answer">{markdown_html(answer_markdown(text, 0.0, -1e9))}</div>'
    else:
        body = f'<p class="ks-note">{escape(translate(error, lang) if error else say("models_silent", lang))}</p>'
    label = escape(say("side", lang, name=name), quote=True)
    classes = f"ks-side {standing}".strip()
    return f'<article class="{classes}" aria-label="{label}"><header><b>{name}</b>{who}</header>{body}</article>'


def _buttons(pair: Pair, lang: Language) -> str:
    if not pair.both_say:
        return f'<p class="ks-note">{escape(say("verdict_none", lang))}</p>'
    pressed: str | None = pair.verdict
    if pair.verdict in ("base", "candidate"):
        pressed = "left" if pair.verdict == pair.left else "right"
    buttons = "".join(
        f'<button type="button" data-verdict="{verdict}" aria-pressed="{"true" if verdict == pressed else "false"}">'
        f"{escape(say(f'verdict_{verdict}', lang))}</button>"
        for verdict in VERDICTS
    )
    label = escape(say("verdict_ask", lang), quote=True)
    hint = say("verdict_undo" if pressed else "verdict_ask", lang)
    return (
        f'<div class="ks-verdict" role="group" aria-label="{label}">{buttons}</div>'
        f'<p class="ks-note">{escape(hint)}</p>'
    )


# -- what all of them say ---------------------------------------------------------------------------------------------


def judged_html(found: Figures, lang: Language) -> str:
    """How many were judged; the result only when somebody asks, because it tells which answer is whose."""
    words = say("models_judged", lang, n=found.judged, total=found.pairs)
    return f'<p class="ks-note">{escape(words)} {escape(say("models_hidden", lang))}</p>'


def summary_html(found: Figures, trial: Trial, lang: Language) -> str:
    """Wins and losses with the sign test, what is right before and after, and what follows, in one sentence."""
    return (
        f'<section class="kp-card"><p class="kp-advice kp-{found.advice(True)}">'
        f"{escape(say(f'models_advice_{found.advice(True)}', lang))}</p>"
        f"{_people(found, lang)}{_scores(found, trial, lang)}{_sentence(trial, lang)}</section>"
    )


def _people(found: Figures, lang: Language) -> str:
    counts = (
        ("candidate", found.wins),
        ("both_good", found.both_good),
        ("both_bad", found.both_bad),
        ("base", found.losses),
    )
    total = sum(count for _, count in counts)
    if not total:
        return f'<p class="ks-note">{escape(say("models_none_judged", lang))}</p>'
    bar = "".join(
        f'<i class="kp-{key}" style="width:{100 * count / total:.2f}%"></i>' for key, count in counts if count
    )
    legend = "".join(
        f'<li><i class="kp-{key}"></i>{escape(say(f"models_{key}_better", lang))} <b>{count}</b></li>'
        for key, count in counts
    )
    told = ""
    if found.preferred is not None:
        key = "models_sign" if found.chance < SURE else "models_sign_open"
        told = say(key, lang, share=_percent(found.preferred), chance=f"{found.chance:.3f}")
    label = escape(say("models_people", lang), quote=True)
    return (
        f'<h3>{escape(say("models_people", lang))}</h3><div class="kp-bar" role="img" aria-label="{label}">{bar}</div>'
        f'<ul class="kp-legend">{legend}</ul><p class="ks-note">{escape(told)}</p>'
    )


def _scores(found: Figures, trial: Trial, lang: Language) -> str:
    if found.before is None or found.after is None or found.change is None:
        return f'<p class="ks-note">{escape(say("models_no_reference", lang))}</p>'
    rows = "".join(
        f"<tr><th>{escape(speaker(str(facts.get('model')), facts.get('adapter')))}</th><td>{_percent(share)}</td></tr>"
        for facts, share in ((trial.base, found.before), (trial.candidate, found.after))
    )
    d = found.change
    change = f"{100 * d.value:+.0f} ({100 * d.low:+.0f} … {100 * d.high:+.0f})"
    return (
        f'<h3>{escape(say("models_scores", lang, n=found.scored))}</h3><div class="kp-scroll"><table><tbody>{rows}'
        f"<tr><th>{escape(say('models_change', lang))}</th><td>{change}</td></tr></tbody></table></div>"
    )


def _sentence(trial: Trial, lang: Language) -> str:
    return f'<p class="ks-note">{escape(translate(trial.sentence, lang))}</p>' if trial.sentence else ""


def _percent(e: Estimate) -> str:
    return f"{100 * e.value:.0f} % ({100 * e.low:.0f}–{100 * e.high:.0f})"


def _fragment(start: float | None, end: float | None) -> str:
    """The part of a media file that a browser plays."""
    if start is None and end is None:
        return ""
    return f"#t={start or 0:g}" + (f",{end:g}" if end is not None else "")


def _moment(iso: str) -> str:
    """UTC in ISO-8601 as day and minute where this machine stands."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")
