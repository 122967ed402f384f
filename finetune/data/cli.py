"""The command `data` of python -m finetune: training rows from a folder of videos, pictures and texts."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.runtime.base import Runtime
    from finetune.data.ask import Asking
    from finetune.data.build import Plan

STOPPED = 130  # exit code of a run that was stopped, as shells have it

_ALONE: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "text": (("text", "media"), "leave out bad texts and media that are broken or too small", ("quality",)),
    "duplicates": (("duplicates",), "leave out what looks like an earlier picture or video", ("hashes",)),
    "decontaminate": (("decontaminate",), "leave out what a benchmark shows", ("hashes", "against", "encoder", "like")),
    "similarity": (("similarity",), "take captions from media that they do not fit", ("encoder", "threshold")),
    "ocr": (("ocr", "read"), "have the text in frames and pictures read by a model", ("model", "ocr")),
    "recaption": (("recaption", "caption"), "have videos and pictures described by a model", ("model", "recaption")),
    "grounding": (("grounding",), "points, boxes, polygons and counts", ("encoder", "crops")),
    "reorder": (("reorder",), "shuffled frames of a video, to be put in order", ("rows",)),
    "related": (("related",), "the video that belongs to a group", ("rows", "frames")),
    "transcript": (("transcript", "events"), "what is said, and what happens, in time with the frames", ("frames",)),
}
"""Commands that do one thing: their steps, what they do, and the groups of options they take."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` to the commands of a parser; `act` of its arguments does the work."""
    data = commands.add_parser("data", help="make training rows from a folder of videos, pictures and texts")
    several = data.add_subparsers(dest="data_command", required=True)
    build = several.add_parser(
        "build",
        help="all steps, one after the other",
        description="Captions lie beside the media (a.mp4 with a.txt, a.json, a.srt or a.vtt) or in a captions.jsonl "
        "with file and text. Without --steps everything is done that the other options allow: --against "
        "decontaminates (with --encoder also by features), --encoder and --threshold filter by similarity, --model or "
        "--runtime has a model read frames and write captions.",
    )
    _common(build)
    build.add_argument("--steps", metavar="A,B,…", help="the steps in their order instead; one may stand there twice")
    for group in _GROUPS:
        _GROUPS[group](build)
    build.set_defaults(act=_act, alone=None)
    for name, (_, told, groups) in _ALONE.items():
        command = several.add_parser(name, help=told)
        _common(command)
        for group in groups:
            _GROUPS[group](command)
        command.set_defaults(act=_act, alone=name)


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="the folder with the media")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for rows, items and report")
    command.add_argument(
        "--items", type=Path, metavar="FILE", help="go on with the items.jsonl of an earlier step about the same folder"
    )


def _quality(command: argparse.ArgumentParser) -> None:
    command.add_argument("--min-chars", type=int, default=3, metavar="N", help="shortest caption (default: 3)")
    command.add_argument("--max-chars", type=int, default=20_000, metavar="N", help="longest text (default: 20000)")
    command.add_argument("--languages", default="", metavar="A,B", help="keep texts marked with these only: en,zh")
    command.add_argument("--min-side", type=int, default=56, metavar="PX", help="shorter side, at least (default: 56)")


def _hashes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--jaccard", type=float, default=0.95, metavar="J", help="alike above this (default: 0.95, as published)"
    )
    command.add_argument(
        "--compared-frames", type=int, default=8, metavar="N", help="frames of a video that are compared (default: 8)"
    )


def _against(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--against", type=Path, action="append", default=[], metavar="DIR", help="folder of a benchmark's media; repeat"
    )


def _like(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--like-image",
        type=float,
        default=0.98,
        metavar="COSINE",
        help="with --against and --encoder: what is more similar to a benchmark's picture (default: 0.98, as "
        "published)",
    )
    command.add_argument(
        "--like-text",
        type=float,
        default=0.5,
        metavar="COSINE",
        help="and to what is said of it is left out (default: 0.5, as published)",
    )


def _encoder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--encoder", type=Path, metavar="DIR", help="folder of a SigLIP or of stage 0's tower")


def _threshold(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threshold",
        type=float,
        metavar="COSINE",
        help="keep captions above this; the report's example of 0.9 is of its CLIP scores, cosines of a SigLIP are far "
        "lower: -1 keeps all and shows how yours lie",
    )


def _crops(command: argparse.ArgumentParser) -> None:
    command.add_argument("--crop-share", type=float, default=0.5, metavar="S", help="regions to keep (default: 0.5)")
    command.add_argument("--crop-threshold", type=float, metavar="COSINE", help="keep regions above this instead")


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="DIR", help="a model folder or hub id (with --runtime alone: keye-nano)")
    command.add_argument("--runtime", metavar="R", help="local, sglang or http://host:port (default: as suits)")
    command.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")


