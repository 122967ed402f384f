"""The command `feedback` of python -m finetune: what was collected, as files, and what is wrong with it.

python -m finetune feedback export rows.jsonl --format trl-sft [--has correction --side train …] [--videos]
python -m finetune feedback import rows.jsonl
python -m finetune feedback check [--exclude]
python -m finetune feedback split [--share 0.3] [--video SHA --side held_out]"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

from finetune.data.report import Report
from finetune.errors import FinetuneError
from finetune.feedback.browse import exclude_found
from finetune.feedback.checks import check
from finetune.feedback.export import FORMATS, export
from finetune.feedback.filters import Filters, Has
from finetune.feedback.importing import import_file
from finetune.feedback.splits import Side, set_share, set_side, share, sides
from finetune.feedback.store import Store


def add_commands(commands: Any) -> None:
    """Put the command among those of a parser; `act` of what it parses does it and returns the exit code."""
    feedback = commands.add_parser("feedback", help="export, import and check what was collected")
    _add(feedback.add_subparsers(dest="feedback", required=True))


def main(argv: list[str] | None = None) -> int:
    """Exit code 0. FinetuneError or EngineError where the user can mend what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m finetune feedback", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add(parser.add_subparsers(dest="feedback", required=True))
    args = parser.parse_args(argv)
    return int(args.act(args) or 0)


def _add(commands: Any) -> None:
    out = commands.add_parser("export", help="write what was collected to a .jsonl file")
    out.add_argument("file", type=Path)
    out.add_argument("--format", choices=FORMATS, default="store", help="(default: store, which loses nothing)")
    out.add_argument("--videos", action="store_true", help="copy the videos to the folder videos beside the file")
    out.add_argument("--text", default="", help="only where these words stand")
    out.add_argument("--has", choices=get_args(Has), action="append", default=[], help="may be given several times")
    out.add_argument("--lacks", choices=get_args(Has), action="append", default=[], help="may be given several times")
    for name in ("mode", "model", "language"):
        out.add_argument(f"--{name}", help=f"only this {name}")
    out.add_argument("--side", choices=get_args(Side), help="only this side of the split")
    out.add_argument("--first-day", help="YYYY-MM-DD, UTC")
    out.add_argument("--last-day", help="YYYY-MM-DD, UTC")
    out.set_defaults(act=_export)
    take = commands.add_parser("import", help="take a .jsonl file in: an export, ShareGPT, messages, TRL's columns")
    take.add_argument("file", type=Path)
    take.set_defaults(act=_import)
    look = commands.add_parser("check", help="find duplicates and texts and videos of no use")
    look.add_argument("--exclude", action="store_true", help="learn nothing from what is found")
    look.set_defaults(act=_check)
    split = commands.add_parser("split", help="which videos are held out for measuring")
    split.add_argument("--share", type=float, help="of the videos, 0 to 1, where no hand decides")
    split.add_argument("--video", help="content hash of a video that --side puts on a side")
    split.add_argument("--side", choices=(*get_args(Side), "rule"), help="rule: as the share has it")
    split.set_defaults(act=_split)
    for command in (out, take, look, split):
        command.add_argument("--store", type=Path, default=Path("data"), help="the page's folder (default: data)")


def _export(args: argparse.Namespace) -> None:
    days = {"first_day": args.first_day, "last_day": args.last_day}
    filters = Filters(
        args.text, frozenset(args.has), frozenset(args.lacks), args.mode, args.model, args.language, args.side, **days
    )
    store = _open(args.store)
    _print(export(store, args.file, args.format, filters, videos=args.videos))
    store.close()


def _import(args: argparse.Namespace) -> None:
    store = Store(args.store / "studio.sqlite")
    _print(import_file(store, args.file, args.store / "videos"))
    store.close()


def _check(args: argparse.Namespace) -> None:
    store = _open(args.store)
    for why, many in sorted(check(store).items(), key=lambda pair: -pair[1]):
        print(f"{many:,} answers: {why}")
    if args.exclude:
        print(f"{exclude_found(store):,} answers excluded")
    store.close()


def _split(args: argparse.Namespace) -> None:
    if (args.video is None) != (args.side is None):
        raise FinetuneError("Give --video and --side together.")
    store = _open(args.store)
    if args.share is not None:
        set_share(store, args.share)
    if args.video is not None:
        print(f"{set_side(store, args.video, None if args.side == 'rule' else args.side)} videos put on this side")
    print(json.dumps({"share": share(store), **sides(store)}))
    store.close()


def _open(folder: Path) -> Store:
    """The store that is there: what exports must not make an empty one."""
    path = folder / "studio.sqlite"
    if not path.is_file():
        raise FinetuneError(f"There is no store {path}; give the page's folder with --store.")
    return Store(path)


def _print(report: Report) -> None:
    print(f"{report.step}: {report.made:,} of {report.came:,} {report.unit}")
    for why, reason in sorted(report.reasons.items(), key=lambda pair: -pair[1].count):
        print(f"  {reason.count:,} left out, each {why}: {'; '.join(reason.examples)}")
    for note in report.notes:
        print(f"  {note}")
