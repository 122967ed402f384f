"""The commands `score` and `bench` of python -m finetune."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = commands.add_parser("score", help="score a file of predictions made elsewhere")
    score.add_argument("predictions", type=Path, help="one JSON object a line: task, index, question, answer, output …")
    score.add_argument(
        "--items", type=Path, metavar="FILE", help="also write one line per item with what was extracted"
    )
    score.set_defaults(act=_score)


def _score(args: argparse.Namespace) -> None:
    from finetune.bench.score import notes, score_file

    tally = score_file(args.predictions, args.items)
    for note in notes(tally):
        print(note, file=sys.stderr)
    print(json.dumps(tally.summary(), ensure_ascii=False))
