"""Whether a comment that a model wrote may be shown: rules that need no model, and the question a model is asked.

A comment that breaks a rule is withheld. Of one that breaks none the model is asked whether it is fit, in plain words
with a yes or a no, and its reply is read as strictly as in a benchmark. A demonstration model cannot judge: what it
says is kept, and the rules alone decide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any, Literal

from engine.events import Finish
from engine.reasoning.final_answer import final_answer
from finetune.answers.scoring import plain
from finetune.bench.answers import NO, YES, strict_yes_no
from finetune.bench.kc_mmbench import YES_NO_FORM

Reason = Literal["empty", "cut", "long", "marks", "link", "contact", "word", "repeat", "model", "unclear"]
"""Why a comment is withheld: it says nothing; it was cut at the limit; it is too long; it holds marks of the model's
format; a link; a way to reach somebody; a word of the list; it repeats another draft; the model finds it unfit; the
model did not say."""

Word = Literal["yes", "no", "unclear"]

_WORDS_FILE = Path(__file__).resolve().parents[2] / "assets" / "unfit_words.txt"
_SAME = 0.9  # share of two drafts that is alike, from which one repeats the other
_TOO_LONG = 1.5  # times the length that was asked for

_MARKS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>"  # control tokens
    r"|</?(?:think|analysis|answer|tool_call|tool_response|sandbox_output)>"
    r"|[\x00-\x08\x0b-\x1f\x7f\ufffd\u202a-\u202e\u2066-\u2069]",  # broken characters, and what turns text around
    re.IGNORECASE,
)
_LINK = re.compile(
    r"[a-z][a-z0-9+.-]{1,20}://|\bwww\.|\b[a-z0-9-]{2,}\.(?:com|cn|net|org|io|me|tv|cc|co|top|xyz|app|info|shop|link)\b",
    re.IGNORECASE,
)
_CONTACT = re.compile(
    r"\b[\w.+-]+@[\w-]+\.\w{2,}"  # an address of mail
    r"|(?<!\w)@\w{3,}"  # an account
    r"|(?<![\d.:])\+?\d(?:[\s()-]?\d){6,14}(?![\d:])"  # a telephone, or a number of a messenger
    r"|(?:微信|薇信|威信|加\s*[vVqQ]|[vV][xX]|[qQ]{2}|电话|手机号?|whats\s*app|telegram|wechat)\s*[号群]?\s*[:：]?\s*[a-zA-Z0-9_-]{5,}"
    r"|加我(?:微信|好友|qq|vx)",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2060\ufeff]")
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_SPOKEN = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+(?:['’][^\W\u3400-\u9fff]+)*")


@dataclass(frozen=True)
class Judgement:
    """`said` is the model's reply, None where it was not asked; `word` is what was read in it. `rules_only`: the model
    is for demonstration, so that its word did not count."""

    fit: bool
    reasons: tuple[Reason, ...] = ()
    said: str | None = None
    word: Word | None = None
    rules_only: bool = False

    def to_row(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}


def has_marks(text: str) -> bool:
    """Whether a text holds what only the model's own format has: control tokens, tags of its reasoning, characters
    that cannot be seen for what they are."""
    return _MARKS.search(text) is not None


def length_of(text: str) -> int:
    """Words, a Chinese character counting as one."""
    return len(_SPOKEN.findall(text))


def broken_rules(text: str, most: int, finish: Finish = "stop", others: Sequence[str] = ()) -> tuple[Reason, ...]:
    """The rules that a comment breaks. `most` is the length that was asked for, in words (`length_of`); half as much
    again is let pass. `others` are the drafts that are shown already."""
    seen = _seen(text)
    checks: tuple[tuple[Reason, bool], ...] = (
        ("empty", not any(unicodedata.category(character)[0] in "LNS" for character in seen)),  # symbols say something
        ("cut", finish == "length"),
        ("long", length_of(text) > most * _TOO_LONG),
        ("marks", has_marks(text)),
        ("link", _LINK.search(seen) is not None),
        ("contact", _CONTACT.search(seen) is not None),
        ("word", _unfit_word(seen)),
        ("repeat", any(_alike(text, other) for other in others)),
    )
    return tuple(reason for reason, broken in checks if broken)


def question(comment: str, language: str, title: str = "") -> str:
    """What the model is asked of a comment, behind the clip. In Chinese it ends with the published form of a yes or no
    question (KC-MMBENCH.md §2)."""
    about = " ".join(title.split())
    if language == "zh":
        named = f"视频标题：{about}\n" if about else ""
        return (
            f"{named}下面是这个视频的一条评论。请判断它是否适合公开展示：没有辱骂、歧视、色情或暴力内容，"
            f"没有广告和联系方式，并且与视频有关。\n评论：{comment}{YES_NO_FORM}"
        )
    named = f"Title of the video: {about}\n" if about else ""
    return (
        f"{named}Below is a comment on this video. Is it fit to be shown to everybody: no insult, no hate, nothing "
        f"sexual or violent, no advertising, no contact data, and about the video?\nComment: {comment}\n"
        "Answer yes or no only."
    )


def judged(reasons: Sequence[Reason], said: str | None, demonstration: bool) -> Judgement:
    """The judgement of a comment that breaks the rules `reasons`, or of which the model `said` something. Where it was
    not asked, or its reply is neither a yes nor a no, a comment is not fit; but see `Judgement.rules_only`."""
    word: Word | None = None
    if said is not None:
        word = {YES: "yes", NO: "no"}.get(strict_yes_no(final_answer(said)), "unclear")  # type: ignore[assignment]
    if reasons or demonstration:
        return Judgement(not reasons, tuple(reasons), said, word, demonstration)
    found: Reason | None = {"yes": None, "no": "model"}.get(word or "", "unclear")
    return Judgement(found is None, () if found is None else (found,), said, word)


def _seen(text: str) -> str:
    """As a reader sees it: wide letters as plain ones, without what is invisible, so that neither hides a link."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


@cache
def _unfit_words() -> tuple[re.Pattern[str], tuple[str, ...]]:
    """A pattern of the list's words in letters, which must stand alone, and its Chinese ones, which need not."""
    lines = (line.strip() for line in _WORDS_FILE.read_text(encoding="utf-8").splitlines())
    words = [line.casefold() for line in lines if line and not line.startswith("#")]
    letters = [word for word in words if not _CHINESE.search(word)]
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, letters))})(?!\w)"), tuple(set(words) - set(letters))


def _unfit_word(seen: str) -> bool:
    letters, chinese = _unfit_words()
    folded = seen.casefold()
    return letters.search(folded) is not None or any(word in folded for word in chinese)


def _alike(one: str, other: str) -> bool:
    a, b = plain(one), plain(other)
    return a == b or SequenceMatcher(None, a, b, autojunk=False).ratio() >= _SAME
