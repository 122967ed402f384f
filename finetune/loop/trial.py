"""What two models are asked when they are compared, and how they are asked.

The questions are the store's lessons whose videos are held out (finetune.feedback.lessons), and held-out questions of
the generated world. Each is a row like those that are learnt from. An automatic score needs an answer that is known
to be right and short enough to be compared word by word: the world's, and those of lessons for reinforcement."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from engine.events import Answer, Done, Error, Retraction
from engine.pictures import read_picture
from engine.reasoning.loop import reason
from engine.reasoning.modes import MODES
from engine.reasoning.parser import events_of
from engine.runtime.base import Message, ModelInfo, Part, Runtime
from engine.video import Clip, sample
from engine.video.cache import FrameCache
from finetune.data.problems import BadRow
from finetune.data.rows import Footage, Row, Turn, parse_row
from finetune.feedback.trials import AskedPair
from finetune.measuring.evaluate import encode_held_out, held_out_scene

_WORLD_CLIPS = 1000  # held-out clips that questions are drawn from
_FIRST_WORLD = 5000  # numbers beyond those of `finetune evaluate`, whose figures a run may have been chosen by
_USES = ("question", "example", "pair")  # of several lessons about one question, the first of these is asked


class HeldOut(Protocol):
    """What is read of a lesson (finetune.feedback.lessons.Lesson)."""

    @property
    def use(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def held_out(self) -> bool: ...
    @property
    def row(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Item:
    """One question to both. `row` ends with an answer, which is not shown to them."""

    row: Row
    kind: str
    checked: bool  # that answer is right, and others can be compared with it
    question: str | None = None  # id of the stored question
    world: int | None = None  # number of the world's clip, which is made when it is asked

    def asked(self) -> AskedPair:
        footage = next((medium for medium in self.row.media if isinstance(medium, Footage)), None)
        clip = footage.clip if footage is not None else None
        return AskedPair(
            text=self.row.turns[-2].text.strip(),
            kind=self.kind,
            mode=self.row.mode,
            reference=self.row.turns[-1].text if self.checked else None,
            question=self.question,
            video=str(clip.path) if clip is not None else None,
            start=clip.start if clip is not None else None,
            end=clip.end if clip is not None else None,
        )


def of_lessons(lessons: Iterable[HeldOut]) -> list[Item]:
    """The held-out questions among them, each once; what cannot be asked any more is left out."""
    chosen: dict[str, HeldOut] = {}
    for lesson in lessons:
        known = chosen.get(lesson.question)
        if lesson.held_out and (known is None or _USES.index(lesson.use) <= _USES.index(known.use)):
            chosen[lesson.question] = lesson
    items, seen = [], set()
    for lesson in chosen.values():
        try:
            row = parse_row(_with_answer(lesson), Path.cwd(), "a lesson")
        except BadRow:
            continue
        media = (medium.clip.path if isinstance(medium, Footage) else medium for medium in row.media)
        same = (*row.media, *(turn.text for turn in row.turns[:-1]), row.mode)
        if row.turns[-2].role == "user" and same not in seen and all(path.is_file() for path in media):
            seen.add(same)
            items.append(Item(row, "yours", lesson.use == "question", lesson.question))
    return items


def _with_answer(lesson: HeldOut) -> dict[str, Any]:
    """A lesson's row as a conversation that ends with an answer, as it is shown."""
    row = dict(lesson.row)
    said = {"question": row.get("reference"), "pair": row.get("chosen")}.get(lesson.use)
    messages = list(row.get("messages", ()))
    if said is not None:
        messages.append({"role": "assistant", "content": shown(str(said))})
    elif messages and isinstance(messages[-1], dict) and isinstance(messages[-1].get("content"), str):
        messages[-1] = {**messages[-1], "content": shown(messages[-1]["content"])}
    wanted = {"messages", "videos", "images", "video", "image", "mode", "system", "id"}
    return {**{key: value for key, value in row.items() if key in wanted}, "messages": messages}


def shown(text: str) -> str:
    """What a model wrote without its reasoning."""
    out = ""
    for event in events_of(text):
        if isinstance(event, Answer):
            out += event.text
        elif isinstance(event, Retraction):
            out = ""
    return out.strip()


def of_world(count: int, seed: int, folder: Path) -> list[Item]:
    """Held-out questions of the generated world, one to a clip, of kinds that are drawn; their files will be in
    `folder`."""
    rng = random.Random(f"trial-{seed}")
    items = []
    for number in rng.sample(range(_FIRST_WORLD, _FIRST_WORLD + _WORLD_CLIPS), min(count, _WORLD_CLIPS)):
        question = rng.choice(held_out_scene(number, seed=0).questions)
        footage = Footage(Clip((folder / f"world-{number}.mp4").absolute()))
        turns = (Turn("user", (footage, question.text)), Turn("assistant", (question.answer,)))
        items.append(Item(Row("the world", str(number), turns), question.kind, True, world=number))
    return items


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """`count` of them, or all, in an order of the seed's."""
    return random.Random(f"draw-{seed}").sample(list(items), min(count, len(items)))


def make(item: Item) -> None:
    """Write the clip of a question about the world, unless it is there. Several threads may ask for the same one."""
    if item.world is None:
        return
    footage = item.row.media[0]
    assert isinstance(footage, Footage)
    path = footage.clip.path
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{threading.get_ident()}.part.mp4")
        encode_held_out(held_out_scene(item.world, seed=0), partial)
        os.replace(partial, path)


def answer(
    runtime: Runtime, info: ModelInfo, item: Item, cache: FrameCache, stop: threading.Event
) -> dict[str, Any] | None:
    """What a runtime says to a question, greedily, in the question's mode; None where `stop` came first.

    Raises EngineError for media that cannot be read."""
    messages = []
    for turn in item.row.turns[:-1]:
        parts: list[Part] = []
        for part in turn.parts:
            if isinstance(part, Footage):
                parts.append(sample(part.clip, part.sampling(info.sampling), cache=cache, cancelled=stop.is_set))
            else:
                parts.append(part if isinstance(part, str) else read_picture(part, part.name, "dropped"))
        messages.append(Message(turn.role, tuple(parts)))
    failure, done = "", None
    for event in reason(runtime, messages, replace(info.decoding, greedy=True), stop, MODES[item.row.mode]):
        if isinstance(event, Error):
            failure = event.message
        elif isinstance(event, Done):
            done = event
    if done is None or done.finish == "stopped":
        return None
    return {
        "text": done.text,
        "raw": done.raw_text,
        "finish": done.finish,
        "model": done.model,
        "adapter": done.adapter,
        "seconds": round(done.total_seconds, 3),
        "tokens": done.answer_tokens,
        **({"error": failure} if failure else {}),
    }
