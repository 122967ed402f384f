"""What a comment is to be like, and the words in which a model is asked for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from finetune.errors import FinetuneError

Tone = Literal["any", "warm", "funny", "curious", "amazed", "critical"]
Length = Literal["short", "medium", "long"]
Tongue = Literal["en", "zh"]

MOST: dict[Length, dict[Tongue, int]] = {
    "short": {"en": 12, "zh": 15},
    "medium": {"en": 30, "zh": 40},
    "long": {"en": 60, "zh": 100},
}
"""Words of a comment, or Chinese characters."""

_TITLE, _SPEECH = 200, 4000  # characters
_TONES: dict[Tongue, dict[Tone, str]] = {
    "en": {
        "any": "",
        "warm": "warm and friendly",
        "funny": "funny",
        "curious": "curious, with a question",
        "amazed": "amazed",
        "critical": "critical, but polite",
    },
    "zh": {
        "any": "",
        "warm": "温暖友善",
        "funny": "幽默",
        "curious": "好奇，带一个问题",
        "amazed": "惊叹",
        "critical": "有批评但礼貌",
    },
}


@dataclass(frozen=True)
class Wishes:
    """`title` and `speech` are of the video: what it is called and what is said in it. FinetuneError where a value is
    not known or too long."""

    tone: Tone = "any"
    length: Length = "short"
    language: Tongue = "en"
    title: str = ""
    speech: str = ""

    def __post_init__(self) -> None:
        known = {"tone": get_args(Tone), "length": get_args(Length), "language": get_args(Tongue)}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise FinetuneError(f"The {name} {getattr(self, name)!r:.40} is not known; use {', '.join(values)}.")
        check_context(self.title, self.speech)

    @property
    def most(self) -> int:
        """Words, or Chinese characters."""
        return MOST[self.length][self.language]

    @property
    def prompt(self) -> str:
        """What stands behind the clip."""
        tone = _TONES[self.language][self.tone]
        if self.language == "zh":
            first = "以观众的身份，为这个视频写一条评论。"
            lines = [f"语气：{tone}。" if tone else "", f"长度：不超过{self.most}个字。"]
            last = "只写评论本身，用中文。"
        else:
            first = "Write one comment that a viewer would leave under this video."
            lines = [f"Tone: {tone}." if tone else "", f"Keep it to {self.most} words or fewer."]
            last = "Language: English. Nothing but the comment."
        return "\n".join(filter(None, [first, *lines, *context(self.title, self.speech, self.language), last]))


def check_context(title: str, speech: str) -> None:
    """FinetuneError where one of them is longer than is passed on."""
    if len(title) > _TITLE:
        raise FinetuneError(f"The title has {len(title)} characters; the most is {_TITLE}. Shorten it.")
    if len(speech) > _SPEECH:
        raise FinetuneError(f"What is said has {len(speech)} characters; the most is {_SPEECH}. Shorten it.")


def context(title: str, speech: str, language: Tongue) -> list[str]:
    """What is known of a video, one line each; nothing of what is empty."""
    title, speech = " ".join(title.split()), " ".join(speech.split())
    named, said = (
        ("视频标题：", "视频中说的话：") if language == "zh" else ("Title of the video: ", "Said in the video: ")
    )
    return [line for line in (named + title if title else "", said + speech if speech else "") if line]
