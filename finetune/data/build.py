"""From a folder of media to training rows: the steps one after the other, and a report of what each of them did."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from engine.video import Clip
from finetune.data import ask, contamination, duplicates, grounding, makers, order, quality, similarity, transcript
from finetune.data.ask import Asking
from finetune.data.folder import read_folder
from finetune.data.itemfile import read_items, write_items
from finetune.data.items import Item, Medium
from finetune.data.page import page
from finetune.data.report import Report
from finetune.data.rowfile import CATEGORIES, Category, Example, RowFiles, to_row, with_frame_limits
from finetune.data.similarity import Encoder
from finetune.errors import FinetuneError

FILTERS = ("text", "media", "duplicates", "decontaminate", "decontaminate-pairs", "similarity", "crops")
ASKERS = ("ocr", "recaption")
MAKERS = (
    "caption", "vqa", "read", "grounding", "interleaved", "reorder", "related", "transcript", "events", "plain",
)  # fmt: skip

ITEMS = "items.jsonl"
EXAMPLES = 2  # rows of each category that the report shows


@dataclass(frozen=True)
class Plan:
    """What is made of `folder` and how. `steps` run in this order; a step may stand there twice."""

    folder: Path
    out: Path
    steps: tuple[str, ...]
    items: Path | None = None  # of an earlier step; None reads the folder
    text: quality.TextLimits = field(default_factory=quality.TextLimits)
    media: quality.MediaLimits = field(default_factory=quality.MediaLimits)
    jaccard: float = duplicates.JACCARD
    compared_frames: int = duplicates.FRAMES
    against: tuple[Path, ...] = ()
    encoder: Callable[[], Encoder] | None = None  # loaded when it is needed
    like_image: float = contamination.IMAGE
    like_text: float = contamination.TEXT
    threshold: float | None = None
    crop_threshold: float | None = None
    crop_share: float = 0.5
    asking: Asking | None = None
    frame_limits: tuple[int, ...] = ()
    candidates: int = 4
    seed: int = 0

    def check(self) -> None:
        """Raises FinetuneError for a plan that cannot be carried out."""
        if unknown := [step for step in self.steps if step not in FILTERS + ASKERS + MAKERS]:
            known = ", ".join(FILTERS + ASKERS + MAKERS)
            raise FinetuneError(f"There is no step {unknown[0]!r:.40}; take from {known}.")
        if not self.folder.is_dir():
            raise FinetuneError(f"{self.folder} is no folder; give one with videos, pictures or texts.")
        if self.out.resolve().is_relative_to(self.folder.resolve()):
            raise FinetuneError(
                f"{self.out} lies within {self.folder} and would be read next time; name another --out."
            )
        if self.compared_frames < 1 or any(limit < 1 for limit in self.frame_limits):
            raise FinetuneError("Numbers of frames must be at least 1.")
        needs = {
            "decontaminate": (bool(self.against), "the folder of a benchmark: --against DIR"),
            "decontaminate-pairs": (
                bool(self.against) and self.encoder is not None,
                "the folder of a benchmark and an encoder: --against DIR --encoder DIR",
            ),
            "similarity": (
                self.encoder is not None and self.threshold is not None,
                "an encoder and a threshold: --encoder DIR --threshold COSINE (-1 keeps all and shows the scores)",
            ),
            "crops": (self.encoder is not None, "an encoder: --encoder DIR"),
            "ocr": (self.asking is not None, "a model to ask: --model DIR or --runtime R"),
            "recaption": (self.asking is not None, "a model to ask: --model DIR or --runtime R"),
        }
        for step in self.steps:
            there, what = needs.get(step, (True, ""))
            if not there:
                raise FinetuneError(f"The step {step} needs {what}.")


def default_steps(plan: Plan) -> tuple[str, ...]:
    """All steps that a plan has what they need for."""
    steps: list[str] = ["text", "media", "duplicates"]
    steps += ["decontaminate"] if plan.against else []
    steps += ["decontaminate-pairs"] if plan.against and plan.encoder else []
    steps += ["similarity"] if plan.encoder and plan.threshold is not None else []
    # What a model wrote is looked at like any other text.
    steps += ["ocr", "recaption", "text"] if plan.asking else []
    steps += ["crops"] if plan.encoder else []
    return (*steps, *MAKERS)


def build(plan: Plan, tell: Callable[[str], None] = lambda step: None) -> dict[str, Any]:
    """Carry out a plan: writes rows-CATEGORY.jsonl, items.jsonl, report.json and report.html into its `out` and
    returns what report.json holds. `tell` gets the name of each step when it begins.

    When the asking was stopped nothing but the answers is written and "stopped" is true; the same plan goes on from
    there. Raises FinetuneError or EngineError for what a user can mend."""
    plan.check()
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FinetuneError(f"{plan.out} cannot be made ({error.strerror}); name another --out.") from error
    tell("items" if plan.items else "folder")
    items, report = read_folder(plan.folder) if plan.items is None else read_items(plan.items, plan.folder)
    steps = _Steps(plan)
    reports = [report]
    shown: dict[Category, list[Example]] = {}
    with RowFiles(plan.out, plan.folder) as rows:
        for step in plan.steps:
            tell(step)
            if step in MAKERS:
                examples, report = steps.make(step, items)
                for example in with_frame_limits(examples, plan.frame_limits):
                    try:
                        row = to_row(example)
                    except FinetuneError as error:  # of texts that the step `text` did not look at
                        report.drop(example.source, "a row would break the rules of rows", str(error))
                        continue
                    rows.add(example, row)
                    if len(several := shown.setdefault(example.category, [])) < EXAMPLES:
                        several.append(example)
            else:
                items, report = steps.change(step, items)
            reports.append(report)
            # Between steps: a step that asks ends early by itself.
            if plan.asking is not None and plan.asking.stop.is_set():
                return {"stopped": True}
        facts = _facts(plan, items, reports, rows)
        _write(plan.out, facts, items, [_shown(plan, example) for several in shown.values() for example in several])
        rows.close()
    return facts


class _Steps:
    """The steps by their names."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._hashes = duplicates.Hashes(plan.folder, plan.compared_frames)
        self._loaded: Encoder | None = None

    def change(self, step: str, items: Sequence[Item]) -> tuple[list[Item], Report]:
        """A step that leaves out items, or adds to them."""
        plan = self._plan
        match step:
            case "text":
                return quality.text(items, plan.text)
            case "media":
                return quality.media(items, plan.folder, plan.media)
            case "duplicates":
                return duplicates.duplicates(items, self._hashes, plan.jaccard)
            case "decontaminate":
                return duplicates.decontaminate(items, self._hashes, plan.against, plan.jaccard)
            case "decontaminate-pairs":
                limits = plan.like_image, plan.like_text
                return contamination.decontaminate_pairs(items, plan.folder, self._encoder(), plan.against, *limits)
            case "similarity":
                assert plan.threshold is not None  # checked before
                return similarity.similarity(items, plan.folder, self._encoder(), plan.threshold)
            case "crops":
                share, threshold = plan.crop_share, plan.crop_threshold
                return similarity.crops(items, plan.folder, self._encoder(), threshold=threshold, share=share)
        assert plan.asking is not None
        return {"ocr": ask.ocr, "recaption": ask.recaption}[step](items, plan.folder, plan.asking)

    def make(self, step: str, items: Sequence[Item]) -> tuple[list[Example], Report]:
        """A step that makes rows."""
        plan = self._plan
        steps: dict[str, Callable[[Sequence[Item]], tuple[list[Example], Report]]] = {
            "caption": makers.captions,
            "vqa": makers.answers,
            "read": makers.read_texts,
            "grounding": grounding.grounding,
            "interleaved": makers.documents,
            "reorder": partial(order.reorder, folder=plan.folder, out=plan.out, seed=plan.seed),
            "related": partial(order.related, candidates=plan.candidates, seed=plan.seed),
            "transcript": partial(transcript.transcripts, folder=plan.folder),
            "events": partial(transcript.events, folder=plan.folder),
            "plain": makers.texts,
        }
        return steps[step](items)

    def _encoder(self) -> Encoder:
        if self._loaded is None:
            assert self._plan.encoder is not None
            self._loaded = self._plan.encoder()
        return self._loaded


