"""A small store whose every row is known, for the tests of what is done with it."""

from __future__ import annotations

from pathlib import Path

from engine.video import describe_video
from finetune.feedback import Store
from finetune.feedback.videos import keep_video
from tests.media import make_clip


class Collected:
    """A store in `folder`, as the page keeps one, with its videos beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.videos = folder, folder / "videos"
        self.videos.mkdir(parents=True, exist_ok=True)
        self.store = Store(folder / "studio.sqlite")
        self.talk = ""

    def video(self, path: Path, name: str = "") -> str:
        sha, info = keep_video(self.videos, path)
        self.store.add_video(sha, name=name or path.name, path=info.path, probe=describe_video(info))
        return sha

    def clip(self, name: str, shade: int = 0) -> str:
        """A short video of its own content."""
        path = self.folder / name
        make_clip(path, frames=6 + shade, fps=10, size=(64, 64))
        return self.video(path)

    def bare(self, digit: str) -> str:
        """A video that the store knows and that has no file; its hash begins with `digit`."""
        sha = digit + "0" * 63
        self.store.add_video(sha, name=f"{digit}.mp4", path=f"/nowhere/{sha}.mp4", probe={"width": 64, "height": 64})
        return sha

    def ask(
        self,
        question: str,
        *answers: str,
        video: str | None = None,
        mode: str = "auto",
        model: str = "nano",
        again: bool = False,
        raw: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> list[str]:
        """A question with its answers, in a conversation of its own or, with `again`, in the last one; their ids."""
        if not again:
            self.talk = self.store.new_conversation(question).id
        asked = self.store.add_question(
            self.talk,
            question,
            mode=mode,
            video=video,
            start=start,
            end=end,
            sampling={"fps": None, "max_frames": 8, "budget": None},
        )
        made = []
        for text in answers:
            answer = self.store.begin_answer(asked.id, mode=mode, model=model)
            self.store.finish_answer(answer.id, "stop", text=text, raw_text=raw)
            made.append(answer.id)
        return made
