"""A waiting line in which everybody can see their place."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_SECONDS = 0.2  # how often somebody who waits looks whether they still want to


class Line:
    """First come, first served; `places` are served at a time. All methods are thread-safe."""

    def __init__(self, places: int = 1) -> None:
        self.places = places
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()

    def join(self, again: bool = False) -> object:
        """Take a place at the end and get a ticket for it. `again`: whoever was served a moment ago and goes on does
        not wait a second time; for a while one more may then be served than there are places."""
        ticket = object()
        with self._changed:
            if again:
                self._tickets.appendleft(ticket)
            else:
                self._tickets.append(ticket)
        return ticket

    def position(self, ticket: object, wait_seconds: float = 0.0) -> int:
        """How many have to be done before this ticket's turn; 0 means it is being served.

        Waits up to `wait_seconds` for the number to change from what it is now, unless it is 0 already."""
        with self._changed:
            now = self._ahead(ticket)
            if now and wait_seconds:
                self._changed.wait_for(lambda: self._ahead(ticket) != now, wait_seconds)
            return self._ahead(ticket)

    def _ahead(self, ticket: object) -> int:
        return max(0, self._tickets.index(ticket) - self.places + 1)

    def leave(self, ticket: object) -> None:
        """Give the place up, served or not. Leaving twice does nothing."""
        with self._changed:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    @contextmanager
    def turn(self, given_up: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """A place for as long as the block lasts: whoever takes one turn after another lets others in between.

        The block runs with False, and without a place, where `given_up` became true while waiting."""
        ticket = self.join()
        try:
            while (ahead := self.position(ticket, _LOOK_SECONDS)) and not given_up():
                pass
            yield not ahead
        finally:
            self.leave(ticket)

    def __len__(self) -> int:
        with self._changed:
            return len(self._tickets)