def _facts(plan: Plan, items: Sequence[Item], reports: Sequence[Report], rows: RowFiles) -> dict[str, Any]:
    media = {medium.path: medium.kind for item in items for medium in item.media}
    kinds = list(media.values())
    return {
        "title": f"Data made of {plan.folder.name}",
        "folder": str(plan.folder),
        "stopped": False,
        "rows": {category: rows.counts.get(category, 0) for category in CATEGORIES},
        "items": {
            "videos": kinds.count("video"),
            "pictures": kinds.count("image"),
            "texts": sum(not item.media for item in items),
        },
        "steps": [report.to_json() for report in reports],
    }


def _write(out: Path, facts: dict[str, Any], items: Sequence[Item], shown: Sequence[dict[str, Any]]) -> None:
    try:
        write_items(out / ITEMS, items)
        (out / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (out / "report.html").write_text(page(facts, shown), "utf-8")
    except OSError as error:
        raise FinetuneError(f"{out} cannot be written ({error.strerror}); free some space.") from error


def _shown(plan: Plan, example: Example) -> dict[str, Any]:
    """A row for the report, with its media to be drawn."""
    media: list[Path | Clip] = []
    for part in example.media:
        if not isinstance(part, Medium):
            media.append(plan.out / part)
        elif part.kind == "image":
            media.append(plan.folder / part.path)
        else:
            media.append(Clip(plan.folder / part.path, part.start, part.end, part.zero))
    return {**to_row(example), "media": media}


def table(facts: dict[str, Any]) -> str:
    """What was made, for a terminal."""
    lines = [f"{'step':<14} {'in':>8} {'out':>8}  left out"]
    for step in facts["steps"]:
        reasons = ", ".join(f"{reason['why']} ({reason['count']:,})" for reason in step["left_out"][:3])
        more = ", …" if len(step["left_out"]) > 3 else ""
        unit = "" if step["unit"] == "items" else f" {step['unit']}"
        lines.append(f"{step['step']:<14} {step['came']:>8,} {step['made']:>8,}{unit}  {reasons}{more}".rstrip())
    lines.append("")
    for category, title in CATEGORIES.items():
        lines.append(f"{title:<24} {facts['rows'][category]:>8,} rows")
    return "\n".join(lines)
