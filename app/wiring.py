"""What every part of the page uses to wire its events: how they run, what they return, where scripts and words lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parents[1] / "assets"

Updates = dict[Any, Any]
"""What an event changes: components and what they become."""

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of every event: it belongs to this page, and is no public interface."""

QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
"""Of an event that is over at once or shows itself how far it is."""


def asset(name: str) -> str:
    """The text of a file in assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")
