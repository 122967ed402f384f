"""How the model is asked to reason: the published switches at the end of the last text (KC-MMBENCH.md §2)."""

from __future__ import annotations

from typing import Literal

Mode = Literal["think", "no_think", "auto"]

SWITCHES: dict[Mode, str] = {"think": "/think", "no_think": "/no_think", "auto": ""}
"""Glued on without a space; nothing leaves the choice to the model."""
