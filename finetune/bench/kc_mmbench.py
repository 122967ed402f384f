"""KC-MMBench: six short-video tasks on pictures (arXiv 2507.01949, table 4; KC-MMBENCH.md §1 and §2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune.bench.answers import literal
from finetune.bench.base import Benchmark, Flaw, Item, Row, guarded, inside
from finetune.bench.tables import TableRow, tsv_rows
from finetune.errors import FinetuneError

TABLES = {
    "CPV": "CPV",
    "Hot_Videos_Aggregation": "Video_Topic",
    "Collection_Order": "Video_Order",
    "Pornographic_Comment": "PornComment",
    "High_Like": "High_like",
    "SPU": "SPU",
}
"""Each task and the name of its table, subsets/<name>.tsv."""

_YES_NO = ("Pornographic_Comment", "High_Like", "SPU")
YES_NO_FORM = "\n请直接给出结论，回答是或者否，不需要做额外分析，并且不许回答不确定"
PHRASE_FORM = "\nAnswer the question using a single word or phrase."
_NEEDED = ("index", "image_path", "question", "answer")


def _read(data: Path) -> Iterator[Row]:
    folder = data / "subsets" if (data / "subsets").is_dir() else data
    tables = {task: folder / f"{name}.tsv" for task, name in TABLES.items()}
    if not any(path.is_file() for path in tables.values()):
        raise FinetuneError(f"{data} holds none of KC-MMBench's tables; it must hold {BENCHMARK.layout}.")
    for task, path in tables.items():
        if not path.is_file():
            yield Flaw(task, "", f"the table is missing: {path.name}")
            continue
        yield from guarded(task, (_item(task, number, row, data / "images") for number, row in tsv_rows(path)))


def _item(task: str, number: int, row: TableRow, images: Path) -> Row:
    if isinstance(row, str):
        return Flaw(task, f"row {number}", row)
    index = row.get("index", "").strip() or f"row {number}"
    for name in _NEEDED:
        if not row.get(name, "").strip():
            return Flaw(task, index, f"the row has no {name}")
    names = _names(row["image_path"])
    if names is None:
        return Flaw(task, index, "image_path is neither a name nor a list of names")
    media = []
    for name in names:
        found = inside(images, name)
        if isinstance(found, str):
            return Flaw(task, index, found)
        media.append(found)
    return Item(
        task=task,
        index=index,
        question=row["question"],
        prompt=row["question"] + (YES_NO_FORM if task in _YES_NO else PHRASE_FORM),
        answer=row["answer"],
        media=tuple(media),
        category=row.get("category", "").strip(),
        second_category=row.get("l2-category", "").strip(),
    )


def _names(text: str) -> list[str] | None:
    """One name, or the names that a list literal holds."""
    text = text.strip()
    if not text.startswith("["):
        return [text]
    names = literal(text)
    good = isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)
    return names if good else None


BENCHMARK = Benchmark(
    name="kc-mmbench",
    title="KC-MMBench",
    tasks=tuple(TABLES),
    read=_read,
    layout="subsets/*.tsv (CPV, Video_Topic, Video_Order, PornComment, High_like, SPU) and images/",
    notes=(
        "All pictures of an item come first, then the question with the published suffix and the mode's switch.",
        "A judge is asked in words of our own, so its scores come near the harness's but are not the same.",
        "Without a judge, a yes or no that is unclear counts as wrong, as in the harness without a key.",
        "Without a judge, CPV and Collection_Order are compared exactly and Hot_Videos_Aggregation is matched in the "
        "answer itself; these figures cannot be compared with published ones.",
    ),
)
