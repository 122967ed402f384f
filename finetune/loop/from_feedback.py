"""From what people said to what a run learns from: the lessons of the store, written down once for each run.

    OUT/data/example.jsonl pair.jsonl question.jsonl     rows of SFT, of preferences, of reinforcement
    OUT/data/held_out.jsonl                              conversations that are asked and never learnt
    OUT/data/lessons.json                                which rows of the store each of them came from

They are not written again: what a run learns from is what was there when it was made, however often it is resumed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.errors import FinetuneError
from finetune.feedback import Store
from finetune.feedback.rows import now
from finetune.recipe import FEEDBACK, Kind, Recipe, Stage

if TYPE_CHECKING:
    from finetune.feedback.lessons import Lesson

Use = Literal["example", "pair", "question"]

USES: dict[Kind, Use] = {"sft": "example", "mpo": "pair", "rl": "question", "align": "question"}
"""What each kind of stage learns from."""

SOME = 32
"""With fewer rows a model learns these and little else; it is said."""

WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Share:
    """What one stage gets of the feedback."""

    stage: str
    kind: Kind
    use: Use
    rows: int
    least: int
    sources: dict[str, int]  # rows by where they came from: vote, correction, draft, compare, comment
    reason: str | None = None  # why the stage is left out
    warning: str | None = None


@dataclass(frozen=True)
class Feedback:
    """What the store teaches now, for one recipe."""

    shares: tuple[Share, ...]
    lessons: tuple[Lesson, ...]  # those that are learnt
    held_out: tuple[Lesson, ...]
    gone: int  # answers whose video or picture is no longer there

    @property
    def left_out(self) -> dict[str, str]:
        return {share.stage: share.reason for share in self.shares if share.reason}


def wants_feedback(recipe: Recipe) -> bool:
    return any(part.data == FEEDBACK for stage in recipe.stages for part in stage.parts.values())


def weigh(recipe: Recipe, store: Store) -> Feedback:
    """What each stage of the recipe would learn from the store as it is. Writes nothing.

    FinetuneError where a stage cannot learn from feedback, or the store cannot be read."""
    lessons, gone = _lessons(store)
    there = [lesson for lesson in lessons if all(Path(path).is_file() for path in media_of(lesson.row))]
    gone |= {lesson.answer or lesson.question for lesson in lessons} - {one.answer or one.question for one in there}
    learnt = tuple(lesson for lesson in there if not lesson.held_out)
    shares = tuple(_share(stage, learnt, len(gone)) for stage in recipe.stages if _of_feedback(stage))
    return Feedback(shares, learnt, tuple(lesson for lesson in there if lesson.held_out), len(gone))


def _lessons(store: Store) -> tuple[list[Lesson], set[str]]:
    """What the store teaches, and the answers of which something was said in vain, because their video was deleted."""
    from finetune.feedback.lessons import gather

    gathered = gather(store)
    return gathered.lessons, {one.answer for one in gathered.left_out if one.why == "video_gone"}


def _of_feedback(stage: Stage) -> bool:
    return any(part.data == FEEDBACK for part in stage.parts.values())


def _share(stage: Stage, learnt: Sequence[Lesson], gone: int) -> Share:
    if stage.kind not in USES:
        raise FinetuneError(f"A stage of kind “{stage.kind}” cannot learn from feedback; give {stage.name} other data.")
    use = USES[stage.kind]
    rows = [lesson for lesson in learnt if lesson.use == use]
    least = max(1, *(part.least for part in stage.parts.values()))
    reason = warning = None
    if len(rows) < least:
        reason = f"It needs at least {_counted(least, use)}; there are {len(rows)}."
        if gone:
            besides = f"{gone} whose video was deleted"
            reason = f"It needs at least {_counted(least, use)}; there are {len(rows)} besides {besides}."
    elif len(said := {_told(lesson) for lesson in rows}) == 1 and None not in said:
        warning = f"All {len(rows)} rows teach the same answer: the model may come to say it to every question."
    elif len(rows) < SOME:
        warning = f"{_counted(len(rows), use)} are few: it learns these and little beyond them."
    sources = dict(Counter(lesson.source for lesson in rows).most_common())
    return Share(stage.name, stage.kind, use, len(rows), least, sources, reason, warning)


def _counted(count: int, use: Use) -> str:
    one, several = {
        "example": ("SFT example", "SFT examples"),
        "pair": ("preference pair", "preference pairs"),
        "question": ("question with a known answer", "questions with a known answer"),
    }[use]
    return f"{count} {one if count == 1 else several}"


def _told(lesson: Lesson) -> str | None:
    """The answer that a row teaches."""
    row = lesson.row
    told = row.get("chosen") or row.get("reference")
    if told is None and isinstance(row.get("messages"), list) and row["messages"]:
        told = row["messages"][-1].get("content")
    return told if isinstance(told, str) else None


def media_of(row: dict[str, Any]) -> Iterator[str]:
    """The paths of a row's videos and pictures."""
    for key in ("videos", "images"):
        for item in row.get(key) or ():
            path = item.get("path") or item.get("video") if isinstance(item, dict) else item
            if isinstance(path, str):
                yield path
    for message in row.get("messages") or ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            for key in ("video", "image"):
                if isinstance(part, dict) and isinstance(part.get(key), str):
                    yield part[key]


