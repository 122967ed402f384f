"""One row of a file of conversations: what it may look like, and what it says.

Two layouts are read. ShareGPT: `conversations`, each with `from` (human, gpt, system) and `value`. Messages:
`messages`, each with `role` (user, assistant, system) and `content`, which is a text or OpenAI's list of parts. In a
user's texts `<image>` and `<video>` mark the places of what `images` and `videos` (or `image`, `video`) list, in order;
line ends next to a mark belong to the mark. Beside them a row may have an `id`, a `system` prompt, a `mode`, and
`"learn": "last"` where only the last answer is to be learnt.

A video is a path, or an object: `path` (or `video`), `start` and `end` in seconds (or `video_start`, `video_end`),
`zero` (the second from which times count, where that is not `start`), `fps`, `max_frames` and `budget`. A relative
path starts at the file's folder and stays inside it, so that a folder of data can be moved as one; whoever wants a file
elsewhere names it absolutely.

A row of preferences and a question with a known answer end with the user's turn. The one has `chosen` and `rejected`,
two answers as a model writes them, tags included; the other has `reference`, the answer, and may name its `reward`
(finetune.answers.rewards)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.errors import EngineError
from engine.reasoning.modes import MODE_NAMES, MODES, ModeName
from engine.runtime.base import Role
from engine.video.address import local_path, read_clip_url
from engine.video.types import Clip, Sampling
from finetune.answers.rewards import REWARDS, RewardName, infer, readable
from finetune.data.problems import BadRow

Use = Literal["example", "pair", "question"]
"""What a row is learnt from: as it was answered, by comparing two answers, or by checking answers that are drawn."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_UNSAID = Sampling("unsaid", fps=0.0123, max_frames=987_654_321, budget=987_654_321)
"""Values that nobody asks for: what still has them after an address was read was not said."""

_MARK = re.compile(r"\n*<(image|video)>\n*")


@dataclass(frozen=True)
class Footage:
    """A clip as a row names it; what it leaves open is as the model wants it."""

    clip: Clip
    fps: float | None = None
    max_frames: int | None = None
    budget: int | None = None

    def sampling(self, of_model: Sampling) -> Sampling:
        return of_model.with_limits(self.fps, self.max_frames, self.budget)


Medium = Path | Footage
"""A picture by its path, or footage."""


