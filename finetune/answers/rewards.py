"""How good an answer is, 0 to 1, where its question has a known one: what reinforcement and alignment go by.

What is right is read from the answer alone (the published extraction, engine.reasoning.final_answer). Beside it count
whether the thought comes to the answer, the format of the mode, length, and repetition (report, sections 4.2.2 and
4.2.3; thresholds and weights are ours, none are published). Pure functions; a model that judges is asked elsewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from engine.events import Answer, Thought
from engine.reasoning.final_answer import final_answer, is_unfinished
from engine.reasoning.guard import Guard, Limits
from engine.reasoning.modes import MODES, ModeName
from engine.reasoning.parser import events_of
from finetune.answers.scoring import overlap, plain, read_box, right
from finetune.bench import answers

RewardName = Literal["exact", "choice", "number", "set", "order", "json", "box", "time"]
REWARDS: tuple[RewardName, ...] = get_args(RewardName)

NEAR_SECONDS = 1.0
"""A time is right when it is this near: clips are sampled twice a second and times are said in whole seconds."""

_NUMBER = re.compile(r"[-+−]?\d+(?:,\d{3})*(?:\.\d+)?")
_TIME = re.compile(r"(?:(\d+):)?(\d{1,3}):(\d{2}(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*(?:s\b|sec|秒)", re.IGNORECASE)
_TAG = re.compile(r"</?(?:analysis|think|answer)>")
_DECIDES = re.compile(r"(/no_think|/think) mode is more appropriate\.?\s*$")


# -- whether the answer is right -----------------------------------------------------------------------------------


def _exact(answer: str, reference: str) -> float:
    return float(right(answer, reference))


def _choice(answer: str, reference: str) -> float:
    return float(answers.strict_letter(answer) == answers.strict_letter(reference))


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "").replace("−", "-")) for found in _NUMBER.findall(text)]


def _number(answer: str, reference: str) -> float:
    """The last number of the answer, to a millionth."""
    said, true = _numbers(answer), _numbers(reference)[-1]
    return float(bool(said) and abs(said[-1] - true) <= 1e-6 * max(1.0, abs(true)))


def _items(text: str) -> list[str]:
    """The items of a list in words: divided by commas, semicolons, line ends or "and", without article and mark."""
    parts = re.split(r"[,，、;；\n]|\band\b|和", text.strip().strip("[]【】"))
    cleaned = (re.sub(r"^(?:\d+[.)]\s+|an? |the )", "", " ".join(part.split()).casefold()) for part in parts)
    return [plain(part) for part in cleaned if plain(part)]


def _set(answer: str, reference: str) -> float:
    """F1 of the items, whatever their order; the same item twice are two."""
    said, true = Counter(_items(answer)), Counter(_items(reference))
    return 2 * (said & true).total() / max(1, said.total() + true.total())


def _order(answer: str, reference: str) -> float:
    """The share of pairs in their true order where the answer has just the true items, 0 where it has others."""
    said, true = (answers.video_order(text) or _items(text) for text in (answer, reference))
    if sorted(map(str, said)) != sorted(map(str, true)) or len(set(true)) != len(true):
        return float(said == true)
    at = {item: i for i, item in enumerate(said)}
    pairs = [(a, b) for i, a in enumerate(true) for b in true[i + 1 :]]
    return sum(at[a] < at[b] for a, b in pairs) / len(pairs) if pairs else 1.0


def _json(answer: str, reference: str) -> float:
    """The share of all keys of both that have the same value in both."""
    said, true = answers.attributes(answer), answers.attributes(reference)
    if said is None or true is None:
        return 0.0
    keys = set(said) | set(true)
    return sum(key in said and key in true and said[key] == true[key] for key in keys) / len(keys) if keys else 1.0


def _box(answer: str, reference: str) -> float:
    return overlap(answer, reference)


def _times(text: str) -> list[float]:
    found = (m.groups() for m in _TIME.finditer(text))
    return [float(s) if s else 3600 * int(h or 0) + 60 * int(m) + float(x) for h, m, x, s in found]


def _time(answer: str, reference: str) -> float:
    """As many times as there truly are, each within a second."""
    said, true = _times(answer), _times(reference)
    near = len(said) == len(true) and all(abs(a - b) <= NEAR_SECONDS for a, b in zip(said, true, strict=True))
    return float(near)


_SCORERS: dict[RewardName, Callable[[str, str], float]] = {
    "exact": _exact,
    "choice": _choice,
    "number": _number,
    "set": _set,
    "order": _order,
    "json": _json,
    "box": _box,
    "time": _time,
}


def correctness(reward: RewardName, text: str, reference: str) -> float:
    """How right what a model wrote is, 0 to 1; a thought or an answer that was never closed is not."""
    return 0.0 if is_unfinished(text) else _SCORERS[reward](final_answer(text).strip(), reference)


def infer(reference: str) -> RewardName:
    """The reward of a reference that names none: what it looks like."""
    text = reference.strip()
    if read_box(text) is not None:
        return "box"
    if text.startswith("{") and answers.attributes(text) is not None:
        return "json"
    if re.fullmatch(r"\(?[A-J]\)?[.:)]?", text):
        return "choice"
    if re.fullmatch(_NUMBER.pattern, text):
        return "number"
    if _times(text) and len(plain(_TIME.sub("", text))) <= 3:  # "At 0:03."
        return "time"
    return "exact"


def readable(reward: RewardName, reference: str) -> bool:
    """Whether a reference is what its reward compares with: a letter, a number, a box, …"""
    reads: dict[RewardName, Callable[[str], object]] = {
        "exact": plain,
        "choice": answers.strict_letter,
        "number": _numbers,
        "set": _items,
        "order": lambda text: answers.video_order(text) or _items(text),
        "json": answers.attributes,
        "box": read_box,
        "time": _times,
    }
    return bool(reads[reward](reference)) or (reward == "exact" and bool(reference.strip()))


# -- how it is written ---------------------------------------------------------------------------------------------


def well_formed(text: str, mode: ModeName) -> bool:
    """Whether a text is written as its mode is (engine.reasoning.modes.written): every tag once and in order, nothing
    but white space outside of them, nothing empty, and an analysis that decides for what then follows. Without a
    switch a plain answer is well-formed, too: it is what a model writes that was not taught to weigh."""
    tags = _TAG.findall(text)
    said = "".join(event.text for event in events_of(text) if isinstance(event, Answer)).strip()
    thinks = ["<think>", "</think>", "<answer>", "</answer>"]
    if not said:
        return False
    if MODES[mode].thought:
        return tags == thinks and bool(thought_of(text)) and _closed(text)
    if not MODES[mode].analysis or not tags:
        return not tags
    decided = _DECIDES.search(text.partition("</analysis>")[0])
    weighed = ["<analysis>", "</analysis>"]
    if decided is None or not text.lstrip().startswith("<analysis>"):
        return False
    return tags == weighed if decided[1] == "/no_think" else tags == weighed + thinks and _closed(text)


def _closed(text: str) -> bool:
    """Nothing but white space between a thought and its answer, and after the answer."""
    return re.search(r"(?:^|</analysis>)\s*<think>(?s:.*)</think>\s*<answer>(?s:.*)</answer>\s*$", text) is not None


def thought_of(text: str) -> str:
    return "".join(event.text for event in events_of(text) if isinstance(event, Thought)).strip()


_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_DIGITS = {word: str(number) for number, word in enumerate(_WORDS.split())}
_CHINESE_DIGITS = str.maketrans("零一二两三四五六七八九", "01223456789")


def _compared(text: str) -> list[str]:
    """The words of a text as thoughts and answers are compared: a number is the same in digits and in letters, and a
    colon belongs to a time alone. Of Chinese every character is a word."""
    spaced = re.sub(r"([\u4e00-\u9fff])", r" \1 ", plain(re.sub(r":(?!\d)", " ", text)).translate(_CHINESE_DIGITS))
    return [_DIGITS.get(word, word) for word in spaced.split()]


def consistent(text: str) -> bool | None:
    """Whether the thought comes to the answer: the answer's words stand, in order, in the thought's last lines. None
    where there is no thought."""
    thought = _compared(thought_of(text)[-600:])
    if not thought:
        return None
    # A long answer tells more than the thought concludes: its last words are what it comes to.
    answer = _compared(final_answer(text))[-8:]
    return bool(answer) and f" {' '.join(answer)} " in f" {' '.join(thought)} "


def repeats(text: str, tokens: int) -> bool:
    """Whether a text that could have up to `tokens` tokens goes round in circles. The guard of served answers looks
    for 320 tokens of repetition; where an answer is shorter, for half of it."""
    limits = Limits(times=4, tokens=max(16, min(320, tokens // 2)), every=4)
    return Guard(limits).push(text)


# -- together ------------------------------------------------------------------------------------------------------

WEIGHTS = {"correct": 1.0, "consistent": 0.2, "format": 0.2, "length": 0.1, "repetition": 0.3}
"""What counts how much; ours."""


@dataclass(frozen=True)
class Score:
    """Each of `parts` lies between 0 and 1; `total` is their weighted sum."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(WEIGHTS[name] * value for name, value in self.parts.items())


def score(
    text: str, reward: RewardName, reference: str, mode: ModeName, tokens: int, most: int, finished: bool
) -> Score:
    """What an answer of `tokens` tokens, of which it could have `most`, is worth by rules. One that was cut off is not
    right; length costs nothing for the first half of what there is."""
    parts = {
        "correct": correctness(reward, text, reference) if finished else 0.0,
        "format": float(finished and well_formed(text, mode)),
        "length": min(1.0, 2 * (1 - tokens / most)) if finished else 0.0,
        "repetition": 0.0 if repeats(text, most) else 1.0,
    }
    agrees = consistent(text)
    if agrees is not None:
        parts["consistent"] = float(agrees)
    return Score(parts)
