"""What the page shows, as HTML and Markdown made from plain data. Nothing here touches Gradio, files or the store.

Everything that came from a user, a file or a model is escaped here and nowhere else."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np

from app.i18n import Language, say, translate
from engine.reasoning.modes import ModeName
from engine.runtime.base import ModelInfo, Status, speaker
from engine.video.types import Frames

_TIME = re.compile(r"(?<![\d:.])(?:(\d{1,2}):)?(\d{1,2}):([0-5]\d)(?:\.(\d{1,3}))?(?![\d:])")
_THUMB_HEIGHT = 96  # pixels


def clock(seconds: float, tenths: bool = False) -> str:
    """Seconds as `m:ss` or `h:mm:ss`, with tenths if asked: 67.25 → 1:07 or 1:07.3."""
    unit = 10 if tenths else 1
    count = round(max(0.0, seconds) * unit)
    whole, fraction = divmod(count, unit)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{text}.{fraction}" if tenths else text


def answer_markdown(text: str, offset: float, end: float) -> str:
    """A model's answer as safe Markdown in which times are links that seek the player.

    `offset` is the second of the file that the model counts as zero; times past `end` (seconds of the file) are
    left alone, since they are not in the clip. HTML is shown as text and pictures are not fetched: what a model
    writes must not reach out of the page."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("![", "!&#91;")

    def link(match: re.Match[str]) -> str:
        hours, minutes, seconds, fraction = match.groups()
        at = offset + int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction or 0}")
        return f"[{match.group()}](#t={at:g})" if at <= end + 0.5 else match.group()

    return _TIME.sub(link, safe)


