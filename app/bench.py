"""The Benchmarks tab: its components and which function answers which event. What runs is in finetune.bench; what is
shown is made by the functions at the end, from plain data."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import gradio as gr

from app.ask import AskTab
from app.i18n import Language, language, say, translate
from app.studio import USER_ERRORS, Studio
from app.views import clock, problem_html
from app.wiring import QUIET, Updates
from engine.runtime.base import speaker
from finetune.bench.background import State
from finetune.bench.cli import judge_from
from finetune.bench.html import headline, scores_table
from finetune.bench.modes import Mode
from finetune.bench.registry import BENCHMARKS, benchmark
from finetune.bench.run import Plan
from finetune.errors import FinetuneError

REPORT_FILES = ("report.html", "report.json", "items.csv", "predictions.jsonl")


class BenchTab:
    """Builds the tab inside the open tabs of `page` and wires it. Its language is the page's."""

    def __init__(self, page: gr.Blocks, studio: Studio, ask: AskTab) -> None:
        self.studio = studio
        with gr.Tab(say("bench", "en"), id="bench") as self.tab:
            self._build("en")
        self._wire(page, ask)

    def _build(self, lang: Language) -> None:
        self.lang = gr.State(lang)
        self.ticker = gr.Timer(1.0, active=False)
        self.intro = gr.Markdown(say("bench_intro", lang), elem_id="kb-intro")
        with gr.Row():
            choices = [(chosen.title, name) for name, chosen in BENCHMARKS.items()]
            self.which = gr.Dropdown(choices, value="kc-mmbench", label=say("bench_which", lang), elem_id="kb-which")
            self.data = gr.Textbox(label=say("bench_data", lang), elem_id="kb-data", scale=2, min_width=280)
        with gr.Row():
            self.mode = gr.Radio(_modes(lang), value="think", label=say("bench_mode", lang), elem_id="kb-mode")
            self.limit = gr.Number(0, label=say("bench_limit", lang), precision=0, minimum=0, elem_id="kb-limit")
            self.judge = gr.Textbox(label=say("bench_judge", lang), elem_id="kb-judge")
        with gr.Row():
            self.start_button = gr.Button(say("bench_start", lang), variant="primary", elem_id="kb-start")
            self.stop_button = gr.Button(say("bench_stop", lang), variant="stop", visible=False, elem_id="kb-stop")
        self.progress = gr.HTML("", elem_id="kb-progress")
        self.result = gr.HTML("", elem_id="kb-result")

    def _wire(self, page: gr.Blocks, ask: AskTab) -> None:
        shown = [self.progress, self.result, self.start_button, self.stop_button, self.ticker]
        words = [self.lang, self.tab, self.intro, self.which, self.data, self.mode, self.limit, self.judge, *shown]
        page.load(self.open_page, [ask.remembered, self.which], words, **QUIET)
        ask.language.input(self.set_language, [ask.language, self.which], words, **QUIET)
        self.which.input(self.choose, [self.which, self.lang], [self.data, self.mode], **QUIET)
        self.start_button.click(
            self.start, [self.lang, self.which, self.data, self.mode, self.limit, self.judge], shown, **QUIET
        )
        self.stop_button.click(self.stop, [self.lang], shown, concurrency_limit=None, **QUIET)
        self.ticker.tick(self.tick, [self.lang], shown, concurrency_limit=None, **QUIET)

    def open_page(self, remembered: Any, which: str) -> Updates:
        return self.set_language(remembered.get("lang") if isinstance(remembered, dict) else None, which)

    def set_language(self, wanted: Any, which: str) -> Updates:
        lang = language(wanted)
        return {
            self.lang: lang,
            self.tab: gr.Tab(label=say("bench", lang)),
            self.intro: say("bench_intro", lang),
            self.which: gr.Dropdown(label=say("bench_which", lang)),
            self.data: _data_box(which, lang),
            self.mode: gr.Radio(_modes(lang), label=say("bench_mode", lang)),
            self.limit: gr.Number(label=say("bench_limit", lang)),
            self.judge: gr.Textbox(label=say("bench_judge", lang)),
            **self._state(lang),
        }

    def choose(self, which: str, lang: Language) -> Updates:
        """Another benchmark: what its folder must hold, and the mode it is published with."""
        return {self.data: _data_box(which, lang), self.mode: benchmark(which).mode}

    def start(self, lang: Language, which: str, data: str, mode: Mode, limit: float | None, judge: str) -> Updates:
        """Begin or go on; where that is refused, the sentence that says why."""
        try:
            if self.studio.runtime.status().state == "starting":
                raise FinetuneError("The model is still being loaded; start the benchmark once it is ready.")
            info = self.studio.runtime.info()
            out = self.studio.bench_folder / f"{which}-{speaker(info.name, info.adapter).replace(' + ', '-')}-{mode}"
            plan = plan_from(which, data, mode, limit, out)
            address = judge.strip()
            self.studio.bench.start(plan, self.studio.runtime, out, judge=lambda: judge_from(address or None, None))
        except USER_ERRORS as error:
            return {self.progress: problem_html(translate(str(error), lang))}
        return {**self._state(lang), self.result: ""}

    def stop(self, lang: Language) -> Updates:
        self.studio.bench.stop()
        return self._state(lang)

    def tick(self, lang: Language) -> Updates:
        """Once a second while a run goes on."""
        return self._state(lang)

    def _state(self, lang: Language) -> Updates:
        state = self.studio.bench.state()
        return {
            self.progress: progress_html(state, lang),
            self.result: result_html(state, lang),
            self.start_button: gr.Button(say("bench_start", lang), visible=not state.running),
            self.stop_button: gr.Button(say("bench_stop", lang), visible=state.running),
            self.ticker: gr.Timer(active=state.running),
        }


