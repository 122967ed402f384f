"""Watching answers grow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from app.jobs import Job, Snapshot
from engine.events import Answer, Done, Event

PIECES = 20_000


def job(events: Callable[[threading.Event], Iterator[Event]]) -> Job:
    def keep(snapshot: Snapshot) -> None:
        pass

    return Job(events, keep, lambda error: str(error))


def test_a_fast_answer_is_not_shown_piece_by_piece_and_the_last_look_has_all_of_it() -> None:
    """However slow the machine, more pieces are written between two looks than one."""

    def events(stop: threading.Event) -> Iterator[Event]:
        for _ in range(PIECES):
            yield Answer("a")
        yield Done("stop", "a" * PIECES, "model")

    seen = list(job(events).start().watch())
    assert seen[-1].done is not None and seen[-1].text == "a" * PIECES
    assert [len(now.text) for now in seen] == sorted(len(now.text) for now in seen)
    assert len(seen) < PIECES / 10


def test_the_end_is_not_waited_for_longer_than_it_takes() -> None:
    """An answer that ends between two looks is seen to have ended, and nothing is looked for after that."""
    shown = threading.Event()

    def events(stop: threading.Event) -> Iterator[Event]:
        yield Answer("first")
        shown.wait()
        yield Answer(", last")
        yield Done("stop", "first, last", "model")

    seen = []
    for now in job(events).start().watch(wait_seconds=600.0):
        seen.append(now.text)
        if now.text:
            shown.set()
    assert seen[-1] == "first, last"