def question_markdown(text: str) -> str:
    """A user's question as Markdown that shows it as typed."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~>-])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def demo_note(info: ModelInfo, lang: Language) -> str:
    """What the demonstration model can do and how to get a real one, as Markdown."""
    return say("demo_note", lang, model=info.name, params=f"{info.parameters / 1e6:.1f}")


def thumbnail(image: np.ndarray) -> str:
    """A uint8 RGB picture [height, width, 3] as a small JPEG data URL."""
    height, width = image.shape[:2]
    size = (max(1, round(width * _THUMB_HEIGHT / height)), _THUMB_HEIGHT)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if height > _THUMB_HEIGHT else cv2.INTER_NEAREST)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def strip_html(frames: Frames | None, notes: Sequence[str], lang: Language) -> str:
    """The frames the model gets, with their times and kinds, and what they cost of the budget."""
    if frames is None:
        return f'<p class="ks-empty">{escape(say("frames_none", lang))}</p>'
    both_kinds = "fast" in frames.kinds
    cells = []
    for image, time, kind in zip(frames.images, frames.times, frames.kinds, strict=True):
        label = clock(time, tenths=True)
        badge = ""
        if both_kinds:
            hint = escape(say(f"{kind}_hint", lang), quote=True)
            badge = f'<span class="ks-badge ks-{kind}" title="{hint}">{escape(say(kind, lang))}</span>'
        cells.append(
            f'<button type="button" class="ks-frame" data-seek="{time:.3f}" '
            f'aria-label="{escape(say("seek", lang, time=label), quote=True)}">'
            f'<img src="{thumbnail(image)}" alt=""><span class="ks-time">{label}</span>{badge}</button>'
        )
    spent, budget = frames.total_tokens, frames.sampling.budget
    share = 100 * spent / budget
    lines = "".join(f'<p class="ks-note">{escape(translate(note, lang))}</p>' for note in notes)
    return (
        f'<div class="ks-cost"><span>{escape(say("frames_line", lang, n=len(cells), fps=f"{frames.fps:.3g}"))}</span>'
        f"<span>{escape(say('tokens_line', lang, spent=f'{spent:,}', budget=f'{budget:,}'))}</span></div>"
        f'<div class="ks-bar" role="meter" aria-valuemin="0" aria-valuemax="{budget}" aria-valuenow="{spent}" '
        f'aria-label="{escape(say("budget", lang), quote=True)}"><i style="width:{share:.2f}%"></i></div>'
        f'<div class="ks-strip">{"".join(cells)}</div>{lines}'
    )


def conversations_html(rows: Sequence[tuple[str, str, str]], current: str | None, lang: Language) -> str:
    """The list in the sidebar. `rows` are (id, title, when), newest first."""
    if not rows:
        return f'<p class="ks-empty">{escape(say("none_yet", lang))}</p>'
    sure = escape(say("delete_sure", lang), quote=True)
    items = []
    for key, title, when in rows:
        here = ' aria-current="true"' if key == current else ""
        name = escape(title, quote=True)
        items.append(
            f'<li{here}><button type="button" class="ks-open" data-open="{escape(key, quote=True)}" title="{name}">'
            f"<span>{name}</span><small>{escape(when)}</small></button>"
            f'<button type="button" class="ks-delete" data-delete="{escape(key, quote=True)}" data-sure="{sure}" '
            f'aria-label="{escape(say("delete", lang), quote=True)}: {name}">×</button></li>'
        )
    return f'<ul class="ks-list">{"".join(items)}</ul>'


def demos_html(demos: Sequence[tuple[str, str, str]], lang: Language) -> str:
    """The demo clips as pictures to click. `demos` are (file name, title, picture as a data URL)."""
    cards = "".join(
        f'<button type="button" class="ks-demo" data-demo="{escape(name, quote=True)}">'
        f'<img src="{picture}" alt=""><span>{escape(title)}</span></button>'
        for name, title, picture in demos
    )
    return f'<p class="ks-label">{escape(say("try", lang))}</p><div class="ks-demos">{cards}</div>' if cards else ""


class Suggestion(NamedTuple):
    """A question to take with a click, and the mode that shows what it needs; none: whichever is set."""

    question: str
    mode: ModeName | None = None


def suggestions_html(suggestions: Sequence[Suggestion], lang: Language) -> str:
    """Questions to take with a click, each with its mode where it has one."""

    def chip(one: Suggestion) -> str:
        mode = f' data-mode="{one.mode}"' if one.mode else ""
        said = f" <small>{escape(say(f'mode_{one.mode}', lang))}</small>" if one.mode else ""
        question = escape(one.question, quote=True)
        return f'<button type="button" class="ks-chip" data-question="{question}"{mode}>{question}{said}</button>'

    chips = "".join(map(chip, suggestions))
    return f'<div class="ks-chips">{chips}</div>' if chips else ""


def model_html(status: Status, info: ModelInfo | None, lang: Language) -> str:
    """One line that says what answers, or how far it is from being ready."""
    if status.state == "ready" and info is not None:
        line = say(
            "model_line",
            lang,
            model=speaker(info.name, info.adapter),
            params=_count(info.parameters),
            device=info.device,
            dtype=info.dtype,
        )
        if info.runtime != "local":
            line += f" · {info.runtime}"
        note = f'<p class="ks-note">{escape(translate(info.note, lang))}</p>' if info.note else ""
        return f'<span class="ks-model ks-ready">{escape(line)}</span>{note}'
    message = escape(translate(status.message, lang))
    if status.state == "failed":
        return f'<p class="ks-problem" role="alert"><b>{escape(say("failed", lang))}.</b> {message}</p>'
    bar = ""
    if status.fraction is not None:
        bar = f'<div class="ks-bar"><i style="width:{100 * status.fraction:.1f}%"></i></div>'
    return f'<span class="ks-model ks-starting">{escape(say("starting", lang))} · {message}</span>{bar}'


def problem_html(sentence: str) -> str:
    """A sentence for the user where something went wrong; empty for no problem."""
    return f'<p class="ks-problem" role="alert">{escape(sentence)}</p>' if sentence else ""


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
