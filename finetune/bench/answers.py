"""Answers read out of texts: yes or no, lists, attributes, letters. Pure functions; KC-MMBENCH.md §4 to §6."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from typing import Any

from engine.reasoning.final_answer import is_unfinished

YES, NO, UNKNOWN = "是", "否", "Unknown"
RIGHT, WRONG = "回答正确", "回答错误"  # what a judge is told to reply

LITERAL_LIMIT = 20_000  # characters of a list or attribute map; longer ones are not read

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_PERIODS = 32  # the published code passes a flag of this value where the count belongs
_WIDE_BRACKETS = re.compile(r"[\[【［]([^\[\]【】［］]*)[\]】］]")
_VIDEO = re.compile(r"(?:视频|video)\s*(\d+)", re.IGNORECASE)


# -- yes or no (§4) -------------------------------------------------------------------------------------------------


def yes_no(text: str) -> str:
    """是, 否 or Unknown as the published harness reads it: whole tokens, case-sensitive, only ASCII marks removed."""
    tokens = set(strip_marks(text).split())
    for yes, no in ((YES, NO), ("yes", "no")):
        if (yes in tokens) != (no in tokens):
            return YES if yes in tokens else NO
    return UNKNOWN


def strip_marks(text: str) -> str:
    """The published normalisation (§4 a): a mark that touches a space anywhere is deleted everywhere, any other
    becomes a space; a digit,comma,digit anywhere makes every mark a deletion; then lone periods go."""
    out = text
    everywhere = _DIGIT_COMMA.search(text) is not None
    for mark in _MARKS:
        out = out.replace(mark, "" if everywhere or f"{mark} " in text or f" {mark}" in text else " ")
    return _LONE_PERIOD.sub("", out, count=_PERIODS)


_SAYS_YES = frozenset({YES, "是的", "yes"})
_SAYS_NO = frozenset({NO, "不是", "不是的", "no"})


def strict_yes_no(text: str) -> str:
    """是, 否 or Unknown without the defects: any punctuation separates words, case does not matter, `不是` is a no,
    and a thought that was never finished is no answer."""
    if is_unfinished(text):
        return UNKNOWN
    tokens = set(words(text))
    yes, no = bool(tokens & _SAYS_YES), bool(tokens & _SAYS_NO)
    return UNKNOWN if yes == no else YES if yes else NO


def words(text: str) -> list[str]:
    """The words of a text: folded, split at everything that is no letter, digit or mark on a letter."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in folded).split()


# -- a list of yes and no (§5) --------------------------------------------------------------------------------------


def list_matches(answer: str, text: str) -> bool:
    """Whether the last `[...]` of `text` holds exactly the truth `是_否_…`, by the published rule: every 是 or 否
    character counts wherever it stands, everything else is ignored, and there must be brackets."""
    last = _last_bracket(text)
    wanted = [part for part in answer.split("_") if part in (YES, NO)]
    return last is not None and [c for c in last if c in (YES, NO)] == wanted


def _last_bracket(text: str) -> str | None:
    """What the last match of `\\[(.*?)\\]` holds: brackets do not nest and do not span lines. By hand, because the
    pattern needs quadratic time on a text of opening brackets."""
    last = None
    for line in text.split("\n"):
        end = -1
        while (start := line.find("[", end + 1)) >= 0 and (end := line.find("]", start)) >= 0:
            last = line[start + 1 : end]
    return last


def strict_list(text: str) -> list[str] | None:
    """The items of the last bracketed list of `text` if each is a plain yes or no; None otherwise."""
    found = _WIDE_BRACKETS.findall(text)
    if not found or is_unfinished(text):
        return None
    items = [part.strip(" \t\"'“”‘’") for part in re.split(r"[,，、;；]", found[-1])]
    read = [strict_yes_no(item) if len(words(item)) == 1 else UNKNOWN for item in items]
    return None if UNKNOWN in read else read


# -- an order of videos, a map of attributes (§6, without a judge) --------------------------------------------------


def video_order(text: str) -> list[int] | None:
    """The numbers of the videos in the last bracketed list that names any, or else of the whole text."""
    for inside in (*reversed(_WIDE_BRACKETS.findall(text)), text):
        if numbers := _VIDEO.findall(inside):
            return [int(number[:9]) for number in numbers]
    for inside in reversed(_WIDE_BRACKETS.findall(text)):
        parts = re.split(r"[,，、\s]+", inside.strip())
        if all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            return [int(part) for part in parts]
    return None


def attributes(text: str) -> dict[str, Any] | None:
    """The attribute map in `text`: JSON or a literal in Python's spelling, alone or within other words.

    Values come as text, or as a set of texts where a list is given, since the order of a list says nothing."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end <= start:
        return None
    value = literal(text[start : end + 1])
    if not isinstance(value, dict):
        return None
    return {str(key).strip(): _value(several) for key, several in value.items()}


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple | set):
        return frozenset(str(one).strip() for one in value)
    return str(value).strip()


def literal(text: str) -> Any:
    """The value that `text` spells in JSON or as a Python literal; None where it spells none. Nothing is run."""
    if len(text) > LITERAL_LIMIT:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


# -- letters --------------------------------------------------------------------------------------------------------

_LEADS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)
_ALONE = re.compile(r"\(?([A-Ja-j])\)?[.:)。：]?")
_LED = re.compile(r"\(?([A-J])(?:\)|[.:：、])\s*\S.*", re.DOTALL)
_NAMED = re.compile(
    r"(?:answer|option|choice|答案|选项)(?:\s+is)?\s*[:是为选]*\s*\**\(?([A-Ja-j])(?![A-Za-z'’])", re.IGNORECASE
)


def first_letter(text: str, letters: str) -> str:
    """The first capital among `letters`, wherever it stands, after the usual leads were removed: the public video
    benchmarks' rule (Video-MME's script), which reads `Because` as B. Empty where there is none."""
    for lead in _LEADS:
        text = text.replace(lead, "")
    return next((character for character in text if character in letters), "")


def strict_letter(text: str) -> str:
    """The option that `text` clearly names: alone, at its head as `B.` or `(B)`, or after "answer", "option" or
    "choice". Empty where it names none, or several."""
    text = unicodedata.normalize("NFKC", text).strip().strip("*").strip()
    if is_unfinished(text):
        return ""
    if match := _ALONE.fullmatch(text) or _LED.fullmatch(text):
        return match[1].upper()
    named = {match[1].upper() for match in _NAMED.finditer(text) if not _is_word(match[1], text[match.end() :])}
    return named.pop() if len(named) == 1 else ""


def _is_word(letter: str, after: str) -> bool:
    """Whether a letter is the article or the pronoun of a sentence rather than an option: "the answer is a dog"."""
    goes_on = after[:1].isspace() and after.lstrip()[:1].isalpha()
    return goes_on and (letter.islower() or letter in "AI")
