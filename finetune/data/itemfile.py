"""Items as a JSONL file, so that one command goes on where another one ended."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from finetune.bench.base import inside
from finetune.bench.lines import read_lines
from finetune.data.items import Item, number
from finetune.data.report import Report
from finetune.errors import FinetuneError


def write_items(path: Path, items: Iterable[Item]) -> None:
    """One item a line, in a file that is there whole or not at all."""
    partial = path.with_suffix(".part")
    with partial.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(dataclasses.asdict(item), ensure_ascii=False) + "\n")
    partial.replace(path)


def read_items(path: Path, folder: Path) -> tuple[list[Item], Report]:
    """The items that an earlier step wrote about the media of `folder`. A broken line and one whose medium is missing
    or lies outside the folder is counted and left out. Raises FinetuneError where the file cannot be read or holds no
    item."""
    report = Report("items")
    items: list[Item] = []
    for line, row in read_lines(path):
        report.came += 1
        if isinstance(row, str):
            report.drop(f"{path.name}:{line}", "a line is no item", row)
            continue
        try:
            item: Item = from_json(Item, row)
        except (TypeError, ValueError) as error:
            report.drop(f"{path.name}:{line}", "a line is no item", str(error)[:100])
            continue
        paths = [medium.path for medium in item.media]
        wrong = [why for name in paths if isinstance(why := inside(folder, name), str)]
        if wrong:
            report.drop(item.id, "a medium is missing or outside the folder", wrong[0][:200])
        else:
            items.append(item)
    if not items:
        raise FinetuneError(f"{path} holds no items of {folder}; give the items.jsonl that an earlier step wrote.")
    report.made = len(items)
    return items, report


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def from_json(kind: Any, value: Any) -> Any:
    """JSON as a value of a type that items are made of. Raises TypeError where it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        fields = _fields(typing.cast(type, kind))
        if not isinstance(value, dict) or not set(value) <= set(fields):
            raise TypeError(f"this is no {getattr(kind, '__name__', kind)}")
        return typing.cast(Any, kind)(**{name: from_json(fields[name], one) for name, one in value.items()})
    if origin is tuple and isinstance(value, list):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(from_json(arguments[0], one) for one in value)
        if len(arguments) == len(value):
            return tuple(from_json(one, part) for one, part in zip(arguments, value, strict=True))
    if origin is Literal and value in arguments:
        return value
    if origin is types.UnionType:
        for one in arguments:
            try:
                return from_json(one, value)
            except TypeError:
                continue
    if kind is type(None) and value is None:
        return None
    if kind is float and (real := number(value)) is not None:
        return real
    if kind in (str, int) and type(value) is kind:
        return value
    raise TypeError(f"{value!r:.60} stands where {kind} belongs")
