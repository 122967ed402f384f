"""Answers that run on their own: the page only watches them, so that a reload or a closed tab loses nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from app.steps import Steps, follow
from engine.events import Analysis, Answer, Done, Error, Event, Progress, Queued, Retraction, Thought, ToolResult

_log = logging.getLogger(__name__)
_WRITTEN = (Answer, Analysis, Thought, ToolResult)  # what makes an answer grow
_SAVE_SECONDS = 0.5  # how often a growing answer is written to the store
_PACE_SECONDS = 1 / 25
"""Between two looks at a growing answer: nobody reads faster, and for each the whole conversation is drawn, by the
processor that is to write the answer, and again by the browser."""


@dataclass(frozen=True)
class Snapshot:
    """How far an answer is."""

    text: str = ""
    waiting: str = "prefill"  # what it waits for before it begins: queued, loading, decoding, prefill
    position: int = 0  # in the queue
    error: str = ""
    done: Done | None = None
    steps: Steps = ()  # of its reasoning
    seconds: float = 0.0  # since it was asked
    pieces: int = 0  # of text so far; about as many as tokens
    answer: str = ""  # the id of the answer in the store


class Job:
    """One answer being made in a thread of its own.

    `events` is called in that thread and yields what the runtime emits; `save` is called there with the text so
    far, now and then, and once more with the closing `Done`."""

    def __init__(
        self,
        events: Callable[[threading.Event], Iterator[Event]],
        save: Callable[[Snapshot], None],
        unexpected: Callable[[Exception], str],
        changed: threading.Condition | None = None,
        answer: str = "",
    ) -> None:
        self._events, self._save, self._unexpected = events, save, unexpected
        self._stop = threading.Event()
        self.changed = changed or threading.Condition()  # one for all that are watched together
        self._now = Snapshot(answer=answer)
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)

    def start(self) -> Job:
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the answer within one token; what is written stays."""
        self._stop.set()

    def snapshot(self) -> Snapshot:
        return self._now

    def watch(self, wait_seconds: float = 1.0) -> Iterator[Snapshot]:
        """Snapshots as they change, until the last one, whose `done` is set. Any number of watchers may look."""
        for (now,) in watch((self,), wait_seconds):
            yield now

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _set(self, snapshot: Snapshot) -> None:
        with self.changed:
            self._now = snapshot
            self.changed.notify_all()

    def _run(self) -> None:
        now, began = self._now, time.monotonic()
        saved = began
        try:
            for event in self._events(self._stop):
                steps = follow(now.steps, event, now.text)
                pieces = now.pieces + isinstance(event, Answer | Analysis | Thought)
                now = replace(now, steps=steps, pieces=pieces, seconds=time.monotonic() - began)
                match event:
                    case Retraction():
                        now = replace(now, text="")
                    case Answer(text):
                        now = replace(now, text=now.text + text)
                    case Queued(position):
                        now = replace(now, waiting="queued", position=position)
                    case Progress(stage, _):
                        now = replace(now, waiting=stage)
                    case Error(message):
                        now = replace(now, error=message)
                    case Done():
                        now = replace(now, done=event)
                if now.done is None:
                    self._set(now)
                    if isinstance(event, _WRITTEN) and time.monotonic() - saved > _SAVE_SECONDS:
                        self._save(now)
                        saved = time.monotonic()
        except Exception as error:  # our own defect or a full disk: the user is told and the question stays
            _log.exception("an answer failed")
            now = replace(now, error=self._unexpected(error), done=None)
        if now.done is None:
            now = replace(now, done=Done(finish="error", text=now.text, model=""))
        try:
            self._save(now)
        except Exception as error:
            _log.exception("an answer could not be saved")
            now = replace(now, error=now.error or self._unexpected(error))
        self._set(now)


def watch(jobs: Sequence[Job], wait_seconds: float = 1.0) -> Iterator[tuple[Snapshot, ...]]:
    """How far each of these is, as it changes but not faster than can be read, until all have ended. They must share
    one `changed`."""
    changed = jobs[0].changed
    seen: tuple[Snapshot, ...] = ()
    while True:
        with changed:
            changed.wait_for(lambda: any(a is not b for a, b in zip_longest(_now(jobs), seen)), wait_seconds)  # noqa: B023
            seen = _now(jobs)
        yield seen
        if _ended(seen):
            return
        with changed:
            changed.wait_for(lambda: _ended(_now(jobs)), _PACE_SECONDS)


def _ended(snapshots: Sequence[Snapshot]) -> bool:
    return all(now.done is not None for now in snapshots)


def _now(jobs: Sequence[Job]) -> tuple[Snapshot, ...]:
    return tuple(job.snapshot() for job in jobs)
