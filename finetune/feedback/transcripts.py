"""What is said in the videos: heard once by a speech model, or given as a subtitle file, and kept with the video.

transcripts = Store("data/studio.sqlite").transcripts
transcripts.keep(video.sha256, cues, by="whisper-small", source="speech", language="en")
newest = transcripts.of(video.sha256)

One of each source and name is kept for a video; keeping another takes its place. The one kept last is in use. They go
when their video goes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engine.timed import Timed
from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.rows import BROKEN_JSON, Row, clean, now, parsed

Source = Literal["speech", "file"]
"""Heard by a speech model, or given as a file of subtitles."""


@dataclass(frozen=True)
class Transcript:
    video: str  # sha256
    by: str  # the speech model's name, or the file's
    source: Source
    language: str  # a code such as en; "" where it is not known
    cues: tuple[Timed, ...]  # in the order of their starts; seconds of the file
    created: str


class Transcripts:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do."""

    def __init__(self, file: File) -> None:
        self._file = file

    def keep(self, video: str, cues: Sequence[Timed], *, by: str, source: Source, language: str = "") -> Transcript:
        """Keep what is said in a video of the store, also that nothing is. FinetuneError if the video was deleted."""
        if source not in get_args(Source):
            raise ValueError(f"there is no source {source!r}")
        row = {
            "video": clean(video),
            "by": clean(by),
            "source": source,
            "language": clean(language),
            "cues": clean(json.dumps([[cue.start, cue.end, cue.text] for cue in cues], ensure_ascii=False)),
            "created": now(),
        }
        with self._file.transaction() as db:
            if not list(db.query("SELECT 1 FROM videos WHERE sha256 = ?", [row["video"]])):
                raise FinetuneError("The video of this transcript is no longer kept; drop it again to go on.")
            db.execute(
                "INSERT OR REPLACE INTO transcripts (video, by, source, language, cues, created) "
                "VALUES (:video, :by, :source, :language, :cues, :created)",
                row,
            )
        return _transcript_of(row)

    def of(self, video: str) -> Transcript | None:
        """The transcript of a video that was kept last; None where there is none."""
        return next(iter(self._found("video = ?", video)), None)

    def heard(self, video: str, by: str) -> Transcript | None:
        """What the speech model of this name heard in a video."""
        return next(iter(self._found("video = ? AND source = 'speech' AND by = ?", video, by)), None)

    def drop(self, video: str, source: Source) -> None:
        """Forget the transcripts of one source of a video."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM transcripts WHERE video = ? AND source = ?", [clean(video), source])

    def _found(self, condition: str, *values: str) -> list[Transcript]:
        with self._file.snapshot() as db:
            sql = f"SELECT * FROM transcripts WHERE {condition} ORDER BY created DESC, rowid DESC"
            return [_transcript_of(row) for row in db.query(sql, [clean(value) for value in values])]


def _transcript_of(row: Row) -> Transcript:
    found = parsed(row["cues"])
    try:
        cues = tuple(Timed(float(start), float(end), str(text)) for start, end, text in found)
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"{BROKEN_JSON}: {error}") from error
    return Transcript(row["video"], row["by"], row["source"], row["language"], cues, row["created"])
