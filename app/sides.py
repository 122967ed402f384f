"""Two answers of one question side by side, as HTML that the chat shows within the conversation. From plain data; what
a model wrote comes through `app.views` and a Markdown renderer that lets no HTML pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML

from app.i18n import Language, say, translate
from app.steps import Steps, from_row
from app.thoughts import ran_as, thought_facts, thought_messages, waiting, warnings
from app.views import answer_markdown, question_markdown
from finetune.feedback import Answer, Comparison

if TYPE_CHECKING:
    from app.jobs import Snapshot

VERDICTS = ("left", "right", "both_good", "both_bad")
_NAMES = ("A", "B")  # of the sides: on a phone there is no left and right

Span = tuple[float, float]


@dataclass(frozen=True)
class _Side:
    """One of the two as far as it is."""

    answer: Answer
    text: str
    steps: Steps
    running: bool
    warnings: Sequence[str]  # Markdown
    waiting: str  # what it waits for before it begins
    facts: Sequence[str]  # what it cost


def choice(comparison: Comparison) -> str | None:
    """What was chosen: one of VERDICTS, or None."""
    preference = comparison.preference
    if preference is None:
        return None
    if preference.verdict != "better":
        return preference.verdict
    return "left" if preference.chosen == comparison.left.id else "right"


def sides_html(comparison: Comparison, now: Sequence[Snapshot], span: Span, lang: Language) -> str:
    """The comparison, with `now` how far its sides are while they are written, and what can be chosen."""
    answers = (comparison.left, comparison.right)
    sides = [
        _written(answer, snapshot, lang) if snapshot is not None and snapshot.done is None else _ended(answer, lang)
        for answer, snapshot in zip(answers, now or (None, None), strict=True)
    ]
    running = any(side.running for side in sides)
    possible = all(side.text for side in sides)
    hidden = comparison.blind and not comparison.told and (running or possible)
    chosen = choice(comparison)
    shown = "".join(
        _side(side, name, hidden, _standing(chosen, at), span, lang)
        for at, (side, name) in enumerate(zip(sides, _NAMES, strict=True))
    )
    verdict = _verdict(comparison.question, chosen, running, possible, hidden, lang)
    return f'<section class="ks-duel"><div class="ks-sides">{shown}</div>{verdict}</section>'


# -- the sides --------------------------------------------------------------------------------------------------


def _written(answer: Answer, now: Snapshot, lang: Language) -> _Side:
    facts = [say("side_facts", lang, seconds=f"{now.seconds:.1f}", tokens=now.pieces)] if now.pieces else []
    told = [f"⚠ {question_markdown(translate(now.error, lang))}"] if now.error else []
    return _Side(answer, now.text, now.steps, True, told, waiting(now, lang), facts)


def _ended(answer: Answer, lang: Language) -> _Side:
    steps = from_row(answer.reasoning)
    facts = [ended] if (ended := say(f"finish_{answer.finish}", lang)) else []
    if (usage := answer.usage) and (timings := answer.timings):
        seconds = f"{timings.get('total') or 0.0:.1f}"
        facts.append(say("side_facts", lang, seconds=seconds, tokens=usage.get("answer_tokens", 0)))
    facts += thought_facts(answer, lang)
    return _Side(answer, answer.text, steps, False, warnings(answer, steps, lang), "", facts)


def _standing(chosen: str | None, at: int) -> str:
    """How a side came off, as a class of its frame."""
    if chosen in ("left", "right"):
        return "ks-better" if chosen == VERDICTS[at] else "ks-worse"
    return {"both_good": "ks-better", "both_bad": "ks-worse"}.get(chosen or "", "")


def _side(side: _Side, name: str, hidden: bool, standing: str, span: Span, lang: Language) -> str:
    mode = "" if hidden else f" · {escape(ran_as(side.answer.mode, side.steps, lang))}"
    parts = [f"<header><b>{name}</b>{mode}</header>"]
    if not hidden:
        blocks = thought_messages(side.steps, side.running and not side.text, span, lang, side.answer.id)
        parts.append(_folded(blocks))
    if side.text:
        parts.append(f'<div class="ks-answer">{markdown_html(answer_markdown(side.text, *span))}</div>')
    elif side.running and (hidden or not side.steps):
        parts.append(f'<p class="ks-note">{escape(say("prefill", lang) + " …" if hidden else side.waiting)}</p>')
    # What was done to a thought tells the mode; that it failed does not.
    told = side.warnings[: 1 if side.answer.error else 0] if hidden and not side.running else side.warnings
    parts += [markdown_html(warning) for warning in told]
    if side.facts and not hidden:
        parts.append(f'<p class="ks-facts">{escape(" · ".join(side.facts))}</p>')
    classes = " ".join(filter(None, ("ks-side", standing, "ks-running" if side.running else "")))
    label = escape(say("side", lang, name=name), quote=True)
    return f'<article class="{classes}" aria-label="{label}">{"".join(parts)}</article>'


def _folded(blocks: Sequence[dict[str, Any]]) -> str:
    """The blocks of `thought_messages`, those with a parent inside it. The page remembers by `data-fold` which of them
    somebody opened or closed."""
    inner: dict[str, str] = {}
    for block in reversed(blocks):
        about = block["metadata"]
        nested = inner.pop(about["id"], "")
        pending = about["status"] == "pending"
        state = " open" if pending else ""
        seconds = f"<small>{about['duration']:.1f} s</small>" if about["duration"] else ""
        one = (
            f'<details class="ks-fold" data-fold="{escape(about["id"], quote=True)}"{state}>'
            f"<summary>{escape(about['title'])} {seconds}</summary>{markdown_html(block['content'])}{nested}</details>"
        )
        parent = about.get("parent_id", "")
        inner[parent] = one + inner.get(parent, "")
    return inner.get("", "")


# -- the choice -------------------------------------------------------------------------------------------------


def _verdict(question: str, chosen: str | None, running: bool, possible: bool, hidden: bool, lang: Language) -> str:
    if not running and not possible:
        return f'<p class="ks-note">{escape(say("verdict_none", lang))}</p>'
    buttons = "".join(
        f'<button type="button" data-verdict="{verdict}" data-question="{escape(question, quote=True)}" '
        f'aria-pressed="{"true" if verdict == chosen else "false"}"{" disabled" if running else ""}>'
        f"{escape(say(f'verdict_{verdict}', lang))}</button>"
        for verdict in VERDICTS
    )
    hint = "verdict_wait" if running else "verdict_undo" if chosen else "verdict_ask"
    said = say(hint, lang) + (f" {say('verdict_blind', lang)}" if hidden else "")
    return (
        f'<div class="ks-verdict" role="group" aria-label="{escape(say("verdict_ask", lang), quote=True)}">'
        f'{buttons}</div><p class="ks-note">{escape(said)}</p>'
    )


# -- Markdown ---------------------------------------------------------------------------------------------------


@cache
def _markdown() -> MarkdownIt:
    """As the chat reads Markdown: tables, line ends kept, no HTML; links of the web open elsewhere."""
    made = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=RendererHTML)
    made.enable(["table", "strikethrough"])

    def link_open(self: RendererHTML, tokens: Any, at: int, options: Any, env: Any) -> str:
        if not str(tokens[at].attrGet("href") or "").startswith("#"):
            tokens[at].attrSet("target", "_blank")
            tokens[at].attrSet("rel", "noopener noreferrer")
        return self.renderToken(tokens, at, options, env)

    made.add_render_rule("link_open", link_open)
    return made


def markdown_html(markdown: str) -> str:
    return str(_markdown().render(markdown))
