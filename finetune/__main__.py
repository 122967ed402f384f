"""python -m finetune run | report | data | feedback | evaluate | modes | card | demo | bench | score: run a recipe and
report on it, make training data, take feedback along, measure a model on the world, make the demo clips; run benchmarks
and score predictions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.errors import EngineError
from finetune import cli
from finetune.bench import cli as bench
from finetune.data import cli as data
from finetune.errors import FinetuneError
from finetune.feedback import cli as feedback
from finetune.measuring import modes_table
from finetune.reports import run_report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m finetune", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cli.add_commands(commands)
    evaluate = commands.add_parser("evaluate", help="accuracy of a model folder on held-out clips of the world")
    evaluate.add_argument("model", type=Path)
    evaluate.add_argument("--clips", type=int, default=200, help="held-out clips (default 200)")
    evaluate.add_argument("--seed", type=int, default=0, help="number of the first held-out scene")
    evaluate.add_argument("--processes", type=int, default=1, help="share the clips among so many (default 1)")
    evaluate.add_argument("--no-blind", action="store_true", help="do not ask before grey frames too: half the time")
    evaluate.add_argument(
        "--out", type=Path, help="folder for evaluation.json and evaluation.md (default: the model's)"
    )
    card = commands.add_parser("card", help="write the README.md of an evaluated model folder")
    card.add_argument("model", type=Path)
    card.add_argument(
        "--run", type=Path, required=True, nargs="+", dest="runs", help="folders of the runs that made it, in order"
    )
    card.add_argument("--notes", default="", help="one more sentence on how the run went")
    demo = commands.add_parser("demo", help="make the demo clips from held-out scenes")
    demo.add_argument("--out", type=Path, required=True)
    demo.add_argument("--model", type=Path, help="also ask this model the suggested questions and print its answers")
    bench.add_commands(commands)
    run_report.add_commands(commands)
    modes_table.add_commands(commands)
    data.add_commands(commands)
    feedback.add_commands(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one sentence where the user can mend what went wrong."""
    args = _parser().parse_args(arguments)
    try:
        if "act" in args:
            return args.act(args) or 0
        elif args.command == "evaluate":
            from finetune.measuring.evaluate import evaluate_folder

            print(evaluate_folder(args.model, args.clips, args.seed, args.processes, args.out, not args.no_blind))
        elif args.command == "card":
            from finetune.nano.card import write_card

            print(write_card(args.model, args.runs, args.notes))
        else:
            from finetune.nano.demo import make_demo

            print(make_demo(args.out, args.model))
    except (FinetuneError, EngineError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
