"""Rows as a file of conversations holds them."""

from __future__ import annotations

from typing import Any


def talk(*turns: str, **more: Any) -> dict[str, Any]:
    """A row of user, assistant, user, …"""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)], **more}
