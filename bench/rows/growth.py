"""What grows: the cost of a clip with its length at a fixed budget, and of the page with the store."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.clips import clip, repeated
from bench.figures import Line, Row, Series, Size, at_most, seconds
from bench.worker import alternate, ours, timed

PAGE_SECONDS = 0.3


def measure(size: Size) -> list[Line]:
    return [*_lengths(size), *_store(size)]


# -- length -----------------------------------------------------------------------------------------------------


def first_word(path: str) -> Callable[[], str]:
    """From a file that nobody has seen to the first token of keye-nano's answer, with the Preview's frames counted."""
    import threading

    from engine.events import Answer
    from engine.runtime.base import Decoding, Message
    from engine.runtime.local import LocalRuntime
    from engine.video import Clip, sample

    runtime = LocalRuntime(device="cpu")
    chosen = runtime.info().sampling

    def work() -> str:
        frames = sample(Clip(Path(path)), chosen, cache=None)
        message = Message("user", (frames, "What happens?"))
        stream = runtime.stream([message], Decoding(max_tokens=1, greedy=True), threading.Event())
        return next((event.text for event in stream if isinstance(event, Answer)), "")

    return work


def _lengths(size: Size) -> list[Line]:
    """5 s and 30 min of the same scene. What grows with length is decoding; the rest must not grow faster."""
    short = clip(2 if size.tiny else 5, 320, 180)
    long = repeated(short, 2) if size.tiny else repeated(clip(30, 320, 180), 60)
    with (
        ours(size, "bench.rows.growth:first_word", path=str(short)) as one,
        ours(size, "bench.ours:bare_decode", path=str(short)) as bare_one,
        ours(size, "bench.rows.growth:first_word", path=str(long)) as other,
        ours(size, "bench.ours:bare_decode", path=str(long)) as bare_other,
    ):
        runs = alternate([worker.run for worker in (one, bare_one, other, bare_other)], size.runs, 0)
        memory = [one.peak_mb(), other.peak_mb()]
    first, decoded, later, decoded_later = (seconds(made) for made in runs)
    grown, limit = later.median / first.median, decoded_later.median / decoded.median
    lengths = "2 → 4 s" if size.tiny else "5 s → 30 min"
    return [
        Line(
            f"{lengths}: time to the first token",
            "s",
            later,
            first,
            grown,
            "×",
            at_most(limit),
            f"`ours` is the long clip and `against` the short one; bare decoding grows {limit:.0f}×",
        ),
        Line(
            f"{lengths}: peak memory",
            "MB",
            Series((memory[1],)),
            Series((memory[0],)),
            memory[1] / max(memory[0], 1.0),
            "×",
            at_most(limit),
            "above the process with its model loaded; one figure of all runs",
        ),
    ]


# -- store ------------------------------------------------------------------------------------------------------


def filled(path: Path, answers: int) -> Path:
    """A store with this many answers: conversations of ten questions about fifty videos, one long conversation of a
    thousand among them. Written row by row in one transaction, with the columns that the store itself writes."""
    from finetune.feedback import Store

    store = Store(path)
    shas = [f"{number:064x}" for number in range(50)]
    for sha in shas:
        store.add_video(sha, name=f"clip-{sha[-2:]}.mp4", path=f"/nowhere/{sha}.mp4", probe={"duration": 30.0})
    # What one question and its answer look like is taken from the store itself.
    talk = store.new_conversation("What happens?")
    asked = store.add_question(talk.id, "What happens?", mode="auto", video=shas[0], sampling={"fps": None})
    answer = store.begin_answer(asked.id, mode="auto")
    frames = {"times": [i / 2 for i in range(16)], "kinds": ["slow"] * 16, "tokens": [16] * 16, "budget": 256}
    usage = {"prompt_tokens": 300, "visual_tokens": 256, "answer_tokens": 40, "thought_tokens": 0, "tool_calls": 0}
    timings = {"queue": 0.0, "prepare": 0.1, "first_token": 0.2, "thought": 0.0, "total": 1.0}
    store.update_answer(answer.id, model="keye-nano", checkpoint="nano", runtime="local", frames=frames)
    store.finish_answer(answer.id, "stop", text="A red circle moves to the left. " * 4, usage=usage, timings=timings)
    with store.transaction() as db:
        tables = ("conversations", "questions", "answers")
        rows = {table: next(iter(db.query(f"SELECT * FROM {table} LIMIT 1"))) for table in tables}
        number = 0
        while number < answers - 1:
            many = 1000 if number == 0 and answers > 1000 else 10
            count = min(many, answers - 1 - number)
            db.conn.executemany(
                _insert("conversations", rows), [_changed(rows["conversations"], number, id=_id(number))]
            )
            questions = [
                _changed(
                    rows["questions"],
                    n,
                    id=_id(n),
                    conversation_id=_id(number),
                    position=n - number,
                    video=shas[n % 50],
                )
                for n in range(number, number + count)
            ]
            db.conn.executemany(_insert("questions", rows), questions)
            made = [_changed(rows["answers"], n, id=_id(n), question_id=_id(n)) for n in range(number, number + count)]
            db.conn.executemany(_insert("answers", rows), made)
            number += count
    store.close()
    return path


def _id(number: int) -> str:
    return f"{number:032x}"


def _insert(table: str, rows: dict[str, dict[str, Any]]) -> str:
    return f"INSERT INTO {table} ({', '.join(rows[table])}) VALUES ({', '.join('?' * len(rows[table]))})"


def _changed(row: dict[str, Any], number: int, **changes: Any) -> tuple[Any, ...]:
    """A row like this one, a second older for every number."""
    seconds_ago = number % 86400
    stamp = f"2025-01-{1 + number // 86400 % 28:02}T{seconds_ago // 3600:02}:{seconds_ago // 60 % 60:02}:00.000Z"
    times: dict[str, Any] = {name: stamp for name in ("created", "updated") if name in row}
    made: dict[str, Any] = {**row, **times, **changes}
    return tuple(made.values())


def pages(data: Path) -> list[tuple[str, Callable[[], object]]]:
    """What the page shows at each place, as its handlers make it: (name, the work)."""
    from app.chat import chat_messages
    from app.config import AppConfig
    from app.data_view import count_html, list_html
    from app.studio import Studio
    from app.views import conversations_html
    from engine.runtime.local import LocalRuntime
    from finetune.feedback.browse import count
    from finetune.feedback.filters import Filters

    studio = Studio(AppConfig(data=data), LocalRuntime())
    conversations = studio.conversations()
    usual = conversations[len(conversations) // 2][0]

    def history() -> object:
        return conversations_html(studio.conversations(), usual, "en")

    def conversation(which: str) -> object:
        return chat_messages(studio.turns(which), (), "en")

    def collected(text: str) -> object:
        filters = Filters(text=text)
        page = studio.dataset.page(filters)
        total = count(studio.store, filters)
        return list_html(page, studio.dataset.picture, bool(text), "en") + count_html(*total, "en")

    found: list[tuple[str, Callable[[], object]]] = [
        ("the list of conversations", history),
        ("a conversation of ten questions", partial(conversation, usual)),
        ("everything collected", partial(collected, "")),
        ("everything that says a word", partial(collected, "circle")),
        ("two letters that nobody wrote", partial(collected, "zq")),
    ]
    if studio.store.turns(_id(0)):
        found.append(("the longest conversation", partial(conversation, _id(0))))
    return found


def _store(size: Size) -> list[Line]:
    small, large = (20, 200) if size.tiny else (1_000, 1_000_000)
    with tempfile.TemporaryDirectory(dir=_room(large)) as folder:
        places = []
        for count in (small, large):
            data = Path(folder) / str(count)
            filled(data / "studio.sqlite", count)
            places.append(pages(data))
        lines = []
        for (name, before), (_, after) in zip(*places, strict=False):
            one, other = alternate([partial(timed, partial(_quiet, work)) for work in (before, after)], size.runs)
            ours_now, smaller = seconds(other), seconds(one)
            lines.append(
                Line(
                    f"{small:,} → {large:,} answers: {name}",
                    "s",
                    ours_now,
                    smaller,
                    1000 * max(ours_now.median, smaller.median),
                    "ms",
                    at_most(1000 * PAGE_SECONDS),
                    f"grows {ours_now.median / smaller.median:.1f}×; `against` is the small store",
                )
            )
        opened = Series(tuple(_opening(Path(folder) / str(large)) for _ in range(size.runs)))
        lines.append(
            Line(
                f"{large:,} answers: opening the store",
                "s",
                opened,
                None,
                1000 * opened.median,
                "ms",
                at_most(1000 * PAGE_SECONDS),
            )
        )
        return lines


def _quiet(work: Callable[[], object]) -> int:
    return len(str(work()))


def _opening(data: Path) -> float:
    from finetune.feedback import Store

    began = time.perf_counter()
    Store(data / "studio.sqlite").close()
    return time.perf_counter() - began


def _room(answers: int) -> str | None:
    """Where the store is made: the usual place for temporary files unless that is too small, then beside the clips."""
    from bench.clips import FOLDER

    if shutil.disk_usage(tempfile.gettempdir()).free > 4000 * answers:
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    return str(FOLDER)


ROW = Row(
    name="growth",
    what="cost growth: video length 5 s → 30 min at a fixed budget; store 1k → 1M answers",
    against="the growth of bare decoding; 300 ms",
    goal="time and memory to the first token grow no faster than decoding does; every page answers in 300 ms",
    how="keye-nano's budget, a file that nobody has seen to the first token, at both lengths in turn with the bare "
    "decoding of the same files; the 30 minutes are the 30 seconds sixty times over. The store is filled with "
    "conversations of ten questions and one of a thousand; timed is what the handlers of the page make, without the "
    "network.",
    measure=measure,
)
