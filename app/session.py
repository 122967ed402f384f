"""What one browser tab is looking at. Lives in the tab's own state; everything that must last is in the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.i18n import Language
from app.studio import ClipChoice, Limits
from app.views import Suggestion
from engine.reasoning.modes import ModeName


@dataclass(frozen=True)
class Session:
    lang: Language = "en"
    conversation: str | None = None
    clip: ClipChoice | None = None
    duration: float = 0.0  # seconds of the clip's file
    limits: Limits = field(default_factory=Limits)
    suggestions: tuple[Suggestion, ...] = ()
    mode: ModeName = "auto"
    against: ModeName | None = None  # the other mode of a comparison; None: one answer
    blind: bool = False  # which of the two is which is not told before the choice
