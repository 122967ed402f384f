"""What the Comment and Skills tabs show, as HTML made from plain data. What a model or a person wrote is escaped
here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.commenting import Now
from app.i18n import Language, say, translate
from app.views import problem_html
from engine.runtime.base import ModelInfo
from finetune.feedback.comments import COMMENT, Draft, Round
from finetune.writing.skills import Found, read, skill_of


def progress_html(made: Round | None, now: Now | None, lang: Language) -> str:
    """How far a round is, and how it ended where that is worth a word."""
    if made is None:
        return ""
    if now is not None and now.running:
        return _running(made, now, lang)
    failed = next((draft.error for draft in reversed(made.drafts) if draft.error), "")
    if sentence := (now.error if now is not None else "") or failed:
        return problem_html(translate(sentence, lang))
    if len(made.drafts) < made.wanted:
        return _note(say("comment_ended", lang, n=len(made.drafts), of=made.wanted))
    return ""


def _running(made: Round, now: Now, lang: Language) -> str:
    words = [say(now.doing if now.doing in ("loading", "decoding") else f"comment_{now.doing}", lang)]
    if now.number and made.wanted > 1:
        words[0] = say("comment_number", lang, n=now.number, of=made.wanted) + words[0]
    if now.doing == "writing" and not now.pieces and now.position:
        words = [say("queued", lang, n=now.position)]
    elif now.pieces and now.doing == "writing":
        words.append(say("comment_tokens", lang, n=now.pieces))
    if now.stopping:
        words = [say("bench_stopping", lang)]
    share = 100 * len(made.drafts) / made.wanted
    return (
        f'<div class="ks-cost" role="status"><span>{escape(" · ".join(words))} …</span></div>'
        f'<div class="ks-bar" role="progressbar" aria-valuemin="0" aria-valuemax="{made.wanted}" '
        f'aria-valuenow="{len(made.drafts)}"><i style="width:{share:.0f}%"></i></div>'
    )


# -- comments ---------------------------------------------------------------------------------------------------


def comments_html(made: Round | None, now: Now | None, lang: Language) -> str:
    """The comments that may be shown, each with its choice, and those that were withheld, folded."""
    if made is None:
        return f'<p class="ks-empty">{escape(say("comment_none", lang))}</p>'
    shown = [draft for draft in made.drafts if draft.fit]
    withheld = [draft for draft in made.drafts if not draft.fit and not draft.error]
    parts = []
    if any((draft.moderation or {}).get("rules_only") for draft in made.drafts):
        parts.append(_note(say("comment_rules_only", lang)))
    parts += [_card(draft, "comment", f'<p class="kd-text">{escape(draft.best)}</p>', lang) for draft in shown]
    if made.drafts and not shown and (now is None or not now.running):
        parts.append(_note(say("comment_all_withheld", lang)))
    if withheld:
        parts.append(_withheld(made, withheld, lang))
    return f'<div class="kd-drafts">{"".join(parts)}</div>' if parts else ""


def _withheld(made: Round, drafts: Sequence[Draft], lang: Language) -> str:
    rows = []
    for draft in drafts:
        facts = draft.moderation or {}
        reasons = [say(f"withheld_{reason}", lang) for reason in facts.get("reasons", ())]
        if facts.get("said") is not None:
            reasons.append(say("withheld_said", lang, said=str(facts["said"])[:80] or "–"))
        text = escape(draft.text) or f"<i>{escape(say('withheld_nothing', lang))}</i>"
        rows.append(f"<li><span>{text}</span><small>{escape(' · '.join(reasons))}</small></li>")
    title = escape(say("comment_withheld", lang, n=len(drafts)))
    return (
        f'<details class="ks-fold kd-withheld" data-fold="withheld-{escape(made.id, quote=True)}">'
        f"<summary>{title}</summary><ul>{''.join(rows)}</ul></details>"
    )


def _card(draft: Draft, words: str, inside: str, lang: Language) -> str:
    """A draft with what can be said of it. `words` is comment or skill: how the choices are called."""
    choices = {"picked": "picked", "edited": "open", "rejected": "rejected"}
    buttons = ""
    for choice, said in choices.items():
        pressed = "true" if draft.choice == choice else "false"
        expands = ' aria-expanded="false"' if said == "open" else ""
        label = escape(say(f"{words}_{choice}", lang))
        buttons += f'<button type="button" data-say="{said}" aria-pressed="{pressed}"{expands}>{label}</button>'
    note = escape(say(f"kept_{words}_{draft.choice}" if draft.choice else f"kept_{words}_none", lang))
    best, chosen = escape(draft.best.strip(), quote=True), draft.choice or ""
    label = escape(say(f"{words}_better", lang), quote=True)
    return (
        f'<article class="kd-card kd-{chosen or "open"}" data-draft="{escape(draft.id, quote=True)}" '
        f'data-choice="{chosen}" data-best="{best}">{inside}'
        f'<div class="kd-choices" role="group" aria-label="{escape(say(f"{words}_choose", lang), quote=True)}">'
        f"{buttons}</div>"
        f'<div class="kd-edit" hidden><textarea rows="3" aria-label="{label}">{escape(draft.best)}</textarea>'
        f'<button type="button" data-say="save">{escape(say("draft_save", lang))}</button>'
        f'<button type="button" data-say="cancel">{escape(say("draft_cancel", lang))}</button></div>'
        f'<p class="ks-note" role="status">{note}</p></article>'
    )


# -- ready-made questions ---------------------------------------------------------------------------------------


def answer_html(made: Round | None, now: Now | None, lang: Language) -> str:
    """The answer to a ready-made question as it was understood, what the model wrote, and its choice."""
    if made is None or made.skill == COMMENT:
        return f'<p class="ks-empty">{escape(say("skill_none", lang))}</p>'
    if not made.drafts:
        text = escape(now.text) if now is not None else ""
        return f'<div class="kd-drafts"><article class="kd-card"><p class="kd-text">{text}</p></article></div>' * bool(
            text
        )
    draft = made.drafts[-1]
    if draft.error and not draft.text:
        return ""
    kind = skill_of(made.skill).kind
    parts = [found_html(read(kind, draft.best), lang)]
    if draft.finish in ("length", "stopped"):
        parts.append(_note(say(f"finish_{draft.finish}", lang)))
    parts.append(f'<p class="kd-text kd-wrote">{escape(draft.best)}</p>')
    if draft.raw_text and draft.raw_text.strip() != draft.text:
        fold = f"raw-{escape(draft.id, quote=True)}"
        parts.append(
            f'<details class="ks-fold" data-fold="{fold}"><summary>{escape(say("skill_raw", lang))}</summary>'
            f'<p class="kd-text">{escape(draft.raw_text)}</p></details>'
        )
    inside = "".join(parts)
    card = _card(draft, "skill", inside, lang) if draft.fit else f'<article class="kd-card">{inside}</article>'
    return f'<div class="kd-drafts">{card}</div>'


def found_html(found: Found, lang: Language) -> str:
    """What was read out of an answer: a word, a row of words, an order, a table; or that nothing could be."""
    value = found.value
    if value is None:
        return _note(say("skill_unread", lang))
    if isinstance(value, bool):
        return f'<p class="kd-verdict kd-{"yes" if value else "no"}">{escape(_yes_no(value, lang))}</p>'
    if isinstance(value, dict):
        head = f"<tr><th>{escape(say('skill_attribute', lang))}</th><th>{escape(say('skill_value', lang))}</th></tr>"
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(one)}</td></tr>" for name, one in value.items())
        return f'<table class="kd-table"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    items = []
    for position, one in enumerate(value, 1):
        if isinstance(one, bool):
            kind, word = "yes" if one else "no", f"{say('skill_video', lang, n=position)}: {_yes_no(one, lang)}"
        else:
            kind, word = "place", say("skill_video", lang, n=one)
        items.append(f'<li class="kd-{kind}">{escape(word)}</li>')
    return f'<ol class="kd-list">{"".join(items)}</ol>'


def demo_html(info: ModelInfo | None, key: str, lang: Language) -> str:
    """What to expect of a demonstration model; nothing of another, or before it is loaded."""
    return _note(say(key, lang, model=info.name)) if info is not None and info.demonstration else ""


def clips_html(clips: Sequence[tuple[str, str]], lang: Language) -> str:
    """The clips of a question with their numbers; empty for none. `clips` are (name, picture as a data URL)."""
    cells = "".join(
        f'<figure class="kd-clip"><img src="{picture}" alt=""><figcaption>'
        f"<b>{escape(say('skill_video', lang, n=number))}</b> {escape(name)}</figcaption></figure>"
        for number, (name, picture) in enumerate(clips, 1)
    )
    return f'<div class="kd-clips">{cells}</div>' if cells else ""


def _yes_no(value: bool, lang: Language) -> str:
    return say("yes" if value else "no", lang)


def _note(sentence: str) -> str:
    return f'<p class="ks-note">{escape(sentence)}</p>'
