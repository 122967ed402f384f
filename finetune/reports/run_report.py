"""The report of a run of a recipe: report.json and report.html in its folder, made anew from what lies there.

A run that was stopped, or of which files are missing or broken, gives a report of what there is."""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.reasoning.modes import MODE_NAMES
from finetune.errors import FinetuneError
from finetune.measuring.groups import COUNTED
from finetune.measuring.intervals import Estimate, difference, mean, paired, share
from finetune.reports.run_folder import Answers, Part, RunFolder, Whole, number, read_run, whole
from finetune.reports.run_html import page


def add_commands(commands: Any) -> None:
    """Add `report` to the commands of a parser; `act` of its arguments does the work."""
    report = commands.add_parser("report", help="write report.html and report.json of a run, finished or not")
    report.add_argument("run", type=Path, metavar="RUN", help="the run's folder, such as runs/nano")
    report.set_defaults(act=_report)


def _report(args: argparse.Namespace) -> int:
    print(write_report(args.run))
    return 0


def write_report(run: Path) -> Path:
    """Write report.json and report.html into the folder of a run and return the page.

    Raises FinetuneError where there is no run, or the folder cannot be written."""
    facts = report_facts(read_run(run))
    try:
        _write(run / "report.json", json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        _write(run / "report.html", page(facts))
    except OSError as error:
        raise FinetuneError(f"The report cannot be written to {run} ({error.strerror}); make room there.") from error
    return run / "report.html"


def _write(path: Path, content: str) -> None:
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(content, "utf-8", errors="replace")
    os.replace(scratch, path)


def report_facts(run: RunFolder) -> dict[str, Any]:
    """Everything that the page shows, as plain data. Shares lie between 0 and 1, times are in seconds."""
    stages = _stages(run)
    checks = _checks(run)
    after = {stage: title for title, stage in _last_of_each(run).items()}
    return {
        "name": run.name,
        "problems": run.problems,
        "seed": run.recipe.get("seed"),
        "processes": run.recipe.get("processes"),
        "started_from": _start(run.recipe.get("model")),
        "command": run.machine.get("command"),
        "code": run.machine.get("code"),
        "machine": {k: v for k, v in run.machine.items() if k not in ("command", "code")},
        "finished": bool(stages) and all(stage["done"] for stage in stages) and not _unmerged(run),
        "stages": stages,
        "totals": {
            name: sum(stage[name] for stage in stages)
            for name in ("seconds", "processor_seconds", "examples", "tokens", "steps")
        },
        "after": after,
        "checks": checks,
        "baselines": _baselines(checks),
        "modes": {part.title: told for part in run.parts if (told := _modes(part.modes))},
        "merged": {w.stage: _against(run, w) for w in run.wholes.values() if w.kind == "annealing" and w.evaluation},
        "curves": {part.title: _curve(part) for part in run.parts if part.log},
        "recipe": run.recipe,
    }


def _start(model: Any) -> str:
    if isinstance(model, Mapping):
        if isinstance(model.get("path"), str):
            return str(model["path"])
        if isinstance(model.get("new"), str):
            former = model.get("former")
            return f"{model['new']}, " + (f"grown from {former}" if isinstance(former, str) else "random weights")
    return "not recorded"


# -- stages -----------------------------------------------------------------------------------------------------


def _stages(run: RunFolder) -> list[dict[str, Any]]:
    return [_stage(part) for part in run.parts]


def _stage(part: Part) -> dict[str, Any]:
    """A part's account: of done.json where it has ended, else of its last line in the log."""
    last = part.log[-1] if part.log else {}
    done = part.done or {}

    def seconds(name: str, minutes: str) -> float:
        found = number(done.get(name))
        return found if found is not None else 60 * (number(last.get(minutes)) or 0.0)

    trained = part.numbers.get("train")
    return {
        "title": part.title,
        "stage": part.stage,
        "part": part.name,
        "kind": part.kind,
        "done": part.done is not None,
        "begun": bool(part.log) or part.done is not None,
        "trains": [str(m) for m in trained] if isinstance(trained, list | tuple) else [],
        "steps": whole(done.get("steps")) or whole(last.get("step")),
        "of": whole(part.numbers.get("steps")) or whole(last.get("of")) or whole(done.get("steps")),
        "seconds": seconds("seconds", "minutes"),
        "processor_seconds": seconds("processor_seconds", "processor_minutes"),
        "examples": whole(done.get("examples")) or whole(last.get("examples")),
        "tokens": whole(done.get("tokens")) or whole(last.get("tokens")),
        "loss": number(last.get("loss")),
        "skipped": whole(done.get("skipped")) or whole(last.get("skipped")),
        "note": done["note"] if isinstance(done.get("note"), str) else "",
    }


def _unmerged(run: RunFolder) -> bool:
    """Whether models of a stage have been measured and their average has not."""
    return any(
        w.kind == "annealing" and w.evaluation is None and any(p.evaluation for p in run.parts if p.stage == w.stage)
        for w in run.wholes.values()
    )


def _curve(part: Part) -> list[dict[str, Any]]:
    """What the log says at each step."""
    out = []
    for line in part.log:
        shares = line.get("right")
        found = {str(k): number(v) for k, v in shares.items()} if isinstance(shares, Mapping) else {}
        out.append(
            {
                "step": whole(line["step"]),
                "loss": number(line.get("loss")),
                "lr": number(line.get("lr")),
                "right": {k: v for k, v in found.items() if v is not None},
            }
        )
    return out


# -- accuracy ---------------------------------------------------------------------------------------------------


def _checks(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Every evaluation in order: after each part and each whole stage, and the last one."""
    out: dict[str, dict[str, Any]] = {}
    for at, part in enumerate(run.parts):
        if part.evaluation is not None:
            out[part.title] = _check(part.evaluation)
        stage = run.wholes.get(part.stage)
        ends = at + 1 == len(run.parts) or run.parts[at + 1].stage != part.stage
        if ends and stage is not None and stage.evaluation is not None:
            out[part.stage] = _check(stage.evaluation)
    if run.final is not None:
        out["final"] = _check(run.final)
    return {name: check for name, check in out.items() if check["kinds"]}


def _check(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    blind = evaluation.get("asked_blind")  # the groups that were; where it is missing, all
    asked = set(map(str, blind)) if isinstance(blind, list) else None
    chinese = evaluation.get("chinese")
    kinds = _rows(evaluation.get("kinds"))
    groups = _rows(evaluation.get("groups"))
    if asked is not None:
        for row in kinds.values() if not asked & set(COUNTED) else ():
            row["blind"] = None
        for name, row in groups.items():
            row["blind"] = row["blind"] if name in asked else None
    overall = mean([share(row["right"], row["questions"]) for row in kinds.values()])
    return {
        "clips": whole(evaluation.get("clips")) or None,
        "kinds": kinds,
        "groups": groups,
        "chinese": _rows(chinese.get("kinds") if isinstance(chinese, Mapping) else None),
        "mean_of_kinds": {
            **(_facts(overall) if overall else {"accuracy": None, "low": None, "high": None}),
            "blind": _mean([row["blind"] for row in kinds.values()]),
            "floor": _mean([row["floor"] for row in kinds.values()]),
        },
    }


def _rows(table: Any) -> dict[str, dict[str, Any]]:
    """Counts and shares of each row that makes sense. Intervals are computed here, from the counts."""
    out = {}
    for name, row in table.items() if isinstance(table, Mapping) else ():
        if not isinstance(row, Mapping):
            continue
        total, hits = whole(row.get("questions")), whole(row.get("right"))
        if total > 0 and hits <= total:
            out[str(name)] = {
                "questions": total,
                "right": hits,
                **_facts(share(hits, total)),
                "blind": number(row.get("blind")),
                "floor": number(row.get("floor")),
            }
    return out


_MODE_ROWS = {"simple": "one fact", "steps": "several steps", "detail": "too small to be seen"}


def _modes(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of each mode how often it was right on each group of questions, how many tokens it took and how often it went
    round in circles; and on which share of each group auto decided to think. Empty where nothing makes sense."""
    facts = facts or {}

    def counts(table: Any, name: str) -> dict[str, float] | None:
        row = table.get(name) if isinstance(table, Mapping) else None
        if not isinstance(row, Mapping):
            return None
        total, hits = whole(row.get("questions")), whole(row.get("right"))
        if not 0 <= hits <= total or not total:
            return None
        return {"questions": total, **_facts(share(hits, total)), "tokens": number(row.get("tokens")) or 0.0}

    groups = facts.get("groups")
    told = {
        title: {mode: row for mode in MODE_NAMES if (row := counts(groups.get(group), mode))}
        for group, title in _MODE_ROWS.items()
        if isinstance(groups, Mapping)
    }
    told = {title: rows for title, rows in told.items() if rows}
    if not told:
        return {}
    return {
        "right": told,
        "repeating": {mode: row for mode in MODE_NAMES if (row := counts(facts.get("repeating"), mode))},
        "auto_thinks": {
            title: row for group, title in _MODE_ROWS.items() if (row := counts(facts.get("auto_thinks"), group))
        },
    }


def _last_of_each(run: RunFolder) -> dict[str, str]:
    """The evaluation that stands for a stage: of the whole, or after its last part; its title, and the stage."""
    out = {}
    for stage in dict.fromkeys(part.stage for part in run.parts):
        parts = [part for part in run.parts if part.stage == stage]
        of_all = run.wholes.get(stage)
        if of_all is not None and of_all.evaluation is not None:
            out[stage] = stage
        elif parts[-1].evaluation is not None and not (of_all is not None and of_all.kind == "annealing"):
            out[parts[-1].title] = stage
    return out


def _baselines(checks: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Blind and most frequent answer of every kind and group, each of the last evaluation that has them: a later
    model is the better guesser, and the questions are the same."""
    out: dict[str, Any] = {
        "kinds": {},
        "groups": {},
        "chinese": {},
        "mean_of_kinds": {"blind": None, "floor": None},
        "blind_of": None,
    }
    for title, check in checks.items():
        for what in ("kinds", "groups", "chinese"):
            for name, row in check[what].items():
                known = out[what].setdefault(name, {"blind": None, "floor": None})
                known |= {k: row[k] for k in ("blind", "floor") if row[k] is not None}
        average = check["mean_of_kinds"]
        out["mean_of_kinds"] |= {k: average[k] for k in ("blind", "floor") if average[k] is not None}
        if average["blind"] is not None:
            out["blind_of"] = title
    return out


# -- the average against what it was made of --------------------------------------------------------------------


def _against(run: RunFolder, merged: Whole) -> dict[str, Any]:
    """How much better the average is than each model it was made of, over the mean of kinds; positive is better."""
    assert merged.evaluation is not None
    out = {}
    for part in run.parts:
        if part.stage == merged.stage and part.evaluation is not None:
            ours, theirs = _rows(merged.evaluation.get("kinds")), _rows(part.evaluation.get("kinds"))
            several = _paired(merged.answers, part.answers, ours, theirs)
            same = several is not None
            if several is None:
                several = {
                    kind: difference(_share(ours[kind]), _share(theirs[kind])) for kind in ours if kind in theirs
                }
            overall = mean(list(several.values()))
            if overall is not None:
                out[part.title] = {
                    "paired": same,
                    **_facts(overall, "difference"),
                    "kinds": {kind: _facts(one, "difference") for kind, one in several.items()},
                }
    return out


def _paired(
    first: Answers | None, second: Answers | None, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, Estimate] | None:
    """Differences by kind where both have answered the same questions, and these are the ones counted; else None."""
    if first is None or second is None or first.keys() != second.keys():
        return None
    tables: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for about, hit in first.items():
        if about[0] in COUNTED:
            tables[about[1]][2 * (not hit) + (not second[about])] += 1
    for kind, (both, only_first, only_second, _) in tables.items():
        counted = ours.get(kind, {}), theirs.get(kind, {})
        if any(row.get("questions") != sum(tables[kind]) for row in counted):
            return None
        if counted[0]["right"] != both + only_first or counted[1]["right"] != both + only_second:
            return None
    if set(tables) != set(ours):
        return None
    return {kind: paired(*table) for kind, table in tables.items()}


def _share(row: Mapping[str, Any]) -> Estimate:
    return share(row["right"], row["questions"])


def _facts(estimate: Estimate, name: str = "accuracy") -> dict[str, float]:
    value, low, high = (round(v, 4) for v in estimate)
    return {name: value, "low": low, "high": high}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 4) if known and len(known) == len(values) else None
