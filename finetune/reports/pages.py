"""A report as one HTML file that needs nothing else: its frame, its tables, and text that is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

_CSS = Path(__file__).resolve().parents[2] / "assets" / "report.css"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHOWN = 1500  # characters of one text


def document(title: str, body: str) -> str:
    """A whole file. `title` is text, `body` is HTML in which everything is escaped already; scripts do not run."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_CSS.read_text('utf-8')}</style></head>\n"
        f'<body class="kb-page"><main class="kb">{body}</main></body></html>\n'
    )


def table(heads: Sequence[str], rows: Sequence[str], text_from: int = 99) -> str:
    """Headings are text, rows are HTML; columns from `text_from` on hold sentences instead of numbers."""
    cells = "".join(
        f"<th scope='col'{' class=kb-text' if at >= text_from else ''}>{_broken(head)}</th>"
        for at, head in enumerate(heads)
    )
    return (
        f'<div class="kb-scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _broken(head: str) -> str:
    """A heading on two lines where it is a model's: its name, and its size or how it was asked."""
    if not any(character.isdigit() for character in head):
        return text(head)
    return "<br>".join(text(part).replace("-", "&#8209;") for part in head.split(" ", 1))


def text(value: object) -> str:
    """Anything as text of a page, cut where it is very long."""
    shown = str(value)
    return escape(shown if len(shown) <= _SHOWN else shown[:_SHOWN] + " …", quote=True)
