"""Video-MME (arXiv 2405.21075): 2,700 questions about 900 videos, without subtitles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.video.types import Clip
from finetune.bench.base import Benchmark, Flaw, Item, Row, inside, with_options
from finetune.bench.tables import parquet_rows, text_of, texts_of
from finetune.errors import FinetuneError

_ASK = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n{}\nThe best answer is:"
)
_COLUMNS = ("videoID", "question_id", "duration", "question", "options", "answer")


def _read(data: Path) -> Iterator[Row]:
    tables = sorted((data / "videomme").glob("*.parquet")) or sorted(data.glob("*.parquet"))
    if not tables:
        raise FinetuneError(f"{data} holds no table of Video-MME; it must hold {BENCHMARK.layout}.")
    for number, row in parquet_rows(tables, _COLUMNS):
        assert isinstance(row, dict)
        index = text_of(row, "question_id") or f"row {number}"
        video, question, answer = text_of(row, "videoID"), text_of(row, "question"), text_of(row, "answer")
        options = texts_of(row, "options")
        if not (video and question and answer and options):
            yield Flaw("Video-MME", index, "videoID, question, options or answer is missing")
            continue
        path = _video(data, video)
        if isinstance(path, str):
            yield Flaw("Video-MME", index, path)
            continue
        asked = with_options(question, options)
        category = text_of(row, "duration") or ""
        yield Item("Video-MME", index, asked, _ASK.format(asked), answer, (Clip(path),), category)


def _video(data: Path, name: str) -> Path | str:
    why = ""
    for folder in ("data", "video", "videos"):
        for suffix in ("mp4", "MP4", "mkv"):
            found = inside(data, f"{folder}/{name}.{suffix}")
            if isinstance(found, Path):
                return found
            why = found
    return f"a media file is missing: {name}.mp4" if "missing" in why else why


BENCHMARK = Benchmark(
    name="video-mme",
    title="Video-MME (without subtitles)",
    tasks=("Video-MME",),
    read=_read,
    layout="videomme/*.parquet and the videos in data/",
    notes=("Categories are the published lengths: short, medium and long.",),
)
