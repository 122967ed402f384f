"""The Models tab: which model is served, a candidate compared with it blind, promoted, rolled back. What is done is in
finetune.loop.serving, what is shown in app.promote_views; the handlers here only carry from the one to the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.ask import AskTab
from app.i18n import Language, language, say, translate
from app.promote_views import judged_html, pair_html, paused_html, progress_html, serving_html, summary_html
from app.studio import USER_ERRORS, Studio
from app.views import problem_html
from app.wiring import QUIET, Updates
from engine.errors import EngineError
from finetune.errors import FinetuneError
from finetune.feedback.trials import Pair, Trial, TrialVerdict
from finetune.loop.serving import Source
from finetune.loop.trial_figures import figures

_WORLD = 12  # questions about the generated world, where nothing else is there to ask
_PAIR_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-verdict], [data-go], [data-reveal]');
  if (button && !button.disabled) trigger('select', {...button.dataset});
});
"""


class PromoteTab:
    """Builds the tab inside the open tabs of `page` and wires it. Its language is the page's."""

    def __init__(self, page: gr.Blocks, studio: Studio, ask: AskTab) -> None:
        self.studio, self.serving = studio, studio.serving
        with gr.Tab(say("models", "en"), id="models") as self.tab:
            self._build("en")
        self._wire(page, ask)

    def _build(self, lang: Language) -> None:
        self.lang = gr.State(lang)
        self.at = gr.State(-1)  # position of the pair that is shown; -1 where none is
        self.ticker = gr.Timer(1.0, active=False)
        self.intro = gr.Markdown(say("models_intro", lang), elem_id="kp-intro")
        self.now = gr.HTML("", padding=False, elem_id="kp-now")
        self.back = gr.Button(say("models_back", lang), visible=False, elem_id="kp-back")
        self.problem = gr.HTML("", padding=False, elem_id="kp-problem")
        with gr.Row():
            self.candidate = gr.Dropdown(
                [], label=say("models_candidate", lang), allow_custom_value=True, elem_id="kp-candidate", scale=3
            )
            self.yours = gr.Number(0, label=say("models_yours", lang), precision=0, minimum=0, elem_id="kp-yours")
            self.world = gr.Number(_WORLD, label=say("models_world", lang), precision=0, minimum=0, elem_id="kp-world")
        self.pause = gr.HTML("", padding=False, elem_id="kp-pause")
        with gr.Row():
            self.start_button = gr.Button(say("models_compare", lang), variant="primary", elem_id="kp-start")
            self.stop_button = gr.Button(say("models_stop", lang), variant="stop", visible=False, elem_id="kp-stop")
        self.progress = gr.HTML("", padding=False, elem_id="kp-progress")
        self.pair = gr.HTML("", js_on_load=_PAIR_JS, padding=False, elem_id="kp-pair")
        self.summary = gr.HTML("", padding=False, elem_id="kp-summary")
        self.promote_button = gr.Button(variant="primary", visible=False, elem_id="kp-promote")

    def _wire(self, page: gr.Blocks, ask: AskTab) -> None:
        self.head = ask.ticker  # looks once more which model answers
        changing = [self.now, self.back, self.progress, self.start_button, self.stop_button, self.ticker, self.head]
        judging = [self.at, self.pair, self.summary, self.promote_button]
        shown = [*changing, *judging, self.problem]
        words = [self.lang, self.tab, self.intro, self.candidate, self.yours, self.world, self.pause, *shown]
        page.load(self.open_page, [ask.remembered], words, **QUIET)
        ask.language.input(self.set_language, [ask.language], words, **QUIET)
        self.candidate.focus(self.look, [self.lang], [self.candidate], **QUIET)
        self.candidate.change(self.choose, [self.lang, self.candidate], [self.pause], concurrency_limit=None, **QUIET)
        asked = [self.lang, self.candidate, self.yours, self.world]
        self.start_button.click(self.compare, asked, shown, **QUIET)
        self.stop_button.click(self.stop, [self.lang, self.at], shown, concurrency_limit=None, **QUIET)
        self.ticker.tick(self.tick, [self.lang, self.at], shown, concurrency_limit=None, **QUIET)
        self.pair.select(self.pick, [self.lang, self.at], [*judging, self.problem], **QUIET)
        self.promote_button.click(self.promote, [self.lang, self.at], shown, **QUIET)
        self.back.click(self.roll_back, [self.lang, self.at], shown, **QUIET)

    # -- opening ------------------------------------------------------------------------------------------------

    def open_page(self, remembered: Any) -> Updates:
        return self.set_language(remembered.get("lang") if isinstance(remembered, dict) else None)

    def set_language(self, wanted: Any) -> Updates:
        lang = language(wanted)
        own = self.serving.held_out()
        return {
            self.lang: lang,
            self.tab: gr.Tab(label=say("models", lang)),
            self.intro: say("models_intro", lang),
            self.candidate: gr.Dropdown(self._results(), label=say("models_candidate", lang)),
            self.yours: gr.Number(own, label=say("models_yours", lang), info=say("models_there_are", lang, n=own)),
            self.world: gr.Number(0 if own else _WORLD, label=say("models_world", lang)),
            self.pause: "",
            **self._changing(lang),
            **self._judging(lang, -1),
            self.problem: "",
        }

    def look(self, lang: Language) -> Updates:
        """What runs have made meanwhile."""
        return {self.candidate: gr.Dropdown(self._results(), label=say("models_candidate", lang))}

    def choose(self, lang: Language, candidate: Any) -> Updates:
        """Another candidate: whether the page must wait for it, and for how long."""
        try:
            if candidate:
                self._wait_no_more()
            pauses = bool(candidate) and self.serving.pauses(Path(str(candidate)))
        except (EngineError, FinetuneError) as error:
            return {self.pause: problem_html(translate(str(error), lang))}
        return {self.pause: paused_html(self.serving.served.start_seconds, lang) if pauses else ""}

    def _results(self) -> list[tuple[str, str]]:
        return [(result.label, result.folder) for result in self.serving.results()]

    # -- doing --------------------------------------------------------------------------------------------------

    def compare(self, lang: Language, candidate: Any, yours: float | None, world: float | None) -> Updates:
        """Begin a comparison; where that is refused, the sentence that says why."""

        def begin() -> None:
            if not candidate:
                raise FinetuneError("Choose what a run has made, or give the folder of a model or an adapter.")
            self._wait_no_more()
            run = next((r.run for r in self.serving.results() if r.folder == str(candidate)), None)
            self.serving.compare(Path(str(candidate)), Source(int(yours or 0), int(world or 0)), run)

        return self._try(begin, lang, -1)

    def _wait_no_more(self) -> None:
        """A handler must not wait for minutes until there is something to compare with."""
        if self.serving.served.status().state == "starting":
            raise FinetuneError("The model is still being loaded; try again once it is ready.")

    def stop(self, lang: Language, at: int) -> Updates:
        return self._try(self.serving.stop, lang, at)

    def promote(self, lang: Language, at: int) -> Updates:
        trial = self._trial()
        return self._try(lambda: self.serving.promote(trial.id), lang, at) if trial is not None else {}

    def roll_back(self, lang: Language, at: int) -> Updates:
        return self._try(self.serving.roll_back, lang, at)

    def pick(self, lang: Language, at: int, event: gr.EventData) -> Updates:
        """A click within the pair: which answer is better, another pair, or the result."""
        trial, wanted = self._trial(), event._data
        if trial is None:
            return self._judging(lang, -1)
        try:
            if "verdict" in wanted:
                pair = self.studio.store.trials.pair(trial.id, at)
                said = _verdict(pair, str(wanted["verdict"]))
                self.serving.judge(trial.id, at, None if said == pair.verdict else said)
                if said != pair.verdict:
                    at = -1 if trial.revealed is None else at  # the next that is not judged
            elif "go" in wanted:
                at = int(wanted["go"])
            elif "reveal" in wanted:
                self.studio.store.trials.reveal(trial.id)
        except USER_ERRORS as error:
            return {**self._judging(lang, at), self.problem: problem_html(translate(str(error), lang))}
        return {**self._judging(lang, at), self.problem: ""}

    def tick(self, lang: Language, at: int) -> Updates:
        """Once a second while something goes on. What is being judged stays as it is."""
        updates = self._changing(lang)
        state = self.serving.state()
        if at < 0 or not state.doing:
            updates |= self._judging(lang, at)
        return {**updates, self.problem: problem_html(translate(state.error, lang)) if state.error else ""}

    def _try(self, begin: Callable[[], None], lang: Language, at: int) -> Updates:
        try:
            begin()
        except USER_ERRORS as error:
            told = problem_html(translate(str(error), lang))
            return {**self._changing(lang), **self._judging(lang, at), self.problem: told}
        return {**self._changing(lang), **self._judging(lang, at), self.problem: ""}

    # -- what is shown ------------------------------------------------------------------------------------------

    def _changing(self, lang: Language) -> Updates:
        """What is served, and how far it is with what goes on."""
        state, runtime = self.serving.state(), self.serving.served
        status = runtime.status()
        info = None
        if status.state == "ready":
            try:
                info = runtime.info()
            except EngineError:  # it failed in between; the status says why the next time
                info = None
        promotion = self.serving.promotion()
        doing = bool(state.doing)
        return {
            self.now: serving_html(info, status, promotion, self.serving.history(), lang),
            self.back: gr.Button(
                say("models_back", lang), visible=promotion is not None and not promotion.is_base, interactive=not doing
            ),
            self.progress: progress_html(state, lang),
            self.start_button: gr.Button(say("models_compare", lang), visible=not doing),
            self.stop_button: gr.Button(say("models_stop", lang), visible=state.doing == "compare"),
            self.ticker: gr.Timer(active=doing),
            self.head: gr.Timer(active=True),
        }

    def _judging(self, lang: Language, at: int) -> Updates:
        """The pair at a position (-1: the first that is not judged), and what all of them say."""
        trial = self._trial()
        every = self.studio.store.trials.pairs(trial.id) if trial else []
        pairs = [pair for pair in every if pair.complete]
        if trial is None or not pairs:
            return {self.at: -1, self.pair: "", self.summary: "", self.promote_button: gr.Button(visible=False)}
        going_on = self.serving.state().doing == "compare"
        open_ones = [pair for pair in pairs if pair.both_say and pair.verdict is None]
        if not going_on and not open_ones and trial.revealed is None:
            self.studio.store.trials.reveal(trial.id)
            trial = self.studio.store.trials.one(trial.id)
        shown = next((pair for pair in pairs if pair.position == at), None) or (open_ones or pairs)[0]
        judged = [pair.position for pair in pairs]
        found = figures(pairs)
        told = summary_html(found, trial, lang) if trial.revealed else judged_html(found, lang)
        return {
            self.at: shown.position,
            self.pair: pair_html(shown, judged, len(every), trial, self._film(shown), lang),
            self.summary: told,
            self.promote_button: gr.Button(
                say("models_promote", lang, name=_name(trial)),
                visible=bool(trial.candidate) and not self.serving.serves(trial),
                interactive=not going_on,
                variant="primary" if trial.revealed and found.advice(True) == "better" else "secondary",
            ),
        }

    def _trial(self) -> Trial | None:
        """The comparison that goes on, or the newest one."""
        state = self.serving.state()
        if state.doing == "compare":
            return self.studio.store.trials.one(state.trial) if state.trial else None
        return self.studio.store.trials.newest()

    def _film(self, pair: Pair) -> Path | None:
        """What the browser can play of a pair's clip."""
        if pair.asked.video is None:
            return None
        path = Path(pair.asked.video)
        if path.parent.resolve() == self.studio.library.folder.resolve():
            return self.studio.library.player_file(path.stem)
        return path if path.is_file() and path.parent.resolve() == self.serving.folder.resolve() else None


def _verdict(pair: Pair, wanted: str) -> TrialVerdict:
    """A side, or both, as what was said of the models. FinetuneError for anything else, which no button sends."""
    if wanted in ("left", "right"):
        on_the_left = wanted == "left"
        return "base" if (pair.left == "base") == on_the_left else "candidate"
    if wanted == "both_good":
        return "both_good"
    if wanted == "both_bad":
        return "both_bad"
    raise FinetuneError("There is nothing to choose so; take one of the four buttons.")


def _name(trial: Trial) -> str:
    adapter = trial.candidate.get("adapter")
    return f"{trial.candidate.get('model')} + {adapter}" if adapter else str(trial.candidate.get("model"))
