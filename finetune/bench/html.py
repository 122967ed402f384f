"""A report as one HTML file that needs nothing else. Everything in it is escaped here; it holds no script at all.

Questions, answers and outputs come from downloaded tables and from models: they are shown, never obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from finetune.reports.pages import document
from finetune.reports.pages import table as _table
from finetune.reports.pages import text as _text

Words = Callable[[str], str]
"""Puts a fixed text into the reader's language."""


def _english(text: str) -> str:
    return text


def page(facts: dict[str, Any], worst: Sequence[dict[str, Any]]) -> str:
    """The whole report. `facts` is what report.json holds, `worst` the examples with their pictures as data URLs."""
    parts = [
        _header(facts),
        headline(facts),
        _warnings(facts),
        "<h2>Scores</h2>",
        scores_table(facts),
        _legend(facts),
        _categories(facts),
        _problems(facts),
        _examples(worst),
        _method(facts),
    ]
    return document(f"{facts['title']} · {facts['settings']['model']}", "".join(parts))


def _header(facts: dict[str, Any]) -> str:
    settings = facts["settings"]
    chips = [settings["mode"], "greedy", f"at most {settings['max_tokens']} new tokens"]
    chips += [f"judge: {settings['judge']}" if settings.get("judge") else "no judge"]
    chips += [f"first {facts['limit']} of each task"] if facts["limit"] else []
    return (
        f'<h1>{_text(facts["title"])}</h1><div class="kb-sub"><span>{_text(settings["model"])}</span>'
        + "".join(f'<span class="kb-chip">{_text(chip)}</span>' for chip in chips)
        + "</div>"
    )


def headline(facts: dict[str, Any], words: Words = _english) -> str:
    """The mean of the tasks under both scorings, and how many items there were."""
    cards = [
        (_percent(facts["macro"][scoring]["percent"]), words(told), _range(facts["macro"][scoring]))
        for scoring, told in (
            ("published", "published scoring, mean of tasks"),
            ("strict", "strict scoring, mean of tasks"),
        )
    ]
    left_out = words(f"{facts['unscored']:,} unscored") if facts["unscored"] else ""
    cards.append((f"{facts['answered']:,}", words(f"of {facts['items']:,} items answered"), left_out))
    body = "".join(
        f'<div class="kb-head"><b>{_text(number)}</b><span>{_text(told)}<br>{_text(more)}</span></div>'
        for number, told, more in cards
    )
    return f'<div class="kb-heads">{body}</div>'


def _warnings(facts: dict[str, Any]) -> str:
    sentences = []
    if facts["answered"] < facts["items"]:
        missing = facts["items"] - facts["answered"]
        sentences.append(f"{missing:,} items have no answer and are in no score; see below why.")
    if facts["missing_tasks"]:
        sentences.append(f"Not measured: {', '.join(facts['missing_tasks'])}; the mean is of the other tasks only.")
    if facts["limit"]:
        sentences.append("Only part of the benchmark was asked.")
    return "".join(f'<p class="kb-warn">{_text(sentence)}</p>' for sentence in sentences)


def scores_table(facts: dict[str, Any], words: Words = _english) -> str:
    """A row per task with both scorings and their intervals, beside what others published."""
    figures: dict[str, dict[str, float]] = facts["published_figures"]
    models = list(dict.fromkeys(model for row in figures.values() for model in row))
    heads = [*map(words, ("Task", "Items", "Published", "Strict")), *models]
    rows = [
        _row(
            name + ("" if task["comparable"] else " †"), task["published"]["items"], task, figures.get(name, {}), models
        )
        for name, task in facts["tasks"].items()
    ]
    items = sum(task["published"]["items"] for task in facts["tasks"].values())
    rows.append(_row(words("Mean of tasks"), items, facts["macro"], figures.get("macro", {}), models, "kb-total"))
    if len(facts["tasks"]) > 1:
        rows.append(_row(words("All items alike"), items, facts["all_items"], {}, models))
    return _table(heads, rows)


def _row(
    name: str, items: int, both: dict[str, Any], peers: dict[str, float], models: Iterable[str], css: str = ""
) -> str:
    cells = [f"<th scope='row'>{_name(name)}</th>", f"<td>{items:,}</td>"]
    cells += [_own(both["published"], bar=True), _own(both["strict"], bar=False)]
    cells += [
        f'<td class="kb-peer">{peers[m]:.1f}</td>' if m in peers else '<td class="kb-peer">–</td>' for m in models
    ]
    return f'<tr class="{css}">{"".join(cells)}</tr>' if css else f"<tr>{''.join(cells)}</tr>"


