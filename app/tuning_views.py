"""What the Fine-tune tab shows, as HTML made from plain data: estimate, progress, curves, sample answers, what made a
run. What came from a user, a file or a model is escaped here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from app.i18n import Language, say, translate
from app.tuner import Offer
from app.views import clock
from finetune.feedback import Metric, Run, Stage
from finetune.reports.curves import COLOURS, Line, chart, legend

MOST_LINES = COLOURS
"""Runs that are compared in one picture, the newest."""

SHOWN_SAMPLES = 6
SHOWN_LESSONS = 200

_STATES = ("queued", "running", "paused", "done", "failed", "stopped")


def state_name(status: str, lang: Language) -> str:
    return say(f"tune_{status}", lang) if status in _STATES else status


def moment(iso: str) -> str:
    """UTC in ISO-8601 as day and minute where this machine stands."""
    return datetime.fromisoformat(iso).astimezone().strftime("%m-%d %H:%M")


def size(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{max(1, round(value / 1e6))} MB"


# -- before it begins -------------------------------------------------------------------------------------------


def offer_html(offer: Offer, lang: Language) -> str:
    """Each stage with what it would learn from or why it is left out, then time, memory and disk."""
    found = offer.estimate
    measured = {stage.stage: stage for stage in found.stages}
    rows, notes = [], []
    shares = offer.feedback.shares if offer.feedback else ()
    for share in shares:
        sources = ", ".join(f"{say('tune_from_' + name, lang)} {n}" for name, n in share.sources.items())
        told = say(f"tune_use_{share.use}", lang, n=share.rows)
        if share.reason:
            rows.append(_row(share.stage, told, f'<span class="kt-out">{_words(share.reason, lang)}</span>', "–"))
            continue
        one = measured.get(share.stage)
        rows.append(_row(share.stage, told, escape(sources), _takes(one, lang)))
        if share.warning:
            notes.append(f"{share.stage}: {translate(share.warning, lang)}")
    named = {share.stage for share in shares}
    rows += [
        _row(one.stage, say("tune_use_example", lang, n=one.rows), "", _takes(one, lang))
        for one in found.stages
        if one.stage not in named
    ]
    if offer.feedback:
        kept = len({lesson.question for lesson in offer.feedback.held_out})
        notes.append(say("tune_held_out" if kept else "tune_none_held_out", lang, n=kept))
        if offer.feedback.gone:
            notes.append(say("tune_gone", lang, n=offer.feedback.gone))
    heads = (
        f"<th>{escape(say('tune_stage', lang))}</th><th class='kb-text'>{escape(say('tune_learns', lang))}</th>"
        f"<th>{escape(say('tune_takes', lang))}</th>"
    )
    facts = [
        say("tune_time", lang, time=_time(found.seconds, lang)),
        say("tune_memory", lang, need=size(found.memory), free=size(found.memory_free)),
        say("tune_disk", lang, need=size(found.disk), free=size(found.disk_free)),
    ]
    short = found.memory > found.memory_free or found.disk > found.disk_free
    return (
        f'<div class="kb kt"><div class="kb-scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="{"kb-warn" if short else "kt-facts"}">{" · ".join(map(escape, facts))}</p>'
        + "".join(f'<p class="kb-note">{escape(note)}</p>' for note in notes)
        + "</div>"
    )


def _row(stage: str, told: str, more: str, takes: str) -> str:
    below = f"<br><small>{more}</small>" if more else ""
    return f'<tr><td>{escape(stage)}</td><td class="kb-text">{escape(told)}{below}</td><td>{takes}</td></tr>'


def _takes(one: Any, lang: Language) -> str:
    if one is None:
        return "–"
    how = say("tune_measured", lang, run=one.measured) if one.measured else say("tune_formula", lang)
    steps = say("tune_steps", lang, n=f"{one.steps:,}", examples=f"{one.examples:,}")
    return f"{escape(_time(one.seconds, lang))}<br><small>{escape(steps)}<br>{escape(how)}</small>"


def _time(seconds: float, lang: Language) -> str:
    return say("tune_seconds", lang, n=max(1, round(seconds))) if seconds < 100 else clock(seconds)


def _words(sentence: str, lang: Language) -> str:
    return escape(translate(sentence, lang))


# -- a run ------------------------------------------------------------------------------------------------------


def run_html(
    run: Run,
    stages: Sequence[Stage],
    metrics: Sequence[Metric],
    samples: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any] | None,
    result: str | None,
    log: Sequence[str],
    starting: bool,
    lang: Language,
) -> str:
    """The page of one run."""
    status = "starting" if starting and run.status == "queued" else run.status
    name = say("tune_starting", lang) if status == "starting" else state_name(run.status, lang)
    head = (
        f'<div class="kt-head"><h2>{escape(run.name)}</h2><span class="kt-state kt-{escape(status)}">{escape(name)}'
        f'</span><span class="kb-sub">{escape(moment(run.created))}</span></div>'
    )
    told = f'<p class="kb-note" role="status">{_words(run.sentence, lang)}</p>' if run.sentence else ""
    made = f'<p class="kb-sub">{escape(say("tune_result", lang))} <code>{escape(result)}</code></p>' if result else ""
    failed = ""
    if run.status == "failed" and log:
        failed = _fold(f"log-{run.id}", say("tune_log", lang), f"<pre>{escape(chr(10).join(log))}</pre>")
    return (
        f'<div class="kb kt">{head}{told}{progress_html(run, stages, metrics, lang)}{made}{failed}'
        f"{curves_html(run.name, stages, metrics, lang)}{samples_html(samples, lang)}"
        f"{made_of_html(run, record, lang)}</div>"
    )


def progress_html(run: Run, stages: Sequence[Stage], metrics: Sequence[Metric], lang: Language) -> str:
    """The stage that trains or trained last: how far it is, what it sees a second, the time left."""
    if not stages or not metrics:
        return ""
    stage = stages[-1]
    own = [metric for metric in metrics if metric.stage == stage.name]
    if not own:
        return ""
    last = own[-1]
    of = int(last.figures.get("of") or 0)
    done = of if stage.status == "done" else last.step
    words = [f"{stage.name}: {say('tune_step', lang, n=f'{last.step:,}', of=f'{of:,}')}"]
    seconds = 60 * float(last.figures.get("minutes") or 0)
    if last.step and seconds:
        words.append(say("tune_rate", lang, n=f"{float(last.figures.get('examples') or 0) / seconds:.3g}"))
        if run.status == "running" and stage.status == "running":
            words.append(say("bench_left", lang, time=clock(seconds / last.step * (of - last.step))))
    trained = [metric for metric in own if isinstance(metric.figures.get("loss"), int | float)]
    if trained:
        words.append(f"{say('tune_loss', lang)} {trained[-1].figures['loss']:.3f}")
        if isinstance(rate := trained[-1].figures.get("lr"), int | float):
            words.append(f"{say('tune_lr', lang)} {rate:.2e}")
    seen = [metric for metric in metrics if isinstance(metric.figures.get("held_out"), Mapping)]
    if seen:
        words.append(_right(seen[-1].figures["held_out"], lang))
    share = 100 * done / of if of else 0.0
    return (
        f'<div class="ks-cost"><span>{escape(" · ".join(words))}</span></div>'
        f'<div class="ks-bar" role="progressbar" aria-label="{escape(stage.name)}" aria-valuemin="0" '
        f'aria-valuemax="{of}" aria-valuenow="{done}"><i style="width:{share:.2f}%"></i></div>'
    )


def _right(held_out: Mapping[str, Any], lang: Language) -> str:
    return say("tune_right", lang, n=held_out.get("right"), of=held_out.get("of"))


def curves_html(name: str, stages: Sequence[Stage], metrics: Sequence[Metric], lang: Language) -> str:
    """Loss, rate and held-out accuracy over the steps of all stages."""
    losses, rates, right, marks = [], [], [], []
    begin = 0.0
    for at, stage in enumerate(stages):
        own = [metric for metric in metrics if metric.stage == stage.name]
        losses.append(Line(stage.name, _points(own, "loss", begin), at))
        rates.append(Line(stage.name, _points(own, "lr", begin), at))
        right += _accuracy(own, begin)
        begin += own[-1].step if own else 0
        marks.append(begin)
    names = [(stage.name, at, False) for at, stage in enumerate(stages)] if len(stages) > 1 else []
    figures = [
        (say("tune_loss", lang), chart(losses, f"{say('tune_loss', lang)}: {name}", marks=marks[:-1])),
        (say("tune_lr", lang), chart(rates, f"{say('tune_lr', lang)}: {name}", marks=marks[:-1])),
        (
            say("tune_accuracy", lang),
            chart([Line("held out", right)], f"{say('tune_accuracy', lang)}: {name}", percent=True, marks=marks[:-1]),
        ),
    ]
    cards = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>" for title, picture in figures if picture
    )
    return f'<div class="kt-curves">{cards}</div>{legend(names)}' if cards else ""


def _points(metrics: Sequence[Metric], key: str, begin: float) -> list[tuple[float, float]]:
    return [
        (begin + metric.step, float(value))
        for metric in metrics
        if isinstance(value := metric.figures.get(key), int | float)
    ]


def _accuracy(metrics: Sequence[Metric], begin: float) -> list[tuple[float, float]]:
    out = []
    for metric in metrics:
        seen = metric.figures.get("held_out")
        if isinstance(seen, Mapping) and seen.get("of"):
            out.append((begin + metric.step, seen["right"] / seen["of"]))
    return out


def samples_html(samples: Sequence[Mapping[str, Any]], lang: Language) -> str:
    """A few questions with the truth, the first answer and the newest."""
    if not samples:
        return ""
    first, last = samples[0], samples[-1]
    before = {one["question"] + one["truth"]: one["answer"] for one in first["answers"]}
    heads = "".join(
        f'<th class="kb-text">{escape(say(key, lang))}</th>'
        for key in ("tune_question", "tune_truth", "tune_before", "tune_now")
    )
    rows = []
    for one in last["answers"][:SHOWN_SAMPLES]:
        mark = "✓" if one["right"] else "✗"
        old = before.get(one["question"] + one["truth"], "")
        cells = (one["question"], one["truth"], old, f"{mark} {one['answer']}")
        rows.append("<tr>" + "".join(f'<td class="kb-text">{escape(str(c)[:300])}</td>' for c in cells) + "</tr>")
    title = say("tune_samples" if last.get("held_out") else "tune_samples_learnt", lang)
    when = say("tune_after", lang, stage=last["stage"], n=last["step"])
    score = ""
    if last.get("held_out"):
        score = f" · {_right(first, lang)} → {_right(last, lang)}"
    return (
        f"<h3>{escape(title)}</h3><p class='kb-note'>{escape(when + score)}</p>"
        f'<div class="kb-scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def made_of_html(run: Run, record: Mapping[str, Any] | None, lang: Language) -> str:
    """Which rows of feedback, version of the program, seed and numbers made a run."""
    facts = [
        (say("tune_base", lang), run.model or "–"),
        (say("tune_folder", lang), run.folder),
        (say("tune_code", lang), run.code),
        (say("tune_seed", lang), str(run.seed)),
    ]
    for stage in run.recipe.get("stages", ()):
        for part, numbers in stage.get("parts", {}).items():
            title = stage["name"] if part == stage["name"] else f"{stage['name']}.{part}"
            facts.append((title, _numbers(numbers)))
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    inside = f'<dl class="kt-made">{listed}</dl>{_lessons(record, lang)}'
    return _fold(f"made-{run.id}", say("tune_made_of", lang), inside)


_TOLD = (
    *("steps", "epochs", "lr", "muon_lr", "warmup", "fall", "floor", "weight_decay", "accumulate", "clip"),
    *("train", "data", "batch_tokens", "replay", "replay_data", "lora", "lora_alpha", "four_bit", "merge", "recompute"),
)


def _numbers(numbers: Mapping[str, Any]) -> str:
    told = []
    for name in _TOLD:
        value = numbers.get(name)
        if value not in (None, 0, 0.0, False, [], (), "none"):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"
            told.append(f"{name} = {shown}")
    return "; ".join(told)


def _lessons(record: Mapping[str, Any] | None, lang: Language) -> str:
    if record is None:
        return ""
    lessons = record["lessons"]
    counts = Counter((one.get("use"), one.get("source"), bool(one.get("held_out"))) for one in lessons)
    lines = []
    for (use, source, held_out), count in counts.most_common():
        kind = say(f"tune_use_{use}", lang, n=count) if use in ("example", "pair", "question") else f"{use} {count}"
        known = source in ("vote", "correction", "draft", "compare", "comment")
        told = f"{kind} · {say(f'tune_from_{source}', lang) if known else source}"
        lines.append(f"<li>{escape(told)}{' · ' + escape(say('tune_kept_back', lang)) if held_out else ''}</li>")
    left = "".join(
        f"<li>{escape(str(stage))}: {_words(str(reason), lang)}</li>"
        for stage, reason in dict(record.get("left_out") or {}).items()
    )
    rows = "".join(
        f"<tr><td>{escape(str(one.get('file')))}:{escape(str(one.get('line')))}</td>"
        f"<td class='kb-text'><code>{escape(str(one.get('question')))}</code></td>"
        f"<td class='kb-text'><code>{escape(str(one.get('answer') or '–'))}</code></td>"
        f"<td class='kb-text'>{escape(str(one.get('source')))}</td></tr>"
        for one in lessons[:SHOWN_LESSONS]
    )
    heads = "".join(
        f"<th class='kb-text'>{escape(say(key, lang))}</th>"
        for key in ("tune_row", "tune_question_id", "tune_answer_id", "tune_source")
    )
    more = f"<p class='kb-note'>… {len(lessons) - SHOWN_LESSONS}</p>" if len(lessons) > SHOWN_LESSONS else ""
    return f'<ul>{"".join(lines)}{left}</ul><div class="kb-scroll kt-lessons">{_table(heads, rows)}</div>{more}'


# -- all of them ------------------------------------------------------------------------------------------------


def history_html(
    runs: Sequence[Run],
    metrics: Mapping[str, Sequence[Metric]],
    waiting: Sequence[str],
    lang: Language,
) -> str:
    """Every run in a table, and the losses of the newest in one picture, with what they know of what is held out."""
    if not runs:
        return f'<p class="ks-empty">{escape(say("tune_no_runs", lang))}</p>'
    drawn = [run for run in runs if metrics.get(run.id)][:MOST_LINES]
    losses = [Line(run.name, _whole(metrics[run.id], "loss"), at) for at, run in enumerate(drawn)]
    rights = [Line(run.name, _whole_accuracy(metrics[run.id]), at) for at, run in enumerate(drawn)]
    pictures = [
        (say("tune_loss", lang), chart(losses, say("tune_compared", lang))),
        (say("tune_accuracy", lang), chart(rights, say("tune_accuracy", lang), percent=True)),
    ]
    cards = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>" for title, picture in pictures if picture
    )
    names = legend([(f"{run.name} · {moment(run.created)}", at, False) for at, run in enumerate(drawn)])
    rows = []
    for run in runs:
        seen = [
            m.figures["held_out"] for m in metrics.get(run.id, ()) if isinstance(m.figures.get("held_out"), Mapping)
        ]
        change = f"{_right(seen[0], lang)} → {_right(seen[-1], lang)}" if seen else "–"
        place = f" {waiting.index(run.id) + 1}" if run.id in waiting else ""
        state = f"{state_name(run.status, lang)}{place}"
        base = (run.model or "–").rstrip("/").rpartition("/")[2]
        rows.append(
            f"<tr><td>{escape(run.name)}</td>"
            f'<td><span class="kt-state kt-{escape(run.status)}">{escape(state)}</span></td>'
            f"<td>{escape(moment(run.created))}</td><td>{escape(base)}</td><td>{escape(change)}</td></tr>"
        )
    heads = "".join(
        f"<th>{escape(say(key, lang))}</th>"
        for key in ("tune_run", "tune_status", "tune_when", "tune_base", "tune_accuracy")
    )
    return (
        f'<div class="kb kt"><div class="kt-curves kt-all">{cards}</div>{names}'
        f'<div class="kb-scroll">{_table(heads, "".join(rows))}</div></div>'
    )


def _table(heads: str, rows: str) -> str:
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _fold(name: str, title: str, inside: str) -> str:
    """What is closed at first, and stays as it was left when the page is drawn anew."""
    return f'<details class="ks-fold" data-fold="{escape(name)}"><summary>{escape(title)}</summary>{inside}</details>'


def _whole(metrics: Sequence[Metric], key: str) -> list[tuple[float, float]]:
    """The figures of all stages of a run, one after the other."""
    return [point for own, begin in _by_stage(metrics) for point in _points(own, key, begin)]


def _whole_accuracy(metrics: Sequence[Metric]) -> list[tuple[float, float]]:
    return [point for own, begin in _by_stage(metrics) for point in _accuracy(own, begin)]


def _by_stage(metrics: Sequence[Metric]) -> list[tuple[list[Metric], float]]:
    out: list[tuple[list[Metric], float]] = []
    begin = 0.0
    for name in dict.fromkeys(metric.stage for metric in metrics):
        own = [metric for metric in metrics if metric.stage == name]
        out.append((own, begin))
        begin += own[-1].step
    return out