def _ocr(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ocr-fps", type=float, default=1.0, metavar="F", help="frames read a second (default: 1)")
    command.add_argument("--ocr-question", metavar="TEXT", help="what the model is asked about each frame")


def _recaption(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--caption-fps", default="0.5,1,2", metavar="F,F", help="frames shown a second (default: 0.5,1,2, as published)"
    )
    command.add_argument("--caption-question", metavar="TEXT", help="what the model is asked")
    command.add_argument("--all-captions", action="store_true", help="also describe what has a caption")


def _frames(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--frames", default="", metavar="16,32", help="each row with a video once for each limit on its frames"
    )


def _rows(command: argparse.ArgumentParser) -> None:
    command.add_argument("--candidates", type=int, default=4, metavar="N", help="videos to choose from (default: 4)")
    command.add_argument("--seed", type=int, default=0, help="of the shuffling")


_GROUPS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "quality": _quality,
    "hashes": _hashes,
    "against": _against,
    "like": _like,
    "encoder": _encoder,
    "threshold": _threshold,
    "crops": _crops,
    "model": _model,
    "ocr": _ocr,
    "recaption": _recaption,
    "frames": _frames,
    "rows": _rows,
}


def _act(args: argparse.Namespace) -> int:
    from finetune.bench.open_runtime import open_runtime
    from finetune.data.build import build, table

    stop = threading.Event()
    runtime = None
    given = vars(args)
    before = signal.getsignal(signal.SIGINT)
    try:
        if given.get("model") or given.get("runtime") or args.alone in ("ocr", "recaption"):
            runtime = open_runtime(
                given.get("model"), given.get("runtime") or (None if given.get("model") else "local")
            )
            runtime.info()  # a model that cannot be loaded is told before anything else is done
            signal.signal(signal.SIGINT, partial(_stop, stop))
        plan = _plan(args, None if runtime is None else _asking(given, runtime, stop))
        facts = build(plan, partial(print, "step:", file=sys.stderr))
    except KeyboardInterrupt:
        facts = {"stopped": True}
    finally:
        signal.signal(signal.SIGINT, before)
        if runtime is not None:
            runtime.close()
    if facts["stopped"]:
        print("Stopped; the same command goes on from here, with all answers that there are.", file=sys.stderr)
        return STOPPED
    print(table(facts))
    print(f"report: {args.out / 'report.html'}")
    return 0


def _stop(stop: threading.Event, *_: object) -> None:
    """End the asking between two tokens; asked to stop a second time, end whatever is going on."""
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def _plan(args: argparse.Namespace, asking: Asking | None) -> Plan:
    """What the arguments say; options that a command does not have keep their defaults."""
    from dataclasses import replace

    from finetune.data import build
    from finetune.data.quality import MediaLimits, TextLimits
    from finetune.data.similarity import open_encoder

    given = vars(args)
    named = {
        "jaccard": "jaccard",
        "compared_frames": "compared_frames",
        "like_image": "like_image",
        "like_text": "like_text",
        "threshold": "threshold",
        "crop_share": "crop_share",
        "crop_threshold": "crop_threshold",
        "candidates": "candidates",
        "seed": "seed",
    }
    plan = build.Plan(args.folder, args.out, (), items=args.items, asking=asking)
    plan = replace(plan, **{field: given[name] for field, name in named.items() if given.get(name) is not None})
    if "min_chars" in given:
        languages = tuple(part.strip().lower() for part in args.languages.split(",") if part.strip())
        plan = replace(
            plan, text=TextLimits(args.min_chars, args.max_chars, languages), media=MediaLimits(args.min_side)
        )
    if given.get("encoder"):
        plan = replace(plan, encoder=partial(open_encoder, args.encoder))
    plan = replace(plan, against=tuple(given.get("against") or ()))
    plan = replace(plan, frame_limits=tuple(int(min(n, 1e6)) for n in _numbers(given.get("frames", ""), "--frames")))
    if args.alone:
        steps = _ALONE[args.alone][0]
        if args.alone == "decontaminate" and plan.encoder:
            return replace(plan, steps=(*steps, "decontaminate-pairs"))
        return replace(plan, steps=("crops", *steps) if args.alone == "grounding" and plan.encoder else steps)
    if args.steps is not None:
        return replace(plan, steps=tuple(step.strip() for step in args.steps.split(",") if step.strip()))
    return replace(plan, steps=build.default_steps(plan))


def _asking(given: dict[str, Any], runtime: Runtime, stop: threading.Event) -> Asking:
    from finetune.bench.cli import Bar
    from finetune.bench.run import Progress
    from finetune.data.ask import READ, Asking

    bar = Bar()

    def tell(done: int, total: int, failed: int) -> None:
        bar.show(Progress(done, total, failed, None))
        if done == total:
            bar.end()

    return Asking(
        runtime,
        given["out"] / "asked",
        stop,
        max_tokens=given["max_tokens"],
        read_fps=given.get("ocr_fps", 1.0),
        read_question=given.get("ocr_question") or READ,
        rates=tuple(_numbers(given.get("caption_fps", "1"), "--caption-fps")),
        caption_question=given.get("caption_question"),
        all_captions=given.get("all_captions", False),
        tell=tell,
    )


def _numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them. Raises FinetuneError for anything else."""
    from finetune.errors import FinetuneError

    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError
        return numbers
    except ValueError as error:
        raise FinetuneError(f"{option} takes numbers with commas between them, not {text!r:.40}.") from error
