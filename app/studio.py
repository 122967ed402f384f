"""What the page does, without the page: videos, conversations and answers over the engine and the store."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from app.commenting import Commenter
from app.config import AppConfig
from app.dataset import Dataset
from app.errors import AppError
from app.hearing import Hearing, speech_model
from app.jobs import Job, Snapshot
from app.library import Library, disk_problem
from app.said import Said, said_of
from app.steps import to_row
from app.tuner import Tuner
from engine.errors import EngineError
from engine.events import Done, Event, Progress
from engine.prompt import interleaved, joined
from engine.reasoning.loop import reason
from engine.reasoning.modes import MODES, ModeName, mode_of
from engine.runtime.base import Decoding, Message, ModelInfo, Part, Runtime
from engine.runtime.served import hold
from engine.video import Cancelled, Clip, Frames, Sampling, VideoInfo, describe_video, probe, sample
from finetune.bench.background import Background
from finetune.errors import FinetuneError
from finetune.feedback import Answer, Comparison, DraftSet, Question, Store, standing
from finetune.feedback.lessons import lessons
from finetune.feedback.rows import AnswerFacts
from finetune.loop.serving import Serving

USER_ERRORS = (AppError, EngineError, FinetuneError)

QUESTION_LIMIT = 8000  # characters


@dataclass(frozen=True)
class Limits:
    """What the user set for sampling a clip; None leaves it to the model."""

    fps: float | None = None
    max_frames: int | None = None
    budget: int | None = None
    speech: bool = False  # what is said goes to the model with the frames, where it is known

    def apply(self, sampling: Sampling) -> Sampling:
        return sampling.with_limits(fps=self.fps, max_frames=self.max_frames, budget=self.budget)


@dataclass(frozen=True)
class Manner:
    """How a question is to be answered."""

    mode: ModeName = "auto"
    max_tokens: int | None = None  # thought and answer together; None leaves it to the model
    think_budget: int | None = None  # tokens of thought; None leaves what max_tokens leaves
    temperature: float | None = None  # with one, the answer is drawn, never greedy; None leaves it to the model


@dataclass(frozen=True)
class ClipChoice:
    """A kept video and the range of it the user picked, in seconds of the file; None is from start or to the end."""

    sha256: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Turn:
    """A question and its newest answer, or the one of a comparison or of drafts that the conversation goes on from.
    `span` turns the times the answer writes into seconds of the file: the second that the model counts as zero, and the
    last second of the clip. `said` is what was thought of its answers, by their ids."""

    question: Question
    answer: Answer | None
    span: tuple[float, float]
    comparison: Comparison | None = None
    drafts: DraftSet | None = None
    said: Mapping[str, Said] = field(default_factory=dict)


class Studio:
    """One per process. Every method may be called from any thread."""

    def __init__(self, config: AppConfig, runtime: Runtime) -> None:
        self.library = Library(config.data / "videos")
        self.store = Store(config.data / "studio.sqlite")
        self.bench = Background()
        self.bench_folder = config.data / "bench"
        trials = config.data / "trials"
        self.serving = Serving(self.store, runtime, config.started_with, trials, lessons=lessons, busy=self.bench.busy)
        self.runtime = self.serving.served
        self.hearing = Hearing(self.store, self.library, speech_model(config))
        self.comments = Commenter(self.store, self.library, self.runtime)
        self.dataset = Dataset(self.store, self.library, config.data / "exports")
        self.tuner = Tuner(config.data, self.store, self.runtime)
        # By conversation: one, or the left and the right of a comparison. Finished ones stay until the next question.
        self._jobs: dict[str, tuple[Job, ...]] = {}
        self._lock = threading.Lock()

    # -- videos -------------------------------------------------------------------------------------------------

    def add_video(self, upload: Path, name: str) -> tuple[str, VideoInfo]:
        """Keep an uploaded file; its content hash and what it is. EngineError or AppError where that fails."""
        sha, info = self.library.keep(upload)
        self.store.add_video(sha, name=name, path=str(info.path), probe=describe_video(info))
        return sha, info

    def video(self, sha256: str) -> VideoInfo:
        """What a kept video is. AppError if the file is gone."""
        return probe(self._file(sha256))

    def frames(
        self,
        clip: ClipChoice,
        limits: Limits,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        sampling: Sampling | None = None,
    ) -> Frames:
        """The frames the model gets of a clip: what the strip shows and what a question sends, the same objects.

        `sampling` is that of the model that answers; None: of the one that is served now."""
        wanted = limits.apply(sampling or self.runtime.info().sampling)
        return joined(self.parts(clip, limits, wanted, progress, cancelled), wanted)

    def parts(
        self,
        clip: ClipChoice,
        limits: Limits,
        sampling: Sampling,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Part, ...]:
        """What a question sends of a clip: its frames as `sampling` says, with what is said between them where that is
        wanted."""
        chosen = Clip(self._file(clip.sha256), clip.start, clip.end)
        cues = self.hearing.cues(clip.sha256) if limits.speech else ()
        if cues:
            return interleaved(chosen, cues, sampling, progress=progress, cancelled=cancelled)
        return (sample(chosen, sampling, progress=progress, cancelled=cancelled),)

    def _file(self, sha256: str) -> Path:
        file = self.library.find(sha256)
        if file is None:
            raise AppError("The video of this conversation is no longer on the disk; drop it again to go on.")
        return file

    # -- conversations ------------------------------------------------------------------------------------------

    def turns(self, conversation: str) -> list[Turn]:
        """Questions and the answers it goes on from, oldest first; empty for one that does not exist."""
        said = said_of(self.store, conversation)
        return [
            Turn(one.question, one.answer, _span(one.question, one.answer), one.comparison, one.drafts, said)
            for one in standing(self.store, conversation)
        ]

    def conversations(self) -> list[tuple[str, str, str]]:
        """(id, title, when it was last used, in this machine's time) of every conversation, newest first."""
        return [(c.id, c.title, _local_time(c.updated)) for c in self.store.conversations()]

    def delete(self, conversation: str) -> None:
        """Stop what runs in it and remove it, with the videos that nothing else refers to."""
        with self._lock:
            jobs = self._jobs.pop(conversation, ())
        _stop(jobs, 30)
        for path in self.store.delete_conversation(conversation):
            self.library.remove(path.stem)  # kept files are named by their content

    # -- answers ------------------------------------------------------------------------------------------------

    def jobs(self, conversation: str | None) -> tuple[Job, ...]:
        """The answers that run in a conversation, or ran last: none, one, or the left and the right of a comparison."""
        with self._lock:
            return self._jobs.get(conversation or "", ())

    def job(self, conversation: str | None) -> Job | None:
        """The first of them."""
        return next(iter(self.jobs(conversation)), None)

    def ask(
        self,
        conversation: str | None,
        text: str,
        clip: ClipChoice,
        limits: Limits,
        manner: Manner | None = None,
    ) -> tuple[str, Job]:
        """Keep the question and begin to answer it; the conversation (made here if None) and the running answer.

        The question is on the disk before this returns. AppError where there is nothing to ask."""
        manner = manner or Manner()
        conversation, (job,) = self._ask(conversation, text, clip, limits, manner.mode, (manner,))
        return conversation, job

    def compare(
        self,
        conversation: str | None,
        text: str,
        clip: ClipChoice,
        limits: Limits,
        manners: tuple[Manner, Manner],
        blind: bool = False,
    ) -> tuple[str, tuple[Job, ...]]:
        """As `ask`, with two answers at once, the left one first. `blind`: which manner is on which side is drawn."""
        one, other = manners
        if one.mode == other.mode:
            raise AppError("Both sides have the same mode; choose two different ones to compare.")
        sides = (other, one) if blind and random.random() < 0.5 else (one, other)
        return self._ask(conversation, text, clip, limits, one.mode, sides, blind)

    def _ask(
        self,
        conversation: str | None,
        text: str,
        clip: ClipChoice,
        limits: Limits,
        mode: str,
        manners: Sequence[Manner],
        blind: bool = False,
    ) -> tuple[str, tuple[Job, ...]]:
        text = text.strip()
        if not text:
            raise AppError("Write a question first.")
        for manner in manners:
            mode_of(manner.mode)
        if len(text) > QUESTION_LIMIT:
            raise AppError(f"The question has {len(text)} characters; the most is {QUESTION_LIMIT}. Shorten it.")
        self._file(clip.sha256)
        self.check_idle(conversation)
        earlier = self.turns(conversation) if conversation else []
        with self.store.transaction():
            if conversation is None:
                conversation = self.store.new_conversation(text).id
            question = self.store.add_question(
                conversation,
                text,
                video=clip.sha256,
                start=clip.start,
                end=clip.end,
                mode=mode,
                sampling=asdict(limits),
            )
            answers = [self.store.begin_answer(question.id, mode=manner.mode) for manner in manners]
            if len(answers) == 2:
                self.store.preferences.compare(question.id, answers[0].id, answers[1].id, blind=blind)
        return conversation, self.begin(conversation, earlier, text, clip, limits, manners, answers)

    def check_idle(self, conversation: str | None) -> None:
        """AppError while an answer runs there."""
        if any(job.snapshot().done is None for job in self.jobs(conversation)):
            raise AppError("An answer is still being written in this conversation; stop it or wait for its end.")

    def begin(
        self,
        conversation: str,
        earlier: Sequence[Turn],
        text: str,
        clip: ClipChoice,
        limits: Limits,
        manners: Sequence[Manner],
        answers: Sequence[Answer],
    ) -> tuple[Job, ...]:
        """Start the `answers` of the store to the question `text`, each in its manner; `earlier` came before."""
        changed = threading.Condition()
        jobs = tuple(
            Job(
                events=partial(self._events, earlier, text, clip, limits, manner, answer.id),
                save=partial(self._save, answer.id),
                unexpected=_unexpected,
                changed=changed,
                answer=answer.id,
            )
            for manner, answer in zip(manners, answers, strict=True)
        )
        with self._lock:
            self._jobs[conversation] = jobs
        for job in jobs:
            job.start()
        return jobs

    def _events(
        self,
        earlier: Sequence[Turn],
        text: str,
        clip: ClipChoice,
        limits: Limits,
        manner: Manner,
        answer: str,
        stop: threading.Event,
    ) -> Iterator[Event]:
        yield Progress("loading")
        with hold(self.runtime) as runtime:  # an answer ends with the model that began it
            info = runtime.info()
            yield Progress("decoding")
            try:
                messages, frames = self._messages(earlier, text, clip, limits, stop, info.sampling)
            except Cancelled:
                yield Done(finish="stopped", text="", model=info.name)
                return
            decoding = info.decoding
            if manner.max_tokens is not None:
                decoding = replace(decoding, max_tokens=manner.max_tokens)
            if manner.temperature is not None:
                decoding = replace(decoding, greedy=False, temperature=manner.temperature, seed=None)
            said = self.hearing.transcript(clip.sha256) if limits.speech else None
            facts = _provenance(info, decoding, frames, manner.think_budget, said.by if said else None)
            self.store.update_answer(answer, **facts)
            mode, budget = MODES[manner.mode], manner.think_budget
            yield from reason(runtime, messages, decoding, stop, mode, think_budget=budget)

    def _messages(
        self,
        earlier: Sequence[Turn],
        text: str,
        clip: ClipChoice,
        limits: Limits,
        stop: threading.Event,
        sampling: Sampling,
    ) -> tuple[list[Message], Frames]:
        """The conversation as the model reads it. A clip is sent with the first question about it and again only
        when the clip or its sampling changed in between."""
        messages: list[Message] = []
        sent: tuple[ClipChoice, Limits] | None = None
        for turn in earlier:
            if turn.answer is None or not turn.answer.text or turn.question.video is None:
                continue
            asked = (
                ClipChoice(turn.question.video, turn.question.start, turn.question.end),
                Limits(**turn.question.sampling),
            )
            parts: list[Part] = [turn.question.text]
            if asked != sent:
                try:
                    wanted = asked[1].apply(sampling)
                    parts = [*self.parts(*asked, wanted, cancelled=stop.is_set), *parts]
                except Cancelled:
                    raise
                except (EngineError, AppError):
                    continue  # a clip that is gone cannot be talked about; the rest of the conversation can
                sent = asked
            messages.append(Message("user", tuple(parts)))
            messages.append(Message("assistant", (turn.answer.text,)))
        wanted = limits.apply(sampling)
        shown = self.parts(clip, limits, wanted, cancelled=stop.is_set)
        messages.append(Message("user", (text,) if sent == (clip, limits) else (*shown, text)))
        return messages, joined(shown, wanted)

    def _save(self, answer: str, now: Snapshot) -> None:
        steps = to_row(now.steps) if now.steps else None
        if now.done is None:
            self.store.update_answer(answer, text=now.text, reasoning=steps)
            return
        done = now.done
        self.store.finish_answer(
            answer,
            done.finish,
            text=now.text,
            raw_text=done.raw_text or None,
            reasoning=steps,
            error=now.error or None,
            usage={
                "prompt_tokens": done.prompt_tokens,
                "visual_tokens": done.visual_tokens,
                "answer_tokens": done.answer_tokens,
                "thought_tokens": done.thought_tokens,
                "tool_calls": done.tool_calls,
            },
            timings={
                "queue": done.queue_seconds,
                "prepare": done.prepare_seconds,
                "first_token": done.first_token_seconds,
                "thought": done.thought_seconds,
                "total": done.total_seconds,
            },
        )

    def close(self) -> None:
        """Stop every answer and wait until what was written of it is saved."""
        with self._lock:
            jobs = [job for jobs in self._jobs.values() for job in jobs]
        for job in jobs:
            job.stop()
        self.bench.close()
        self.comments.close()
        self.hearing.close()
        self.serving.close()
        self.dataset.close()
        self.tuner.close()
        _stop(jobs, 10)
        self.runtime.close()


def _stop(jobs: Sequence[Job], seconds: float) -> None:
    """End them and wait until what was written is saved, at most so long for each."""
    for job in jobs:
        job.stop()
    for job in jobs:
        job.join(seconds)


def _provenance(
    info: ModelInfo, decoding: Decoding, frames: Frames, think_budget: int | None, said_by: str | None
) -> AnswerFacts:
    """What an answer came from, as the store keeps it."""
    return {
        "model": info.name,
        "checkpoint": info.path,
        "adapter": info.adapter,
        "runtime": info.runtime,
        "decoding": {**asdict(decoding), "think_budget": think_budget},
        "frames": {
            "times": [round(time, 3) for time in frames.times],
            "kinds": list(frames.kinds),
            "tokens": list(frames.tokens),
            "budget": frames.sampling.budget,
            **({"said_by": said_by} if said_by else {}),
        },
    }


def _span(question: Question, answer: Answer | None) -> tuple[float, float]:
    """The second of the file that the model's zero is, and the last second of the clip; see Turn."""
    start = question.start or 0.0
    times = (answer.frames or {}).get("times") if answer is not None else None
    return start, question.end if question.end is not None else (times[-1] + 1.0 if times else start)


def _local_time(iso: str) -> str:
    """UTC in ISO-8601 as day and minute where this machine stands."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def _unexpected(error: Exception) -> str:
    """The sentence for what should not have happened; the details are in the log."""
    if isinstance(error, USER_ERRORS):
        return str(error)
    if isinstance(error, OSError):
        return str(disk_problem(error, Path(error.filename or ".")))
    return f"Something went wrong on our side ({type(error).__name__}); the question is kept, ask again."
