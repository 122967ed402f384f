"""What the store teaches now: votes, corrections, drafts and comparisons as rows to learn from.

for lesson in lessons(Store("data/studio.sqlite")): ...
write_lessons(lessons(store), Path("runs/feedback/data"))       # example.jsonl, pair.jsonl, question.jsonl

Nothing of it is kept: it follows from what is in force, so that a vote that is taken back teaches nothing any more.

* An example is the one right answer of a question: the newest of its corrections and 👍; where there is none, the draft
  or the side of a comparison that was chosen last, unless that has a 👎.
* A pair is a better and a worse answer: a correction over the answer it corrects, and every preference. Of two that
  contradict each other the newer holds; of several corrections of one question, the newest.
* A question is asked again in reinforcement, where the right answer is known (a correction or a 👍) and short enough to
  be checked.

Rows show the model what it was shown: the earlier turns as the conversation remembers them, each clip with its range
and its limits of sampling. An answer stands as the model wrote it, thought and all. A correction has no thought: it
takes the place of the answer alone, and where that was thought about it is learnt as a direct answer."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from engine.reasoning.modes import (
    ANALYSIS_CLOSE,
    ANALYSIS_OPEN,
    CALL_OPEN,
    MODES,
    THOUGHT_CLOSE,
    THOUGHT_OPEN,
    ModeName,
    mode_of,
)
from finetune.answers.scoring import plain, read_box
from finetune.errors import FinetuneError
from finetune.feedback.browse import excluded
from finetune.feedback.comments import comment_lessons
from finetune.feedback.preferences import Preference
from finetune.feedback.rows import Answer, Question
from finetune.feedback.splits import split_of
from finetune.feedback.standing import Standing, standing
from finetune.feedback.store import Store
from finetune.feedback.votes import Vote

Use = Literal["example", "pair", "question"]
USES: tuple[Use, ...] = get_args(Use)

Why = Literal["video_gone", "cut", "same", "marks", "split"]
"""Why something that was said teaches nothing: the video is no longer kept; the better answer was cut off or stopped;
the better and the worse text are the same; a question holds <image> or <video>, which a row cannot tell from media;
the conversation shows both a video that is learnt from and one that is kept for measuring."""

IsHeldOut = Callable[[str], bool]

MOST_WORDS = 12
MOST_CHARACTERS = 80  # of a reference; Chinese has no spaces to count words by
_MARK = re.compile(r"<(image|video)>")


@dataclass(frozen=True)
class Lesson:
    use: Use  # a row for fine-tuning, for preferences or for reinforcement
    question: str  # its id
    answer: str | None  # the id of the answer it came from
    video: str | None  # sha256
    source: str  # vote, correction, draft, compare or comment
    held_out: bool  # its video is kept for measuring: not to be trained on
    row: dict[str, Any]  # one line of the JSONL file of its use, media as absolute paths


@dataclass(frozen=True)
class LeftOut:
    """Something that was said and teaches nothing."""

    question: str
    answer: str
    why: Why


@dataclass
class Gathered:
    lessons: list[Lesson] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    used: set[tuple[str, Use]] = field(default_factory=set)  # answers, the worse ones of pairs too

    def uses(self, answer: str) -> list[Use]:
        """What an answer is used for, in the order of USES."""
        return [use for use in USES if (answer, use) in self.used]

    def measures(self, answer: str) -> bool:
        """Whether it is not learnt from but measured by: its video is held out."""
        return any(lesson.answer == answer and lesson.held_out for lesson in self.lessons)

    def why(self, answer: str) -> Why | None:
        """Why it is used for nothing, where something keeps it from that."""
        if self.uses(answer):
            return None
        return next((one.why for one in self.left_out if one.answer == answer), None)

    def counts(self) -> dict[str, int]:
        """How many lessons of each use there are, and how many were left out for which reason."""
        return dict(Counter([*(one.use for one in self.lessons), *(one.why for one in self.left_out)]))


def lessons(store: Store, held_out: IsHeldOut | None = None) -> list[Lesson]:
    """What the store teaches now; see `gather`."""
    return gather(store, held_out=held_out).lessons


def gather(store: Store, conversation: str | None = None, held_out: IsHeldOut | None = None) -> Gathered:
    """The lessons of the whole store, or of one conversation, oldest question first, and what teaches nothing and why.
    Of the whole store also what its comments teach.

    `held_out` tells of a video (sha256) whether it is kept for measuring (None: as the store's split has it); lessons
    of such videos are marked. Answers that somebody excluded teach nothing."""
    side = lru_cache(maxsize=None)(held_out or (lambda video: split_of(store, video) == "held_out"))
    out = Gathered()
    left_alone = excluded(store)
    for one in [conversation] if conversation is not None else _spoken_of(store):
        _gather(store, one, side, left_alone, out)
    if conversation is None:
        out.lessons += [Lesson(**fields) for fields in comment_lessons(store, side)]
    return out


def write_lessons(lessons: Iterable[Lesson], folder: Path) -> dict[Use, Path]:
    """Write the rows of each use to `folder`/USE.jsonl, held-out ones too if they are given; the files that there are.

    A file is there whole or not at all, and one of an earlier call that has no rows now is removed. FinetuneError where
    the disk does not take them."""
    rows: dict[Use, list[str]] = {use: [] for use in USES}
    for lesson in lessons:
        rows[lesson.use].append(json.dumps(lesson.row, ensure_ascii=False) + "\n")
    paths: dict[Use, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for use, lines in rows.items():
            path = folder / f"{use}.jsonl"
            if not lines:
                path.unlink(missing_ok=True)
                continue
            scratch = path.with_suffix(f".{os.getpid()}.part")
            scratch.write_text("".join(lines), "utf-8")
            os.replace(scratch, path)
            paths[use] = path
    except OSError as error:
        raise FinetuneError(
            f"{folder} cannot be written ({error.strerror}); free some space or choose another folder, and try again."
        ) from error
    return paths


def is_verifiable(text: str) -> bool:
    """Whether an answer can be compared with another by rule: a box, JSON, or one line of at most MOST_WORDS words."""
    text = text.strip()
    if read_box(text) is not None:
        return True
    if text[:1] in ("{", "["):
        try:
            json.loads(text)
            return True
        except (ValueError, RecursionError):
            pass
    return bool(plain(text)) and "\n" not in text and len(text) <= MOST_CHARACTERS and len(text.split()) <= MOST_WORDS


# -- one conversation -----------------------------------------------------------------------------------------------


def _spoken_of(store: Store) -> list[str]:
    """The conversations in which something is in force, oldest first."""
    sql = (
        "SELECT conversation_id AS id FROM questions q WHERE EXISTS (SELECT 1 FROM preferences p "
        "WHERE p.question_id = q.id AND p.revoked IS NULL) OR EXISTS (SELECT 1 FROM votes v JOIN answers a "
        "ON a.id = v.answer_id WHERE a.question_id = q.id AND v.revoked IS NULL) GROUP BY 1 ORDER BY 1"
    )
    with store.snapshot() as db:
        return [row["id"] for row in db.query(sql)]


def _gather(store: Store, conversation: str, held_out: IsHeldOut, left_alone: frozenset[str], out: Gathered) -> None:
    with store.snapshot():
        spoken = _read(store, conversation, left_alone)
    for words, prompt, question in spoken:  # outside of the snapshot: who is asked for the side may write
        _teach(words, prompt, question, held_out, left_alone, out)


def _read(store: Store, conversation: str, left_alone: frozenset[str]) -> list[tuple[_Words, _Prompt | Why, str]]:
    """What was said of each question (its id), and the prompt of the question. What was said for an answer that is
    left alone was not said: an older word holds."""
    votes: dict[str, list[Vote]] = {}
    preferences: dict[str, list[Preference]] = {}
    preferred = store.preferences.of_conversation(conversation)
    said = [one for one in preferred if (one.chosen or one.rejected) not in left_alone]
    voted = [one for one in store.votes.of_conversation(conversation).values() if one.answer not in left_alone]
    if not said and not voted:
        return []
    history = store.conversation(conversation)
    answers = {answer.id: answer for turn in history.turns for answer in turn.answers}
    files = {turn.video.sha256: Path(turn.video.path) for turn in history.turns if turn.video is not None}
    for preference in said:
        preferences.setdefault(preference.question, []).append(preference)
    for vote in voted:
        votes.setdefault(answers[vote.answer].question, []).append(vote)
    turns = standing(store, conversation)
    spoken: list[tuple[_Words, _Prompt | Why, str]] = []
    for at, turn in enumerate(turns):
        words = _Words(votes.get(turn.question.id, []), preferences.get(turn.question.id, []), answers)
        if words.any:
            spoken.append((words, _prompt(turns[:at], turn.question, files), turn.question.id))
    return spoken


def _teach(
    words: _Words,
    prompt: _Prompt | Why,
    question: str,
    held_out: IsHeldOut,
    left_alone: frozenset[str],
    out: Gathered,
) -> None:
    kept = False
    if isinstance(prompt, _Prompt):
        sides = {held_out(video) for video in prompt.shown}
        kept = sides == {True}
        if len(sides) > 1:
            prompt = "split"
    for use, answers, source, facts in (*words.example(), *words.pairs(), *words.question()):
        if not left_alone.isdisjoint(answers):  # of a pair the worse one too, as an export has it
            continue
        if isinstance(prompt, str) or isinstance(facts, str):
            why = prompt if isinstance(prompt, str) else facts
            assert isinstance(why, str)
            out.left_out.append(LeftOut(question, answers[0], why))
            continue
        row = {"messages": prompt.messages, **({"videos": prompt.videos} if prompt.videos else {}), **facts}
        if use == "example":
            row["messages"] = [*prompt.messages, {"role": "assistant", "content": row.pop("answer")}]
            if len(row["messages"]) > 2:
                row["learn"] = "last"  # the earlier answers are there to be read; nobody called them right
        out.lessons.append(Lesson(use, question, answers[0], prompt.video, source, kept, row))
        out.used.update((answer, use) for answer in answers)


@dataclass
class _Prompt:
    """What stands before an answer."""

    messages: list[dict[str, str]] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)  # sha256 of the videos
    video: str | None = None  # of the question itself


def _prompt(earlier: Sequence[Standing], question: Question, files: dict[str, Path]) -> _Prompt | Why:
    """Messages and videos up to the question, as the model was asked it (app.studio): a clip stands with the first
    question about it, and again where the clip or its sampling changed. Or why there are none."""
    out = _Prompt(video=question.video)
    seen: dict[str, Any] | None = None
    if question.video is not None and not _is_kept(files.get(question.video)):
        return "video_gone"
    for turn in [*earlier, Standing(question, None)]:
        asked, last = turn.question, turn.question.id == question.id
        path = files.get(asked.video or "")
        if not last and (turn.answer is None or not turn.answer.text.strip() or not _is_kept(path)):
            continue  # as it is left out when the conversation goes on
        if _MARK.search(asked.text):
            return "marks"
        text = asked.text
        if path is not None:
            clip = footage(path, asked)
            if clip != seen:
                out.videos.append(clip)
                out.shown.add(asked.video or "")
                text = f"<video>{text}"
            seen = clip
        out.messages.append({"role": "user", "content": text})
        if not last and turn.answer is not None:
            out.messages.append({"role": "assistant", "content": turn.answer.text.strip()})
    return out


def _is_kept(path: Path | None) -> bool:
    return path is not None and path.is_file()


def footage(path: Path, question: Question) -> dict[str, Any]:
    """A question's clip as a row names it: the file, the range in seconds, and what was set of its sampling."""
    limits = {name: question.sampling.get(name) for name in ("fps", "max_frames", "budget")}
    facts = {"path": str(path.absolute()), "start": question.start, "end": question.end, **limits}
    return {name: value for name, value in facts.items() if value is not None}


# -- one question ---------------------------------------------------------------------------------------------------

_Found = tuple[Use, tuple[str, ...], str, dict[str, Any] | Why]
"""A use, the answer it came from (of a pair also the worse one), the source, and what its row holds beside the prompt;
or why there is none."""


class _Words:
    """What was said of the answers of one question and is in force."""

    def __init__(self, votes: Sequence[Vote], preferences: Sequence[Preference], answers: dict[str, Answer]) -> None:
        self.answers = answers
        ups = {vote.answer: vote for vote in votes if vote.value == "up"}
        downs = {vote.answer for vote in votes if vote.value == "down"}
        corrections = {one.rejected: one for one in preferences if one.source == "correction"}
        # Of a 👍 and a correction of the same answer the newer holds; ids sort by age.
        self.ups = [v for v in ups.values() if v.answer not in corrections or v.id > corrections[v.answer].id]
        good = {vote.answer for vote in self.ups}
        self.corrections = sorted((one for one in corrections.values() if one.rejected not in good), key=_age)
        orders = [one for one in preferences if one.source != "correction" and one.verdict == "better"]
        self.orders = list({frozenset((one.chosen, one.rejected)): one for one in sorted(orders, key=_age)}.values())
        self.picks = [
            one for one in sorted(orders, key=_age) if one.source in ("draft", "compare") and one.chosen not in downs
        ]
        self.any = bool(votes or preferences)

    def right(self) -> Preference | Vote | None:
        """The word that says what the right answer is."""
        words: list[Preference | Vote] = [*self.corrections, *self.ups]
        return max(words, key=_age, default=None)

    def example(self) -> Iterator[_Found]:
        word = self.right() or (self.picks[-1] if self.picks else None)
        if isinstance(word, Preference) and word.chosen_text is not None:
            text, _, mode = _corrected(self.answers[word.rejected], word.chosen_text)
            yield "example", (word.rejected,), "correction", {"answer": text, "mode": mode}
        elif word is not None:
            chosen = word.answer if isinstance(word, Vote) else word.chosen
            source = "vote" if isinstance(word, Vote) else word.source
            answer = self.answers[chosen or ""]
            text, mode = _written(answer)
            yield "example", (answer.id,), source, "cut" if _is_cut(answer) else {"answer": text, "mode": mode}

    def pairs(self) -> Iterator[_Found]:
        for word in self.corrections:
            newest = self.corrections[-1].chosen_text or ""
            chosen, rejected, mode = _corrected(self.answers[word.rejected], newest)
            if not rejected:
                continue  # an answer that said nothing: there is nothing to prefer the correction to
            yield "pair", (word.rejected,), "correction", _pair(chosen, rejected, mode)
        for word in self.orders:
            better, worse = self.answers[word.chosen or ""], self.answers[word.rejected]
            if not worse.text.strip():
                continue
            (chosen, mode), (rejected, other) = _written(better), _written(worse)
            if mode != other:  # one prompt cannot ask in two modes: the answers alone are compared
                chosen, rejected, mode = better.text.strip(), worse.text.strip(), "no_think"
            facts = "cut" if _is_cut(better) else _pair(chosen, rejected, mode)
            yield "pair", (better.id, worse.id), word.source, facts

    def question(self) -> Iterator[_Found]:
        word = self.right()
        if word is None:
            return
        if isinstance(word, Vote):
            answer = self.answers[word.answer]
            reference, source = answer.text.strip(), "vote"
            if _is_cut(answer):
                return
        else:
            answer = self.answers[word.rejected]
            reference, source = word.chosen_text or "", "correction"
        if is_verifiable(reference):
            yield "question", (answer.id,), source, {"mode": _mode(answer), "reference": reference}


def _age(word: Preference | Vote) -> str:
    return word.id


def _mode(answer: Answer) -> ModeName:
    return mode_of(answer.mode).name


def _is_cut(answer: Answer) -> bool:
    return answer.finish != "stop" or not answer.text.strip()


def _written(answer: Answer) -> tuple[str, ModeName]:
    """An answer as the model wrote it, and its mode. Pictures that tools made are not kept: such an answer is given
    alone, as a direct one."""
    raw = answer.raw_text or answer.text
    if CALL_OPEN in raw or (answer.usage or {}).get("tool_calls"):
        return answer.text.strip(), "no_think"
    return raw.strip(), _mode(answer)


def _corrected(answer: Answer, better: str) -> tuple[str, str, ModeName]:
    """The better text and the answer, both as the model would write them, and the mode in which it would."""
    raw, mode = (answer.raw_text or answer.text).strip(), _mode(answer)
    head, closed, _ = raw.rpartition(ANALYSIS_CLOSE)
    thought = any(mark in raw for mark in (THOUGHT_OPEN, THOUGHT_CLOSE, CALL_OPEN)) or MODES[mode].thought
    if thought or (ANALYSIS_OPEN in raw and not closed):
        return better, answer.text.strip(), "no_think"
    return f"{head}{closed}{better}", raw, mode


def _pair(chosen: str, rejected: str, mode: ModeName) -> dict[str, Any] | Why:
    return "same" if chosen == rejected else {"mode": mode, "chosen": chosen, "rejected": rejected}