def drawn(recipe: Recipe, out: Path, store: Path | None) -> Recipe:
    """The recipe with the run's own files for the stages that learn from feedback, and without those that have too
    little. The files are written now if the run has none.

    FinetuneError where no stage is left, saying why, and where the files cannot be written."""
    if not wants_feedback(recipe):
        return recipe
    folder = out / "data"
    if not (folder / "lessons.json").is_file():
        if store is None or not store.is_file():
            raise FinetuneError(f"There is no store {store} to learn from; give --store data/studio.sqlite.")
        kept = Store(store)
        try:
            feedback = weigh(recipe, kept)
        finally:
            kept.close()
        refuse_nothing(recipe, feedback)
        _write(feedback, recipe, folder, store)
    return _with_files(recipe, folder)


def drawn_elsewhere(recipe: Recipe, out: Path) -> Recipe:
    """The same in the other processes of a run, which wait for the first."""
    if not wants_feedback(recipe):
        return recipe
    deadline = time.monotonic() + WAIT_SECONDS
    while not (out / "data" / "lessons.json").is_file():
        if time.monotonic() > deadline:
            raise FinetuneError(f"The first process wrote no {out / 'data' / 'lessons.json'}; see what it says.")
        time.sleep(0.2)
    return _with_files(recipe, out / "data")


def refuse_nothing(recipe: Recipe, feedback: Feedback) -> None:
    """FinetuneError where no stage of the recipe can be run."""
    if len(feedback.left_out) < len(recipe.stages):
        return
    if not feedback.lessons and not feedback.held_out:
        if feedback.gone:
            raise FinetuneError(
                f"There is nothing to learn from: the videos of all {feedback.gone} answers were deleted; ask again "
                "about videos that are kept."
            )
        raise FinetuneError(
            "There is nothing to learn from yet: votes alone teach no better answer; correct some answers, or choose "
            "between two."
        )
    raise FinetuneError(f"There is too little feedback to learn from. {' '.join(feedback.left_out.values())}")


def _with_files(recipe: Recipe, folder: Path) -> Recipe:
    try:
        left_out = json.loads((folder / "lessons.json").read_text("utf-8"))["left_out"]
        stages = tuple(
            replace(
                stage,
                parts={
                    name: replace(part, data=(str(folder / f"{USES[stage.kind]}.jsonl"),))
                    if part.data == FEEDBACK
                    else part
                    for name, part in stage.parts.items()
                },
            )
            for stage in recipe.stages
            if stage.name not in left_out
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetuneError(
            f"{folder / 'lessons.json'} is damaged ({error}); delete the folder {folder} or give another --out."
        ) from error
    return replace(recipe, stages=stages)


def _write(feedback: Feedback, recipe: Recipe, folder: Path, store: Path) -> None:
    """All files or none."""
    from finetune.feedback.lessons import write_lessons

    scratch = folder.with_name(".data.part")
    lines: Counter[Use] = Counter()
    facts = []
    for lesson in feedback.lessons:
        lines[lesson.use] += 1
        facts.append({**_named(lesson), "file": f"{lesson.use}.jsonl", "line": lines[lesson.use]})
    asked = list(_asked(feedback.held_out))
    facts += [{**_named(lesson), "file": "held_out.jsonl", "line": at} for at, (lesson, _) in enumerate(asked, 1)]
    record = {
        "made": now(),
        "store": str(store.absolute()),
        "recipe": recipe.name,
        "stages": [asdict(share) for share in feedback.shares],
        "left_out": feedback.left_out,
        "gone": feedback.gone,
        "lessons": facts,
    }
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        write_lessons(list(feedback.lessons), scratch)
        if asked:
            rows = (json.dumps(row, ensure_ascii=False) + "\n" for _, row in asked)
            (scratch / "held_out.jsonl").write_text("".join(rows), "utf-8")
        with (scratch / "lessons.json").open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)  # without lessons.json it is nothing
        os.replace(scratch, folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise FinetuneError(
            f"What the run learns from cannot be written to {folder} ({error.strerror or error}); make room or choose "
            "another folder."
        ) from error


def _named(lesson: Lesson) -> dict[str, Any]:
    return {
        "use": lesson.use,
        "question": lesson.question,
        "answer": lesson.answer,
        "video": lesson.video,
        "source": lesson.source,
        "held_out": lesson.held_out,
    }


def _asked(held_out: Sequence[Lesson]) -> Iterator[tuple[Lesson, dict[str, Any]]]:
    """Each held-out question once, as a conversation that ends with the right answer. A preferred answer is no truth,
    so that pairs are not asked."""
    seen: set[str] = set()
    for lesson in held_out:
        row = dict(lesson.row)
        if lesson.use == "pair" or lesson.question in seen:
            continue
        if lesson.use == "question":
            reference = row.pop("reference", None)
            row.pop("reward", None)
            if not isinstance(reference, str):
                continue
            row["messages"] = [*row["messages"], {"role": "assistant", "content": reference}]
        seen.add(lesson.question)
        yield lesson, row


def read_record(out: Path) -> dict[str, Any] | None:
    """What lessons.json of a run says; None where it has none that can be read."""
    try:
        found = json.loads((out / "data" / "lessons.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("lessons"), list) else None
