"""The Data tab: its components and which function answers which event. What it does is in `app.dataset` and
finetune.feedback; what it shows is made by `app.data_view`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from app.ask import AskTab
from app.data_view import count_html, list_html, work_html
from app.dataset import Dataset
from app.i18n import Language, language, say, translate
from app.studio import USER_ERRORS, Studio
from app.views import problem_html
from app.wiring import QUIET, Updates, asset
from engine.reasoning.modes import MODE_NAMES
from finetune.feedback.browse import correct, count, exclude, exclude_found, include, models
from finetune.feedback.export import FORMATS, Format
from finetune.feedback.filters import Filters, Has
from finetune.feedback.splits import Side, set_share, set_side, share, sides


@dataclass(frozen=True)
class View:
    """What one browser tab looks at."""

    lang: Language = "en"
    filters: Filters = field(default_factory=Filters)
    trail: tuple[int | None, ...] = (None,)  # the places that the pages up to this one begin before
    next: int | None = None


class DataTab:
    """Builds the tab inside the open tabs of `page` and wires it. Its language is the page's."""

    def __init__(self, page: gr.Blocks, studio: Studio, ask: AskTab) -> None:
        self.dataset: Dataset = studio.dataset
        with gr.Tab(say("data", "en"), id="data") as self.tab:
            self._build("en")
        self._wire(page, ask)

    def _build(self, lang: Language) -> None:
        self.view = gr.State(View(lang))
        self.ticker = gr.Timer(1.0, active=False)
        self.intro = gr.Markdown(say("data_intro", lang), elem_id="kx-intro")
        with gr.Row(elem_id="kx-find"):
            self.text = gr.Textbox(
                label=say("data_search", lang),
                placeholder=say("data_search_hint", lang),
                max_lines=1,
                scale=3,
                min_width=300,
                elem_id="kx-search",
            )
            self.mark = gr.Dropdown(_marks(lang), value="", label=say("data_mark", lang), elem_id="kx-mark")
            self.side = gr.Dropdown(_sides(lang), value="", label=say("data_side", lang), elem_id="kx-side")
        with gr.Accordion(say("data_filters", lang), open=False, elem_id="kx-filters") as self.more, gr.Row():
            self.mode = gr.Dropdown(_modes(lang), value="", label=say("data_mode", lang), elem_id="kx-mode")
            self.model = gr.Dropdown([(say("data_any", lang), "")], value="", label=say("data_model", lang))
            self.spoken = gr.Dropdown(_languages(lang), value="", label=say("data_language", lang))
            self.first = gr.Textbox(label=say("data_first_day", lang), placeholder="2025-01-31", max_lines=1)
            self.last = gr.Textbox(label=say("data_last_day", lang), placeholder="2025-01-31", max_lines=1)
        with gr.Accordion(say("data_sift", lang), open=False, elem_id="kx-sift") as self.sift:
            self.sift_note = gr.Markdown(say("data_sift_note", lang))
            with gr.Row():
                self.check = gr.Button(say("data_check", lang), elem_id="kx-check")
                self.drop = gr.Button(say("data_exclude_found", lang), elem_id="kx-exclude-found")
            self.share = gr.Slider(0, 100, value=20, step=1, label=say("data_share", lang), elem_id="kx-share")
        with gr.Accordion(say("data_files", lang), open=False, elem_id="kx-files") as self.files:
            with gr.Row():
                self.format = gr.Radio(
                    _formats(lang), value="store", label=say("data_format", lang), elem_id="kx-format"
                )
                self.videos = gr.Checkbox(label=say("data_videos", lang), value=False, elem_id="kx-videos")
                self.export = gr.Button(say("data_export", lang), elem_id="kx-export")
            self.upload = gr.File(
                label=say("data_import", lang), file_count="multiple", type="filepath", height=120, elem_id="kx-import"
            )
        self.work = gr.HTML("", elem_id="kx-work")
        self.stop = gr.Button(say("stop", lang), variant="stop", visible=False, elem_id="kx-stop")
        self.problem = gr.HTML("", elem_id="kx-problem", visible=False)
        with gr.Row(elem_id="kx-head"):
            self.count = gr.HTML("", elem_id="kx-count")
            self.newer = gr.Button(say("data_newer", lang), size="sm", interactive=False, elem_id="kx-newer")
            self.older = gr.Button(say("data_older", lang), size="sm", interactive=False, elem_id="kx-older")
        script = asset("data.js")
        self.list = gr.HTML("", js_on_load=script, elem_id="kx-rows")

    def _wire(self, page: gr.Blocks, ask: AskTab) -> None:
        asked = [self.text, self.mark, self.side, self.mode, self.model, self.spoken, self.first, self.last]
        rows = [self.view, self.list, self.count, self.newer, self.older, self.problem]
        state = [self.work, self.stop, self.ticker]
        buttons = [self.export, self.check, self.drop]
        labels = [*asked, self.tab, self.intro, self.more, self.sift, self.sift_note, self.share, self.files]
        words = [*labels, self.format, self.videos, self.upload, *buttons, *rows, *state]
        # One after the other, so that what was asked for last is what is shown last.
        listed = {**QUIET, "concurrency_id": "kx-list", "concurrency_limit": 1}
        page.load(self.open_page, [ask.remembered, self.view], words, **listed)
        ask.language.input(self.set_language, [ask.language, self.view], words, **listed)
        self.tab.select(self.refresh, [self.view], [*rows, self.model], **listed)
        for box in (self.text, self.first, self.last):  # `input` hears keys alone: no paste, no deletion
            box.change(self.search, [self.view, *asked], rows, trigger_mode="always_last", **listed)
        for choice in (self.mark, self.side, self.mode, self.model, self.spoken):
            choice.input(self.search, [self.view, *asked], rows, trigger_mode="always_last", **listed)
        self.older.click(self.go_older, [self.view], rows, **listed)
        self.newer.click(self.go_newer, [self.view], rows, **listed)
        self.list.select(self.act, [self.view], rows, **listed)
        self.share.release(self.set_share, [self.view, self.share], rows, **listed)
        self.check.click(self.begin_check, [self.view], [*state, self.problem], **QUIET)
        self.drop.click(self.exclude_found, [self.view], rows, **listed)
        self.export.click(self.begin_export, [self.view, self.format, self.videos], [*state, self.problem], **QUIET)
        self.upload.upload(self.begin_import, [self.view, self.upload], [*state, self.problem, self.upload], **QUIET)
        self.stop.click(self.stop_work, [self.view], state, concurrency_limit=None, **QUIET)
        self.ticker.tick(self.tick, [self.view], [*rows, *state], **listed)

    # -- the list -----------------------------------------------------------------------------------------------

    def open_page(self, remembered: Any, view: View) -> Updates:
        return self.set_language(remembered.get("lang") if isinstance(remembered, dict) else None, view)

    def set_language(self, wanted: Any, view: View) -> Updates:
        lang = language(wanted)
        view = replace(view, lang=lang)
        return {**self._words(lang), **self._rows(view), **self._state(lang)}

    def refresh(self, view: View) -> Updates:
        """The tab was opened: what came meanwhile is there."""
        return {**self._rows(replace(view, trail=(None,))), self.model: self._models(view.lang)}

    def search(
        self,
        view: View,
        text: str | None,
        mark: str | None,
        side: str | None,
        mode: str | None,
        model: str | None,
        spoken: str | None,
        first: str | None,
        last: str | None,
    ) -> Updates:
        """Something else is looked for: its newest page. A box that nobody wrote into may hold nothing at all."""
        has: frozenset[Has] = frozenset(one for one in get_args(Has) if one == mark)
        lacks: frozenset[Has] = frozenset(["excluded"] if mark == "included" else [])
        filters = Filters(
            text=(text or "").strip(),
            has=has,
            lacks=lacks,
            mode=mode or None,
            model=model or None,
            language=spoken or None,
            side=side or None,  # type: ignore[arg-type]
            first_day=(first or "").strip() or None,
            last_day=(last or "").strip() or None,
        )
        return self._rows(replace(view, filters=filters, trail=(None,)))

    def go_older(self, view: View) -> Updates:
        return self._rows(view if view.next is None else replace(view, trail=(*view.trail, view.next)))

    def go_newer(self, view: View) -> Updates:
        return self._rows(replace(view, trail=view.trail[:-1] or (None,)))

    def act(self, view: View, event: gr.EventData) -> Updates:
        """A button of one card, or of those that are selected."""
        data: dict[str, Any] = event._data if isinstance(event._data, dict) else {}
        answers = [str(one) for one in data.get("answers", ())][:1000]
        store = self.dataset.store
        try:
            match data.get("act"):
                case "exclude":
                    exclude(store, answers)
                case "include":
                    include(store, answers)
                case "correct":
                    correct(store, answers[0], str(data.get("text", "")))
                case "side" if data.get("side") in get_args(Side):
                    set_side(store, str(data.get("video")), data["side"])
        except USER_ERRORS as error:
            return {self.problem: gr.HTML(problem_html(translate(str(error), view.lang)), visible=True)}
        return self._rows(view)

    def set_share(self, view: View, percent: float) -> Updates:
        set_share(self.dataset.store, min(max(percent, 0), 100) / 100)
        return self._rows(view)

    def exclude_found(self, view: View) -> Updates:
        exclude_found(self.dataset.store)
        return self._rows(view)

    def _rows(self, view: View) -> Updates:
        """The page of the list that a view looks at, its count, and the buttons that lead on."""
        try:
            page = self.dataset.page(view.filters, view.trail[-1])
            if len(view.trail) == 1 and page.next is None:
                total, exact = len(page.entries), True
            else:
                total, exact = count(self.dataset.store, view.filters)
        except USER_ERRORS as error:
            told = gr.HTML(problem_html(translate(str(error), view.lang)), visible=True)
            return {self.view: view, self.problem: told}
        view = replace(view, next=page.next)
        return {
            self.view: view,
            self.list: list_html(page, self.dataset.picture, view.filters != Filters(), view.lang),
            self.count: count_html(total, exact, view.lang),
            self.newer: gr.Button(say("data_newer", view.lang), interactive=len(view.trail) > 1),
            self.older: gr.Button(say("data_older", view.lang), interactive=page.next is not None),
            self.problem: gr.HTML("", visible=False),
        }

    # -- work that takes a while --------------------------------------------------------------------------------

    def begin_check(self, view: View) -> Updates:
        return self._begun(view, self.dataset.check)

    def begin_export(self, view: View, format: Format, videos: bool) -> Updates:
        return self._begun(view, lambda: self.dataset.export(format, view.filters, videos))

    def begin_import(self, view: View, files: list[str] | None) -> Updates:
        begun = self._begun(view, lambda: self.dataset.take_in([Path(file) for file in files or ()]))
        return {**begun, self.upload: None}

    def stop_work(self, view: View) -> Updates:
        self.dataset.stop()
        return self._state(view.lang)

    def tick(self, view: View) -> Updates:
        """Once a second while work goes on; at its end the list is drawn anew."""
        state = self._state(view.lang)
        return state if self.dataset.work().running else {**state, **self._rows(view)}

    def _begun(self, view: View, begin: Any) -> Updates:
        try:
            begin()
        except USER_ERRORS as error:
            return {self.problem: gr.HTML(problem_html(translate(str(error), view.lang)), visible=True)}
        return {**self._state(view.lang), self.problem: gr.HTML("", visible=False)}

    def _state(self, lang: Language) -> Updates:
        work = self.dataset.work()
        return {
            self.work: work_html(work, lang),
            self.stop: gr.Button(say("stop", lang), visible=work.running),
            self.ticker: gr.Timer(active=work.running),
        }

    # -- words --------------------------------------------------------------------------------------------------

    def _words(self, lang: Language) -> Updates:
        split = sides(self.dataset.store)
        return {
            self.tab: gr.Tab(label=say("data", lang)),
            self.intro: say("data_intro", lang),
            self.text: gr.Textbox(label=say("data_search", lang), placeholder=say("data_search_hint", lang)),
            self.mark: gr.Dropdown(_marks(lang), label=say("data_mark", lang)),
            self.side: gr.Dropdown(_sides(lang), label=say("data_side", lang)),
            self.more: gr.Accordion(label=say("data_filters", lang)),
            self.mode: gr.Dropdown(_modes(lang), label=say("data_mode", lang)),
            self.model: self._models(lang),
            self.spoken: gr.Dropdown(_languages(lang), label=say("data_language", lang)),
            self.first: gr.Textbox(label=say("data_first_day", lang)),
            self.last: gr.Textbox(label=say("data_last_day", lang)),
            self.sift: gr.Accordion(label=say("data_sift", lang)),
            self.sift_note: say("data_sift_note", lang),
            self.check: gr.Button(say("data_check", lang)),
            self.drop: gr.Button(say("data_exclude_found", lang)),
            self.share: gr.Slider(
                value=round(100 * share(self.dataset.store)),
                label=say("data_share", lang),
                info=say("data_share_now", lang, train=split["train"], held_out=split["held_out"]),
            ),
            self.files: gr.Accordion(label=say("data_files", lang)),
            self.format: gr.Radio(_formats(lang), label=say("data_format", lang)),
            self.videos: gr.Checkbox(label=say("data_videos", lang)),
            self.export: gr.Button(say("data_export", lang)),
            self.upload: gr.File(label=say("data_import", lang)),
        }

    def _models(self, lang: Language) -> gr.Dropdown:
        named = [(name, name) for name in models(self.dataset.store)]
        return gr.Dropdown([(say("data_any", lang), ""), *named], label=say("data_model", lang))


Choices = list[tuple[str, str]]


def _marks(lang: Language) -> Choices:
    """What the list may be narrowed to: everything, or what has a mark, or what is learnt from."""
    names = ("vote", "correction", "preference", "finding", "excluded", "included")
    return [(say("data_any", lang), ""), *((say(f"data_mark_{name}", lang), name) for name in names)]


def _sides(lang: Language) -> Choices:
    return [(say("data_any", lang), ""), *((say(f"data_{side}", lang), side) for side in get_args(Side))]


def _modes(lang: Language) -> Choices:
    return [(say("data_any", lang), ""), *((say(f"mode_{mode}", lang), mode) for mode in MODE_NAMES)]


def _languages(lang: Language) -> Choices:
    return [(say("data_any", lang), ""), ("English", "en"), ("中文", "zh")]


def _formats(lang: Language) -> Choices:
    return [(say(f"data_format_{name}", lang), name) for name in FORMATS]
