"""The page of a run's report. Everything in it is escaped here; it holds no script at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.measuring.groups import GROUPS, MODE_TITLES
from finetune.reports.curves import Line, chart, legend, sparkline, thousands
from finetune.reports.pages import document, table, text

KINDS = {
    "vision": "the tower learns to see",
    "alignment": "the projector alone",
    "multitask": "everything, all tasks",
    "annealing": "falling rate, several mixtures",
    "sft": "fine-tuning",
    "mpo": "preferences",
    "cold_start": "reasoning, cold start",
    "rl": "reinforcement",
    "align": "alignment",
}
_ASKED_DIRECTLY = ("patch ", "token ")
"""How the shares in a log begin that are not of answers."""


def page(facts: dict[str, Any]) -> str:
    """The whole report; `facts` is what report.json holds."""
    parts = [
        _header(facts),
        _headline(facts),
        _warnings(facts),
        _ladder(facts),
        _kinds(facts),
        _groups(facts),
        _modes(facts),
        _merged(facts),
        _curves(facts),
        _times(facts),
        _made(facts),
    ]
    return document(f"{facts['name']} · run", "".join(parts))


# -- the head ---------------------------------------------------------------------------------------------------


def _header(facts: dict[str, Any]) -> str:
    seed, processes = facts["seed"], facts["processes"]
    chips = [
        "finished" if facts["finished"] else "not finished",
        f"from {facts['started_from']}",
        *([f"seed {seed}"] if seed is not None else []),
        *([f"{processes} {'process' if processes == 1 else 'processes'}"] if processes else []),
    ]
    return (
        f'<h1>{text(facts["name"])}</h1><div class="kb-sub"><span>run of a recipe</span>'
        + "".join(f'<span class="kb-chip">{text(chip)}</span>' for chip in chips)
        + "</div>"
    )


def _headline(facts: dict[str, Any]) -> str:
    columns = _columns(facts)
    totals, cards = facts["totals"], []
    if columns:
        average = columns[-1][1]["mean_of_kinds"]
        blind = facts["baselines"]["mean_of_kinds"]["blind"]
        floor = facts["baselines"]["mean_of_kinds"]["floor"]
        beside = [f"blind {_percent(blind)}"] if blind is not None else []
        beside += [f"most frequent answer {_percent(floor)}"] if floor is not None else []
        cards.append((f"{_percent(average['accuracy'])} %", "mean of kinds, held out", _range(average)))
        cards.append((str(len(columns[-1][1]["kinds"])), "kinds of question", ", ".join(beside)))
    cards.append((thousands(totals["examples"]), "examples", f"{thousands(totals['tokens'])} tokens"))
    cards.append((_duration(totals["seconds"]), "of training", f"{_duration(totals['processor_seconds'])} processor"))
    body = "".join(
        f'<div class="kb-head"><b>{text(number)}</b><span>{text(told)}<br>{text(more)}</span></div>'
        for number, told, more in cards
    )
    return f'<div class="kb-heads">{body}</div>'


def _warnings(facts: dict[str, Any]) -> str:
    sentences = []
    open_ = [stage for stage in facts["stages"] if not stage["done"]]
    for stage in open_[:1]:
        left = f"; {len(open_) - 1} more to come" if len(open_) > 1 else ""
        where = f"at step {stage['steps']:,} of {stage['of']:,}" if stage["begun"] else "not begun"
        sentences.append(f"The run has not ended: {stage['title']} is {where}{left}.")
    sentences += [
        f"{stage['title']} left out {stage['skipped']:,} of its steps, whose gradient was no number."
        for stage in facts["stages"]
        if stage["skipped"]
    ]
    return "".join(f'<p class="kb-warn">{text(sentence)}</p>' for sentence in sentences + facts["problems"])


# -- accuracy ---------------------------------------------------------------------------------------------------


def _columns(facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The evaluations that stand for a stage each, and the last one."""
    checks = facts["checks"]
    out = [(stage, checks[title]) for stage, title in facts["after"].items() if title in checks]
    return out + ([("final", checks["final"])] if "final" in checks else [])


