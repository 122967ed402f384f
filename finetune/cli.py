"""python -m finetune run RECIPE.toml [--plan]: a recipe from the shell, or what it would take."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.recipe import Part, Recipe, load_recipe


def add_commands(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run a recipe; the same command goes on where it was stopped",
        description="Run a recipe. Numbers are replaced as in stage2.lr=1e-3, stage3.time.steps=100 or seed=1.",
    )
    run.add_argument("recipe", type=Path, help="a .toml file, such as recipes/nano.toml")
    run.add_argument("numbers", nargs="*", metavar="stage.field=value", help="numbers that replace the recipe's")
    run.add_argument("--out", type=Path, help="folder of the run (default: runs/NAME)")
    run.add_argument("--model", help="the model folder to begin with, instead of the recipe's")
    run.add_argument("--data", action="append", help="file of conversations for the stages that read files")
    run.add_argument("--replay", action="append", metavar="FILE", help="conversations that old skills are kept with")
    run.add_argument("--store", type=Path, default=Path("data/studio.sqlite"), help="file that keeps the run's figures")
    run.add_argument("--without", action="append", default=[], metavar="STAGE", help="leave a stage out")
    run.add_argument("--from", dest="begin", metavar="STAGE", help="run this stage and all after it again")
    run.add_argument("--nice", type=int, default=0, metavar="N", help="give way to other programs, 0 to 19 (default 0)")
    run.add_argument("--plan", action="store_true", help="start nothing; print what it would take")
    run.add_argument("--gpus", type=int, metavar="N", help="for the plan (default: as many as the recipe's processes)")
    run.add_argument("--gpu", metavar="NAME", help="for the plan: a100, h100, h800, h200, b200, l40s, 4090 or core")
    run.add_argument("--mfu", type=float, default=0.4, help="for the plan: share of the peak reached (default 0.4)")
    run.set_defaults(act=_run)


def _run(args: argparse.Namespace) -> int:
    recipe = given(load_recipe(args.recipe, args.numbers, args.model), args.model, args.data, args.without, args.replay)
    if args.plan:
        from finetune.planning.plan import make_plan, plan_text

        print(plan_text(make_plan(recipe, args.gpus, args.gpu, args.mfu)))
        return 0
    from finetune.run import run
    from finetune.training.trainer import Stopped

    if args.nice > 0:
        os.nice(min(args.nice, 19))
    out = args.out or Path("runs") / recipe.name
    try:
        print(run(recipe, out, args.begin, args.store))
    except Stopped:
        print(f"Stopped and saved in {out}; give the same command to go on.", file=sys.stderr)
        return 130
    return 0


def given(
    recipe: Recipe,
    model: str | None,
    data: Sequence[str] | None,
    without: Sequence[str] = (),
    replay: Sequence[str] | None = None,
) -> Recipe:
    """The recipe with the model and the data that the command names, and without some of its stages. `replay` are the
    files of the parts that go over old skills."""
    left = tuple(stage for stage in recipe.stages if stage not in [recipe.stage(name) for name in without])
    recipe = dataclasses.replace(recipe, stages=left)
    if model is not None:
        recipe = dataclasses.replace(recipe, model={"path": model})

    def filled(part: Part) -> Part:
        if data and part.data != ("world",):
            part = dataclasses.replace(part, data=tuple(data))
        if replay and part.replay:
            part = dataclasses.replace(part, replay_data=tuple(replay))
        return part

    stages = tuple(
        dataclasses.replace(stage, parts={name: filled(part) for name, part in stage.parts.items()})
        for stage in recipe.stages
    )
    return dataclasses.replace(recipe, stages=stages)
