"""The modes that a benchmark can be asked in; each may be published with one of them (KC-MMBENCH.md §2)."""

from __future__ import annotations

from typing import Literal, get_args

from engine.reasoning.modes import MODES

Mode = Literal["think", "no_think", "auto"]

SWITCHES: dict[Mode, str] = {name: MODES[name].switch for name in get_args(Mode)}
"""What is glued to the end of the last text."""
