"""Comments that a model wrote about a clip, ready-made questions that it answered, and what people chose of them.

comments = Store("data/studio.sqlite").comments
made = comments.begin("comment", "Write one comment …", [RoundClip(sha256)], language="en", mode="no_think", wanted=4)
draft = comments.add_draft(made.id, finish="stop", text="So calm!", fit=True)
comments.choose(draft.id, "edited", "So calm, I could watch it all day.")
comment_lessons(store)               # what is to be learnt from all of them

A draft has one word in force. Another takes its place, and `choose(…, None)` takes it back; what was said before stays
in the file with the time until which it held."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from sqlite_utils import Database

from engine.events import Finish
from finetune.errors import FinetuneError
from finetune.feedback.database import File
from finetune.feedback.rows import AnswerFacts, Video, clean, column, loads, new_id, now, video_of
from finetune.writing.moderation import has_marks

if TYPE_CHECKING:
    from finetune.feedback.store import Store

Choice = Literal["picked", "edited", "rejected"]
"""What a person says of a draft: good as it is, good as it was rewritten, not good."""

COMMENT = "comment"
"""The skill of a round that writes comments; a ready-made question has its own name (finetune.writing.skills)."""

LONGEST = 2000
"""Characters of a draft as a person may rewrite it."""

_MARK = re.compile(r"<(?=(?:image|video)>)")
_FACTS = ("model", "checkpoint", "adapter", "runtime", "decoding", "usage", "timings")


@dataclass(frozen=True)
class RoundClip:
    """A kept video and the range of it, in seconds of the file; None is from the start or to the end."""

    video: str  # sha256
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Draft:
    """One text that the model wrote, whole: it is kept when it has ended and was looked at."""

    id: str
    round: str
    text: str
    raw_text: str | None  # as the model wrote it, with the marks of its reasoning
    finish: Finish
    error: str | None  # one sentence for the user
    fit: bool  # it may be shown; a draft that is not fit was withheld
    moderation: dict[str, Any] | None  # why (finetune.writing.moderation); None where nothing was to be judged
    model: str | None
    checkpoint: str | None
    adapter: str | None
    runtime: str | None
    decoding: dict[str, Any] | None  # with the seed it was drawn with
    usage: dict[str, Any] | None
    timings: dict[str, Any] | None
    created: str
    choice: Choice | None = None  # in force
    edited: str | None = None  # the better text, of a draft that was edited

    @property
    def written(self) -> str:
        """As the model wrote it, which is what it learns."""
        return self.raw_text or self.text

    @property
    def best(self) -> str:
        """The text as it stands after the choice."""
        return self.edited if self.edited is not None else self.text


@dataclass(frozen=True)
class Round:
    """One request: what was asked of which clips, and what came of it, oldest first."""

    id: str
    skill: str
    language: str
    wishes: dict[str, Any]  # what was set for it: tone, length, title …
    prompt: str  # the text behind the clips, without the mode's switch
    mode: str
    sampling: dict[str, Any]  # of each clip: fps, max_frames, budget; null leaves it to the model
    wanted: int  # drafts that were asked for
    created: str
    clips: tuple[RoundClip, ...]
    drafts: tuple[Draft, ...] = field(default=())


class Comments:
    """The part of a store that holds them. Every method may be called from any thread; each raises FinetuneError as
    the store's do. When a method that writes returns, what it wrote is on the disk."""

    def __init__(self, file: File) -> None:
        self._file = file

    # -- rounds -------------------------------------------------------------------------------------------------

    def begin(
        self,
        skill: str,
        prompt: str,
        clips: Sequence[RoundClip],
        *,
        language: str,
        mode: str,
        wanted: int = 1,
        wishes: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> Round:
        """Keep what is asked. FinetuneError where a video is no longer in the store."""
        row = {
            "id": new_id(),
            "skill": skill,
            "language": language,
            "wishes": wishes or {},
            "prompt": prompt,
            "mode": mode,
            "sampling": sampling or {},
            "wanted": wanted,
            "created": now(),
        }
        with self._file.transaction() as db:
            db.table("comment_rounds").insert({name: column(value) for name, value in row.items()})
            for position, clip in enumerate(clips):
                if not _exists(db, "videos", "sha256", clip.video):
                    raise FinetuneError("A video of this round is no longer kept; drop it again and start once more.")
                place = {"round_id": row["id"], "position": position, "video": clean(clip.video)}
                db.table("comment_clips").insert({**place, "clip_start": clip.start, "clip_end": clip.end})
            return self._round(db, str(row["id"]))

    def round(self, round: str) -> Round:
        """FinetuneError if it was deleted."""
        with self._file.snapshot() as db:
            return self._round(db, round)

    def rounds(self, skills: Sequence[str] | None = None, limit: int | None = 100) -> list[Round]:
        """The newest first; of some skills if asked."""
        chosen = "" if skills is None else f"WHERE skill IN ({', '.join('?' * len(skills))})"
        sql = f"SELECT id FROM comment_rounds {chosen} ORDER BY id DESC LIMIT ?"
        with self._file.snapshot() as db:
            ids = [row["id"] for row in db.query(sql, [*(skills or ()), -1 if limit is None else max(limit, 0)])]
            return [self._round(db, one) for one in ids]

    def delete(self, round: str) -> list[Path]:
        """Remove a round with its drafts and choices, and forget the videos that nothing else refers to.

        Returns the paths of those videos: their files are the caller's to delete. Empty if it was deleted before."""
        with self._file.transaction() as db:
            sql = "SELECT DISTINCT video FROM comment_clips WHERE round_id = ? ORDER BY video"
            used = [row["video"] for row in db.query(sql, [clean(round)])]
            db.execute("DELETE FROM comment_rounds WHERE id = ?", [clean(round)])
            return forget_unused(db, used)

    def videos(self, limit: int = 200) -> list[Video]:
        """The kept videos to choose from, the newest first."""
        with self._file.snapshot() as db:
            sql = "SELECT * FROM videos ORDER BY created DESC, sha256 LIMIT ?"
            return [video_of(row) for row in db.query(sql, [max(limit, 0)])]

    # -- drafts -------------------------------------------------------------------------------------------------

    def add_draft(
        self,
        round: str,
        *,
        finish: Finish,
        fit: bool,
        error: str | None = None,
        moderation: Mapping[str, Any] | None = None,
        **facts: Unpack[AnswerFacts],
    ) -> Draft:
        """Keep a draft that has ended. FinetuneError if its round was deleted."""
        known = {name: facts.get(name) for name in ("text", "raw_text", *_FACTS)}
        row = {"id": new_id(), "round_id": round, **known, "text": known["text"] or "", "finish": finish}
        row |= {"error": error, "fit": int(fit), "moderation": moderation, "created": now()}
        with self._file.transaction() as db:
            if not _exists(db, "comment_rounds", "id", round):
                raise FinetuneError("This round was deleted; start a new one.")
            db.table("comment_drafts").insert({name: column(value) for name, value in row.items()})
            return _draft(db, str(row["id"]))

    def choose(self, draft: str, choice: Choice | None, text: str | None = None) -> Draft:
        """Keep what a person says of a draft, in place of what was said before; None takes it back. `text` is the
        better text of "edited"; one that changes nothing means "picked".

        FinetuneError if the draft was deleted or withheld, or the text cannot be learnt."""
        if choice is not None and choice not in get_args(Choice):
            raise ValueError(f"there is no choice {choice!r}")
        with self._file.transaction() as db:
            found = _draft(db, draft)
            if choice is not None and not found.fit:
                raise FinetuneError("This draft was withheld; choose among those that are shown.")
            if choice == "edited":
                text = _better(text)
                choice, text = ("picked", None) if text == found.text.strip() else (choice, text)
            else:
                text = None
            when = now()
            sql = "UPDATE comment_choices SET revoked = ? WHERE draft_id = ? AND revoked IS NULL"
            db.execute(sql, [when, found.id])
            if choice is not None:
                row = {"id": new_id(), "draft_id": found.id, "choice": choice, "text": text, "created": when}
                db.table("comment_choices").insert({**row, "revoked": None})
            return _draft(db, found.id)

    def _round(self, db: Database, round: str) -> Round:
        found = next(iter(list(db.query("SELECT * FROM comment_rounds WHERE id = ?", [clean(round)]))), None)
        if found is None:
            raise FinetuneError("This round was deleted; start a new one.")
        places = db.query("SELECT * FROM comment_clips WHERE round_id = ? ORDER BY position", [found["id"]])
        clips = tuple(RoundClip(row["video"], row["clip_start"], row["clip_end"]) for row in places)
        drafts = tuple(
            _draft_of(row) for row in db.query(f"{_DRAFTS} WHERE d.round_id = ? ORDER BY d.id", [found["id"]])
        )
        plain = {name: found[name] for name in ("id", "skill", "language", "prompt", "mode", "wanted", "created")}
        wishes, sampling = loads(found["wishes"]), loads(found["sampling"])
        return Round(**plain, wishes=wishes, sampling=sampling, clips=clips, drafts=drafts)


_DRAFTS = (
    "SELECT d.*, c.choice AS choice, c.text AS edited FROM comment_drafts d "
    "LEFT JOIN comment_choices c ON c.draft_id = d.id AND c.revoked IS NULL"
)


def _draft(db: Database, draft: str) -> Draft:
    row = next(iter(list(db.query(f"{_DRAFTS} WHERE d.id = ?", [clean(draft)]))), None)
    if row is None:
        raise FinetuneError("This draft was deleted; nothing can be said of it any more.")
    return _draft_of(row)


def _draft_of(row: Mapping[str, Any]) -> Draft:
    fields = {name: value for name, value in row.items() if name != "round_id"}
    for name in ("moderation", "decoding", "usage", "timings"):
        fields[name] = None if fields[name] is None else loads(fields[name])
    return Draft(**{**fields, "round": row["round_id"], "fit": bool(row["fit"])})


def _better(text: str | None) -> str:
    """The text a person wrote, if it can be learnt."""
    text = clean(text or "").strip()
    if not text:
        raise FinetuneError("Write the better text first, or reject the draft.")
    if len(text) > LONGEST:
        raise FinetuneError(f"The text has {len(text)} characters; the most is {LONGEST}. Shorten it.")
    if has_marks(text):
        raise FinetuneError(
            "The text holds marks that only the model's own format has, such as <think>; take them out."
        )
    return text


def _exists(db: Database, table: str, name: str, value: str) -> bool:
    return db.execute(f"SELECT 1 FROM {table} WHERE {name} = ?", [clean(value)]).fetchone() is not None


def forget_unused(db: Database, videos: Sequence[str]) -> list[Path]:
    """Forget those of these videos that no question and no round refers to; the paths of their files."""
    unused = []
    for sha in videos:
        if not _exists(db, "questions", "video", sha) and not _exists(db, "comment_clips", "video", sha):
            (row,) = db.query("SELECT path FROM videos WHERE sha256 = ?", [sha])
            unused.append(Path(row["path"]))
            db.execute("DELETE FROM videos WHERE sha256 = ?", [sha])
    return unused


# -- what is learnt ---------------------------------------------------------------------------------------------


def user_content(clips: int, prompt: str) -> str:
    """The user's text of a row: a mark for each clip, each with its number where there are several, then the prompt,
    in which a mark that somebody typed is broken. Read back by finetune.data.rows, it is what was asked."""
    marks = "<video>" if clips == 1 else "".join(f"{number_of(i)}<video>" for i in range(clips))
    return marks + _MARK.sub("<\u2060", prompt)


def number_of(position: int) -> str:
    """What stands before clip `position`, from 0, where there are several: the published template's own prefix."""
    return f"Video {position + 1}: "


def comment_lessons(store: Store, held_out: Callable[[str], bool] = lambda video: False) -> list[dict[str, Any]]:
    """What the comments and ready-made questions teach now, as the fields of a lesson, oldest first.

    A draft that was picked, or as it was edited, is an example (use "example": an SFT row). Each of them against each
    draft of its round that was rejected, and an edited one against its own first text, is a pair (use "pair": a
    preference row). Rounds whose videos are no longer on the disk teach nothing, nor do those that show both a video
    that is learnt from and one that `held_out` says is kept for measuring."""
    lessons: list[dict[str, Any]] = []
    paths = {video.sha256: os.path.abspath(video.path) for video in store.comments.videos(limit=2**31)}
    for made in reversed(store.comments.rounds(limit=None)):
        if not all(clip.video in paths and os.path.isfile(paths[clip.video]) for clip in made.clips):
            continue
        sides = {held_out(clip.video) for clip in made.clips}
        if len(sides) > 1:
            continue
        kept = sides == {True}
        good = [draft for draft in made.drafts if draft.choice in ("picked", "edited")]
        bad = [draft for draft in made.drafts if draft.choice == "rejected"]
        asked = [{"role": "user", "content": user_content(len(made.clips), made.prompt)}]
        media = [_medium(clip, paths[clip.video], made.sampling) for clip in made.clips]

        def lesson(
            use: str, draft: Draft, row: dict[str, Any], made: Round = made, kept: bool = kept
        ) -> dict[str, Any]:
            video = made.clips[0].video if made.clips else None
            about = {"question": made.id, "answer": draft.id, "video": video, "source": "comment"}
            return {"use": use, **about, "held_out": kept, "row": row}

        for draft in good:
            answer, mode = _taught(draft, made.mode)
            messages = [*asked, {"role": "assistant", "content": answer}]
            lessons.append(lesson("example", draft, {"messages": messages, "videos": media, "mode": mode}))
        first = [(draft, draft) for draft in good if draft.choice == "edited"]
        for better, worse in [*first, *product(good, bad)]:
            (chosen, mode), rejected = _taught(better, made.mode), worse.written
            if mode == made.mode and chosen.strip() != rejected.strip():
                row = {"messages": asked, "videos": media, "mode": mode, "chosen": chosen, "rejected": rejected}
                lessons.append(lesson("pair", better, row))
    return lessons


def _taught(draft: Draft, mode: str) -> tuple[str, str]:
    """What is learnt to be said, and in which mode. A person rewrites the answer, not the thought before it: where the
    model had thought, the better text is an answer that is given at once."""
    if draft.edited is None:
        return draft.written, mode
    thought = draft.written.strip() != draft.text.strip()
    return draft.edited, "no_think" if thought else mode


def _medium(clip: RoundClip, path: str, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """A clip as a row names it: only what is not left to the model."""
    wanted = {name: sampling.get(name) for name in ("fps", "max_frames", "budget")}
    named = {"path": path, "start": clip.start, "end": clip.end, **wanted}
    return {name: value for name, value in named.items() if value is not None}
