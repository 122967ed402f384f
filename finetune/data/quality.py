"""Filters by quality: texts that are garbled, marked with another language, too short or too long; media that are
broken or too small. The report names the kinds (section 3.1) and no thresholds: the numbers here are ours."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ftfy.badness

from engine.errors import EngineError
from engine.reasoning.guard import Guard, Limits
from finetune.data.frames import info_of, picture, span
from finetune.data.items import Item, Medium
from finetune.data.report import Report
from finetune.errors import FinetuneError

MARKS = ("<image>", "<video>")
"""Where a row's text holds a medium. A caption that holds one of these itself would shift all that follow."""

CONTROL_TOKEN = re.compile(r"<\|[^<>|]{1,40}\|>")
_MARKUP = re.compile(r"</?(?:a|b|br|div|font|h[1-6]|i|img|li|p|script|span|style|table|td|tr|ul)\b[^<>]{0,500}>", re.I)
_ASPECT = 200  # longer than this the published resizing refuses a picture (KEYE.md §7.1)

_SCRIPTS = {
    "zh": ("CJK UNIFIED", "CJK COMPATIBILITY"),
    "ja": ("CJK UNIFIED", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "ar": ("ARABIC",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "th": ("THAI",),
    "el": ("GREEK",),
}
"""Languages that their script tells; all others with a two-letter mark are taken to be written in Latin letters."""


@dataclass(frozen=True)
class TextLimits:
    shortest: int = 3  # characters
    longest: int = 20_000
    languages: tuple[str, ...] = ()  # kept where marked; none means all


@dataclass(frozen=True)
class MediaLimits:
    smallest: int = 56  # pixels of the shorter side: two visual tokens


def text(items: Sequence[Item], limits: TextLimits) -> tuple[list[Item], Report]:
    """Takes bad texts from their items: captions, questions with their answers, cues and names. A medium stays without
    its caption, to be captioned anew; an item that is left with nothing goes."""
    report = Report("text", "texts")
    kept: list[Item] = []
    for item in items:
        left = _without_bad_texts(item, limits, report)
        if left.media or left.text or left.questions:
            kept.append(left)
    report.made = report.came - report.left_out
    return kept, report


def _without_bad_texts(item: Item, limits: TextLimits, report: Report) -> Item:
    def good(text: str, shortest: int = limits.shortest) -> bool:
        report.came += 1
        why = wrong_with(text, dataclasses.replace(limits, shortest=shortest), item.language)
        if why:
            report.drop(item.id, why, text[:100])
        return not why

    def all_good(texts: Sequence[str]) -> bool:
        return all(good(one, 1) for one in texts)

    changes: dict[str, object] = {
        "questions": tuple(pair for pair in item.questions if all_good(pair)),
    }
    names = {
        name for name in sorted({region.name for region in item.regions} | dict(item.counts).keys()) if good(name, 1)
    }
    changes["regions"] = tuple(region for region in item.regions if region.name in names)
    changes["counts"] = tuple(pair for pair in item.counts if pair[0] in names)
    for name in ("speech", "events", "screen"):
        changes[name] = tuple(cue for cue in getattr(item, name) if good(cue.text, 1))
    changes["captions"] = tuple(caption for caption in item.captions if good(caption.text))
    if item.text and not good(item.text):
        changes["text"] = ""
    if item.parts and not all_good([part for part in item.parts if isinstance(part, str)]):
        changes.update(parts=(), media=())
    return dataclasses.replace(item, **changes)  # type: ignore[arg-type]


def wrong_with(text: str, limits: TextLimits, language: str = "") -> str:
    """Why a text is of no use, in a few words; empty where nothing is wrong with it."""
    said = text.strip()
    if len(said) < limits.shortest:
        return "a text is too short"
    if len(said) > limits.longest:
        return "a text is too long"
    if any(mark in said for mark in MARKS):
        return "a text holds the mark of a medium"
    if CONTROL_TOKEN.search(said):
        return "a text holds a control token"
    if is_garbled(said):
        return "a text is garbled"
    if _MARKUP.search(said):
        return "a text holds markup"
    if repeats(said):
        return "a text repeats itself"
    if limits.languages and language and language[:2] not in limits.languages:
        return "a text is in another language"
    if language and not fits_language(said, language):
        return "a text is not in the language it is marked with"
    return ""


def is_garbled(text: str) -> bool:
    """Bytes read in a wrong encoding (ftfy's measure), characters that stand for lost ones, or mostly symbols."""
    if "\ufffd" in text or ftfy.badness.is_bad(text):
        return True
    kinds = [unicodedata.category(character) for character in text if not character.isspace()]
    if any(kind in ("Cc", "Cn", "Co", "Cs") for kind in kinds):
        return True
    letters = sum(kind[0] in "LNM" for kind in kinds)
    return len(kinds) >= 8 and letters < 0.4 * len(kinds)


def repeats(text: str) -> bool:
    """Whether some stretch of the text is said over and over, word for word."""
    guard = Guard(Limits(times=5, tokens=60, longest=64, every=16))
    return guard.push(text[:LONGEST_LOOKED_AT])


LONGEST_LOOKED_AT = 4000
"""Characters in which repetition is looked for."""


def fits_language(text: str, language: str) -> bool:
    """Whether at least a fifth of the letters belong to the script of a language, and for one in Latin letters at
    least half. Languages of one script are not told apart."""
    code = re.split(r"[-_]", language)[0]
    names = [unicodedata.name(character, "") for character in text if character.isalpha()]
    if len(code) != 2 or not names:
        return True
    scripts = _SCRIPTS.get(code, ("LATIN", "FULLWIDTH LATIN"))
    share = sum(name.startswith(scripts) for name in names) / len(names)
    return share >= (0.2 if code in _SCRIPTS else 0.5)


def media(items: Sequence[Item], folder: Path, limits: MediaLimits) -> tuple[list[Item], Report]:
    """Leaves out items whose media cannot be read, are too small or too oblong, or whose time range is not there.

    Every picture is decoded; of a video its frames are listed and the first one is decoded."""
    report = Report("media", came=len(items))
    kept: list[Item] = []
    found: dict[Medium, tuple[str, str]] = {}
    for item in items:
        why, detail = "", ""
        for medium in item.media:
            if medium not in found:
                found[medium] = _wrong_medium(folder, medium, limits)
            why, detail = found[medium]
            if why:
                break
        if why:
            report.drop(item.id, why, detail)
        else:
            kept.append(item)
    report.made = len(kept)
    return kept, report


def _wrong_medium(folder: Path, medium: Medium, limits: MediaLimits) -> tuple[str, str]:
    path = folder / medium.path
    try:
        if medium.kind == "image":
            height, width = picture(path).shape[:2]
        else:
            info = info_of(path)
            height, width = info.height, info.width
            span(path, medium)
    except FinetuneError as error:
        return ("a picture is too large" if "pixels" in str(error) else "a picture cannot be read"), str(error)
    except EngineError as error:
        return "a video cannot be read", str(error)
    except MemoryError:
        return f"the memory does not hold a {medium.kind}", path.name
    why = wrong_size(height, width, limits)
    return why, f"{width}×{height}" if why else ""


def wrong_size(height: int, width: int, limits: MediaLimits) -> str:
    """Why a picture of so many pixels is of no use, in a few words; empty where nothing is wrong with it."""
    if min(height, width) < limits.smallest:
        return "the resolution is too low"
    if max(height, width) > _ASPECT * min(height, width):
        return "a medium is too oblong"
    return ""
