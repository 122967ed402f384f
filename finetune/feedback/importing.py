"""Files that were exported here or written elsewhere, taken into a store.

    report = import_file(store, Path("rows.jsonl"), Path("data/videos"))

Read are the store's own format, ShareGPT, `messages`, TRL's prompt and completion, and pairs: TRL's prompt, chosen and
rejected, or `messages` that end with the user beside `chosen` and `rejected` texts. Everything in such a file was
written by others: a row that makes no sense is left out, counted and named, and nothing is taken twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.events import Answer, Retraction
from engine.reasoning.parser import Parser
from finetune.data.jsonl import MAX_LINE, lines_of
from finetune.data.problems import BadRow
from finetune.data.quality import CONTROL_TOKEN
from finetune.data.report import Report
from finetune.data.rows import Footage, parse_row
from finetune.errors import FinetuneError
from finetune.feedback.arrivals import Arrivals, LeftOut
from finetune.feedback.rows import clean, now, title_of
from finetune.feedback.store import Store
from finetune.feedback.tables import VERSION, TableReader

BATCH = 200
"""Rows that are saved together: what is asked meanwhile waits no longer than for these."""

ONLY_READ = "only read"
"""Why nothing is learnt from the earlier answers of a row that says so."""

THERE = "was there already"
LONGEST = 200_000  # characters of one question or answer
_ID = re.compile(r"[0-9a-f]{32}")


def import_file(
    store: Store,
    path: Path,
    library: Path,
    *,
    beside: Mapping[str, Path] | None = None,
    told: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Take the rows of `path` into the store and their videos into the folder `library`. `beside` are further files by
    name, that count as if they lay beside it. `told` gets the bytes read and to be read.

    Stopped or broken off, what was taken stays, and the same file again goes on from there. FinetuneError where the
    file cannot be read, or was written by a newer version."""
    report = Report(f"import {path.name}", "rows")
    arrivals = Arrivals(store, path.absolute().parent, library, beside or {})
    tables = TableReader(store, report, arrivals.kept_at)
    size = path.stat().st_size if path.is_file() else 0
    lines, own = lines_of(path), False
    while not stopped() and (some := list(islice(lines, BATCH))):
        read: list[tuple[str, dict[str, Any] | _Talk]] = []
        for line, offset, text in some:
            where = f"line {line}"
            if told is not None:
                told(offset, size)
            report.came += 1
            try:
                data = _parsed(text, first=line == 1)
                if line == 1 and "keye_studio" in data:
                    own, report.came = _is_ours(data, path), 0
                elif own:
                    arrivals.of_row(data)
                    read.append((where, data))
                else:
                    read.append((where, _talk(data, arrivals, where)))
            except (BadRow, LeftOut) as problem:
                report.drop(where, problem.reason, problem.detail)
        with store.transaction() as db:
            for where, row in read:
                if isinstance(row, dict):
                    tables.take(db, where, row)
                else:
                    _keep(db, where, row, report)
    return report


