"""Video-MMMU (arXiv 2501.13826): what is learnt from 300 lectures: perception, comprehension, adaptation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.video.types import Clip
from finetune.bench.base import Benchmark, Flaw, Item, Row, guarded, inside, with_options
from finetune.bench.tables import TableRow, parquet_rows, text_of, texts_of
from finetune.errors import FinetuneError

TRACKS = ("Perception", "Comprehension", "Adaptation")
_QUIZ = "{}\nPlease ignore the Quiz question in last frame of the video."
_APPLY = (
    "You should watch and learn the video content. Then apply what you learned to answer the following {} question. "
    "The image for this question is at the end of the video.\n{}"
)
_COLUMNS = ("id", "question", "options", "answer", "question_type")


def _read(data: Path) -> Iterator[Row]:
    tables = {track: sorted((data / track).glob("*.parquet")) for track in TRACKS}
    if not any(tables.values()):
        raise FinetuneError(f"{data} holds no table of Video-MMMU; it must hold {BENCHMARK.layout}.")
    videos = {p.stem: p for p in sorted(data.rglob("*.mp4")) if "question_only" not in p.parts}
    for track, paths in tables.items():
        if not paths:
            yield Flaw("Video-MMMU", "", f"the table is missing: {track}")
            continue
        found = parquet_rows(paths, _COLUMNS)
        yield from guarded("Video-MMMU", (_item(track, number, row, videos, data) for number, row in found))


def _item(track: str, number: int, row: TableRow, videos: dict[str, Path], data: Path) -> Row:
    assert isinstance(row, dict)
    name, question, answer = text_of(row, "id"), text_of(row, "question"), text_of(row, "answer")
    index = f"{track}/{name or f'row {number}'}"
    options = texts_of(row, "options")
    open_ended = options is None and track == "Adaptation"
    task = "Video-MMMU open" if open_ended else "Video-MMMU"
    if not (name and question and answer) or (options is None and not open_ended):
        return Flaw(task, index, "id, question, options or answer is missing")
    if name not in videos:
        return Flaw(task, index, f"a media file is missing: {name}.mp4")
    path = inside(data, str(videos[name].relative_to(data)))
    if isinstance(path, str):
        return Flaw(task, index, path)
    asked = with_options(question, options) if options else question
    if track == "Adaptation":
        prompt = _APPLY.format("open-ended" if open_ended else "multi-choice", asked)
    else:
        prompt = _QUIZ.format(asked)
    return Item(task, index, asked, prompt, answer, (Clip(path),), track)


BENCHMARK = Benchmark(
    name="video-mmmu",
    title="Video-MMMU",
    tasks=("Video-MMMU", "Video-MMMU open"),
    read=_read,
    layout="Perception/, Comprehension/ and Adaptation/ with their .parquet tables, and the unpacked videos",
    notes=("Open-ended questions need a judge; without one every word must be right, which cannot be compared.",),
)
