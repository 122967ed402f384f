"""Every task that can be scored, by the name it has in a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.bench import scorers, tempcompass_rules
from finetune.bench.scorers import Scorer


@dataclass(frozen=True)
class Task:
    """`judged` says what a judge is asked, if one is given: `yes_no` (only where the answer is unclear), `list` (to
    rewrite it) or `verdict` (whether it is right)."""

    name: str
    scorer: Scorer
    judged: str | None = None
    group: str = ""  # the benchmark it belongs to


_ALL = (
    Task("CPV", scorers.score_attributes, "verdict", "KC-MMBench"),
    Task("Hot_Videos_Aggregation", scorers.score_list, "list", "KC-MMBench"),
    Task("Collection_Order", scorers.score_order, "verdict", "KC-MMBench"),
    Task("Pornographic_Comment", scorers.score_yes_no, "yes_no", "KC-MMBench"),
    Task("High_Like", scorers.score_yes_no, "yes_no", "KC-MMBench"),
    Task("SPU", scorers.score_yes_no, "yes_no", "KC-MMBench"),
    Task("Video-MME", scorers.letter_scorer("ABCD"), None, "Video-MME"),
    Task("Video-MMMU", scorers.letter_scorer("ABCDEFGHIJ"), None, "Video-MMMU"),
    Task("Video-MMMU open", scorers.score_open, "verdict", "Video-MMMU"),
    Task("TempCompass multi-choice", tempcompass_rules.score_choice, None, "TempCompass"),
    Task("TempCompass yes_no", tempcompass_rules.score_yes_no, None, "TempCompass"),
    Task("TempCompass caption_matching", tempcompass_rules.score_caption, None, "TempCompass"),
    Task("LongVideoBench", scorers.letter_scorer("ABCDE"), None, "LongVideoBench"),
    Task("MMVU", scorers.letter_scorer("ABCDE"), None, "MMVU"),
    Task("MMVU open", scorers.score_open, "verdict", "MMVU"),
    Task("World", scorers.score_words, None, "World"),
)
_ALIASES = {
    "Video_Topic": "Hot_Videos_Aggregation",
    "Video_Order": "Collection_Order",
    "PornComment": "Pornographic_Comment",
}
_BY_NAME = {task.name.casefold(): task for task in _ALL}
_BY_NAME |= {alias.casefold(): _BY_NAME[name.casefold()] for alias, name in _ALIASES.items()}


def task_named(name: str) -> Task | None:
    """The task of this name, whatever its capitals (the harness writes High_like, its README High_Like), or of the
    name that its table has; None where there is none."""
    return _BY_NAME.get(name.strip().casefold())


def task_names() -> list[str]:
    return [task.name for task in _ALL]