def _modes(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"mode_{mode}", lang), mode) for mode in get_args(Mode)]


def _data_box(which: str, lang: Language) -> gr.Textbox:
    chosen = benchmark(which)
    hint = say("bench_layout", lang, layout=chosen.layout) if chosen.needs_data else say("bench_no_data", lang)
    return gr.Textbox(label=say("bench_data", lang), info=hint, interactive=chosen.needs_data)


def plan_from(which: str, data: str, mode: Mode, limit: float | None, out: Path) -> Plan:
    """What was chosen in the tab as a plan; a limit of 0 or nothing means all items. FinetuneError where it makes no
    sense."""
    chosen = benchmark(which)
    if chosen.needs_data and not data.strip():
        raise FinetuneError(f"Give the folder with the data of {chosen.title}.")
    folder = Path(data.strip()).expanduser() if chosen.needs_data else out / "clips"
    plan = Plan(chosen, folder, mode=mode, limit=int(limit) if limit else None)
    plan.check()
    return plan


def progress_html(state: State, lang: Language) -> str:
    """How far a run is: a bar, counts, the time left; or what went wrong."""
    if state.error:
        return problem_html(translate(state.error, lang))
    if not state.running:
        return ""
    now = state.progress
    if now is None or not now.total:
        return f'<p class="ks-note">{escape(say("bench_loading", lang))} …</p>'
    words = [say("bench_progress", lang, done=f"{now.done:,}", total=f"{now.total:,}")]
    if state.stopping:
        words.append(say("bench_stopping", lang) + " …")
    elif now.seconds_left is not None:
        words.append(say("bench_left", lang, time=clock(now.seconds_left)))
    if now.failed:
        words.append(say("bench_failed", lang, n=now.failed))
    share = 100 * now.done / now.total
    return (
        f'<div class="ks-cost"><span>{escape(" · ".join(words))}</span></div>'
        f'<div class="ks-bar" role="progressbar" aria-valuemin="0" aria-valuemax="{now.total}" '
        f'aria-valuenow="{now.done}"><i style="width:{share:.2f}%"></i></div>'
    )


def result_html(state: State, lang: Language) -> str:
    """The scores of the run that has ended; nothing while one goes on."""
    facts = state.facts
    if facts is None or state.running:
        return ""

    def words(text: str) -> str:
        return translate(text, lang)

    note = ""
    if not all(task["comparable"] for task in facts["tasks"].values()):
        note = f'<p class="kb-note">{escape(say("bench_not_comparable", lang))}</p>'
    title = f"{facts['title']} · {facts['settings']['model']}"
    links = "".join(
        f'<a class="kb-chip" href="gradio_api/file={quote(str(path.resolve()))}" download>{escape(path.name)}</a>'
        for path in report_files(state)
    )
    return (
        f'<div class="kb"><h2>{escape(title)}</h2>{headline(facts, words)}{scores_table(facts, words)}{note}'
        f'<p class="kb-sub">{escape(say("bench_files", lang))} {links}</p></div>'
    )


def report_files(state: State) -> list[Path]:
    """The files of the run that has ended, for download."""
    if state.facts is None or state.out is None or state.running:
        return []
    return [path for name in REPORT_FILES if (path := state.out / name).is_file()]
