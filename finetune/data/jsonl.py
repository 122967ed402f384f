"""A user's file of conversations, one JSON object per line, of any size.

Every row is looked at once before training. What can be learnt from is remembered by its place in the file and its
length; the rows themselves are read again when they are needed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.problems import BadRow, Problems
from finetune.data.rows import Row, Use, parse_row
from finetune.errors import FinetuneError

MAX_LINE = 64 * 1024 * 1024
"""Bytes of one row. A larger one is no conversation, and must not fill the memory."""

_VERSION = 2  # of the stored index


@dataclass
class Rows(Sequence[Row]):
    """The rows of files that can be learnt from. `lengths[i]` is how many tokens row i has."""

    files: list[Path]
    file: array[int]  # of each row, its number in `files`
    line: array[int]  # from 1
    offset: array[int]  # bytes
    answers: array[int]  # the row ends after this answer; see `examples_of`
    lengths: array[int]
    use: Use = "example"

    @classmethod
    def empty(cls, files: Sequence[Path], use: Use = "example") -> Rows:
        return cls(list(files), array("L"), array("Q"), array("Q"), array("L"), array("L"), use)

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path = self.files[self.file[index]]
        try:
            with path.open("rb") as stream:
                stream.seek(self.offset[index])
                row = _parse(stream.readline(MAX_LINE + 1), path, self.line[index], self.use)
            return row.up_to(self.answers[index]) if self.answers[index] != _ALL else row
        except (OSError, BadRow, IndexError) as error:
            raise FinetuneError(
                f"Line {self.line[index]} of {path} is not what it was when it was checked ({error}); "
                "leave the file alone while it is learnt, and give the same command again."
            ) from None

    def add(self, file: int, line: int, offset: int, answers: int, length: int) -> None:
        self.file.append(file)
        self.line.append(line)
        self.offset.append(offset)
        self.answers.append(answers)
        self.lengths.append(length)


def examples_of(row: Row) -> list[Row]:
    """What is learnt from a row: the whole conversation at once; with a mode, every answer by itself, because only
    the newest question of a conversation carries a mode's switch; or its last answer, where the row says so. A pair and
    a question are of their last turn."""
    alone = row.use == "example" and row.switched and not row.last_only
    return [row.up_to(i + 1) for i in range(row.answers)] if alone else [row]


def read_jsonl(
    files: Sequence[Path],
    measure: Callable[[Row], int],
    workers: int | None = None,
    told: Callable[[int, int], None] | None = None,
    use: Use = "example",
) -> tuple[Rows, Problems]:
    """Read and check `files`, whose rows are all for one use. `measure` returns the tokens of a row, or raises BadRow
    for one that cannot be learnt; it is called from several threads. `told` gets the bytes read and to be read.

    Raises FinetuneError where a file cannot be read or no row is left, saying what is wrong with the rows."""
    rows, problems = Rows.empty(files, use), Problems()
    threads = workers or min(16, os.cpu_count() or 1)
    waiting: deque[tuple[int, int, int, Future[list[int | BadRow]]]] = deque()

    def take() -> None:
        file, line, offset, future = waiting.popleft()
        for answers, found in enumerate(future.result(), 1):
            if isinstance(found, BadRow):
                problems.add(f"{files[file].name} line {line}", found)
            else:
                several = len(future.result()) > 1
                rows.add(file, line, offset, answers if several else _ALL, found)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for file, path in enumerate(files):
                for line, offset, text in lines_of(path):
                    waiting.append((file, line, offset, pool.submit(_check, text, path, line, measure, use)))
                    if len(waiting) > 8 * threads:
                        take()
                    if told and line % 100 == 0:
                        told(offset, path.stat().st_size)
            while waiting:
                take()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if not len(rows):
        why = " ".join(f"{line}." for line in problems.lines()) or "It has no rows."
        raise FinetuneError(f"There is nothing to learn from in {', '.join(p.name for p in files)}. {why}")
    return rows, problems


_ALL = 0
"""In `Rows.answers`: the row as it stands."""


def _check(text: bytes, path: Path, line: int, measure: Callable[[Row], int], use: Use) -> list[int | BadRow]:
    """The length of each example of a row; or what is wrong with it."""
    try:
        row = _parse(text, path, line, use)
    except BadRow as problem:
        return [problem]
    out: list[int | BadRow] = []
    for example in examples_of(row):
        try:
            out.append(measure(example))
        except BadRow as problem:
            out.append(problem)
    return out


def lines_of(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number, offset and bytes of every line that is not blank."""
    try:
        with path.open("rb") as stream:
            offset = line = 0
            while text := stream.readline(MAX_LINE + 1):
                line += 1
                start, offset = offset, offset + len(text)
                while len(text) > MAX_LINE and not text.endswith(b"\n"):  # the rest of it is passed over
                    rest = stream.readline(MAX_LINE)
                    offset += len(rest)
                    if not rest or rest.endswith(b"\n"):
                        break
                if text.strip():
                    yield line, start, text
    except OSError as error:
        raise FinetuneError(
            f"{path} cannot be read ({error.strerror or error}); give a .jsonl file of conversations."
        ) from error


def _parse(text: bytes, path: Path, line: int, use: Use) -> Row:
    where = f"{path.name} line {line}"
    if len(text) > MAX_LINE:
        raise BadRow("is not a JSON object of at most 64 MB", "too long")
    try:
        data = json.loads(text.decode("utf-8-sig" if line == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRow("is not a JSON object of at most 64 MB", f"{error}"[:80]) from None
    return parse_row(data, path.absolute().parent, where, use)


# -- checked once ---------------------------------------------------------------------------------------------------


def load_rows(
    files: Sequence[Path],
    measure: Callable[[Row], int],
    cache: Path,
    depends: str,
    told: Callable[[int, int], None] | None = None,
    use: Use = "example",
) -> tuple[Rows, Problems]:
    """`read_jsonl`, or what an earlier call found, kept in the folder `cache`. Several processes may call it at once:
    the first checks and the others wait for what it finds.

    `depends` names all else that decides which rows are good: the model, its sampling, the longest sequence."""
    try:
        stamps = [[str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size] for path in files]
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FinetuneError(f"{error.filename} cannot be read ({error.strerror}); give a .jsonl file.") from error
    key = hashlib.sha256(json.dumps([_VERSION, stamps, depends, use]).encode()).hexdigest()[:32]
    stored = cache / f"rows-{key}.json"
    with _locked(cache / f"rows-{key}.lock"):
        known = _load(stored, files, use)
        if known is not None:
            return known
        rows, problems = read_jsonl(files, measure, told=told, use=use)
        columns = {name: getattr(rows, name).tolist() for name in ("file", "line", "offset", "answers", "lengths")}
        scratch = stored.with_suffix(f".{os.getpid()}.part")
        try:
            scratch.write_text(json.dumps({"rows": columns, "problems": problems.as_json()}), "utf-8")
            os.replace(scratch, stored)
        except OSError:
            scratch.unlink(missing_ok=True)  # the disk is full: the next run checks once more
    return rows, problems


def _load(stored: Path, files: Sequence[Path], use: Use) -> tuple[Rows, Problems] | None:
    try:
        data = json.loads(stored.read_text("utf-8"))
        rows = Rows.empty(files, use)
        for name, values in data["rows"].items():
            getattr(rows, name).extend(values)
        return rows, Problems.from_json(data["problems"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing gives the lock back, and so does the end of the process
