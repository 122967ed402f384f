"""A folder of media, and whatever says what they show, as items.

Media take their facts from the files of the same name beside them (sidecar.py) and from the lines of a captions.jsonl
in their folder or above. A .txt with no medium of its name is a text, an .md a document with its pictures in place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from finetune.bench.base import inside
from finetune.data.items import Item, Kind, Medium, number, read_facts
from finetune.data.report import Report
from finetune.data.sidecar import SUFFIXES, read_captions, read_sidecar, read_text
from finetune.errors import FinetuneError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".ogv", ".wmv")
CAPTIONS = "captions.jsonl"

_REFERENCE = re.compile(r"!\[[^\]\n]{0,2000}\]\(([^()\s]{1,1000})\)")


def kind_of(name: str) -> Kind | None:
    """Whether a file is a picture or a video, by its name."""
    suffix = PurePosixPath(name).suffix.lower()
    return "image" if suffix in PICTURES else "video" if suffix in VIDEOS else None


def read_folder(folder: Path) -> tuple[list[Item], Report]:
    """Everything in `folder` and the folders within, by path. Media are not opened.

    Hidden files are passed over; links that lead out of the folder are refused and counted. Raises FinetuneError where
    `folder` is none or holds nothing that can be used."""
    if not folder.is_dir():
        raise FinetuneError(f"{folder} is no folder; give one with videos, pictures or texts.")
    reading = _Reading(folder)
    for name in _files(folder, reading.report):
        reading.note(name)
    items = reading.items()
    if not items:
        more = "; ".join(f"{why} ({reason.count})" for why, reason in reading.report.reasons.items())
        raise FinetuneError(
            f"{folder} holds no videos, pictures or texts that can be read{f' ({more})' if more else ''}; "
            "give a folder with some."
        )
    reading.report.made = len(items)
    return items, reading.report


def _files(folder: Path, report: Report) -> Iterator[str]:
    """Names relative to `folder` of all files, sorted; what cannot be listed is counted."""

    def unlistable(error: OSError) -> None:
        report.drop(os.path.relpath(error.filename, folder), "a folder cannot be listed", error.strerror or "")

    for here, folders, files in os.walk(folder, onerror=unlistable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(here, name)):
                report.drop(os.path.relpath(os.path.join(here, name), folder), "a link to a folder is not followed")
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(here, name).relative_to(folder).as_posix()


class _Reading:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = Report("folder", "files")
        self._media: dict[str, Kind] = {}
        self._beside: dict[str, list[str]] = {}  # by path without suffix
        self._used: set[str] = set()  # sidecars of some medium
        self._documents: list[str] = []
        self._captions: list[str] = []

    def note(self, name: str) -> None:
        """Take a file up, unless it is of no use here or leads out of the folder."""
        suffix = PurePosixPath(name).suffix.lower()
        kind = kind_of(name)
        if kind is None and suffix not in (*SUFFIXES, ".md") and PurePosixPath(name).name != CAPTIONS:
            return
        self.report.came += 1
        usable = self._inside(name)
        if usable is None:
            return
        if kind is not None:
            self._media[name] = kind
        elif PurePosixPath(name).name == CAPTIONS:
            self._captions.append(name)
        elif suffix == ".md":
            self._documents.append(name)
        else:
            self._beside.setdefault(name[: -len(suffix)], []).append(name)

    def _inside(self, name: str) -> Path | None:
        if any(0xD800 <= ord(character) <= 0xDFFF for character in name):
            self.report.drop(ascii(name), "a file's name is not UTF-8")
            return None
        path = inside(self.folder, name)
        if isinstance(path, str):
            why = path.partition(":")[0]
            self.report.drop(name, "a link leads out of the folder" if "outside" in why else "a file is missing")
            return None
        return path

    def items(self) -> list[Item]:
        made = {name: self._medium(name, kind) for name, kind in sorted(self._media.items())}
        lone = sorted({name for names in self._beside.values() for name in names} - self._used)
        more: list[Item] = []
        for name in self._captions:
            more += self._lines(name, made)
        for name in lone:
            if PurePosixPath(name).suffix.lower() == ".txt":
                more += self._text(name)
            else:
                self.report.drop(name, "a sidecar has no medium of its name")
        for name in self._documents:
            more += self._document(name)
        return [*made.values(), *more]

    def _medium(self, name: str, kind: Kind) -> Item:
        item = Item(name, (Medium(name, kind),))
        for stem in (name, str(PurePosixPath(name).with_suffix(""))):
            for beside in sorted(self._beside.get(stem, ())):
                self._used.add(beside)
                told = partial(self.report.drop, beside, "a sidecar cannot be used")
                item = read_sidecar(self.folder / beside, item, told)
        return item

    def _lines(self, name: str, made: dict[str, Item]) -> list[Item]:
        """The items of a captions.jsonl. The first line about a whole medium gives that medium its facts; every other
        one is an item of its own about the same file."""
        found: list[Item] = []
        spoken_for: set[str] = set()
        for line, facts in read_captions(self.folder / name):
            place = f"{name}:{line}"
            if isinstance(facts, str):
                self.report.drop(place, "a line of captions cannot be read", facts)
                continue
            tell = partial(self.report.drop, place, "a line of captions cannot be used")
            file = facts.get("file")
            if file is None:
                found.append(read_facts(Item(place), facts, tell))
                continue
            key = self._file(file, PurePosixPath(name).parent) if isinstance(file, str) else None
            if key is None or key not in self._media:
                self.report.drop(place, "a line of captions names no medium of the folder", str(file)[:100])
                continue
            start, end = number(facts.get("start")), number(facts.get("end"))
            if start is not None and end is not None and not 0 <= start < end:
                tell("start and end are no range of seconds")
            elif start is None and end is None and key not in spoken_for:
                spoken_for.add(key)
                made[key] = read_facts(made[key], facts, tell)
            else:
                medium = Medium(key, self._media[key], start, end)
                found.append(read_facts(Item(place, (medium,)), facts, tell))
        return [item for item in found if item.media or item.text or item.questions]

    def _file(self, name: str, folder: PurePosixPath) -> str | None:
        """A name given in a file of `folder` as a path relative to the folder that is read; None if it leaves that."""
        path = os.path.normpath(folder / name)
        return None if path.startswith("..") or os.path.isabs(path) else path.replace(os.sep, "/")

    def _text(self, name: str) -> list[Item]:
        item = read_sidecar(self.folder / name, Item(name), partial(self.report.drop, name, "a text cannot be used"))
        return [item] if item.text else []

    def _document(self, name: str) -> list[Item]:
        """A text with pictures in their places. One whose picture is missing is left out: what follows would speak of
        something that is not there."""
        try:
            text = read_text(self.folder / name)
        except FinetuneError as error:
            self.report.drop(name, "a document cannot be used", str(error))
            return []
        parts: list[str | Medium] = []
        pieces = _REFERENCE.split(text)
        for at, piece in enumerate(pieces):
            if at % 2 == 0:
                parts += [piece.strip()] if piece.strip() else []
                continue
            path = self._file(unquote(piece), PurePosixPath(name).parent)
            if path is None or path not in self._media:
                self.report.drop(name, "a document names a medium that is not in the folder", piece[:100])
                return []
            parts.append(Medium(path, self._media[path]))
        media = tuple(part for part in parts if isinstance(part, Medium))
        if not media:
            return [Item(name, text=text.strip())] if text.strip() else []
        return [Item(name, media, parts=tuple(parts))]
