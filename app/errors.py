"""The one exception that a user of the page can cause."""

from __future__ import annotations


class AppError(Exception):
    """Something the user can mend; the message is one sentence that says what to do, shown as it is."""
