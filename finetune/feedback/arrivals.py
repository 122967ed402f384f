"""The videos that a file of rows names, as they are taken in.

A video is a file in the folder of the file that names it, or a content hash (`sha256`) that is known. No other file of
the machine is opened, whatever a row says: not by an absolute path, not by `..`, not through a link."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from engine.errors import EngineError
from engine.video import content_hash, describe_video
from finetune.data.problems import BadRow
from finetune.errors import FinetuneError
from finetune.feedback.export import VIDEOS
from finetune.feedback.rows import clean
from finetune.feedback.store import Store
from finetune.feedback.tables import SHA, video_name
from finetune.feedback.videos import find_video, keep_video


class LeftOut(Exception):
    """A row that is not taken over. `detail` says what about it, in a few words."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Arrivals:
    """Of one file in `folder`. `beside` are further files by name; kept videos are in the folder `library`."""

    def __init__(self, store: Store, folder: Path, library: Path, beside: Mapping[str, Path]) -> None:
        self.folder = folder
        self._store, self._library = store, library
        self._beside = {name: path.resolve() for name, path in beside.items()}
        self._allowed = set(self._beside.values())
        self._names: dict[Path, str] = {}
        self._taken: dict[Path, str] = {}
        try:
            library.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FinetuneError(f"The folder {library} cannot be made ({error.strerror}); choose another.") from error

    # -- rows of conversations ----------------------------------------------------------------------------------

    def found(self, item: Any) -> Any:
        """A row's video with the path of the file that is meant, where a hash or a file beside tells it."""
        facts = {"path": item} if isinstance(item, str) else item
        if not isinstance(facts, dict):
            return item
        path, sha = facts.get("path", facts.get("video")), facts.get("sha256")
        file = self._known(sha) if isinstance(sha, str) and SHA.fullmatch(sha) else None
        if file is None and isinstance(path, str):
            file = self._beside.get(PurePosixPath(path).name)
        if file is not None:
            facts = {**facts, "path": str(file)}
            self._allowed.add(file)
        name = facts.get("name")
        if isinstance(name, str) and isinstance(facts.get("path"), str) and name.strip():
            where = Path(facts["path"])
            self._names[where if where.is_absolute() else self.folder / where] = clean(name)[:200]
        return facts

    def take(self, path: Path) -> str:
        """Keep a video that a row names; its content hash. Raises BadRow where it is not to be had."""
        if path not in self._taken:
            file = path.resolve()
            if file not in self._allowed and not file.is_relative_to(self.folder.resolve()):
                raise BadRow("names a path outside of the file's folder", f"{path!s:.80}")
            if not file.is_file():
                raise BadRow("names a file that is missing", path.name[:80])
            self._taken[path] = self._keep(file, self._names.get(path, path.name))
        return self._taken[path]

    def _known(self, sha: str) -> Path | None:
        kept = find_video(self._library, sha)
        if kept is None and (video := self._store.video(sha)) is not None:
            kept = Path(video.path) if Path(video.path).is_file() else None
        return None if kept is None else kept.resolve()

    def _keep(self, file: Path, name: str) -> str:
        try:
            sha, info = keep_video(self._library, file)
        except EngineError as error:
            raise BadRow("names a video that cannot be read", str(error)) from None
        except OSError as error:
            raise FinetuneError(
                f"The videos cannot be written to {self._library} ({error.strerror}); free some space and import again."
            ) from error
        self._store.add_video(sha, name=name, path=info.path, probe=describe_video(info))
        return sha

    # -- rows of the store's own format -------------------------------------------------------------------------

    def of_row(self, line: Mapping[str, Any]) -> None:
        """If a line is the row of a video: fetch its file from beside the one that is read, if it is there."""
        row = line.get("row")
        if line.get("table") != "videos" or not isinstance(row, dict):
            return
        sha, name = row.get("sha256"), row.get("path")
        if not isinstance(sha, str) or not SHA.fullmatch(sha) or name != video_name(sha, str(name)):
            return  # its table says what is wrong with it
        if find_video(self._library, sha) is not None:
            return
        places = (self._beside.get(name), self.folder / VIDEOS / name, self.folder / name)
        for place in places:
            if place is None or not place.is_file():
                continue
            file = place.resolve()
            if file not in self._allowed and not file.is_relative_to(self.folder.resolve()):
                raise LeftOut("names a path outside of the file's folder", name)
            try:
                if content_hash(file) != sha:
                    raise LeftOut("names a video whose content is another one", name)
                keep_video(self._library, file)
            except EngineError as error:
                raise LeftOut("names a video that cannot be read", str(error)) from None
            except OSError as error:
                raise FinetuneError(
                    f"The videos cannot be written to {self._library} ({error.strerror}); free some space and import "
                    "again."
                ) from error
            return

    def kept_at(self, sha: str, name: str) -> str:
        """Where the video of a row is kept, or would be if its file came."""
        return str(find_video(self._library, sha) or self._library / name)
