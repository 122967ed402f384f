"""The Fine-tune tab: its components and which function answers which event. What runs is in finetune.loop.queue and
app.tuner; what is shown is made by app.tuning_views."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import gradio as gr

from app.ask import AskTab
from app.i18n import Language, language, say, translate
from app.studio import USER_ERRORS, Studio
from app.tuner import RECIPES, Form, Wish
from app.tuning_views import history_html, moment, offer_html, run_html, state_name
from app.views import problem_html
from app.wiring import PRIVATE, QUIET, Updates
from finetune.feedback import Run
from finetune.loop.from_feedback import read_record
from finetune.loop.queue import last_lines
from finetune.measuring.held_out import samples

SHOWN = 30
"""Runs that are listed, the newest."""


class TuneTab:
    """Builds the tab inside the open tabs of `page` and wires it. Its language is the page's."""

    def __init__(self, page: gr.Blocks, studio: Studio, ask: AskTab) -> None:
        self.studio, self.tuner = studio, studio.tuner
        with gr.Tab(say("tune", "en"), id="tune") as self.tab:
            self._build("en")
        self._wire(page, ask)

    def _build(self, lang: Language) -> None:
        self.lang = gr.State(lang)
        self.listed = gr.State(())  # what the list of runs shows, so that it is not drawn anew under a finger
        self.ticker = gr.Timer(1.0, active=False)
        self.intro = gr.Markdown(say("tune_intro", lang), elem_id="kt-intro")
        with gr.Row(elem_id="kt-main"):
            with gr.Column(scale=4, min_width=320):
                self.recipe = gr.Radio(
                    _recipes(lang), value="feedback", label=say("tune_recipe", lang), elem_id="kt-recipe"
                )
                self.base = gr.Dropdown([], allow_custom_value=True, label=say("tune_base", lang), elem_id="kt-base")
                self.data = gr.Textbox(label=say("tune_data", lang), visible=False, elem_id="kt-data")
                with gr.Row():
                    self.name = gr.Textbox(label=say("tune_name", lang), elem_id="kt-name", min_width=140)
                    self.form = gr.Radio(_forms(lang), value="recipe", label=say("tune_form", lang), elem_id="kt-form")
                with gr.Accordion(say("tune_more", lang), open=False, elem_id="kt-more") as self.more:
                    self.replay = gr.Textbox(
                        label=say("tune_replay", lang), info=say("tune_replay_info", lang), elem_id="kt-replay"
                    )
                    self.numbers = gr.Textbox(
                        label=say("tune_numbers", lang), info=say("tune_numbers_info", lang), elem_id="kt-numbers"
                    )
                with gr.Row():
                    self.weigh_button = gr.Button(say("tune_estimate", lang), elem_id="kt-estimate")
                    self.start_button = gr.Button(say("tune_start", lang), variant="primary", elem_id="kt-start")
                self.offer = gr.HTML("", elem_id="kt-offer")
                self.sharing = gr.Markdown(self._sharing(lang), elem_id="kt-sharing")
            with gr.Column(scale=6, min_width=320):
                self.which = gr.Dropdown([], label=say("tune_run", lang), visible=False, elem_id="kt-which")
                with gr.Row(elem_id="kt-actions"):
                    self.pause_button = gr.Button(say("tune_pause", lang), visible=False, elem_id="kt-pause")
                    self.resume_button = gr.Button(say("tune_resume", lang), visible=False, elem_id="kt-resume")
                    self.keep_button = gr.Button(say("tune_keep", lang), visible=False, elem_id="kt-keep")
                    self.remove_button = gr.Button(say("tune_remove", lang), visible=False, elem_id="kt-remove")
                self.problem = gr.HTML("", elem_id="kt-problem")
                self.shown = gr.HTML("", elem_id="kt-run")
        self.history = gr.HTML("", elem_id="kt-history")

    def _wire(self, page: gr.Blocks, ask: AskTab) -> None:
        actions = [self.pause_button, self.resume_button, self.keep_button, self.remove_button]
        state = [self.which, self.listed, *actions, self.problem, self.shown, self.history, self.ticker]
        labels = [self.tab, self.intro, self.recipe, self.base, self.data, self.name, self.form, self.more, self.replay]
        labels += [self.numbers, self.weigh_button, self.start_button, self.sharing]
        wish = [self.recipe, self.base, self.name, self.form, self.data, self.replay, self.numbers]
        now = [self.lang, self.which, self.listed]
        page.load(self.open_page, [ask.remembered, self.which], [self.lang, *labels, *state], **QUIET)
        ask.language.input(self.set_language, [ask.language, self.which], [self.lang, *labels, *state], **QUIET)
        self.tab.select(self.open_tab, [*now, self.base], [self.base, *state], **QUIET)
        self.recipe.input(self.choose_recipe, [self.recipe], [self.data, self.offer], **QUIET)
        self.weigh_button.click(self.weigh, [self.lang, *wish], [self.offer], **PRIVATE)
        # One after the other, so that a look that began before a run did does not end the looking.
        turns: dict[str, Any] = {"concurrency_id": "tune", "concurrency_limit": 1}
        self.start_button.click(self.begin, [*now, *wish], [self.offer, *state], **PRIVATE, **turns)
        self.which.input(self.choose, now, state, **QUIET)
        for button, act in zip(
            actions,
            (self.tuner.queue.pause, self.tuner.queue.resume, self.tuner.queue.keep, self.tuner.queue.remove),
            strict=True,
        ):
            button.click(self._acting(act), now, state, concurrency_limit=None, **QUIET)
        self.ticker.tick(self.tick, now, state, **turns, **QUIET)

    # -- what happens -------------------------------------------------------------------------------------------

    def open_page(self, remembered: Any, run: str | None) -> Updates:
        return self.set_language(remembered.get("lang") if isinstance(remembered, dict) else None, run)

    def set_language(self, wanted: Any, run: str | None) -> Updates:
        lang = language(wanted)
        return {
            self.lang: lang,
            self.tab: gr.Tab(label=say("tune", lang)),
            self.intro: say("tune_intro", lang),
            self.recipe: gr.Radio(_recipes(lang), label=say("tune_recipe", lang)),
            self.base: gr.Dropdown(label=say("tune_base", lang)),
            self.data: gr.Textbox(label=say("tune_data", lang)),
            self.name: gr.Textbox(label=say("tune_name", lang)),
            self.form: gr.Radio(_forms(lang), label=say("tune_form", lang)),
            self.more: gr.Accordion(label=say("tune_more", lang)),
            self.replay: gr.Textbox(label=say("tune_replay", lang), info=say("tune_replay_info", lang)),
            self.numbers: gr.Textbox(label=say("tune_numbers", lang), info=say("tune_numbers_info", lang)),
            self.weigh_button: say("tune_estimate", lang),
            self.start_button: say("tune_start", lang),
            self.sharing: self._sharing(lang),
            **self._state(lang, run, ()),
        }

    def open_tab(self, lang: Language, run: str | None, listed: Any, base: str | None) -> Updates:
        """What a run may begin with is looked up when the tab is opened: by then the model is loaded."""
        try:
            choices = self.tuner.bases()
        except USER_ERRORS:
            choices = []
        chosen = base or (choices[0][1] if choices else None)
        return {self.base: gr.Dropdown(choices, value=chosen), **self._state(lang, run, listed)}

    def choose_recipe(self, recipe: str) -> Updates:
        return {self.data: gr.Textbox(visible=recipe == "sft"), self.offer: ""}

    def weigh(self, lang: Language, *wish: Any) -> Updates:
        """What it would take; nothing is started."""
        try:
            return {self.offer: offer_html(self.tuner.offer(_wish(wish)), lang)}
        except USER_ERRORS as error:
            return {self.offer: problem_html(translate(str(error), lang))}

    def begin(self, lang: Language, run: str | None, listed: Any, *wish: Any) -> Updates:
        try:
            made = self.tuner.begin(_wish(wish))
        except USER_ERRORS as error:
            return {self.offer: problem_html(translate(str(error), lang)), **self._state(lang, run, listed)}
        return {self.offer: "", **self._state(lang, made.id, ())}

    def choose(self, lang: Language, run: str | None, listed: Any) -> Updates:
        return self._state(lang, run, listed)

    def tick(self, lang: Language, run: str | None, listed: Any) -> Updates:
        """Once a second while something trains or waits. What is chosen meanwhile, or begun, stays chosen."""
        return self._state(lang, run, listed, stays=True)

    def _acting(self, act: Any) -> Any:
        def acted(lang: Language, run: str | None, listed: Any) -> Updates:
            told = ""
            try:
                if run:
                    act(run)
            except USER_ERRORS as error:
                told = problem_html(translate(str(error), lang))
            return {**self._state(lang, run, listed), self.problem: told}

        return acted

    # -- what is shown ------------------------------------------------------------------------------------------

    def _sharing(self, lang: Language) -> str:
        return say("tune_gpu" if self.tuner.shares_gpu else "tune_cpu", lang)

    def _state(self, lang: Language, chosen: str | None, listed: Any, stays: bool = False) -> Updates:
        """Everything about a run; `stays` leaves the choice to the page, which may know a later one than `chosen`."""
        queue, asked = self.tuner.queue, chosen
        hidden = {
            button: gr.Button(label, visible=False)
            for button, label in (
                (self.pause_button, say("tune_pause", lang)),
                (self.resume_button, say("tune_resume", lang)),
                (self.keep_button, say("tune_keep", lang)),
                (self.remove_button, say("tune_remove", lang)),
            )
        }
        try:
            # First, so that a run whose end was not noted yet is looked at again.
            unsettled = bool(queue.launches.started())
            runs = queue.runs.list(SHOWN)
            training, waiting = queue.training(), queue.launches.waiting()
            metrics = {run.id: queue.runs.metrics(run.id) for run in runs}
            active = unsettled or bool(waiting) or any(run.status == "running" for run in runs)
            known = {run.id for run in runs}
            if chosen not in known:
                chosen = training or (runs[0].id if runs else None)
            run = next((run for run in runs if run.id == chosen), None)
            choices = tuple((f"{r.name} · {moment(r.created)} · {state_name(r.status, lang)}", r.id) for r in runs)
            signature = (lang, chosen, choices)
            same = _plain(listed) == _plain(signature)
            value: dict[str, Any] = {} if stays and chosen == asked else {"value": chosen}
            return {
                **hidden,
                **(self._buttons(run, training, waiting, lang) if run else {}),
                self.which: gr.skip()
                if same
                else gr.Dropdown(list(choices), label=say("tune_run", lang), visible=bool(runs), **value),
                self.listed: signature,
                self.problem: problem_html(translate(queue.problem, lang)) if queue.problem else "",
                self.shown: self._run(run, metrics, training, lang) if run else "",
                self.history: history_html(runs, metrics, waiting, lang),
                self.ticker: gr.Timer(active=active),
            }
        except USER_ERRORS as error:
            told = problem_html(translate(str(error), lang))
            return {**hidden, self.problem: told, self.ticker: gr.Timer(active=False)}

    def _buttons(self, run: Run, training: str | None, waiting: list[str], lang: Language) -> Updates:
        busy = run.id == training or run.status == "running"
        waits = run.id in waiting
        again = run.status in ("paused", "stopped", "failed")
        return {
            self.pause_button: gr.Button(say("tune_pause", lang), visible=busy),
            self.resume_button: gr.Button(say("tune_resume", lang), visible=again and not busy),
            self.keep_button: gr.Button(say("tune_keep", lang), visible=run.status == "running"),
            self.remove_button: gr.Button(say("tune_remove", lang), visible=waits),
        }

    def _run(self, run: Run, metrics: dict[str, Any], training: str | None, lang: Language) -> str:
        runs, out = self.tuner.queue.runs, Path(run.folder)
        result = runs.result(run.id)
        return run_html(
            run,
            runs.stages(run.id),
            metrics[run.id],
            samples(out),
            read_record(out),
            str(result) if result else None,
            last_lines(out / "run.log"),
            run.id == training,
            lang,
        )


def _plain(value: Any) -> Any:
    """Tuples as lists: what went through the browser's session compares equal."""
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _wish(values: tuple[Any, ...]) -> Wish:
    recipe, base, name, form, data, replay, numbers = (value or "" for value in values)
    return Wish(
        str(recipe),
        str(base),
        str(name),
        cast(Form, form if form in get_args(Form) else "recipe"),
        str(data),
        str(replay),
        str(numbers),
    )


def _recipes(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"tune_recipe_{name}", lang), name) for name in RECIPES]


def _forms(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"tune_form_{form}", lang), form) for form in get_args(Form)]
