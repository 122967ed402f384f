"""The page's sentences in English and Chinese: its own from assets/translations.json, and those that the storeys below
say in English, from assets/sentences.zh.json."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Literal, get_args

from app.wiring import asset

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

_NOUN = re.compile("[a-z][a-z ]{2,}")


@cache
def _table() -> dict[str, dict[str, str]]:
    return json.loads(asset("translations.json"))


def language(wanted: object) -> Language:
    """`wanted` if it is a language of the page, English otherwise (it comes from the browser: it may be anything)."""
    return "zh" if wanted == "zh" else "en"


def say(key: str, lang: Language, **values: object) -> str:
    """The sentence `key` in `lang` with its values filled in. `{n:frame}` becomes "1 frame" or "12 frames"."""
    return _table()[key][lang].format(**{name: _Value(value) for name, value in values.items()})


class _Value:
    """What a sentence is filled with; formatted by a noun it is so many of these."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __format__(self, form: str) -> str:
        if _NOUN.fullmatch(form):
            return f"{self._value} {form}{'' if str(self._value) == '1' else 's'}"
        return format(self._value, form)


@cache
def _sentences() -> list[tuple[re.Pattern[str], str, bool]]:
    """Patterns of English sentences, their Chinese, and whether it is a phrase that others are filled with; the one
    with most words of its own first."""
    table: dict[str, str] = json.loads(asset("sentences.zh.json"))
    known = sorted(table.items(), key=lambda item: -len(item[0].replace("{}", "")))
    out = []
    for english, chinese in known:
        pattern = re.compile("(.*?)".join(map(re.escape, english.split("{}"))), re.DOTALL)
        out.append((pattern, chinese, not english.endswith(".") and not english[0].isupper()))
    return out


def translate(sentence: str, lang: Language) -> str:
    """A sentence of the engine, the store or the studio in `lang`; one that is not known stays as it is."""
    return sentence if lang == "en" else _chinese(sentence, phrase=False)


def _chinese(text: str, phrase: bool) -> str:
    for pattern, chinese, is_phrase in _sentences():
        # a file's name may look like a sentence: inside another, phrases are translated and what has a full stop
        if (is_phrase or not phrase or text.endswith(".")) and (found := pattern.fullmatch(text)):
            return chinese.format(*(_chinese(value, phrase=True) for value in found.groups()))
    return text
