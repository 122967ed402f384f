"""A waiting line in which everybody can see their place."""

from __future__ import annotations

import threading
from collections import deque


class Line:
    """First come, first served; `places` are served at a time. All methods are thread-safe."""

    def __init__(self, places: int = 1) -> None:
        self.places = places
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()

    def join(self) -> object:
        """Take a place at the end and get a ticket for it."""
        ticket = object()
        with self._changed:
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

    def __len__(self) -> int:
        with self._changed:
            return len(self._tickets)