def _ladder(facts: dict[str, Any]) -> str:
    """The mean of kinds after everything that was measured, one below the other."""
    if not facts["checks"]:
        return '<p class="kb-note">Nothing has been measured yet.</p>'
    standing = set(facts["after"].values()) | {"final"}
    floor, blind = (facts["baselines"]["mean_of_kinds"][name] for name in ("floor", "blind"))
    lines = [
        f'<i class="kr-at kr-{css}" style="left:{100 * value:.1f}%"></i>'
        for css, value in (("floor", floor), ("blind", blind))
        if value is not None
    ]
    rows = []
    for title, check in facts["checks"].items():
        average = check["mean_of_kinds"]
        low, high, value = (100 * average[k] for k in ("low", "high", "accuracy"))
        css = "" if title in standing else " kr-within"
        rows.append(
            f'<div class="kr-rung{css}"><span>{text(title)}</span><div class="kr-track">{"".join(lines)}'
            f'<i class="kr-range" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
            f'<b style="left:{value:.1f}%"></b></div><span>{value:.1f} <small>{_range(average)}</small></span></div>'
        )
    told = [f"most frequent answer {_percent(floor)} %"] if floor is not None else []
    told_blind = [f"blind {_percent(blind)} %"] if blind is not None else []
    marks = [("kr-floor", words) for words in told] + [("kr-blind", words) for words in told_blind]
    key = "".join(f'<span><i class="kr-at {css}"></i>{text(words)}</span>' for css, words in marks)
    return (
        f'<h2>How it rose</h2><div class="kr-ladder">{"".join(rows)}</div>'
        f'<div class="kr-legend">{key}</div>'
        '<p class="kb-note">Mean accuracy of all kinds of question on held-out clips, in percent, with its 95 % '
        "interval.</p>"
    )


def _kinds(facts: dict[str, Any]) -> str:
    columns = _columns(facts)
    if not columns:
        return ""
    main = _accuracies(columns, facts["baselines"], "kinds", average=True)
    every = [(title, check) for title, check in facts["checks"].items()]
    more = ""
    if len(every) > len(columns):
        inner = _accuracies(every, facts["baselines"], "kinds", average=True, curve=False)
        more = f"<details><summary>After every part · {len(every)}</summary>{inner}</details>"
    blind = facts["baselines"]["blind_of"]
    notes = [
        "Percent right, below it the 95 % interval (Wilson; of the mean, combined from the kinds').",
        "The questions about one clip are counted as if they were independent.",
        f"Blind: the model after {blind}, before grey frames." if blind else "The blind baseline was not measured.",
        "Most frequent: what one fixed answer per kind, chosen in hindsight, would reach.",
    ]
    return f'<h2>Accuracy by kind of question</h2>{main}{more}<p class="kb-note">{text(" ".join(notes))}</p>'


def _groups(facts: dict[str, Any]) -> str:
    columns = _columns(facts)
    if not any(check["groups"] for _, check in columns):
        return ""
    inner = ""
    if any(check["chinese"] for _, check in columns):
        told = _accuracies(columns, facts["baselines"], "chinese", average=False)
        inner = f"<details><summary>In Chinese, by kind of question</summary>{told}</details>"
    return f"<h2>Groups of clips</h2>{_accuracies(columns, facts['baselines'], 'groups', average=False)}{inner}"


def _accuracies(
    columns: Sequence[tuple[str, dict[str, Any]]],
    baselines: dict[str, Any],
    what: str,
    *,
    average: bool,
    curve: bool = True,
) -> str:
    curve = curve and len(columns) > 1
    names = {name: None for _, check in reversed(columns) for name in check[what]}
    last = columns[-1][1][what]
    order = sorted(names, key=lambda name: -last[name]["accuracy"] if name in last else 1.0)
    rows = []
    if average:
        cells = [check["mean_of_kinds"] for _, check in columns]
        rows.append(_row(f"mean of {len(last)} kinds", None, cells, baselines["mean_of_kinds"], curve, "kb-total"))
    for name in order:
        cells = [check[what].get(name) for _, check in columns]
        asked = next(cell["questions"] for cell in reversed(cells) if cell is not None)
        shown = GROUPS.get(name, name) if what == "groups" else name
        rows.append(_row(shown.replace("_", " "), asked, cells, baselines[what].get(name, {}), curve))
    heads = ["Group" if what == "groups" else "Kind", *(title for title, _ in columns)]
    return table([*heads, *([""] if curve else []), "Blind", "Most frequent", "Asked"], rows)


def _row(
    name: str,
    asked: int | None,
    cells: Sequence[Mapping[str, Any] | None],
    base: Mapping[str, Any],
    curve: bool,
    css: str = "",
) -> str:
    shown = [f"<th scope='row'>{text(name)}</th>"]
    for at, cell in enumerate(cells):
        own = ' class="kb-own"' if at == len(cells) - 1 else ""
        if cell is None or cell["accuracy"] is None:
            shown.append(f"<td{own}>–</td>")
        else:
            shown.append(f"<td{own}>{_percent(cell['accuracy'])}<br><small>{_range(cell)}</small></td>")
    if curve:
        values = [cell["accuracy"] if cell else None for cell in cells]
        told = ", ".join("–" if v is None else _percent(v) for v in values)
        shown.append(f"<td>{sparkline(values, f'{name}: {told}')}</td>")
    for key in ("blind", "floor"):
        value = base.get(key)
        shown.append(f'<td class="kb-peer">{"–" if value is None else _percent(value)}</td>')
    shown.append(f"<td>{'' if asked is None else f'{asked:,}'}</td>")
    return f'<tr class="{css}">{"".join(shown)}</tr>' if css else f"<tr>{''.join(shown)}</tr>"


