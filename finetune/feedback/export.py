"""What was collected, as files to take along: conversations as JSON, training rows and the whole store as JSONL.

    report = export(store, Path("rows.jsonl"), "trl-sft", Filters(side="train"))

Formats: `sharegpt`, `trl-sft` and `trl-preference` are rows that finetune.data reads and that TRL's documentation
calls conversational; `store` is the store's own, which loses nothing (finetune.feedback.tables)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sqlite_utils import Database

from finetune.data.quality import CONTROL_TOKEN, MARKS
from finetune.data.report import Report
from finetune.errors import FinetuneError
from finetune.feedback import tables
from finetune.feedback.browse import Entry, every
from finetune.feedback.filters import ALL, Filters
from finetune.feedback.rows import Answer, loads
from finetune.feedback.store import Store
from finetune.feedback.videos import link_or_copy

Format = Literal["sharegpt", "trl-sft", "trl-preference", "store"]
FORMATS: tuple[Format, ...] = get_args(Format)
VIDEOS = "videos"
"""The folder beside the file to which videos are copied if asked."""

Told = Callable[[int], None]
Row = dict[str, Any]


def export_conversation(store: Store, conversation: str) -> dict[str, Any]:
    """A conversation with its turns, what was thought of them and the facts of their videos, ready for JSON.

    Names and facts of the videos are included; their pictures and where they are kept on this machine are not.
    FinetuneError if the conversation was deleted."""
    history = store.conversation(conversation)
    videos = {turn.video.sha256: asdict(turn.video) for turn in history.turns if turn.video is not None}
    for video in videos.values():
        del video["path"]
        video["probe"].pop("path", None)
    return {
        **asdict(history.conversation),
        "videos": list(videos.values()),
        "turns": [
            {"question": asdict(turn.question), "answers": [_answer(answer) for answer in turn.answers]}
            for turn in history.turns
        ],
        "votes": [asdict(vote) for vote in store.votes.of_conversation(conversation).values()],
        "drafts": {
            question: [answer.id for answer in drafts.answers]
            for question, drafts in store.drafts.of_conversation(conversation).items()
        },
        "preferences": [asdict(preference) for preference in store.preferences.of_conversation(conversation)],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    """Without the pictures that were looked at on the way: they are of the video."""
    row = asdict(answer)
    for step in (row["reasoning"] or {}).get("steps", ()):
        step.pop("image", None)
        step.pop("frame", None)
    return row


# -- files ----------------------------------------------------------------------------------------------------------


def export(
    store: Store, path: Path, format: Format, filters: Filters = ALL, *, videos: bool = False, told: Told | None = None
) -> Report:
    """Write what fits the filters to `path`, oldest first; the format `store` always takes everything. With `videos`
    the videos are copied to the folder `videos` beside it and named relative to it; otherwise rows name them where
    they are on this machine, and by their content. `told` gets the number of rows so far.

    Excluded answers, and those that something else was preferred to without a correction, are left out of training
    rows. Nothing is at `path` before all is written. FinetuneError where it cannot be written."""
    if format not in FORMATS:
        raise FinetuneError(f"There is no format {format}; use one of {', '.join(FORMATS)}.")
    report = Report(f"export {format}", "rows")
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copies = _Copies(path.parent / VIDEOS, report) if videos else None
        with scratch.open("w", encoding="utf-8", newline="\n") as file:
            for row in _rows(store, format, filters, copies, report):
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                report.made += 1
                if told is not None and report.made % 100 == 0:
                    told(report.made)
        scratch.replace(path)
    except OSError as error:
        raise FinetuneError(
            f"{path} cannot be written ({error.strerror or error}); free some space or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
    return report


@dataclass
class _Copies:
    folder: Path
    report: Report

    def take(self, sha: str, path: str) -> str | None:
        """The copy's name relative to the file that is written; None where the video is gone."""
        name = tables.video_name(sha, path)
        target = self.folder / name
        if not target.is_file():
            if not os.path.isfile(path):
                return None
            self.folder.mkdir(parents=True, exist_ok=True)
            link_or_copy(Path(path), target)
        return f"{VIDEOS}/{name}"


def _rows(store: Store, format: Format, filters: Filters, copies: _Copies | None, report: Report) -> Iterator[Row]:
    if format == "store":
        with store.snapshot() as db:
            yield tables.header(db)
            report.made = 0  # the header is no row
            for table, row in tables.rows_of(db):
                report.came += 1
                if table == "videos" and copies is not None:
                    (path,) = db.execute("SELECT path FROM videos WHERE sha256 = ?", [row["sha256"]]).fetchone()
                    if copies.take(row["sha256"], path) is None:
                        report.note(f"The video {row['name']} is no longer on this machine; its rows go without it.")
                yield {"table": table, "row": row}
        return
    for entry in every(store, filters):
        report.came += 1
        made = _pairs(store, entry, copies) if format == "trl-preference" else [_example(store, entry, copies, format)]
        for found in made:
            if isinstance(found, str):
                report.drop(f"{entry.answer} {entry.asked[:40]!r}", found)
            else:
                yield found


# -- training rows --------------------------------------------------------------------------------------------------