@dataclass(frozen=True)
class Turn:
    role: Role
    parts: tuple[str | Medium, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class Row:
    """A conversation that begins with the user, or a system prompt, and ends with the assistant; that of a pair and of
    a question with the user."""

    where: str  # the file's name and the line, from 1
    id: str
    turns: tuple[Turn, ...]
    mode: ModeName = "auto"
    last_only: bool = False  # the earlier answers are only read
    use: Use = "example"
    chosen: str = ""  # of a pair
    rejected: str = ""
    reference: str = ""  # of a question
    reward: RewardName = "exact"

    @property
    def switched(self) -> bool:
        """Whether the last question carries a mode's switch. Then only the answer to it is learnt: no other question
        of a conversation ever carries one, so the earlier answers stand there as they are remembered."""
        return bool(MODES[self.mode].switch)

    @property
    def media(self) -> list[Medium]:
        return [part for turn in self.turns for part in turn.parts if not isinstance(part, str)]

    @property
    def answers(self) -> int:
        return sum(turn.role == "assistant" for turn in self.turns)

    def seen_at(self, share: float, of_model: Sampling) -> Row:
        """The same conversation with only this share of the frames a second of each of its clips."""

        def thinner(part: str | Medium) -> str | Medium:
            if not isinstance(part, Footage):
                return part
            return replace(part, fps=part.sampling(of_model).fps * share)

        turns = tuple(replace(turn, parts=tuple(map(thinner, turn.parts))) for turn in self.turns)
        return replace(self, turns=turns)

    def up_to(self, answers: int) -> Row:
        """The conversation to the end of its answer number `answers`, from 1."""
        ends = [i for i, turn in enumerate(self.turns) if turn.role == "assistant"]
        return replace(self, turns=self.turns[: ends[answers - 1] + 1])


def parse_row(data: Any, folder: Path, where: str, use: Use = "example") -> Row:
    """The conversation of one parsed line of a file in `folder`, for what it is to be used. Opens no file. Raises
    BadRow."""
    if not isinstance(data, dict):
        raise BadRow("is not a JSON object of at most 64 MB")
    said = _said(data)
    lists = {"image": _listed(data, "image", "images"), "video": _listed(data, "video", "videos")}
    queues: dict[str, list[Medium]] = {
        "image": [_picture(item, folder) for item in lists["image"]],
        "video": [_footage(item, folder) for item in lists["video"]],
    }
    given = {kind: len(queue) for kind, queue in queues.items()}
    marks = {"image": 0, "video": 0}
    turns: list[Turn] = []
    for role, content in said:
        parts: list[str | Medium] = []
        for part in _parts(content, folder):
            if isinstance(part, str) and role == "user":
                for piece, kind in _marked(part):
                    if kind is None:
                        parts.append(piece)
                        continue
                    marks[kind] += 1
                    if marks[kind] <= given[kind]:
                        parts.append(queues[kind][marks[kind] - 1])
            elif isinstance(part, str) or role == "user":
                parts.append(part)
            else:
                raise BadRow("has its roles out of order", f"media in a turn of the {role}")
        turns.append(_turn(role, parts))
    for kind, count in marks.items():
        if count != given[kind]:
            raise BadRow(
                "has another number of marks than of pictures or videos",
                f"{count} of <{kind}>, {given[kind]} {kind}s",
            )
    _check_order(turns, "assistant" if use == "example" else "user")
    mode = data.get("mode", "auto")
    if mode not in MODE_NAMES:
        raise BadRow("has a mode that is unknown", f"{mode!r:.40}; known: {', '.join(MODE_NAMES)}")
    learn = data.get("learn", "all")
    if learn not in ("all", "last"):
        raise BadRow("does not say which answers are learnt", f"learn is {learn!r:.40}; known: all, last")
    row = Row(where, str(data.get("id", where))[:200], tuple(turns), mode, learn == "last", use)
    return {"example": lambda row, data: row, "pair": _pair, "question": _question}[use](row, data)


def _pair(row: Row, data: dict[str, Any]) -> Row:
    chosen, rejected = data.get("chosen"), data.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise BadRow("has no chosen and rejected answer")
    chosen, rejected = chosen.strip(), rejected.strip()
    if not chosen or not rejected:
        raise BadRow("has an empty question or answer", f"the {'rejected' if chosen else 'chosen'} answer")
    if chosen == rejected:
        raise BadRow("has two answers that are the same", chosen[:40])
    return replace(row, chosen=chosen, rejected=rejected)


def _question(row: Row, data: dict[str, Any]) -> Row:
    reference, reward = data.get("reference"), data.get("reward")
    if not isinstance(reference, str) or not reference.strip():
        raise BadRow("has no reference answer")
    if reward is not None and reward not in REWARDS:
        raise BadRow("has a reward that is unknown", f"{reward!r:.40}; known: {', '.join(REWARDS)}")
    reference = reference.strip()
    reward = reward or infer(reference)
    if not readable(reward, reference):
        raise BadRow("has a reference that its reward cannot read", f"{reward}: {reference[:40]}")
    return replace(row, reference=reference, reward=reward)


# -- what was said -----------------------------------------------------------------------------------------------------


def _said(data: dict[str, Any]) -> list[tuple[Role, Any]]:
    """Roles and contents, whichever layout the row has."""
    for key, who, what in (("messages", "role", "content"), ("conversations", "from", "value")):
        items = data.get(key)
        if items is None:
            continue
        if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
            raise BadRow("has no list of messages or conversations", f"{key} is no list of objects")
        out: list[tuple[Role, Any]] = []
        for item in items:
            name = item.get(who, item.get("role" if who == "from" else "from"))
            if not isinstance(name, str) or name not in _ROLES:
                raise BadRow("has a role that is unknown", f"{name!r:.40}; known: {', '.join(_ROLES)}")
            out.append((_ROLES[name], item.get(what, item.get("value" if what == "content" else "content"))))
        system = data.get("system")
        if isinstance(system, str) and system.strip() and out[0][0] != "system":
            out.insert(0, ("system", system))
        return out
    raise BadRow("has no list of messages or conversations")


def _parts(content: Any, folder: Path) -> Iterator[str | Medium]:
    """A content's texts and media. In parts of text, marks are marks too: some write both."""
    if isinstance(content, str):
        yield content
        return
    if not isinstance(content, list):
        raise BadRow("has an empty question or answer", "a content that is neither text nor parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            yield part
        elif kind == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        elif kind in ("image", "image_url"):
            yield _picture(_address(part, kind, "image"), folder)
        elif kind in ("video", "video_url"):
            inside = part.get(kind)
            # Qwen's layout puts the range beside the path, OpenAI's puts everything into the address.
            yield _footage({**part, "path": inside} if kind == "video" and isinstance(inside, str) else inside, folder)
        else:
            raise BadRow("names a picture or video in a way that is unknown", f"a part of type {kind!r:.40}")


def _address(part: dict[str, Any], kind: str, short: str) -> Any:
    inside = part.get(kind, part.get("path", part.get(short)))
    return inside.get("url", inside.get("path")) if isinstance(inside, dict) else inside


def _marked(text: str) -> Iterator[tuple[str, str | None]]:
    """The pieces of a text and the marks between them: ("", kind) for a mark."""
    at = 0
    for match in _MARK.finditer(text):
        if match.start() > at:
            yield text[at : match.start()], None
        yield "", match[1]
        at = match.end()
    if at < len(text):
        yield text[at:], None


def _turn(role: Role, parts: list[str | Medium]) -> Turn:
    text = "".join(part for part in parts if isinstance(part, str))
    if role == "assistant":
        # An answer begins with its first character: before it, a line end would melt into the template's own.
        parts = [text.strip()]
    if not text.strip() and (role != "user" or len(parts) == sum(isinstance(part, str) for part in parts)):
        raise BadRow("has an empty question or answer", f"a turn of the {role}")
    return Turn(role, tuple(part for part in parts if part != ""))


def _check_order(turns: Sequence[Turn], last: Role) -> None:
    roles = [turn.role for turn in turns]
    talk = roles[1:] if roles[0] == "system" else roles
    if not talk or talk[0] != "user":
        raise BadRow("has its roles out of order", "does not begin with the user")
    for one, other in itertools.pairwise(talk):
        if other == "system":
            raise BadRow("has its roles out of order", "a system prompt in the middle")
        if one == other:
            raise BadRow("has its roles out of order", f"two turns of the {one} in a row")
    if talk[-1] != last:
        raise BadRow("has its roles out of order", f"ends with the {talk[-1]}")


# -- pictures and videos -----------------------------------------------------------------------------------------------


def _listed(data: dict[str, Any], one: str, several: str) -> list[Any]:
    value = data.get(several, data.get(one))
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _path(text: Any, folder: Path) -> Path:
    if not isinstance(text, str) or not text or "\0" in text:
        raise BadRow("names a picture or video in a way that is unknown", f"{text!r:.60}")
    if text.startswith("file://"):
        text = local_path(text) or ""
    if re.match(r"[a-z][a-z0-9+.-]*:", text):  # Windows knows drives; this is for addresses
        raise BadRow("names a picture or video in a way that is unknown", f"{text:.60}: download it and give its path")
    if os.path.isabs(text):
        return Path(text)
    inside = os.path.normpath(text)
    if inside.split(os.sep)[0] == os.pardir:
        raise BadRow("names a path outside of the file's folder", f"{text:.60}: name it absolutely")
    return folder / inside


def _picture(item: Any, folder: Path) -> Path:
    if isinstance(item, dict):
        item = item.get("path", item.get("url", item.get("image")))
    return _path(item, folder)


def _footage(item: Any, folder: Path) -> Footage:
    fields: dict[str, Any] = {"path": item} if isinstance(item, str) else item
    if not isinstance(fields, dict):
        raise BadRow("names a picture or video in a way that is unknown", f"{item!r:.60}")
    if "url" in fields:
        return _from_url(fields["url"], folder)
    start, end = (_number(fields, name, f"video_{name}") for name in ("start", "end"))
    clip = Clip(_path(fields.get("path", fields.get("video")), folder), start, end, _number(fields, "zero"))
    return _sensible(Footage(clip, _number(fields, "fps"), _whole(fields, "max_frames"), _whole(fields, "budget")))


def _from_url(url: Any, folder: Path) -> Footage:
    """An address with what is wanted of the clip behind `#`, as the server takes it."""
    if not isinstance(url, str):
        raise BadRow("names a picture or video in a way that is unknown", f"{url!r:.60}")
    try:
        where, clip, sampling = read_clip_url(url, _UNSAID)
    except EngineError as error:
        raise BadRow("names a picture or video in a way that is unknown", str(error)) from None
    said = {f.name: getattr(sampling, f.name) for f in dataclasses.fields(sampling)}
    said = {name: value for name, value in said.items() if value != getattr(_UNSAID, name)}
    said.pop("min_frames", None)  # goes down with max_frames
    if odd := sorted(set(said) - {"fps", "max_frames", "budget"}):
        raise BadRow("names a picture or video in a way that is unknown", f"{odd[0]} in the address")
    return _sensible(Footage(replace(clip, path=_path(where, folder)), **said))


def _number(fields: dict[str, Any], *names: str) -> float | None:
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadRow("names a picture or video in a way that is unknown", f"{name} is {value!r:.40}, no number")
        return float(value)
    return None


def _whole(fields: dict[str, Any], name: str) -> int | None:
    value = _number(fields, name)
    if value is not None and value != int(value):
        raise BadRow("names a picture or video in a way that is unknown", f"{name} is {value:g}, not whole")
    return None if value is None else int(value)


def _sensible(footage: Footage) -> Footage:
    try:
        footage.sampling(_UNSAID)
    except EngineError as error:
        raise BadRow("names a picture or video in a way that is unknown", str(error)) from None
    return footage
