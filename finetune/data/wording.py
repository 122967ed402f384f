"""How rows ask: several phrasings of each question, in English and Chinese, chosen by the item so that a rerun asks
the same."""

from __future__ import annotations

import hashlib
import unicodedata

from finetune.data.items import Item

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "caption_image": {
        "en": ("What is in this picture?", "Describe this picture.", "Describe the image."),
        "zh": ("描述这张图片。", "这张图片里有什么？"),
    },
    "caption_video": {
        "en": ("What happens in this video?", "Describe this video.", "Describe what happens."),
        "zh": ("描述这个视频。", "视频里发生了什么？"),
    },
    "read_image": {
        "en": ("Read the text in this picture.", "What text is in this picture?"),
        "zh": ("读出图片中的文字。", "图片里写了什么？"),
    },
    "read_video": {
        "en": ("Read the text in this video and say when it is shown.", "What text is shown in this video, and when?"),
        "zh": ("读出视频中的文字，并给出出现的时间。",),
    },
    "point": {
        "en": ("Point to each: {name}.", "Where is this: {name}? Answer with points."),
        "zh": ("用点标出：{name}。",),
    },
    "box": {
        "en": ("Find and box: {name}.", "Where is this: {name}? Answer with boxes."),
        "zh": ("用框标出：{name}。",),
    },
    "polygon": {
        "en": ("Outline: {name}.", "Where is this: {name}? Answer with polygons."),
        "zh": ("用多边形标出：{name}。",),
    },
    "count": {
        "en": ("How many of these are in the picture: {name}?", "Count these: {name}."),
        "zh": ("图中有多少个：{name}？",),
    },
    "events": {
        "en": ("What happens in this video, and when?", "Describe what happens with the time of each event."),
        "zh": ("视频里依次发生了什么？给出每件事的时间。",),
    },
    "reorder": {
        "en": (
            "These {count} frames of a video are shuffled. In which order were they shown? Give their numbers.",
            "Put these {count} shuffled frames of a video in order. Give their numbers, the earliest first.",
        ),
        "zh": ("这是一个视频中被打乱的 {count} 帧，按时间先后给出它们的编号。",),
    },
    "related": {
        "en": ("Which of the candidates belongs to the group above? Answer with its letter.",),
        "zh": ("哪个候选视频属于上面这一组？用字母回答。",),
    },
    "transcript": {
        "en": ("Describe this video. What is said in it stands after the frames it was said over.",),
        "zh": ("描述这个视频，其中的话写在对应画面之后。",),
    },
    "continue": {"en": ("Continue this text.", "Go on with this text."), "zh": ("续写这段文字。",)},
}


def question(kind: str, item: Item, **fields: object) -> str:
    """A phrasing of a kind of question in the item's language. The same item is always asked the same."""
    several = PHRASES[kind][language_of(item)]
    # By replacement, not format: a name may hold braces.
    text = several[draw(item.id, kind) % len(several)]
    for name, value in fields.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def draw(*names: object) -> int:
    """A number that depends on nothing but the names: the same on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def language_of(item: Item) -> str:
    """zh where the item is marked so, or where half the letters of its text are Chinese; else en."""
    if item.language:
        return "zh" if item.language.startswith("zh") else "en"
    letters = [character for character in item.text[:2000] if character.isalpha()]
    chinese = sum(unicodedata.name(character, "").startswith("CJK") for character in letters)
    return "zh" if letters and 2 * chinese >= len(letters) else "en"
