"""The rows of the store as plain dataclasses, and how a value becomes a column."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

from engine.events import Finish

State = Finish | Literal["running"]
"""How an answer ended, or that it is still being written."""

TITLE_LENGTH = 60  # characters
Row = Mapping[str, Any]
BROKEN_JSON = "a row holds broken JSON"


@dataclass(frozen=True)
class Video:
    sha256: str  # of the file's bytes, lower-case hexadecimal
    name: str  # as the user called it
    path: str  # where it is kept
    probe: dict[str, Any]  # what a probe found (engine.video.describe_video)
    created: str  # UTC, ISO-8601 with milliseconds, here and below


@dataclass(frozen=True)
class Conversation:
    id: str
    title: str
    created: str
    updated: str  # when something was last asked or begun to be answered
    model: str | None
    language: str | None


@dataclass(frozen=True)
class Question:
    id: str
    conversation: str
    position: int  # 0 is the conversation's first; ascending
    text: str
    video: str | None  # sha256
    start: float | None  # seconds of the file; None is its first frame
    end: float | None  # seconds of the file; None is its last frame
    mode: str
    sampling: dict[str, Any]  # what was asked for, not what came of it: that is in the answer's frames
    created: str


@dataclass(frozen=True)
class Answer:
    id: str
    question: str
    text: str  # as shown
    raw_text: str | None  # as the model wrote it, with the marks of its reasoning
    finish: State
    error: str | None  # one sentence for the user
    mode: str
    model: str | None  # the checkpoint's name; None until the model is known, here and below
    checkpoint: str | None  # the checkpoint's folder
    adapter: str | None  # None: the checkpoint as it is
    runtime: str | None
    decoding: dict[str, Any] | None
    frames: dict[str, Any] | None  # times (seconds), kinds and visual tokens of the frames that were sent
    usage: dict[str, Any] | None  # prompt_tokens, visual_tokens, answer_tokens, thought_tokens, tool_calls
    timings: dict[str, Any] | None  # seconds: queue, prepare, first_token, thought, total
    reasoning: dict[str, Any] | None  # steps: what was thought and looked at on the way, with small pictures
    created: str


class AnswerFacts(TypedDict, total=False):
    """What becomes known of an answer while it is made. The fields are those of Answer."""

    text: str
    raw_text: str | None
    model: str | None
    checkpoint: str | None
    adapter: str | None
    runtime: str | None
    decoding: Mapping[str, Any] | None
    frames: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    timings: Mapping[str, Any] | None
    reasoning: Mapping[str, Any] | None


@dataclass(frozen=True)
class Turn:
    """A question with all its answers, oldest first."""

    question: Question
    answers: tuple[Answer, ...]
    video: Video | None


@dataclass(frozen=True)
class History:
    """A conversation with its turns, oldest first."""

    conversation: Conversation
    turns: tuple[Turn, ...]


# -- from rows --------------------------------------------------------------------------------------------------


def video_of(row: Row) -> Video:
    return Video(row["sha256"], row["name"], row["path"], loads(row["probe"]), row["created"])


def conversation_of(row: Row) -> Conversation:
    return Conversation(**row)


def question_of(row: Row) -> Question:
    return Question(
        id=row["id"],
        conversation=row["conversation_id"],
        position=row["position"],
        text=row["text"],
        video=row["video"],
        start=row["clip_start"],
        end=row["clip_end"],
        mode=row["mode"],
        sampling=loads(row["sampling"]),
        created=row["created"],
    )


def answer_of(row: Row) -> Answer:
    fields = {key: value for key, value in row.items() if key not in ("question_id", "writer_pid", "writer_started")}
    for key in ("decoding", "frames", "usage", "timings", "reasoning"):
        fields[key] = None if fields[key] is None else loads(fields[key])
    return Answer(question=row["question_id"], **fields)


def parsed(text: str) -> Any:
    # Only valid JSON is ever written, so anything else is damage to the file, and is told as such.
    try:
        return json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"{BROKEN_JSON}: {error}") from error


def loads(text: str) -> dict[str, Any]:
    found = parsed(text)
    return found if isinstance(found, dict) else {}


# -- to columns -------------------------------------------------------------------------------------------------


def column(value: Any) -> Any:
    """A value as SQLite keeps it: mappings as JSON, text as valid Unicode. ValueError for NaN and infinity."""
    if isinstance(value, Mapping):
        value = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
    return clean(value) if isinstance(value, str) else value


def clean(text: str) -> str:
    """Text that UTF-8 can hold: halves of a surrogate pair, as browsers and tokenizers now and then send them, are
    joined, and become U+FFFD where the other half is missing."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def title_of(question: str) -> str:
    """A question as a title: one line of at most TITLE_LENGTH characters, cut at a word where there is one."""
    line = " ".join(clean(question).split())
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[: TITLE_LENGTH - 1]
    # Where a word would take more than a third of the title with it (or the script has no spaces), cut inside it.
    whole = cut.rpartition(" ")[0] if line[TITLE_LENGTH - 1] != " " else cut
    return f"{whole if len(whole) > TITLE_LENGTH * 2 // 3 else cut.rstrip()}…"


def now() -> str:
    """This moment, UTC, as ISO-8601 with milliseconds: 2025-01-31T09:00:00.000Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_id_lock = threading.Lock()
_last_id = 0


def new_id() -> str:
    """32 hexadecimal digits: 16 of microseconds, never the same twice in a process, then 16 that are random.
    Ids sort by age."""
    global _last_id
    with _id_lock:
        _last_id = max(_last_id + 1, time.time_ns() // 1000)
        return f"{_last_id:016x}{secrets.token_hex(8)}"