def _modes(facts: dict[str, Any]) -> str:
    """What each mode was worth after each stage, how often auto thought, and how often answers went in circles."""
    if not facts["modes"]:
        return ""

    def cell(row: Mapping[str, Any] | None, tokens: bool = False) -> str:
        if row is None:
            return "<td>–</td>"
        more = f" · {row['tokens']:.0f} tokens" if tokens else ""
        return f"<td>{_percent(row['accuracy'])}<br><small>{_range(row)}{more}</small></td>"

    lines = []
    for stage, told in facts["modes"].items():
        for title, rows in told["right"].items():
            cells = "".join(cell(rows.get(mode), tokens=True) for mode in MODE_TITLES)
            lines.append(f"<tr><th scope='row'>{text(stage)}</th><td>{text(title)}</td>{cells}</tr>")
        circling = "".join(cell(told["repeating"].get(mode)) for mode in MODE_TITLES)
        lines.append(f"<tr><th scope='row'>{text(stage)}</th><td>went round in circles</td>{circling}</tr>")
        for title, row in told["auto_thinks"].items():
            thought = cell(row) + "<td></td>" * (len(MODE_TITLES) - 1)
            lines.append(f"<tr><th scope='row'>{text(stage)}</th><td>auto thought: {text(title)}</td>{thought}</tr>")
    return (
        f"<h2>The modes</h2>{table(['After', 'Questions', *MODE_TITLES.values()], lines)}"
        '<p class="kb-note">Percent right with the 95 % interval and the mean number of tokens written, each question '
        "asked in every mode; of answers that went round in circles, and of questions that auto chose to think about, "
        "the percentage.</p>"
    )


def _merged(facts: dict[str, Any]) -> str:
    blocks = []
    for stage, models in facts["merged"].items():
        if not models:
            continue
        reach = max(0.02, *(max(abs(m["low"]), abs(m["high"])) for m in models.values()))
        rows = []
        for title, one in models.items():
            left, right, dot = (50 + 50 * one[k] / reach for k in ("low", "high", "difference"))
            sure = " kr-sure" if one["low"] > 0 or one["high"] < 0 else ""
            rows.append(
                f'<div class="kr-rung{sure}"><span>{text(title)}</span><div class="kr-track kr-middle">'
                f'<i class="kr-range" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
                f'<b style="left:{dot:.1f}%"></b></div><span>{_signed(one["difference"])} '
                f"<small>{_signed(one['low'])} to {_signed(one['high'])}</small></span></div>"
            )
        how = {one["paired"] for one in models.values()}
        told = (
            "paired: both answered the same questions"
            if how == {True}
            else "unpaired: treated as answers to separate questions, which makes the interval wider than need be"
            if how == {False}
            else "paired where both answered the same questions, unpaired elsewhere"
        )
        blocks.append(
            f'<div class="kr-ladder">{"".join(rows)}</div><p class="kb-note">The average of {text(stage)} minus each '
            f"model it was made of: mean of kinds, in points, with the 95 % interval of the difference (Newcombe, "
            f"{told}). Right of the middle the average is better.</p>"
        )
    return f"<h2>Merged against annealed</h2>{''.join(blocks)}" if blocks else ""


# -- training ---------------------------------------------------------------------------------------------------


def _curves(facts: dict[str, Any]) -> str:
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for stage in facts["stages"]:
        if facts["curves"].get(stage["title"]):
            by_stage.setdefault(stage["stage"], []).append(stage)
    if not by_stage:
        return ""
    cards = "".join(_stage_card(name, parts, facts["curves"]) for name, parts in by_stage.items())
    return f'<h2>Training</h2><div class="kr-cards">{cards}</div>'


