"""The Comment tab: its components and which function answers which event. What is done is in `app.commenting`, what is
shown in `app.drafts`; what it shares with the Skills tab is in `app.rounds`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, cast, get_args

import gradio as gr

from app.ask import AskTab
from app.commenting import MOST_COMMENTS
from app.drafts import comments_html
from app.i18n import LANGUAGES, Language, language, say, translate
from app.rounds import Desk, RoundPane, bare, kept, range_of
from app.session import Session
from app.studio import USER_ERRORS, Studio
from app.views import problem_html
from app.wiring import PRIVATE, QUIET, Updates
from finetune.feedback.comments import COMMENT, Round, RoundClip
from finetune.writing.wishes import Length, Tone, Wishes

_COUNT = 4  # comments, unless another number is chosen


class CommentTab:
    """Builds the tab inside the open tabs of `page` and wires it. Its language is the page's; `remembered` is
    its `app.rounds.memory`."""

    def __init__(self, page: gr.Blocks, studio: Studio, ask: AskTab, remembered: gr.BrowserState) -> None:
        self.studio = studio
        with gr.Tab(say("comment", "en"), id="comment") as self.tab:
            self.pane = RoundPane(studio, "comment", (COMMENT,), comments_html, remembered)
            self._build("en")
        self._wire(page, ask)

    def _build(self, lang: Language) -> None:
        self.intro = gr.Markdown(say("comment_intro", lang), elem_id="kd-comment-intro")
        self.note = bare("kd-comment-demo")
        with gr.Row(elem_classes="kd-main"):
            with gr.Column(scale=5, min_width=300):
                self.video = gr.Video(label=say("video", lang), sources=["upload"], elem_id="kd-player", buttons=[])
                self.about = bare("kd-about")
                self.problem = bare("kd-problem")
                with gr.Row(elem_classes="kd-kept"):
                    self.kept = gr.Dropdown([], label=say("kept_videos", lang), elem_id="kd-kept", scale=3)
                    self.from_ask = gr.Button(say("from_ask", lang), size="sm", elem_id="kd-from-ask", min_width=120)
            with gr.Column(scale=6, min_width=300):
                with gr.Row():
                    self.tone = gr.Dropdown(_tones(lang), value="any", label=say("tone", lang), elem_id="kd-tone")
                    self.tongue = gr.Radio(
                        _tongues(), value="en", label=say("comment_tongue", lang), elem_id="kd-tongue"
                    )
                with gr.Row():
                    self.length = gr.Radio(
                        _lengths(lang), value="short", label=say("length", lang), elem_id="kd-length", scale=3
                    )
                    self.count = gr.Slider(
                        *(1, MOST_COMMENTS),
                        value=_COUNT,
                        step=1,
                        label=say("comment_count", lang),
                        elem_id="kd-count",
                        scale=2,
                    )
                with gr.Accordion(say("context", lang), open=False, elem_id="kd-context") as self.context:
                    self.title = gr.Textbox(label=say("title_of", lang), max_lines=1, elem_id="kd-title")
                    self.speech = gr.Textbox(label=say("speech_of", lang), lines=2, max_lines=6, elem_id="kd-speech")
                self.pane.build_buttons(lang)
                self.pane.build(lang)
        self.wishes = [self.tone, self.length, self.tongue, self.title, self.speech]

    def _wire(self, page: gr.Blocks, ask: AskTab) -> None:
        pane = self.pane
        pane.wire()
        clip = [self.video, self.about, self.problem, self.kept]
        everything = [*pane.shows, *clip, *self.wishes, self.count]
        words = [*everything, self.tab, self.intro, self.note, self.context, self.from_ask]
        page.load(self.open_page, [pane.desk, ask.remembered, pane.remembered], words, **QUIET).then(
            self.player_copy, [pane.desk], [self.video, self.about], **QUIET
        )
        ask.language.input(self.set_language, [pane.desk, ask.language], words, **QUIET)
        self.tab.select(self.enter, [pane.desk, ask.session], [pane.desk, self.note, *clip], **QUIET)
        self.from_ask.click(self.take_asked, [pane.desk, ask.session], [pane.desk, *clip], **QUIET)
        for event, source in ((self.video.upload, self.video), (self.kept.input, self.kept)):
            take = self.take_upload if source is self.video else self.take_kept
            event(take, [pane.desk, source], [pane.desk, *clip], concurrency_limit=2, **PRIVATE).then(
                self.player_copy, [pane.desk], [self.video, self.about], **QUIET
            )
        self.video.clear(self.drop_clip, [pane.desk], [pane.desk, *clip], **QUIET)
        pane.start.click(self.write, [pane.desk, self.count, *self.wishes], pane.shows, **QUIET)
        pane.earlier.input(self.reopen, [pane.desk, pane.earlier], everything, **QUIET)
        pane.drop.click(self.delete, [pane.desk], everything, **QUIET)

    # -- opening ------------------------------------------------------------------------------------------------

    def open_page(self, desk: Desk, page: Any, own: Any) -> Updates:
        """A page was loaded: its language, and the round that it looked at."""
        lang = language(page.get("lang") if isinstance(page, dict) else None)
        round = own.get("round") if isinstance(own, dict) else None
        desk = replace(desk, lang=lang, round=round if isinstance(round, str) else None)
        return {**self._words(lang), self.tongue: _tongue(lang, lang), **self._open(desk)}

    def set_language(self, desk: Desk, wanted: Any) -> Updates:
        desk = replace(desk, lang=language(wanted))
        return {**self._words(desk.lang), **self.pane.shown(desk), **self._clip(desk)}

    def enter(self, desk: Desk, asked: Session) -> Updates:
        """The tab is looked at: the clip of the Ask tab, where none was chosen here."""
        note = {self.note: self.pane.demo(desk.lang)}
        if desk.clips or asked.clip is None:
            return {**note, self.kept: self._kept(desk)}
        return {**note, **self.take_asked(desk, asked)}

    def reopen(self, desk: Desk, round: Any) -> Updates:
        return self._open(replace(desk, round=str(round) if round else None))

    def delete(self, desk: Desk) -> Updates:
        try:
            return self._open(self.pane.delete(desk))
        except USER_ERRORS as error:
            return self.pane.told(translate(str(error), desk.lang))

    # -- the clip -----------------------------------------------------------------------------------------------

    def take_asked(self, desk: Desk, asked: Session) -> Updates:
        """The clip that is chosen in the Ask tab, with its range."""
        if asked.clip is None:
            return {self.problem: problem_html(say("from_ask_none", desk.lang))}
        return self._take(desk, RoundClip(asked.clip.sha256, asked.clip.start, asked.clip.end))

    def take_kept(self, desk: Desk, sha256: Any) -> Updates:
        return self._take(desk, RoundClip(str(sha256))) if sha256 else self.drop_clip(desk)

    def take_upload(self, desk: Desk, path: str | None) -> Updates:
        if path is None:
            return {self.problem: gr.skip()}
        try:
            sha, _ = self.studio.add_video(Path(path), Path(path).name)
        except USER_ERRORS as error:
            return {self.problem: problem_html(translate(str(error), desk.lang))}
        return self._take(desk, RoundClip(sha))

    def drop_clip(self, desk: Desk) -> Updates:
        desk = replace(desk, clips=())
        return {self.pane.desk: desk, **self._clip(desk)}

    def player_copy(self, desk: Desk) -> Iterator[Updates]:
        """Where the browser cannot play the file, a copy that it can."""
        if not desk.clips or self.studio.library.player_file(desk.clips[0].video) is not None:
            yield {self.about: gr.skip()}
            return
        yield {self.about: _note(say("converting", desk.lang))}
        copy = self.studio.library.make_player_file(desk.clips[0].video)
        yield {self.video: str(copy) if copy else None, self.about: self._about(desk)}

    def _take(self, desk: Desk, clip: RoundClip) -> Updates:
        desk = replace(desk, clips=(clip,))
        return {self.pane.desk: desk, **self._clip(desk)}

    # -- comments -----------------------------------------------------------------------------------------------

    def write(self, desk: Desk, count: float, tone: str, length: str, tongue: str, title: str, speech: str) -> Updates:
        """Begin; where that is refused, the sentence that says why, and everything stays as it is."""
        if not desk.clips:
            return self.pane.told(say("no_video", desk.lang))
        try:
            wishes = Wishes(cast(Tone, tone), cast(Length, length), language(tongue), title or "", speech or "")
            made = self.studio.comments.write(desk.clips[0], wishes, int(count))
        except USER_ERRORS as error:
            return self.pane.told(translate(str(error), desk.lang))
        return self.pane.shown(replace(desk, round=made.id))

    # -- what is shown ------------------------------------------------------------------------------------------

    def _open(self, desk: Desk) -> Updates:
        """A round with its clip and what was wished of it; or none."""
        made = self.pane.round_of(desk)
        if made is None or made.skill != COMMENT:
            desk = replace(desk, round=None)
            return {**self.pane.shown(desk), **self._clip(desk)}
        desk = replace(desk, clips=made.clips)
        return {**self._wished(made, desk.lang), **self.pane.shown(desk), **self._clip(desk)}

    def _wished(self, made: Round, lang: Language) -> Updates:
        wishes = made.wishes
        return {
            self.tone: gr.Dropdown(_tones(lang), value=wishes.get("tone"), label=say("tone", lang)),
            self.length: gr.Radio(_lengths(lang), value=wishes.get("length"), label=say("length", lang)),
            self.tongue: _tongue(made.language, lang),
            self.title: gr.Textbox(wishes.get("title", ""), label=say("title_of", lang)),
            self.speech: gr.Textbox(wishes.get("speech", ""), label=say("speech_of", lang)),
            self.count: gr.Slider(value=made.wanted, label=say("comment_count", lang)),
        }

    def _clip(self, desk: Desk) -> Updates:
        """The player and the list of videos, with the chosen clip; a sentence where its file is gone."""
        playable, problem = None, ""
        if desk.clips:
            try:
                self.studio.comments.file(desk.clips[0].video)
                playable = self.studio.library.player_file(desk.clips[0].video)
            except USER_ERRORS as error:
                problem = problem_html(translate(str(error), desk.lang))
        return {
            self.video: gr.Video(value=str(playable) if playable else None, label=say("video", desk.lang)),
            self.about: self._about(desk),
            self.problem: problem,
            self.kept: self._kept(desk),
        }

    def _about(self, desk: Desk) -> str:
        if not desk.clips:
            return _note(say("comment_no_clip", desk.lang))
        part = range_of(desk.clips[0], desk.lang)
        return _note(say("clip_range", desk.lang, range=part)) if part else ""

    def _kept(self, desk: Desk) -> gr.Dropdown:
        choices = kept(self.studio.store.comments.videos())
        here = desk.clips[0].video if desk.clips else None
        known = here if any(sha == here for _, sha in choices) else None
        return gr.Dropdown(choices, value=known, label=say("kept_videos", desk.lang))

    def _words(self, lang: Language) -> Updates:
        return {
            self.tab: gr.Tab(label=say("comment", lang)),
            self.intro: say("comment_intro", lang),
            self.note: self.pane.demo(lang),
            self.context: gr.Accordion(label=say("context", lang)),
            self.from_ask: say("from_ask", lang),
            self.tone: gr.Dropdown(_tones(lang), label=say("tone", lang)),
            self.length: gr.Radio(_lengths(lang), label=say("length", lang)),
            self.tongue: gr.Radio(label=say("comment_tongue", lang)),
            self.title: gr.Textbox(label=say("title_of", lang)),
            self.speech: gr.Textbox(label=say("speech_of", lang)),
            self.count: gr.Slider(label=say("comment_count", lang)),
        }


def _tones(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"tone_{tone}", lang), tone) for tone in get_args(Tone)]


def _lengths(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"length_{length}", lang), length) for length in get_args(Length)]


def _tongues() -> list[tuple[str, str]]:
    return [(say("tongue", one), one) for one in LANGUAGES]


def _tongue(value: str, lang: Language) -> gr.Radio:
    return gr.Radio(value=language(value), label=say("comment_tongue", lang))


def _note(sentence: str) -> str:
    return f'<p class="ks-note">{escape(sentence)}</p>'
