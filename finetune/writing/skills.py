"""The short-video skills of KC-MMBench as ready-made questions about one or several clips (KC-MMBENCH.md §1).

The questions are our own words; the published ones are not known beyond a translated table. The form of the answer is
the published one where it is known (§2), and the answer is read by the strict rules that score the benchmark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.reasoning.final_answer import final_answer, is_unfinished
from finetune.bench.answers import UNKNOWN, YES, attributes, strict_list, strict_yes_no, video_order
from finetune.bench.kc_mmbench import PHRASE_FORM, YES_NO_FORM
from finetune.errors import FinetuneError
from finetune.writing.wishes import Tongue, check_context, context

Kind = Literal["yes_no", "list", "order", "attributes"]

MOST_CLIPS = 6
_MOST_ATTRIBUTES = 2000  # characters of the dimensions as they are typed


@dataclass(frozen=True)
class Skill:
    """A ready-made question. `ask` is what stands behind the clips, with the number of clips as {n} and the dimensions
    to fill in as {dimensions}; `task` is its benchmark task."""

    name: str
    task: str
    kind: Kind
    least: int  # clips
    most: int
    ask: Mapping[Tongue, str]

    @property
    def wants_dimensions(self) -> bool:
        return self.kind == "attributes"


SKILLS: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        Skill(
            "likes",
            "High_Like",
            "yes_no",
            1,
            1,
            {
                "en": "Think of the people who come across this short video. Would most of them like it?",
                "zh": "设想刷到这个短视频的观众，其中大多数人会给它点赞吗？",
            },
        ),
        Skill(
            "like_rate",
            "High_Like",
            "yes_no",
            1,
            1,
            {
                "en": "Will this short video get a high like rate: clearly more likes per view than others do?",
                "zh": "请判断这个短视频能否获得高点赞率，即点赞数与播放量之比明显高于其他视频。",
            },
        ),
        Skill(
            "same_product",
            "SPU",
            "yes_no",
            2,
            2,
            {
                "en": "Do these two videos show the same product: the same brand, model and make?",
                "zh": "请判断这两个视频展示的是否为同一商品，即品牌、型号和款式都相同。",
            },
        ),
        Skill(
            "same_topic",
            "Hot_Videos_Aggregation",
            "list",
            2,
            MOST_CLIPS,
            {
                "en": "Here are {n} videos. For each of them, the first one included, say whether it is about the same "
                "event or topic as video 1. Answer with a list of {n} words, yes or no, such as [yes, yes, no].",
                "zh": "这里有{n}个视频。请依次判断每个视频（包括第一个）与视频1是否属于同一事件或话题，"
                "用{n}项是或否组成的列表回答，例如[是，是，否]。",
            },
        ),
        Skill(
            "order",
            "Collection_Order",
            "order",
            2,
            MOST_CLIPS,
            {
                "en": "These {n} videos belong to one collection. Put them into the order in which they should be "
                "watched. Answer with a list such as [Video 1, Video 3, Video 2].",
                "zh": "这{n}个视频来自同一合集，请按观看的先后排序，用列表回答，例如[视频1, 视频3, 视频2]。",
            },
        ),
        Skill(
            "attributes",
            "CPV",
            "attributes",
            1,
            1,
            {
                "en": "Which product does the video show? For each of these attributes choose the value that fits it "
                "best: {dimensions}. Answer as JSON, with the attributes as keys.",
                "zh": "请根据视频和文字总结商品的属性。属性及候选值：{dimensions}。以属性为键，用json输出。",
            },
        ),
    )
}


@dataclass(frozen=True)
class Given:
    """What is told beside the clips. `dimensions` has an attribute a line: its name, a colon, and the values to choose
    from, or nothing behind the colon where any value will do."""

    title: str = ""
    speech: str = ""
    dimensions: str = ""


@dataclass(frozen=True)
class Found:
    """What was read out of an answer: yes or no, one of them for each video, numbers of videos in order, or attributes
    with their values. None where there is nothing that can be read."""

    kind: Kind
    value: bool | list[bool] | list[int] | dict[str, str] | None


def skill_of(name: str) -> Skill:
    """FinetuneError for a name that is none of the skills."""
    if name not in SKILLS:
        raise FinetuneError(f"There is no skill {name!r:.40}; use one of {', '.join(SKILLS)}.")
    return SKILLS[name]


def prompt(skill: Skill, clips: int, given: Given, language: Tongue) -> str:
    """What is asked behind the clips, with the form of the answer. FinetuneError where the number of clips does not
    suit the skill, or something is missing or too long."""
    if not skill.least <= clips <= skill.most:
        wanted = f"{skill.least}" if skill.least == skill.most else f"{skill.least} to {skill.most}"
        raise FinetuneError(f"This question wants {wanted} clips and there are {clips}; choose as many.")
    check_context(given.title, given.speech)
    values: dict[str, Any] = {"n": clips, "dimensions": ""}
    if skill.wants_dimensions:
        values["dimensions"] = _dimensions(given.dimensions, language)
    asked = skill.ask[language].format(**values)
    return "\n".join([*context(given.title, given.speech, language), asked]) + _form(skill.kind, language)


def _form(kind: Kind, language: Tongue) -> str:
    """The published form of the answer; there is none for a yes or no in English."""
    if kind == "yes_no":
        return YES_NO_FORM if language == "zh" else "\nAnswer yes or no only."
    return PHRASE_FORM


def _dimensions(typed: str, language: Tongue) -> str:
    """What was typed, one attribute a line, as it is written in the question."""
    if len(typed) > _MOST_ATTRIBUTES:
        raise FinetuneError(
            f"The attributes have {len(typed)} characters; the most is {_MOST_ATTRIBUTES}. Shorten them."
        )
    named = []
    for line in filter(None, map(str.strip, typed.splitlines())):
        name, _, values = line.replace("：", ":").partition(":")
        name = name.strip()
        choices = [value.strip() for value in re.split(r"[,，、;；|]", values) if value.strip()]
        if not name:
            raise FinetuneError(f"The line {line!r:.60} names no attribute; write: name: value, value.")
        listed = ", ".join(f"'{value}'" for value in choices)
        named.append(f"'{name}': [{listed}]" if choices else f"'{name}'")
    if not named:
        raise FinetuneError("Name at least one attribute, one a line, such as: colour: red, blue, white.")
    return (", " if language == "en" else "，").join(named)


def read(kind: Kind, text: str) -> Found:
    """What an answer says, by the benchmark's strict rules; nothing of one that was cut."""
    said = final_answer(text)
    if is_unfinished(said):
        return Found(kind, None)
    if kind == "yes_no":
        word = strict_yes_no(said)
        return Found(kind, None if word == UNKNOWN else word == YES)
    if kind == "list":
        items = strict_list(said)
        return Found(kind, None if not items else [item == YES for item in items])
    if kind == "order":
        return Found(kind, video_order(said))
    found = attributes(said)
    return Found(kind, {name: _shown(value) for name, value in found.items()} if found else None)


def _shown(value: Any) -> str:
    return "、".join(sorted(value)) if isinstance(value, frozenset) else str(value)
