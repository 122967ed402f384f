"""The Ask tab: its components and which function answers which event; the clip's half is `app.clip`. What is done is in
`app.studio`, what is shown is in `app.views` and `app.chat`; the handlers here only carry from the one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from app.chat import chat_messages, mode_choices, mode_hint
from app.clip import ClipPane
from app.compare import ComparePane, choose, taken
from app.demos import Demo
from app.i18n import Language, language, say, translate
from app.jobs import Snapshot, watch
from app.session import Session
from app.studio import USER_ERRORS, ClipChoice, Limits, Manner, Studio, Turn
from app.views import conversations_html, demo_note, model_html
from app.votes import VotesPane
from app.wiring import PRIVATE, QUIET, Updates
from engine.reasoning.modes import MODE_NAMES, mode_of

_LIST_JS = """
element.addEventListener('click', event => {
  const drop = event.target.closest('[data-delete]'), open = event.target.closest('[data-open]');
  if (drop) { if (confirm(drop.dataset.sure)) trigger('delete', {id: drop.dataset.delete}); }
  else if (open) trigger('select', {id: open.dataset.open});
});
"""


class AskTab:
    """Builds the tab inside `page`, which is open, and wires it."""

    def __init__(self, page: gr.Blocks, studio: Studio, demos: list[Demo]) -> None:
        self.studio = studio
        self.session = gr.State(Session())
        self.clip = ClipPane(studio, demos, self.session)
        self.compare = ComparePane(studio)
        self.votes = VotesPane(studio)
        self._build("en")
        self._wire(page)

    # -- components ---------------------------------------------------------------------------------------------

    def _build(self, lang: Language) -> None:
        self.remembered = gr.BrowserState({"conversation": None, "lang": None}, storage_key="keye-studio")
        self.ticker = gr.Timer(1.0)
        with gr.Sidebar(width=280, elem_id="ks-sidebar", label=say("menu", lang)):
            self.new = gr.Button(say("new", lang), variant="primary", elem_id="ks-new")
            self.history = gr.HTML("", js_on_load=_LIST_JS, elem_id="ks-history")
        with gr.Row(elem_id="ks-header"):
            self.brand = gr.HTML(_brand(lang), elem_id="ks-brand")
            with gr.Row(elem_id="ks-tools"):
                self.model = gr.HTML(model_html(self.studio.runtime.status(), None, lang), elem_id="ks-model")
                self.language = gr.Radio(
                    [("EN", "en"), ("中文", "zh")],
                    value=lang,
                    label=say("language", lang),
                    show_label=False,
                    container=False,
                    elem_id="ks-language",
                )
                self.shade = gr.Button("◐", size="sm", elem_id="ks-theme", min_width=40)
        self.tabs = gr.Tabs(elem_id="ks-tabs", overflow_behavior="wrap")  # the page adds others
        with self.tabs, gr.Tab(say("ask", lang), id="ask") as self.tab:
            self.demo_note = gr.Markdown(visible=False, elem_id="ks-demo-note")
            with gr.Row(elem_id="ks-main"):
                with gr.Column(scale=5, min_width=320):
                    self.clip.build(lang)
                with gr.Column(scale=6, min_width=320):
                    self._build_talk(lang)

    def _build_talk(self, lang: Language) -> None:
        self.chat = gr.Chatbot(
            label=say("chat", lang),
            elem_id="ks-chat",
            height="max(300px, calc(100vh - 470px))",
            buttons=["copy"],
            placeholder=say("chat_empty", lang),
            feedback_options=None,
            latex_delimiters=[],
            group_consecutive_messages=False,
        )
        self.clip.build_suggestions()
        self.mode = _mode(Session(lang=lang))
        self.compare.build(lang)
        self.votes.build()
        self.question = gr.Textbox(
            label=say("question", lang),
            placeholder=say("question_hint", lang),
            lines=2,
            max_lines=6,
            elem_id="ks-question",
        )
        with gr.Row():
            self.ask_button = gr.Button(say("ask", lang), variant="primary", elem_id="ks-ask")
            self.stop_button = gr.Button(say("stop", lang), variant="stop", visible=False, elem_id="ks-stop")

    def _wire(self, page: gr.Blocks) -> None:
        shown = gr.components.Component | gr.Accordion | gr.Tab
        parts = (self, self.clip, self.compare)
        everything = [v for part in parts for v in vars(part).values() if isinstance(v, shown)]
        everything = list(dict.fromkeys(everything))
        problem, settings = self.clip.problem, [self.clip.max_tokens, self.clip.think_budget, self.clip.sound.give]
        talk = [self.chat, self.history, self.question, self.ask_button, self.stop_button, problem, self.model]
        how: list[Any] = [self.mode, *self.compare.controls]
        shown_how = [self.session, self.mode, *self.compare.shows, self.ask_button]

        def followed(event: Any) -> None:
            event.then(self.follow, [self.session], talk, concurrency_limit=None, **QUIET)

        ticking = [self.model, self.demo_note, self.ticker, self.compare.note, *self.clip.limits]
        followed(page.load(self.open_page, [self.session, self.remembered], everything, **QUIET))
        self.ticker.tick(self.tick, [self.session], ticking, **QUIET)
        self.clip.wire()
        for submit in (self.ask_button.click, self.question.submit):
            followed(
                submit(
                    self.ask,
                    [self.session, self.question, *how, *settings],
                    [self.session, self.remembered, *talk],
                    concurrency_limit=None,
                    **QUIET,
                )
            )
        self.clip.chips.select(self.take_question, [self.session, *how], [self.question, *shown_how], **QUIET)
        for changed in how:
            changed.input(self.take_mode, [self.session, *how], shown_how, **QUIET)
        self.compare.chooser.select(self.choose, [self.session], talk, concurrency_limit=None, **QUIET)
        self.votes.listener.select(self.say, [self.session], talk, concurrency_limit=None, **QUIET)
        followed(self.votes.listener.submit(self.again, [self.session], talk, concurrency_limit=None, **QUIET))
        self.stop_button.click(self.stop, [self.session], None, concurrency_limit=None, **QUIET)
        self.new.click(self.start_new, [self.session], everything, **QUIET)
        followed(self.history.select(self.open_conversation, [self.session], everything, **QUIET))
        self.history.delete(self.delete_conversation, [self.session], everything, **QUIET)
        self.language.input(self.set_language, [self.session, self.language], everything, **QUIET)
        self.shade.click(None, None, None, js="() => window.keyeTheme()", **PRIVATE)

    # -- opening and closing ------------------------------------------------------------------------------------

    def open_page(self, session: Session, remembered: Any) -> Updates:
        """A page was loaded: the conversation and the language it had are back."""
        kept = remembered if isinstance(remembered, dict) else {}
        session = replace(session, lang=language(kept.get("lang")))
        updates = {**self._words(session.lang), **self._open(session, kept.get("conversation"))}
        if updates[self.session].conversation is None:
            del updates[self.clip.video]  # somebody quick may have dropped a video already
        return updates

    def open_conversation(self, session: Session, event: gr.EventData) -> Updates:
        return self._open(session, event._data.get("id"))

    def start_new(self, session: Session) -> Updates:
        return self._open(session, None)

    def delete_conversation(self, session: Session, event: gr.EventData) -> Updates:
        doomed = event._data.get("id")
        try:
            self.studio.delete(str(doomed))
        except USER_ERRORS as error:
            return self.clip.told(translate(str(error), session.lang))
        if doomed == session.conversation:
            return self._open(session, None)
        return {self.history: self._history(session)}

    def set_language(self, session: Session, chosen: str) -> Updates:
        session = replace(session, lang=language(chosen))
        return {**self._words(session.lang), **self._open(session, session.conversation, session.clip)}

    def tick(self, session: Session) -> Updates:
        """Once a second until the model is ready: how far it is; then its own sampling limits on the sliders."""
        status = self.studio.runtime.status()
        if status.state != "ready":
            return {self.model: model_html(status, None, session.lang)}
        ready = {self.compare.note: self.compare.noted(session), self.ticker: gr.Timer(active=False)}
        return {**self._model(session.lang), **ready}

    # -- questions ----------------------------------------------------------------------------------------------

    def take_question(
        self, session: Session, mode: str, on: bool, against: Any, blind: bool, event: gr.EventData
    ) -> Updates:
        """A suggested question, with the mode that it is suggested for."""
        taking: Updates = {self.question: str(event._data.get("question", ""))}
        wanted = event._data.get("mode")
        if wanted in MODE_NAMES:
            taking |= self.take_mode(session, wanted, on, against, blind)
        return taking

    def take_mode(self, session: Session, mode: str, on: bool, against: Any, blind: bool) -> Updates:
        session = taken(session, mode, on, against, blind)
        return {self.session: session, **self._how(session), self.ask_button: gr.Button(_asks(session))}

    def ask(
        self,
        session: Session,
        text: str,
        mode: str,
        on: bool,
        against: Any,
        blind: bool,
        max_tokens: float,
        think_budget: float,
        speech: bool,
    ) -> Updates:
        """Keep the question and start its answer, or two; what was typed stays in the box if that is refused."""
        clip = session.clip
        if clip is None:
            return self.clip.told(say("no_video", session.lang))
        try:
            session = taken(session, mode, on, against, blind)
            manner = Manner(session.mode, int(max_tokens), int(think_budget) or None)
            session = replace(session, limits=replace(session.limits, speech=bool(speech)))
            limits = session.limits
            if session.against is None:
                conversation, _ = self.studio.ask(session.conversation, text, clip, limits, manner)
            else:
                both = (manner, replace(manner, mode=session.against))
                conversation, _ = self.studio.compare(session.conversation, text, clip, limits, both, session.blind)
        except USER_ERRORS as error:
            return self.clip.told(translate(str(error), session.lang))
        session = replace(session, conversation=conversation)
        return {
            self.session: session,
            self.remembered: self._remember(session),
            self.history: self._history(session),
            self.question: "",
            self.clip.problem: gr.HTML(visible=False),
            **self._talk(session),
        }

    def follow(self, session: Session) -> Iterator[Updates]:
        """Show the running answers of this conversation as they grow; ends with them."""
        jobs = self.studio.jobs(session.conversation)
        if not jobs:
            yield {self.chat: gr.skip()}
            return
        for now in watch(jobs):
            yield self._talk(session, now)
        if len(now) == 1 and now[0].error and not now[0].text:  # two that are compared say it where they stand
            yield self.clip.told(now[0].error)
        status = self.studio.runtime.status()  # another model may have been promoted since, on another page
        info = self.studio.runtime.info() if status.state == "ready" else None
        told = {self.history: self._history(session), self.model: model_html(status, info, session.lang)}
        yield {**told, **self._talk(session)}

    def choose(self, session: Session, event: gr.EventData) -> Updates:
        """One click says which of two answers is better."""
        question, verdict = str(event._data.get("question")), str(event._data.get("verdict"))
        store, conversation = self.studio.store, session.conversation or ""
        return self._kept(session, partial(choose, store, conversation, question, verdict))

    def say(self, session: Session, event: gr.EventData) -> Updates:
        """What somebody thinks of an answer."""
        return self._kept(session, partial(self.votes.say, session.conversation, session.clip, event._data))

    def again(self, session: Session, event: gr.EventData) -> Updates:
        """Begin further drafts of an answer."""
        return self._kept(session, partial(self.votes.again, session.conversation, event._data))

    def _kept(self, session: Session, keep: Callable[[], object]) -> Updates:
        """What the page shows after something was kept, or the sentence on why it was not."""
        try:
            keep()
        except USER_ERRORS as error:
            return {**self._talk(session), **self.clip.told(translate(str(error), session.lang))}
        return {**self._talk(session), self.clip.problem: gr.HTML(visible=False)}

    def stop(self, session: Session) -> None:
        for job in self.studio.jobs(session.conversation):
            job.stop()

    # -- what is shown ------------------------------------------------------------------------------------------

    def _open(self, session: Session, conversation: Any, clip: ClipChoice | None = None) -> Updates:
        """Everything about one conversation (None: an empty one), and `clip` in the player or else its last one."""
        turns = self.studio.turns(conversation) if isinstance(conversation, str) else []
        session = replace(
            session, conversation=conversation if turns else None, clip=clip, limits=Limits(), suggestions=()
        )
        if turns and clip is None:
            session = _last_clip(session, turns)
        updates: Updates = {self.clip.problem: gr.HTML(visible=False)}
        try:
            if session.clip is not None:
                session = replace(session, duration=self.studio.video(session.clip.sha256).duration)
                updates |= self.clip.shown(session)
            else:
                updates |= self.clip.emptied(session)
        except USER_ERRORS as error:
            session = replace(session, clip=None)
            updates |= {**self.clip.emptied(session), **self.clip.told(translate(str(error), session.lang))}
        return {
            **updates,
            **self._model(session.lang, session.limits),
            **self._how(session),
            self.session: session,
            self.remembered: self._remember(session),
            self.history: self._history(session),
            **self._talk(session),
        }

    def _talk(self, session: Session, now: Sequence[Snapshot] | None = None) -> Updates:
        """The chat and the buttons, with the running answers as far as they are."""
        if now is None:
            now = [job.snapshot() for job in self.studio.jobs(session.conversation)]
        running = any(snapshot.done is None for snapshot in now)
        turns = self.studio.turns(session.conversation) if session.conversation else []
        messages: list[Any] = chat_messages(turns, now if running else (), session.lang)
        return {
            self.chat: gr.Chatbot(
                value=messages,
                label=say("chat", session.lang),
                placeholder=say("chat_empty", session.lang),
            ),
            self.ask_button: gr.Button(_asks(session), visible=not running),
            self.stop_button: gr.Button(say("stop", session.lang), visible=running),
        }

    def _how(self, session: Session) -> Updates:
        """The switch of modes and the controls of a comparison."""
        return {self.mode: _mode(session), **self.compare.shown(session)}

    # Each of the following returns whole updates of the components it names, words and value together, so that
    # they can be merged in any order.

    def _model(self, lang: Language, limits: Limits | None = None) -> Updates:
        """What answers, and its own limits on the sliders where the user set none."""
        status = self.studio.runtime.status()
        info = self.studio.runtime.info() if status.state == "ready" else None
        updates = {self.model: model_html(status, info, lang), **self.clip.sliders(info, limits, lang)}
        if info is not None:
            updates[self.demo_note] = gr.Markdown(demo_note(info, lang), visible=info.demonstration)
        return updates

    def _words(self, lang: Language) -> Updates:
        """The sentences of the page that do not change with what is shown."""
        return {
            self.brand: _brand(lang),
            self.language: gr.Radio(value=lang, label=say("language", lang)),
            self.new: gr.Button(say("new", lang)),
            self.tab: gr.Tab(label=say("ask", lang)),
            **self.clip.words(lang),
            self.question: gr.Textbox(label=say("question", lang), placeholder=say("question_hint", lang)),
        }

    def _history(self, session: Session) -> str:
        return conversations_html(self.studio.conversations(), session.conversation, session.lang)

    @staticmethod
    def _remember(session: Session) -> dict[str, Any]:
        return {"conversation": session.conversation, "lang": session.lang}


def _mode(session: Session) -> gr.Radio:
    """The switch above the question, with what the chosen mode means."""
    return gr.Radio(
        mode_choices(session.lang),
        value=session.mode,
        label=say("mode", session.lang),
        info=mode_hint(session.mode, session.lang),
        elem_id="ks-mode",
    )


def _brand(lang: Language) -> str:
    return f"<h1>{say('title', lang)}</h1><p>{say('tagline', lang)}</p>"


def _asks(session: Session) -> str:
    """What the button says."""
    return say("ask" if session.against is None else "compare_ask", session.lang)


def _last_clip(session: Session, turns: list[Turn]) -> Session:
    """The session with the clip, the limits and the modes of the newest question."""
    question, comparison = turns[-1].question, turns[-1].comparison
    session = replace(session, mode=mode_of(question.mode).name, against=None, blind=False)
    if comparison is not None:
        modes = {comparison.left.mode, comparison.right.mode} - {question.mode}
        session = replace(session, against=mode_of(modes.pop()).name, blind=comparison.blind)
    if question.video is None:
        return session
    return replace(
        session,
        clip=ClipChoice(question.video, question.start, question.end),
        limits=Limits(**question.sampling),
    )
