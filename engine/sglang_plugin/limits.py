"""Numbers that the model and the media processor of the server must agree on."""

from __future__ import annotations

POSITIONS = 131072
"""Rows of the rotary table at least. Preview counts two positions a second, so a clip may be 18 hours long."""
