"""The report of a build as one HTML file that needs nothing else. Everything in it is escaped; it holds no script.

Captions and file names come from downloaded data: they are shown, never obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from engine.video import PRESETS
from finetune.bench.media import thumbnails
from finetune.data.rowfile import CATEGORIES

_CSS = Path(__file__).resolve().parents[2] / "assets" / "report.css"  # the benchmarks' reports look the same
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHOWN = 1500  # characters of one text


def page(facts: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:
    """The whole report. `facts` is what report.json holds, `shown` rows with their media under "media"."""
    parts = [
        f'<h1>{_text(facts["title"])}</h1><div class="kb-sub"><span>{_text(facts["folder"])}</span></div>',
        _heads(facts),
        "<h2>Steps</h2>",
        _steps(facts),
        _left_out(facts),
        _examples(shown),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(facts['title'])}</title><style>{_CSS.read_text('utf-8')}</style></head>\n"
        f'<body class="kb-page"><main class="kb">{"".join(parts)}</main></body></html>\n'
    )


def _heads(facts: dict[str, Any]) -> str:
    items = facts["items"]
    cards = [(sum(facts["rows"].values()), "rows in all")]
    cards += [(facts["rows"][category], title) for category, title in CATEGORIES.items()]
    body = "".join(f'<div class="kb-head"><b>{count:,}</b><span>{_text(told)}</span></div>' for count, told in cards)
    videos, pictures, texts = (_several(items[name], name[:-1]) for name in ("videos", "pictures", "texts"))
    used = f"Left to use: {videos}, {pictures} and {texts}."
    return f'<div class="kb-heads">{body}</div><p class="kb-note">{_text(used)}</p>'


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _steps(facts: dict[str, Any]) -> str:
    rows = []
    for step in facts["steps"]:
        out = sum(reason["count"] for reason in step["left_out"])
        notes = "<br>".join(_text(note) for note in step["notes"])
        rows.append(
            f'<tr><th scope="row">{_text(step["step"])}</th><td>{step["came"]:,}</td><td>{step["made"]:,}</td>'
            f'<td>{out:,}</td><td class="kb-text">{_text(step["unit"])}</td>'
            f'<td class="kb-text"><small>{notes}</small></td></tr>'
        )
    return _table(["Step", "In", "Out", "Left out", "Of", "Notes"], rows, text_from=4)


def _left_out(facts: dict[str, Any]) -> str:
    rows = [
        f'<tr><th scope="row">{_text(step["step"])}</th><td>{reason["count"]:,}</td>'
        f'<td class="kb-text">{_text(reason["why"])}</td>'
        f'<td class="kb-text"><small>{"<br>".join(map(_text, reason["examples"]))}</small></td></tr>'
        for step in facts["steps"]
        for reason in step["left_out"]
    ]
    return f"<h2>What was left out</h2>{_table(['Step', 'How many', 'Why', 'For example'], rows, 2)}" if rows else ""


def _examples(shown: Sequence[dict[str, Any]]) -> str:
    cards = "".join(map(_example, shown))
    return f'<h2>Examples</h2><div class="kb-examples">{cards}</div>' if cards else ""


def _example(row: dict[str, Any]) -> str:
    urls = thumbnails(tuple(row["media"]), PRESETS["keye-vl-preview"])
    drawn = "".join(f'<img src="{escape(url, quote=True)}" alt="">' for url in urls)
    pictures = f'<div class="kb-pictures">{drawn}</div>' if drawn else ""
    turns = "".join(
        f'<p class="kb-question">{_text(message["content"])}</p>'
        if message["role"] == "user"
        else f'<dl><dt>Answer</dt><dd class="kb-truth">{_text(message["content"])}</dd></dl>'
        for message in row["messages"][:6]
    )
    return (
        f'<article class="kb-example">{pictures}<div class="kb-body"><header><span>'
        f"{_text(CATEGORIES[row['category']])} · {_text(row['source'])}</span></header>{turns}</div></article>"
    )


def _table(heads: Sequence[str], rows: Sequence[str], text_from: int) -> str:
    cells = "".join(
        f'<th scope="col"{" class=kb-text" if at >= text_from else ""}>{_text(head)}</th>'
        for at, head in enumerate(heads)
    )
    return (
        f'<div class="kb-scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= _SHOWN else text[:_SHOWN] + " …", quote=True)
