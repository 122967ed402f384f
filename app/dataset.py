"""What the Data tab does, without the page: the list with its pictures, and work that takes a while."""

from __future__ import annotations

import logging
import queue
import threading
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from app.errors import AppError
from app.library import Library
from engine.errors import EngineError
from finetune.data.frames import at_times
from finetune.data.report import Report
from finetune.errors import FinetuneError
from finetune.feedback.browse import Entry, Page, browse
from finetune.feedback.checks import check
from finetune.feedback.export import VIDEOS, Format, export
from finetune.feedback.filters import Filters
from finetune.feedback.importing import import_file
from finetune.feedback.store import Store

_log = logging.getLogger(__name__)
_THUMB = 192  # pixels of the longer side
_ROWS = (".jsonl", ".json")


@dataclass(frozen=True)
class Work:
    """How far the work that takes a while is, and what came of it."""

    running: bool = False
    what: str = ""  # check, export, import
    done: int = 0
    total: int = 0  # 0: not known
    found: dict[str, int] | None = None  # of a check: how often each thing was found
    reports: tuple[Report, ...] = ()  # of an export or import
    file: Path | None = None  # to be fetched
    error: str = ""


class Dataset:
    """One per process. Every method may be called from any thread. `folder` is for the files that are exported."""

    def __init__(self, store: Store, library: Library, folder: Path) -> None:
        self.store, self.library, self.folder = store, library, folder
        self._pictures = Pictures(library)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._work = Work()

    def page(self, filters: Filters, before: int | None = None) -> Page:
        """The newest entries that fit, of those before a place. Their pictures are made meanwhile."""
        found = browse(self.store, filters, before)
        self._pictures.want(found.entries)
        return found

    def picture(self, entry: Entry) -> Path | None:
        """Where the first frame of an entry's clip is, or soon will be; None where its video is gone."""
        return self._pictures.place(entry)

    # -- work that takes a while --------------------------------------------------------------------------------

    def work(self) -> Work:
        return self._work

    def check(self) -> None:
        """Look through everything for duplicates and what is of no use. FinetuneError if other work goes on."""

        def work() -> Work:
            found = check(self.store, lambda _, done, total: self._tell(done, total), self._stop.is_set)
            return Work(what="check", found=found)

        self._begin("check", work)

    def export(self, format: Format, filters: Filters, videos: bool) -> None:
        """Write what fits the filters to a file in `folder`; with `videos` an archive that holds them too."""

        def work() -> Work:
            place = self.folder / (f"{format}-with-videos" if videos else format)
            file = place / f"keye-{format}.jsonl"
            report = export(self.store, file, format, filters, videos=videos, told=lambda made: self._tell(made, 0))
            return Work(what="export", reports=(report,), file=_archive(file) if videos else file)

        filters.check()
        self._begin("export", work)

    def take_in(self, files: Sequence[Path]) -> None:
        """Take rows from the .jsonl files among `files`; the others are the videos that these may name."""
        rows = [file for file in files if file.suffix.lower() in _ROWS]
        if not rows:
            raise AppError("Choose a .jsonl file, and beside it the videos that it names.")
        beside = {file.name: file for file in files if file not in rows}

        def work() -> Work:
            reports = []
            for file in rows:
                reports.append(
                    import_file(
                        self.store,
                        file,
                        self.library.folder,
                        beside=beside,
                        told=self._tell,
                        stopped=self._stop.is_set,
                    )
                )
            return Work(what="import", reports=tuple(reports))

        self._begin("import", work)

    def stop(self) -> None:
        """End the work; what it has done so far stays."""
        self._stop.set()

    def close(self) -> None:
        self.stop()
        self._pictures.close()
        if self._thread is not None:
            self._thread.join(30)

    def _tell(self, done: int, total: int) -> None:
        self._work = replace(self._work, done=done, total=total)

    def _begin(self, what: str, work: Callable[[], Work]) -> None:
        def run() -> None:
            try:
                self._work = work()
            except (FinetuneError, EngineError, AppError) as error:
                self._work = Work(what=what, error=str(error))
            except Exception as error:
                _log.exception("the %s ended", what)
                self._work = Work(what=what, error=f"Something went wrong on our side ({type(error).__name__}).")

        with self._lock:
            if self._work.running:
                raise AppError("Other work on the data is still going on; stop it or wait for its end.")
            self._stop.clear()
            self._work = Work(running=True, what=what)
            self._thread = threading.Thread(target=run, name=f"data-{what}", daemon=True)
            self._thread.start()


def _archive(file: Path) -> Path:
    """The file and the videos beside it as one, uncompressed: videos are compressed already."""
    target = file.with_suffix(".zip")
    scratch = target.with_suffix(".part")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as archive:
            archive.write(file, file.name)
            for video in sorted((file.parent / VIDEOS).glob("*")):
                archive.write(video, f"{VIDEOS}/{video.name}")
        scratch.replace(target)
    except OSError as error:
        raise FinetuneError(
            f"{target} cannot be written ({error.strerror or error}); free some space or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
    return target


class Pictures:
    """Small pictures of clips, each made once, beside the videos and gone with them: `<sha256>.<ms>.thumb.jpg`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._waiting: queue.Queue[tuple[str, float, Path] | None] = queue.Queue()
        self._failed: set[Path] = set()
        self._thread: threading.Thread | None = None

    def place(self, entry: Entry) -> Path | None:
        if entry.video is None or self._library.find(entry.video) is None:
            return None
        path = self._library.folder / f"{entry.video}.{round(1000 * (entry.start or 0.0))}.thumb.jpg"
        return None if path in self._failed else path

    def want(self, entries: Sequence[Entry]) -> None:
        """Have the pictures of these entries made in the background."""
        wanted = {(entry.video, entry.start or 0.0, self.place(entry)) for entry in entries}
        for sha, start, path in wanted:
            if sha is not None and path is not None and not path.is_file():
                self._waiting.put((sha, start, path))
        if self._waiting.qsize() and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._make, name="thumbnails", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._waiting.put(None)

    def _make(self) -> None:
        while (wanted := self._waiting.get()) is not None:
            sha, start, path = wanted
            source = self._library.find(sha)
            if path.is_file() or source is None:
                continue
            try:
                ((_, frame),) = at_times(source, [start], _THUMB)
                _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
                scratch = path.with_suffix(".part")
                scratch.write_bytes(data.tobytes())
                scratch.replace(path)
            except (EngineError, FinetuneError, OSError, ValueError) as error:
                _log.info("no picture of %s: %s", source.name, error)
                self._failed.add(path)