def _example(store: Store, entry: Entry, copies: _Copies | None, format: Format) -> Row | str:
    """An answer as it should have been, or in a few words why nothing is to be learnt from it."""
    if entry.excluded is not None:
        return "was excluded"
    if entry.correction is None and (entry.passed_over or entry.vote == "down"):
        return "is not good enough, and nobody corrected it"
    with store.snapshot() as db:
        talk = _talk(db, entry, copies)
        if isinstance(talk, str):
            return talk
        messages, videos = talk
        (raw,) = db.execute("SELECT raw_text FROM answers WHERE id = ?", [entry.answer]).fetchone()
    answer = (entry.correction or raw or entry.said).strip()
    if why := _unfit(answer, answer=True):
        return why
    messages = [*messages, {"role": "assistant", "content": answer}]
    facts = {"videos": videos, "mode": entry.mode, "learn": "last"}
    if format == "trl-sft":
        return {"id": entry.answer, "messages": messages, **facts}
    names = {"user": "human", "assistant": "gpt"}
    said = [{"from": names[message["role"]], "value": message["content"]} for message in messages]
    return {"id": entry.answer, "conversations": said, **facts}


def _pairs(store: Store, entry: Entry, copies: _Copies | None) -> Iterator[Row | str]:
    """What this answer was worse than: a row for every preference in force."""
    with store.snapshot() as db:
        sql = (
            "SELECT p.id, coalesce(p.chosen_text, c.raw_text, c.text) AS chosen, "
            "coalesce(r.raw_text, r.text) AS rejected, "
            "EXISTS (SELECT 1 FROM exclusions e WHERE e.answer_id IN (p.chosen_id, p.rejected_id)) AS excluded "
            "FROM preferences p JOIN answers r ON r.id = p.rejected_id LEFT JOIN answers c ON c.id = p.chosen_id "
            "WHERE p.rejected_id = ? AND p.verdict = 'better' AND p.revoked IS NULL ORDER BY p.id"
        )
        for pair in list(db.query(sql, [entry.answer])):
            talk = _talk(db, entry, copies)
            texts = (pair["chosen"].strip(), pair["rejected"].strip())
            unfit = next(filter(None, (_unfit(text, answer=True) for text in texts)), "")
            if pair["excluded"]:
                yield "was excluded"
            elif isinstance(talk, str) or unfit or texts[0] == texts[1]:
                yield talk if isinstance(talk, str) else unfit or "both answers say the same"
            else:
                chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
                row = {"id": pair["id"], "prompt": talk[0], "chosen": chosen, "rejected": rejected}
                yield {**row, "videos": talk[1], "mode": entry.mode}


def _unfit(text: str, answer: bool = False) -> str:
    if any(mark in text for mark in MARKS):
        return "a text holds the mark of a medium"
    if CONTROL_TOKEN.search(text):
        return "a text holds a control token"
    return "an answer is empty" if answer and not text.strip() else ""


def _talk(db: Database, entry: Entry, copies: _Copies | None) -> tuple[list[Row], list[Row]] | str:
    """The conversation up to the question of an entry, and its videos: as the model reads it, a clip stands with the
    first question about it and again only when the clip or its sampling changed."""
    asked = list(db.query(_ASKED, [entry.question]))
    messages: list[Row] = []
    videos: list[Row] = []
    sent: tuple[Any, ...] | None = None
    for question in asked:
        newest = question["id"] == entry.question
        if not newest and not question["said"]:
            continue
        text = question["text"]
        why = _unfit(text) or ("" if newest else _unfit(question["said"]))
        if why:
            return why
        clip = tuple(question[name] for name in ("video", "clip_start", "clip_end", "sampling"))
        if question["video"] is not None and clip != sent:
            video = _video(question, copies)
            if video is None:
                if newest:
                    return "its video is no longer there"
                continue
            videos.append(video)
            text, sent = f"<video>{text}", clip
        messages.append({"role": "user", "content": text})
        if not newest:
            messages.append({"role": "assistant", "content": question["said"]})
    return messages, videos


_ASKED = """
    SELECT q.id, q.text, q.video, q.clip_start, q.clip_end, q.sampling, v.path, v.name,
        (SELECT coalesce(nullif(t.c2, ''), a.text) FROM answers a JOIN listing l ON l.answer_id = a.id
            JOIN search_content t ON t.id = l.n WHERE a.question_id = q.id
            ORDER BY EXISTS (SELECT 1 FROM preferences p WHERE p.chosen_id = a.id AND p.verdict = 'better'
                AND p.revoked IS NULL) DESC, a.id DESC LIMIT 1) AS said
    FROM questions q JOIN questions last ON last.id = ? LEFT JOIN videos v ON v.sha256 = q.video
    WHERE q.conversation_id = last.conversation_id AND q.position <= last.position ORDER BY q.position"""


def _video(question: Row, copies: _Copies | None) -> Row | None:
    sha, path = question["video"], question["path"]
    where = path if copies is None else copies.take(sha, path)
    if where is None:
        return None
    sampling = loads(question["sampling"])
    wanted = {name: sampling.get(name) for name in ("fps", "max_frames", "budget")}
    span = {"start": question["clip_start"], "end": question["clip_end"]}
    return {"path": where, "sha256": sha, "name": question["name"], **span, **wanted}
