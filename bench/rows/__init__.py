"""The rows, in the order of the table of goals. Each is a module with a `ROW`."""

from __future__ import annotations

from importlib import import_module

from bench.figures import Row

NAMES = ("decode", "tensors", "slowfast", "vision", "followup", "tokens", "training", "users", "growth")


def row(name: str) -> Row:
    """The row of this name. Imported when asked for: some need what others do without."""
    found: Row = import_module(f"bench.rows.{name}").ROW
    return found
