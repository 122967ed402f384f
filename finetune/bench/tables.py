"""Tables in the layouts in which benchmarks are published: TSV, JSON and Parquet, row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.bench.lines import clean
from finetune.errors import FinetuneError

TableRow = dict[str, Any] | str
"""Values by column, or a sentence that says why the row is broken."""

_FIELD_LIMIT = 64 * 1024 * 1024  # characters: a column may hold a picture in base64


def tsv_rows(path: Path) -> Iterator[tuple[int, TableRow]]:
    """(number, row) of a table with tabs, a heading line and quotes as Excel writes them; numbers count from 1.

    Rows in another encoding than UTF-8, or with other than the heading's number of fields, are broken. Raises
    FinetuneError where there is no table."""
    csv.field_size_limit(_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            heading = next(reader, None)
            if not heading or any(not _readable(name) or "\0" in name for name in heading):
                raise FinetuneError(f"{path} has no readable heading line; it must be a table with tabs in UTF-8.")
            yield from _tsv_body(reader, heading)
    except OSError as error:
        raise FinetuneError(f"{path} cannot be read ({error.strerror}); check the data folder.") from error


def _tsv_body(reader: Any, heading: list[str]) -> Iterator[tuple[int, TableRow]]:
    number = 0
    while True:
        number, first = number + 1, reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"the row cannot be read: {error}"
            continue
        if not fields:
            continue
        if len(fields) != len(heading):
            # A quotation mark that is never closed swallows the rows after it: say which lines are gone.
            lines = f": lines {first} to {reader.line_num}" if reader.line_num > first else ""
            yield number, f"the row has {len(fields)} fields and the heading {len(heading)}{lines}"
        elif not all(map(_readable, fields)):
            yield number, "the row is not UTF-8"
        else:
            yield number, dict(zip(heading, fields, strict=True))


def _readable(text: str) -> bool:
    return clean(text) == text


def json_file(path: Path) -> Any:
    """What a JSON file holds. Raises FinetuneError where it cannot be read."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise FinetuneError(f"{path} cannot be read ({error.strerror}); check the data folder.") from error
    except UnicodeDecodeError as error:
        raise FinetuneError(f"{path} is not UTF-8; download it again.") from error
    except (ValueError, RecursionError) as error:
        raise FinetuneError(f"{path} is not JSON ({error}); download it again.") from error


def parquet_rows(paths: list[Path], columns: tuple[str, ...]) -> Iterator[tuple[int, TableRow]]:
    """(number, row) of the Parquet files together, only these columns, so that pictures in others are never loaded.

    Raises FinetuneError where a file is damaged or lacks a column."""
    try:
        import pyarrow  # only the benchmarks that are published so need it
        from pyarrow import parquet
    except ImportError as error:
        raise FinetuneError("Parquet tables need the package pyarrow; run `make setup` to install it.") from error

    number = 0
    for path in paths:
        try:
            with parquet.ParquetFile(path) as file:
                if lacking := [name for name in columns if name not in file.schema_arrow.names]:
                    raise FinetuneError(f"{path} has no column {', '.join(lacking)}; is it this benchmark?")
                for batch in file.iter_batches(batch_size=256, columns=list(columns)):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except (OSError, pyarrow.ArrowException) as error:
            raise FinetuneError(f"{path} cannot be read ({type(error).__name__}); download it again.") from error


def text_of(row: dict[str, Any], *names: str) -> str | None:
    """The first of these columns that holds a text which is not blank; None where none does."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return clean(value)
    return None


def texts_of(row: dict[str, Any], name: str) -> list[str] | None:
    """A column that holds a list of at least two texts, as multiple choice has them; None where it does not."""
    value = row.get(name)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) for one in value):
        return None
    return [clean(one) for one in value]