def _parsed(text: bytes, first: bool) -> dict[str, Any]:
    if len(text) > MAX_LINE:
        raise LeftOut("is too long", f"more than {MAX_LINE // 2**20} MB")
    try:
        data = json.loads(text.decode("utf-8-sig" if first else "utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise LeftOut("is no JSON object", f"{error}"[:80]) from None
    if not isinstance(data, dict):
        raise LeftOut("is no JSON object", f"{text[:40]!r}")
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_ours(data: Mapping[str, Any], path: Path) -> bool:
    version = data["keye_studio"]
    if version != VERSION:
        raise FinetuneError(f"{path.name} was written by a newer Keye Studio (format {version!r:.20}); update first.")
    return True


# -- conversations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Turn:
    text: str
    answer: str  # as a model writes it
    video: str | None  # sha256
    start: float | None
    end: float | None
    sampling: dict[str, Any]


@dataclass(frozen=True)
class _Talk:
    """A conversation to be kept. `id` names its last answer, or the preference between it and `rejected`."""

    id: str
    turns: tuple[_Turn, ...]
    mode: str
    last_only: bool
    rejected: str | None


def _talk(data: dict[str, Any], arrivals: Arrivals, where: str) -> _Talk:
    """A row of any of the layouts. Takes its videos in. Raises BadRow or LeftOut."""
    given = data.get("id")
    made = json.dumps(data, sort_keys=True, ensure_ascii=False)
    name = given if isinstance(given, str) and _ID.fullmatch(given) else _derived(made)
    data = _as_messages(data)
    rejected = data.pop("rejected", None)
    data["videos"] = [arrivals.found(item) for item in _listed(data.pop("videos", data.pop("video", None)))]
    row = parse_row(data, arrivals.folder, where)
    turns: list[_Turn] = []
    seen: tuple[Any, ...] = (None, None, None, {})
    asked = ""
    for turn in row.turns:
        text = clean(turn.text).strip()
        _check_text(text)
        if turn.role == "system":
            raise LeftOut("has a system prompt, which is not kept", text[:40])
        if turn.role == "assistant":
            turns.append(_Turn(asked, text, *seen))
            continue
        asked = text
        media = [part for part in turn.parts if not isinstance(part, str)]
        if len(media) > 1 or any(not isinstance(medium, Footage) for medium in media):
            raise LeftOut("asks about pictures or several videos at once, which are not kept")
        for medium in media:
            assert isinstance(medium, Footage)
            sampling = {"fps": medium.fps, "max_frames": medium.max_frames, "budget": medium.budget}
            seen = (arrivals.take(medium.clip.path), medium.clip.start, medium.clip.end, sampling)
    if rejected is not None:
        rejected = clean(rejected).strip()
        _check_text(rejected)
        if not rejected or rejected == turns[-1].answer:
            raise LeftOut("has no two different answers to choose between")
    last_only = data.get("learn") == "last" or rejected is not None
    return _Talk(name, tuple(turns), row.mode, last_only, rejected)


def _as_messages(data: Mapping[str, Any]) -> dict[str, Any]:
    """The row with all that was said in `messages` or `conversations`, the chosen answer last, and the rejected one as
    a text in `rejected`."""
    data = dict(data)
    prompt = data.pop("prompt", None)
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if "chosen" in data or "rejected" in data:
        chosen, rejected = data.pop("chosen", None), data.pop("rejected", None)
        if prompt is None and isinstance(chosen, list) and isinstance(rejected, list) and "messages" not in data:
            prompt = chosen[:-1]
            if prompt != rejected[:-1]:
                raise LeftOut("has no two different answers to choose between", "they answer different questions")
        prompt = data.get("messages") if prompt is None else prompt
        data["rejected"] = _last_text(rejected)
        completion: Any = [{"role": "assistant", "content": _last_text(chosen)}]
    else:
        completion = data.pop("completion", None)
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": completion}]
        if prompt is None or completion is None:
            return data
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise BadRow("has no list of messages or conversations", "a prompt that is neither text nor messages")
    data["messages"] = [*prompt, *completion]
    return data


def _last_text(said: Any) -> str:
    """The answer in TRL's list of messages, or in a text."""
    if isinstance(said, list) and said and isinstance(said[-1], dict) and said[-1].get("role") == "assistant":
        said = said[-1].get("content")
    if isinstance(said, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in said):
        said = "".join(str(part.get("text", "")) for part in said)
    if not isinstance(said, str):
        raise BadRow("has an empty question or answer", "a chosen or rejected answer that is no text")
    return said


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _check_text(text: str) -> None:
    if len(text) > LONGEST:
        raise LeftOut("is too long", f"a text of {len(text):,} characters")
    if (found := CONTROL_TOKEN.search(text)) is not None:
        raise LeftOut("holds a control token", found[0])
    if "\0" in text:
        raise LeftOut("holds a control token", "NUL")


def shown(raw: str) -> str:
    """Of what a model wrote, the answer that is shown: without its thought and its marks."""
    parser, text = Parser(), ""
    for event in [*parser.push(raw), *parser.finish()]:
        if isinstance(event, Answer):
            text += event.text
        elif isinstance(event, Retraction):
            text = ""
    return text.strip() or raw.strip()


# -- keeping --------------------------------------------------------------------------------------------------------


def _keep(db: Database, where: str, talk: _Talk, report: Report) -> None:
    """Write a conversation, inside the transaction of `db`. Its ids come from its row: the same row is known again."""
    talk_id = _derived(talk.id, "conversation")
    table = "answers" if talk.rejected is None else "preferences"
    known = (("conversations", talk_id), (table, talk.id))
    if any(db.execute(f"SELECT 1 FROM {name} WHERE id = ?", [one]).fetchone() for name, one in known):
        return report.drop(where, THERE)
    made = now()
    title = title_of(talk.turns[0].text)
    db.table("conversations").insert({"id": talk_id, "title": title, "created": made, "updated": made})
    for place, turn in enumerate(talk.turns):
        last = place == len(talk.turns) - 1
        question = _derived(talk.id, f"question {place}")
        db.table("questions").insert(
            {
                "id": question,
                "conversation_id": talk_id,
                "position": place,
                "text": turn.text,
                "video": turn.video,
                "clip_start": turn.start,
                "clip_end": turn.end,
                "mode": talk.mode,
                "sampling": json.dumps(turn.sampling),
                "created": made,
            }
        )
        if last and talk.rejected is not None:
            chosen, rejected = (_derived(talk.id, side) for side in ("chosen", "rejected"))
            _answer(db, rejected, question, talk.rejected, talk.mode, made)
            _answer(db, chosen, question, turn.answer, talk.mode, made)
            _prefer(db, talk.id, question, chosen, rejected, made)
        else:
            answer = talk.id if last else _derived(talk.id, f"answer {place}")
            _answer(db, answer, question, turn.answer, talk.mode, made)
            if talk.last_only and not last:
                db.table("exclusions").insert({"answer_id": answer, "why": ONLY_READ, "created": made})
    report.made += 1


def _answer(db: Database, answer: str, question: str, raw: str, mode: str, made: str) -> None:
    text = shown(raw)
    db.table("answers").insert(
        {
            "id": answer,
            "question_id": question,
            "text": text,
            "raw_text": None if raw == text else raw,
            "finish": "stop",
            "mode": mode,
            "created": made,
            "writer_pid": 0,
            "writer_started": "",
        }
    )


def _prefer(db: Database, name: str, question: str, chosen: str, rejected: str, made: str) -> None:
    pair = {"chosen_id": chosen, "rejected_id": rejected, "verdict": "better", "source": "compare", "reasons": "[]"}
    db.table("preferences").insert({"id": name, "question_id": question, **pair, "created": made})


def _derived(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