def _stage_card(name: str, parts: list[dict[str, Any]], curves: Mapping[str, list[dict[str, Any]]]) -> str:
    together = parts[0]["kind"] == "annealing"  # they begin at one model; all others follow each other
    answers = "pictures matched to texts" if parts[0]["kind"] == "vision" else "answers"
    losses: list[Line] = []
    rights: list[Line] = []
    marks: list[float] = []
    begin = 0.0
    for at, part in enumerate(parts):
        log = curves[part["title"]]
        losses.append(Line(part["part"], [(begin + p["step"], p["loss"]) for p in log if p["loss"] is not None], at))
        for what, asked_directly in ((answers, False), ("what patches and tokens are asked directly", True)):
            shares = [(begin + p["step"], _share(p["right"], asked_directly)) for p in log]
            colour = at if together else 2 * asked_directly
            rights.append(Line(what, [(x, y) for x, y in shares if y is not None], colour, dashed=asked_directly))
        if not together:
            begin = max([begin, *(begin + p["step"] for p in log)])
            marks.append(begin)
    rights = [line for line in rights if line.points]
    told = f"{sum(p['steps'] for p in parts):,} steps · {_duration(sum(p['seconds'] for p in parts))}"
    names = {line.name: (line.name, line.colour, False) for line in losses} if len(parts) > 1 else {}
    shown = {line.name: (line.name, -1 if together and len(parts) > 1 else line.colour, line.dashed) for line in rights}
    return (
        f'<section class="kr-card"><header><b>{text(name)}</b>'
        f"<span>{text(KINDS.get(parts[0]['kind'], parts[0]['kind']))}</span><span>{text(told)}</span></header>"
        + _figure("Loss", chart(losses, f"Loss of {name} by step", marks=marks[:-1]), names)
        + _figure(
            "Right while training, %",
            chart(rights, f"Share right while training {name}, by step", percent=True, marks=marks[:-1]),
            shown,
        )
        + "</section>"
    )


def _figure(caption: str, drawing: str, names: Mapping[str, tuple[str, int, bool]]) -> str:
    if not drawing:
        return ""
    return f"<figure><figcaption>{text(caption)}</figcaption>{drawing}{legend(list(names.values()))}</figure>"


def _share(right: Mapping[str, float], asked_directly: bool) -> float | None:
    """The mean of the shares right: of answers, or of what patches and tokens are asked directly."""
    known = [share for kind, share in right.items() if kind.startswith(_ASKED_DIRECTLY) == asked_directly]
    return sum(known) / len(known) if known else None


def _times(facts: dict[str, Any]) -> str:
    totals = facts["totals"]
    rows = []
    for stage in facts["stages"]:
        share = stage["seconds"] / totals["seconds"] if totals["seconds"] else 0.0
        bar = f'<span class="kb-bar" aria-hidden="true"><i style="left:0;width:{100 * share:.1f}%"></i></span>'
        steps = f"{stage['steps']:,}" + ("" if stage["done"] or not stage["of"] else f" of {stage['of']:,}")
        loss = "–" if stage["loss"] is None else f"{stage['loss']:.3f}"
        told = KINDS.get(stage["kind"], stage["kind"])
        rows.append(
            f"<tr><th scope='row'>{text(stage['title'])}</th><td>{steps}</td><td>{stage['examples']:,}</td>"
            f"<td>{stage['tokens']:,}</td><td>{_duration(stage['seconds'])}{bar}</td>"
            f"<td>{_duration(stage['processor_seconds'])}</td><td>{loss}</td>"
            f'<td class="kb-text">{text(", ".join(stage["trains"]) or told)}{_note(stage)}</td></tr>'
        )
    rows.append(
        f"<tr class='kb-total'><th scope='row'>All</th><td>{totals['steps']:,}</td><td>{totals['examples']:,}</td>"
        f"<td>{totals['tokens']:,}</td><td>{_duration(totals['seconds'])}</td>"
        f"<td>{_duration(totals['processor_seconds'])}</td><td></td><td></td></tr>"
    )
    heads = ["Stage", "Steps", "Examples", "Tokens", "Time", "Processor", "Last loss", "Trains"]
    return f"<h2>Time and examples</h2>{table(heads, rows, text_from=7)}"


def _note(stage: Mapping[str, Any]) -> str:
    return f"<br><small>{text(stage['note'])}</small>" if stage["note"] else ""


def _made(facts: dict[str, Any]) -> str:
    known = [
        ("Command", facts["command"] or "not recorded"),
        ("Seed", "not recorded" if facts["seed"] is None else facts["seed"]),
        ("Code", facts["code"] or "not recorded"),
        ("Started from", facts["started_from"]),
    ]
    for name, value in facts["machine"].items():
        if value not in (None, "", [], {}):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            known.append((str(name).replace("_", " ").capitalize(), shown))
    listed = "".join(
        f"<dt>{text(name)}</dt><dd>{f'<code>{text(value)}</code>' if name == 'Command' else text(value)}</dd>"
        for name, value in known
    )
    recipe = text_whole(json.dumps(facts["recipe"], indent=1, ensure_ascii=False))
    return (
        f'<h2>How it was made</h2><div class="kr-made"><dl>{listed}</dl></div>'
        f'<details><summary>The recipe as it ran</summary><pre class="kr-recipe">{recipe}</pre></details>'
    )


def text_whole(value: str) -> str:
    """A long text of our own, uncut."""
    return "".join(text(value[at : at + 1000]) for at in range(0, len(value), 1000))


# -- words ------------------------------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(cell: Mapping[str, Any]) -> str:
    return "" if cell["low"] is None else f"{100 * cell['low']:.1f}–{100 * cell['high']:.1f}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
