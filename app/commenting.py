"""Writing comments and answering ready-made questions, without the page: rounds that run on their own over the store,
the library and the runtime, so that a reload or a closed tab loses nothing."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.errors import AppError
from app.library import Library, disk_problem
from engine.errors import EngineError
from engine.events import Answer, Done, Error, Queued, Retraction
from engine.reasoning.loop import reason
from engine.reasoning.modes import BENCHMARK, mode_of
from engine.runtime.base import Decoding, Message, ModelInfo, Part, Runtime
from engine.video import Cancelled, Clip, Sampling, sample
from finetune.errors import FinetuneError
from finetune.feedback import Store
from finetune.feedback.comments import COMMENT, Draft, Round, RoundClip, number_of
from finetune.feedback.rows import AnswerFacts
from finetune.writing import moderation
from finetune.writing.skills import Given, prompt, skill_of
from finetune.writing.wishes import Tongue, Wishes

_log = logging.getLogger(__name__)
_USER_ERRORS = (AppError, EngineError, FinetuneError)

MOST_COMMENTS = 8
_TOKENS_PER_WORD = 4  # of a tokenizer that knows few words, with room for what is too long
_JUDGE_TOKENS = 24  # a yes or a no, and a word around it
_SEEDS = 2**31 - MOST_COMMENTS
_REMEMBERED = 50  # rounds that ended, for what went wrong in them


@dataclass(frozen=True)
class Now:
    """How far a round is that runs, or ran last. `doing` is loading, decoding, queued, writing or judging; `number` the
    draft, from 1; `text` what an answer says so far, which a comment does not tell before it was judged."""

    running: bool = True
    stopping: bool = False
    doing: str = "loading"
    number: int = 0
    pieces: int = 0  # of text so far; about as many as tokens
    text: str = ""
    position: int = 0  # in the queue
    error: str = ""


@dataclass
class _Said:
    """What came of one question to the model."""

    done: Done
    text: str
    error: str


class Commenter:
    """One per process. Every method may be called from any thread."""

    def __init__(self, store: Store, library: Library, runtime: Runtime) -> None:
        self.store, self.library, self.runtime = store, library, runtime
        self._running: dict[str, _Running] = {}  # by round; those that ended stay, for their error
        self._lock = threading.Lock()

    def write(self, clip: RoundClip, wishes: Wishes, count: int) -> Round:
        """Begin to write `count` comments, each drawn with a seed of its own. What is asked is on the disk before this
        returns. AppError or FinetuneError where it cannot be."""
        if not 1 <= count <= MOST_COMMENTS:
            raise AppError(f"Between 1 and {MOST_COMMENTS} comments can be written at once, not {count}.")
        said = {**asdict(wishes), "most": wishes.most}
        return self._begin(COMMENT, wishes.prompt, (clip,), wishes.language, "no_think", count, said)

    def ask(self, name: str, clips: Sequence[RoundClip], given: Given, language: Tongue, mode: str) -> Round:
        """Begin to answer a ready-made question; as `write` does."""
        asked = prompt(skill_of(name), len(clips), given, language)
        return self._begin(name, asked, clips, language, mode_of(mode).name, 1, asdict(given))

    def now(self, round: str | None) -> Now | None:
        """None of a round that never ran in this process."""
        with self._lock:
            running = self._running.get(round or "")
        return None if running is None else running.now

    def stop(self, round: str | None) -> None:
        """End a round within one token; the drafts that are whole stay."""
        with self._lock:
            running = self._running.get(round or "")
        if running is not None:
            running.end()

    def delete(self, round: str) -> None:
        """Stop a round and remove it, with the videos that nothing else refers to."""
        with self._lock:
            running = self._running.pop(round, None)
        if running is not None:
            running.end()
            running.join(30)
        for path in self.store.comments.delete(round):
            self.library.remove(path.stem)  # kept files are named by their content

    def close(self) -> None:
        """Stop every round and wait until what was written is saved."""
        with self._lock:
            everything = list(self._running.values())
        for running in everything:
            running.end()
        for running in everything:
            running.join(10)

    def file(self, sha256: str) -> Path:
        """Where a video is kept. AppError if it is gone."""
        found = self.library.find(sha256)
        if found is None:
            known = self.store.video(sha256)
            name = known.name if known is not None else sha256[:8]
            raise AppError(f"The video {name} is no longer on the disk; drop it again to go on.")
        return found

    def _begin(
        self,
        skill: str,
        asked: str,
        clips: Sequence[RoundClip],
        language: str,
        mode: str,
        wanted: int,
        wishes: dict[str, Any],
    ) -> Round:
        for clip in clips:
            self.file(clip.video)
        sampling = {"budget": self._share(len(clips))} if len(clips) > 1 else {}
        made = self.store.comments.begin(
            skill, asked, clips, language=language, mode=mode, wanted=wanted, wishes=wishes, sampling=sampling
        )
        running = _Running(self, made)
        with self._lock:
            for old in [key for key, one in self._running.items() if not one.now.running][:-_REMEMBERED]:
                del self._running[old]
            self._running[made.id] = running
        running.start()
        return made

    def _share(self, clips: int) -> int:
        """Visual tokens of each clip: all of them share what the model gives to one."""
        if self.runtime.status().state != "ready":
            raise AppError("The model is still being loaded; ask about several clips once it is ready.")
        return max(1, self.runtime.info().sampling.budget // clips)


class _Running:
    """One round in a thread of its own."""

    def __init__(self, commenter: Commenter, made: Round) -> None:
        self._commenter, self._made = commenter, made
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="comments", daemon=True)
        self._telling = threading.Lock()
        self.now = Now()

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._tell(stopping=True)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _tell(self, **changes: Any) -> None:
        with self._telling:
            self.now = replace(self.now, **changes)

    def _run(self) -> None:
        try:
            self._all()
        except Cancelled:
            pass
        except _USER_ERRORS as error:
            self._tell(error=str(error))
        except OSError as error:
            self._tell(error=str(disk_problem(error, Path(error.filename or "."))))
        except Exception as error:  # our own defect: the user is told, the details are in the log
            _log.exception("a round of comments failed")
            self._tell(error=f"Something went wrong on our side ({type(error).__name__}); start once more.")
        finally:
            self._tell(running=False, stopping=False)

    def _all(self) -> None:
        made, runtime = self._made, self._commenter.runtime
        info = runtime.info()
        self._tell(doing="decoding")
        frames = [self._frames(clip, info.sampling) for clip in made.clips]
        media: list[Part] = []
        for position, clip in enumerate(frames):
            media += [clip] if len(frames) == 1 else [number_of(position), clip]
        first_seed = random.randrange(_SEEDS)
        shown: list[str] = []
        for number in range(made.wanted):
            if self._stop.is_set():
                return
            self._tell(doing="writing", number=number + 1, pieces=0, text="")
            draft = (
                self._comment(info, media, first_seed + number, shown)
                if made.skill == COMMENT
                else self._answer(info, media)
            )
            if draft is None:
                return
            if draft.fit:
                shown.append(draft.text)
            if draft.finish == "error":  # the next one would fail as well
                self._tell(error=draft.error or "")
                return

    def _frames(self, clip: RoundClip, own: Sampling) -> Any:
        chosen = Clip(self._commenter.file(clip.video), clip.start, clip.end)
        return sample(chosen, own.with_limits(**self._made.sampling), cancelled=self._stop.is_set)

    def _comment(self, info: ModelInfo, media: Sequence[Part], seed: int, shown: Sequence[str]) -> Draft | None:
        """Write one comment and judge it; None where it was stopped before both were done."""
        wishes = self._made.wishes
        most = int(wishes["most"])
        limit = min(info.decoding.max_tokens, 16 + _TOKENS_PER_WORD * most)
        decoding = replace(info.decoding, greedy=False, seed=seed, max_tokens=limit)
        said = self._say(media, self._made.prompt, decoding, self._made.mode)
        if said.done.finish == "stopped":
            return None
        if said.done.finish == "error":
            return self._keep(info, decoding, said, False, None)
        reasons = moderation.broken_rules(said.text, most, said.done.finish, shown)
        reply: str | None = None
        if not reasons:
            self._tell(doing="judging")
            asked = moderation.question(said.text, self._made.language, str(wishes.get("title", "")))
            judging = replace(BENCHMARK, max_tokens=_JUDGE_TOKENS)
            judge = self._say(media, asked, judging, "no_think")
            if judge.done.finish == "stopped":
                return None
            reply = judge.text
        judgement = moderation.judged(reasons, reply, info.demonstration)
        return self._keep(info, decoding, said, judgement.fit, judgement.to_row())

    def _answer(self, info: ModelInfo, media: Sequence[Part]) -> Draft:
        """Answer a ready-made question, drawn as the published evaluation draws."""
        said = self._say(media, self._made.prompt, BENCHMARK, self._made.mode, lambda text: self._tell(text=text))
        return self._keep(info, BENCHMARK, said, said.done.finish in ("stop", "length"), None)

    def _say(
        self,
        media: Sequence[Part],
        asked: str,
        decoding: Decoding,
        mode: str,
        grown: Callable[[str], None] = lambda text: None,
    ) -> _Said:
        text, error, done = "", "", None
        messages = [Message("user", (*media, asked))]
        for event in reason(self._commenter.runtime, messages, decoding, self._stop, mode_of(mode)):
            match event:
                case Answer(piece):
                    text += piece
                    self._tell(pieces=self.now.pieces + 1)
                    grown(text)
                case Retraction():
                    text = ""
                    grown(text)
                case Queued(position):
                    self._tell(position=position)
                case Error(message):
                    error = message
                case Done():
                    done = event
        assert done is not None, "a stream ends with Done"
        return _Said(done, text.strip(), error)

    def _keep(
        self, info: ModelInfo, decoding: Decoding, said: _Said, fit: bool, judgement: dict[str, Any] | None
    ) -> Draft:
        done = said.done
        facts: AnswerFacts = {
            "text": said.text,
            "raw_text": done.raw_text or None,
            "model": info.name,
            "checkpoint": info.path,
            "adapter": done.adapter or info.adapter,
            "runtime": info.runtime,
            "decoding": asdict(decoding),
            "usage": {
                "prompt_tokens": done.prompt_tokens,
                "visual_tokens": done.visual_tokens,
                "answer_tokens": done.answer_tokens,
                "thought_tokens": done.thought_tokens,
            },
            "timings": {"first_token": done.first_token_seconds, "total": done.total_seconds},
        }
        comments = self._commenter.store.comments
        error = said.error or None
        return comments.add_draft(
            self._made.id, finish=done.finish, fit=fit, error=error, moderation=judgement, **facts
        )
