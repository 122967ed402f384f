"""The Ask tab: its components and which function answers which event. What is done is in `app.studio`, what is
shown is in `app.views`; the handlers here only carry from the one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.chat import chat_messages, mode_choices, mode_hint
from app.demos import Demo
from app.i18n import Language, language, say, translate
from app.jobs import Snapshot
from app.session import Session
from app.studio import USER_ERRORS, ClipChoice, Limits, Manner, Studio, Turn
from app.views import (
    conversations_html,
    demo_note,
    demos_html,
    model_html,
    problem_html,
    strip_html,
    suggestions_html,
)
from engine.reasoning.modes import mode_of

Updates = dict[Any, Any]

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
_LIST_JS = """
element.addEventListener('click', event => {
  const drop = event.target.closest('[data-delete]'), open = event.target.closest('[data-open]');
  if (drop) { if (confirm(drop.dataset.sure)) trigger('delete', {id: drop.dataset.delete}); }
  else if (open) trigger('select', {id: open.dataset.open});
});
"""
_PICK_JS = """
element.addEventListener('click', event => {
  const picked = event.target.closest('[data-demo], [data-question]');
  if (picked) trigger('select', {...picked.dataset});
});
"""


class AskTab:
    """Builds the tab inside `page`, which is open, and wires it."""

    def __init__(self, page: gr.Blocks, studio: Studio, demos: list[Demo]) -> None:
        self.studio = studio
        self.demos = {demo.file.name: demo for demo in demos}
        self._build("en")
        self._wire(page)

    # -- components ---------------------------------------------------------------------------------------------

    def _build(self, lang: Language) -> None:
        self.session = gr.State(Session())
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
        self.demo_note = gr.Markdown(visible=False, elem_id="ks-demo-note")
        self.tabs = gr.Tabs(elem_id="ks-tabs")  # the page adds others
        with self.tabs, gr.Tab(say("ask", lang), id="ask") as self.tab, gr.Row(elem_id="ks-main"):
            with gr.Column(scale=5, min_width=320):
                self._build_clip(lang)
            with gr.Column(scale=6, min_width=320):
                self._build_talk(lang)

    def _build_clip(self, lang: Language) -> None:
        self.video = gr.Video(label=say("video", lang), sources=["upload"], elem_id="ks-player", buttons=[])
        self.problem = gr.HTML(visible=False, elem_id="ks-problem")
        self.picks = gr.HTML(self._demo_cards(lang), js_on_load=_PICK_JS, elem_id="ks-demo-clips")
        self.span = gr.HTML(
            _span(None, 0.0, lang),
            html_template=(_ASSETS / "range.html").read_text(encoding="utf-8"),
            js_on_load=(_ASSETS / "range.js").read_text(encoding="utf-8"),
            elem_id="ks-range",
        )
        self.strip = gr.HTML(strip_html(None, (), lang), elem_id="ks-strip")
        with gr.Accordion(say("settings", lang), open=False, elem_id="ks-settings") as self.settings:
            self.fps = gr.Slider(0.1, 10, value=2, step=0.1, label=say("fps", lang))
            self.max_frames = gr.Slider(1, 768, value=16, step=1, label=say("max_frames", lang))
            self.budget = gr.Slider(4, 65536, value=512, step=1, label=say("budget", lang))
            self.max_tokens = gr.Slider(1, 4096, value=1024, step=1, label=say("max_tokens", lang))
            self.think_budget = gr.Slider(0, 4096, value=0, step=1, label=say("think_budget", lang))
        self.limits = [self.fps, self.max_frames, self.budget]

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
        self.chips = gr.HTML("", js_on_load=_PICK_JS, elem_id="ks-suggestions")
        self.mode = _mode(Session(lang=lang))
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
        everything = [v for v in vars(self).values() if isinstance(v, shown)]
        talk = [self.chat, self.history, self.question, self.ask_button, self.stop_button, self.problem]
        clip = [self.session, self.video, self.span, self.strip, self.problem, self.picks, self.chips]
        private = {"api_visibility": "private"}  # handlers belong to this page; they are no public interface
        quiet = {**private, "show_progress": "hidden"}

        def followed(event: Any) -> None:
            event.then(self.follow, [self.session], talk, concurrency_limit=None, **quiet)

        followed(page.load(self.open_page, [self.session, self.remembered], everything, **quiet))
        self.ticker.tick(self.tick, [self.session], [self.model, self.demo_note, self.ticker, *self.limits], **quiet)
        self.video.upload(self.take_upload, [self.session, self.video], clip, concurrency_limit=2, **private).then(
            self.player_copy, [self.session], [self.video, self.problem], **quiet
        )
        self.video.clear(self.drop_video, [self.session], clip, **quiet)
        self.picks.select(self.take_demo, [self.session], clip, **private)
        for release in (self.span.release, *(slider.release for slider in self.limits)):
            release(
                self.resample,
                [self.session, self.span, *self.limits],
                [self.session, self.strip, self.problem],
                concurrency_limit=4,
                trigger_mode="always_last",
                **quiet,
            )
        for submit in (self.ask_button.click, self.question.submit):
            followed(
                submit(
                    self.ask,
                    [self.session, self.question, self.mode, self.max_tokens, self.think_budget],
                    [self.session, self.remembered, *talk, self.chips],
                    concurrency_limit=None,
                    **quiet,
                )
            )
        self.chips.select(self.take_question, None, [self.question], **quiet)
        self.mode.input(self.take_mode, [self.session, self.mode], [self.session, self.mode], **quiet)
        self.stop_button.click(self.stop, [self.session], None, concurrency_limit=None, **quiet)
        self.new.click(self.start_new, [self.session], everything, **quiet)
        followed(self.history.select(self.open_conversation, [self.session], everything, **quiet))
        self.history.delete(self.delete_conversation, [self.session], everything, **quiet)
        self.language.input(self.set_language, [self.session, self.language], everything, **quiet)
        self.shade.click(None, None, None, js="() => window.keyeTheme()", **private)

    # -- opening and closing ------------------------------------------------------------------------------------

    def open_page(self, session: Session, remembered: Any) -> Updates:
        """A page was loaded: the conversation and the language it had are back."""
        kept = remembered if isinstance(remembered, dict) else {}
        session = replace(session, lang=language(kept.get("lang")))
        updates = {**self._words(session.lang), **self._open(session, kept.get("conversation"))}
        if updates[self.session].conversation is None:
            del updates[self.video]  # somebody quick may have dropped a video already
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
            return self._problem(translate(str(error), session.lang))
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
        return {**self._model(session.lang), self.ticker: gr.Timer(active=False)}

    # -- clips --------------------------------------------------------------------------------------------------

    def take_upload(self, session: Session, path: str | None, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        if path is None:
            return {self.problem: gr.skip()}
        return self._take(session, Path(path), (), progress)

    def take_demo(self, session: Session, event: gr.EventData, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        demo = self.demos.get(str(event._data.get("demo")))
        if demo is None:
            return self._problem(say("no_video", session.lang))
        return self._take(session, demo.file, demo.questions, progress)

    def _take(self, session: Session, file: Path, questions: tuple[str, ...], progress: gr.Progress) -> Updates:
        try:
            sha, info = self.studio.add_video(file, file.name)
            session = replace(session, clip=ClipChoice(sha), duration=info.duration, suggestions=questions)
            progress(0.0, desc=say("decoding", session.lang))
            updates = self._clip(session, lambda done, total: progress((done, total)))
        except USER_ERRORS as error:  # the file that was there before is no longer shown: say so by an empty player
            session = replace(session, clip=None, duration=0.0, suggestions=())
            return {**self._no_clip(session), **self._problem(translate(str(error), session.lang))}
        return updates

    def player_copy(self, session: Session) -> Iterator[Updates]:
        """Where the browser cannot play the file itself: make a copy that it can, and show that."""
        if session.clip is None or self.studio.library.player_file(session.clip.sha256) is not None:
            yield {self.problem: gr.skip()}
            return
        yield self._problem(say("converting", session.lang))
        copy = self.studio.library.make_player_file(session.clip.sha256)
        if copy is None:
            yield self._problem(say("no_preview", session.lang))
        else:
            yield {self.video: str(copy), self.problem: gr.HTML(visible=False)}

    def drop_video(self, session: Session) -> Updates:
        return self._no_clip(replace(session, clip=None, duration=0.0, suggestions=()))

    def resample(self, session: Session, span: Any, fps: float, max_frames: float, budget: float) -> Updates:
        """The range or a limit was changed: the frames and their cost anew."""
        try:
            session = replace(session, limits=self._limits(fps, max_frames, budget))
        except USER_ERRORS as error:  # the model could not be loaded
            return self._problem(translate(str(error), session.lang))
        if session.clip is None:
            return {self.session: session}
        start, end = float(span["start"]), float(span["end"])
        # The ends of the track mean the ends of the file, whatever the slider's rounding made of them.
        clip = replace(
            session.clip,
            start=start if start > 0.05 else None,
            end=end if end < session.duration - 0.05 else None,
        )
        session = replace(session, clip=clip)
        try:
            frames = self.studio.frames(clip, session.limits)
        except USER_ERRORS as error:
            return {self.session: session, **self._problem(translate(str(error), session.lang))}
        return {
            self.session: session,
            self.strip: strip_html(frames, frames.notes, session.lang),
            self.problem: gr.HTML(visible=False),
        }

    # -- questions ----------------------------------------------------------------------------------------------

    def take_question(self, event: gr.EventData) -> str:
        return str(event._data.get("question", ""))

    def take_mode(self, session: Session, mode: str) -> Updates:
        session = replace(session, mode=mode_of(mode).name)
        return {self.session: session, self.mode: _mode(session)}

    def ask(self, session: Session, text: str, mode: str, max_tokens: float, think_budget: float) -> Updates:
        """Keep the question and start its answer; what was typed stays in the box if that is refused."""
        if session.clip is None:
            return self._problem(say("no_video", session.lang))
        try:
            manner = Manner(mode_of(mode).name, int(max_tokens), int(think_budget) or None)
            conversation, _ = self.studio.ask(session.conversation, text, session.clip, session.limits, manner)
        except USER_ERRORS as error:
            return self._problem(translate(str(error), session.lang))
        session = replace(session, conversation=conversation)
        return {
            self.session: session,
            self.remembered: self._remember(session),
            self.history: self._history(session),
            self.question: "",
            self.problem: gr.HTML(visible=False),
            **self._talk(session),
        }

    def follow(self, session: Session) -> Iterator[Updates]:
        """Show the running answer of this conversation as it grows; ends with it."""
        job = self.studio.job(session.conversation)
        if job is None:
            yield {self.chat: gr.skip()}
            return
        for now in job.watch():
            yield self._talk(session, now)
        if now.error and not now.text:
            yield {self.problem: gr.HTML(problem_html(now.error), visible=True)}
        yield {self.history: self._history(session), **self._talk(session)}

    def stop(self, session: Session) -> None:
        job = self.studio.job(session.conversation)
        if job is not None:
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
        updates: Updates = {self.problem: gr.HTML(visible=False)}
        try:
            if session.clip is not None:
                session = replace(session, duration=self.studio.video(session.clip.sha256).duration)
                updates |= self._clip(session)
            else:
                updates |= self._no_clip(session)
        except USER_ERRORS as error:
            session = replace(session, clip=None)
            updates |= {**self._no_clip(session), **self._problem(translate(str(error), session.lang))}
        return {
            **updates,
            **self._model(session.lang, session.limits),
            self.mode: _mode(session),
            self.session: session,
            self.remembered: self._remember(session),
            self.history: self._history(session),
            **self._talk(session),
        }

    def _talk(self, session: Session, now: Snapshot | None = None) -> Updates:
        """The chat and the buttons, with the running answer as far as it is."""
        job = self.studio.job(session.conversation)
        if now is None and job is not None:
            now = job.snapshot()
        running = now is not None and now.done is None
        turns = self.studio.turns(session.conversation) if session.conversation else []
        return {
            self.chat: gr.Chatbot(
                value=chat_messages(turns, now if running else None, session.lang),
                label=say("chat", session.lang),
                placeholder=say("chat_empty", session.lang),
            ),
            self.ask_button: gr.Button(say("ask", session.lang), visible=not running),
            self.stop_button: gr.Button(say("stop", session.lang), visible=running),
        }

    # Each of the following returns whole updates of the components it names, words and value together, so that
    # they can be merged in any order.

    def _clip(self, session: Session, progress: Callable[[int, int], None] | None = None) -> Updates:
        """The player, the range and the strip for the session's clip."""
        clip = session.clip
        assert clip is not None
        frames = self.studio.frames(clip, session.limits, progress=progress)
        playable = self.studio.library.player_file(clip.sha256)
        return {
            self.session: session,
            self.video: gr.Video(value=str(playable) if playable else None, label=say("video", session.lang)),
            self.span: _span(clip, session.duration, session.lang),
            self.strip: strip_html(frames, frames.notes, session.lang),
            self.problem: gr.HTML(visible=False),
            self.picks: gr.HTML(self._demo_cards(session.lang), visible=False),
            self.chips: suggestions_html(session.suggestions),
        }

    def _no_clip(self, session: Session) -> Updates:
        return {
            self.session: session,
            self.video: gr.Video(value=None, label=say("video", session.lang)),
            self.span: _span(None, 0.0, session.lang),
            self.strip: strip_html(None, (), session.lang),
            self.problem: gr.HTML(visible=False),
            self.picks: gr.HTML(self._demo_cards(session.lang), visible=True),
            self.chips: "",
        }

    def _model(self, lang: Language, limits: Limits | None = None) -> Updates:
        """What answers, and its own limits on the sliders where the user set none."""
        labels = {name: say(name, lang) for name in ("fps", "max_frames", "budget")}
        status = self.studio.runtime.status()
        if status.state != "ready":
            return {
                self.model: model_html(status, None, lang),
                self.fps: gr.Slider(label=labels["fps"]),
                self.max_frames: gr.Slider(label=labels["max_frames"]),
                self.budget: gr.Slider(label=labels["budget"]),
            }
        info = self.studio.runtime.info()
        now = limits.apply(info.sampling) if limits else info.sampling
        own = info.sampling
        return {
            self.model: model_html(status, info, lang),
            self.demo_note: gr.Markdown(demo_note(info, lang), visible=info.demonstration),
            self.fps: gr.Slider(value=now.fps, label=labels["fps"]),
            self.max_frames: gr.Slider(value=now.max_frames, maximum=own.max_frames, label=labels["max_frames"]),
            self.budget: gr.Slider(value=now.budget, maximum=own.budget, label=labels["budget"]),
        }

    def _words(self, lang: Language) -> Updates:
        """The sentences of the page that do not change with what is shown."""
        return {
            self.brand: _brand(lang),
            self.language: gr.Radio(value=lang, label=say("language", lang)),
            self.new: gr.Button(say("new", lang)),
            self.tab: gr.Tab(label=say("ask", lang)),
            self.settings: gr.Accordion(label=say("settings", lang)),
            self.max_tokens: gr.Slider(label=say("max_tokens", lang)),
            self.think_budget: gr.Slider(label=say("think_budget", lang)),
            self.question: gr.Textbox(label=say("question", lang), placeholder=say("question_hint", lang)),
        }

    def _problem(self, sentence: str) -> Updates:
        return {self.problem: gr.HTML(problem_html(sentence), visible=True)}

    def _history(self, session: Session) -> str:
        return conversations_html(self.studio.conversations(), session.conversation, session.lang)

    def _demo_cards(self, lang: Language) -> str:
        return demos_html([(d.file.name, d.title, d.picture) for d in self.demos.values()], lang)

    def _limits(self, fps: float, max_frames: float, budget: float) -> Limits:
        """What differs from the model's own sampling: only that was set by the user."""
        own = self.studio.runtime.info().sampling
        return Limits(
            fps=None if fps == own.fps else fps,
            max_frames=None if max_frames == own.max_frames else int(max_frames),
            budget=None if budget == own.budget else int(budget),
        )

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


def _span(clip: ClipChoice | None, duration: float, lang: Language) -> dict[str, Any]:
    """The value of the range component, seconds; a duration of 0 hides it."""
    length = round(duration, 2) if clip else 0.0
    return {
        "duration": length,
        "start": clip.start or 0.0 if clip else 0.0,
        "end": clip.end if clip and clip.end is not None else length,
        "label": say("range", lang),
        "from_label": say("range_from", lang),
        "to_label": say("range_to", lang),
    }


def _last_clip(session: Session, turns: list[Turn]) -> Session:
    """The session with the clip, the limits and the mode of the newest question."""
    question = turns[-1].question
    session = replace(session, mode=mode_of(question.mode).name)
    if question.video is None:
        return session
    return replace(
        session,
        clip=ClipChoice(question.video, question.start, question.end),
        limits=Limits(**question.sampling),
    )