def _own(share: dict[str, Any], bar: bool) -> str:
    if share["percent"] is None:
        return "<td>–</td>"
    drawn = ""
    if bar:
        low, high = share["low"], share["high"]
        drawn = (
            f'<span class="kb-bar" aria-hidden="true"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
            f'<b style="left:{share["percent"]:.1f}%"></b></span>'
        )
    return f'<td class="kb-own">{share["percent"]:.2f} <small>{_text(_range(share))}</small>{drawn}</td>'


def _legend(facts: dict[str, Any]) -> str:
    sentences = ["Percent right; in small the 95 % interval (Wilson; of the mean, combined from the tasks')."]
    if not all(task["comparable"] for task in facts["tasks"].values()):
        sentences.append("† not comparable with published scores: no judge, or items without a score.")
    if facts["published_figures"]:
        sentences.append(
            "Other models: arXiv 2507.01949 and the Keye README, full benchmark, each with its own prompts."
        )
    return f'<p class="kb-note">{_text(" ".join(sentences))}</p>'


def _categories(facts: dict[str, Any]) -> str:
    if not facts["categories"]:
        return ""
    blocks = []
    for task, several in facts["categories"].items():
        rows = [_row(name, both["published"]["items"], both, {}, ()) for name, both in several.items()]
        table = _table(["Category", "Items", "Published", "Strict"], rows)
        blocks.append(f"<details><summary>{_text(task)} · {len(several)}</summary>{table}</details>")
    return "<h2>Categories</h2>" + "".join(blocks)


def _problems(facts: dict[str, Any]) -> str:
    if not facts["problems"]:
        return ""
    rows = [
        f"<tr><td>{_name(p['task'])}</td><td>{p['items']:,}</td><td class='kb-text'>{_text(p['problem'])}</td>"
        f"<td class='kb-text'><small>{_text(', '.join(p['examples']))}</small></td></tr>"
        for p in facts["problems"]
    ]
    table = _table(["Task", "Items", "What", "For example"], rows, text_from=2)
    return f"<h2>What went wrong</h2>{table}"


def _examples(worst: Sequence[dict[str, Any]]) -> str:
    if not worst:
        return ""
    return f'<h2>Worst examples</h2><div class="kb-examples">{"".join(map(_example, worst))}</div>'


def _example(one: dict[str, Any]) -> str:
    # A data URL is made here and nowhere else; anything that does not look like one is left out.
    shown = "".join(
        f'<img src="{escape(url, quote=True)}" alt="">'
        for url in one["pictures"]
        if url.startswith("data:image/jpeg;base64,")
    )
    pictures = f'<div class="kb-pictures">{shown}</div>' if shown else ""
    lines = [("Truth", "kb-truth", one["answer"]), ("Read as", "kb-said", one["extracted"] or "nothing")]
    lines += [("Output", "", (one["output"] or "(empty)") + (" … cut at the token limit" if one["cut"] else ""))]
    if one["judge_reply"] is not None:
        lines.append(("Judge", "", one["judge_reply"] or "(no reply)"))
    if one["problem"]:
        lines.append(("Note", "", one["problem"]))
    listed = "".join(f'<dt>{_text(name)}</dt><dd class="{css}">{_text(value)}</dd>' for name, css, value in lines)
    strict = "right strictly" if one["strict"] else ""
    return (
        f'<article class="kb-example">{pictures}<div class="kb-body"><header><span>{_text(one["task"])} · '
        f"{_text(one['index'])}</span><span>{strict}</span></header>"
        f'<p class="kb-question">{_text(one["question"])}</p><dl>{listed}</dl></div></article>'
    )


def _method(facts: dict[str, Any]) -> str:
    settings, frames = facts["settings"], facts["frames"]
    sampling = settings["sampling"]
    lines = list(facts["notes"])
    if frames:
        lines.append(
            f"Frames of a video: {frames['fewest']} to {frames['most']}, on average {frames['mean']} "
            f"(at most {sampling['max_frames']}, {sampling['fps']:g} per second, {sampling['budget']:,} visual tokens)."
        )
    lines.append(f"Answers cut at {settings['max_tokens']} tokens: {facts['cut_at_the_token_limit']:,}.")
    lines.append(
        "Published scoring repeats the benchmark's own rules with their quirks; strict scoring leaves the known "
        "defects out: marks and capitals do not matter, a judge's reply must be a verdict and nothing else."
    )
    return "<h2>How it was measured</h2><ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _name(task: str) -> str:
    """A task's name that may be broken after an underscore."""
    return _text(task).replace("_", "_<wbr>")


def _range(share: dict[str, Any]) -> str:
    return "" if share["low"] is None else f"{share['low']:.1f}–{share['high']:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
