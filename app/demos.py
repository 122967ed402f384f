"""The demo clips that ship with the project: assets/demo/demo.json and the videos it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from app.views import Suggestion, thumbnail
from app.wiring import ASSETS
from engine.video import PRESETS, Clip, sample

FOLDER = ASSETS / "demo"


@dataclass(frozen=True)
class Demo:
    file: Path
    title: str
    questions: tuple[Suggestion, ...]
    picture: str  # a data URL


def load_demos(folder: Path = FOLDER) -> list[Demo]:
    """The demo clips in the order of demo.json; none where the file is missing."""
    listing = folder / "demo.json"
    if not listing.is_file():
        return []
    return [
        Demo(
            file=folder / row["file"],
            title=row["title"],
            questions=tuple(Suggestion(q["question"], q.get("mode")) for q in row["questions"]),
            picture=_picture(folder / row["file"]),
        )
        for row in json.loads(listing.read_text(encoding="utf-8"))["clips"]
    ]


def _picture(file: Path) -> str:
    frames = sample(Clip(file), PRESETS["keye-vl-preview"].with_limits(max_frames=4))
    return thumbnail(frames.images[len(frames.images) // 2])
