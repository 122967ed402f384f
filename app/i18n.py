"""The page's sentences in English and Chinese, from assets/translations.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

_FILE = Path(__file__).resolve().parents[1] / "assets" / "translations.json"


@cache
def _table() -> dict[str, dict[str, str]]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def language(wanted: object) -> Language:
    """`wanted` if it is a language of the page, English otherwise (it comes from the browser: it may be anything)."""
    return "zh" if wanted == "zh" else "en"


def say(key: str, lang: Language, **values: object) -> str:
    """The sentence `key` in `lang` with its values filled in."""
    return _table()[key][lang].format(**values)
