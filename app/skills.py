"""The Skills tab: ready-made questions about one or several clips. Its components and which function answers which
event; the questions are in `finetune.writing.skills`, what it shares with the Comment tab is in `app.rounds`."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from app.ask import AskTab
from app.drafts import answer_html, clips_html
from app.i18n import LANGUAGES, Language, language, say, translate
from app.rounds import Desk, RoundPane, bare, kept, range_of
from app.session import Session
from app.studio import USER_ERRORS, Studio
from app.views import problem_html, thumbnail
from app.wiring import PRIVATE, QUIET, Updates
from engine.reasoning.modes import MODES
from engine.video import PRESETS, Clip, sample
from finetune.bench.modes import SWITCHES
from finetune.feedback.comments import Round, RoundClip
from finetune.writing.skills import SKILLS, Given, skill_of

_FIRST = "likes"


class SkillsTab:
    """Builds the tab inside the open tabs of `page` and wires it. Its language is the page's; `remembered` is
    its `app.rounds.memory`."""

    def __init__(self, page: gr.Blocks, studio: Studio, ask: AskTab, remembered: gr.BrowserState) -> None:
        self.studio = studio
        with gr.Tab(say("skill", "en"), id="skills") as self.tab:
            self.pane = RoundPane(studio, "skill", tuple(SKILLS), answer_html, remembered)
            self._build("en")
        self._wire(page, ask)

    def _build(self, lang: Language) -> None:
        self.intro = gr.Markdown(say("skill_intro", lang), elem_id="kd-skill-intro")
        self.note = bare("kd-skill-demo")
        self.which = gr.Radio(_skills(lang), value=_FIRST, label=say("skill_which", lang), elem_id="kd-which")
        with gr.Row(elem_classes="kd-main"):
            with gr.Column(scale=5, min_width=300):
                self.clips = bare("kd-clips")
                self.problem = bare("kd-skill-problem")
                self.kept = gr.Dropdown([], multiselect=True, label=say("skill_clips", lang), elem_id="kd-skill-kept")
                self.upload = gr.UploadButton(
                    say("skill_upload", lang), file_types=["video"], file_count="multiple", elem_id="kd-skill-upload"
                )
            with gr.Column(scale=6, min_width=300):
                self.dimensions = _dimensions(_FIRST, lang)
                with gr.Accordion(say("context", lang), open=False, elem_id="kd-skill-context") as self.context:
                    self.title = gr.Textbox(label=say("title_of", lang), max_lines=1, elem_id="kd-skill-title")
                    self.speech = gr.Textbox(
                        label=say("speech_of", lang), lines=2, max_lines=6, elem_id="kd-skill-speech"
                    )
                with gr.Row():
                    self.mode = gr.Radio(_modes(lang), value="auto", label=say("mode", lang), elem_id="kd-mode")
                    self.tongue = gr.Radio(
                        [(say("tongue", one), one) for one in LANGUAGES],
                        value="en",
                        label=say("skill_tongue", lang),
                        elem_id="kd-skill-tongue",
                    )
                self.pane.build_buttons(lang)
                self.pane.build(lang)
        self.given = [self.title, self.speech, self.dimensions]

    def _wire(self, page: gr.Blocks, ask: AskTab) -> None:
        pane = self.pane
        pane.wire()
        clip = [self.clips, self.problem, self.kept]
        everything = [*pane.shows, *clip, self.which, self.mode, self.tongue, *self.given]
        words = [*everything, self.tab, self.intro, self.note, self.context, self.upload]
        page.load(self.open_page, [pane.desk, ask.remembered, pane.remembered], words, **QUIET)
        ask.language.input(self.set_language, [pane.desk, ask.language, self.which], words, **QUIET)
        self.tab.select(self.enter, [pane.desk, ask.session], [pane.desk, self.note, *clip], **QUIET)
        self.which.input(self.choose_skill, [pane.desk, self.which], [self.dimensions, pane.progress], **QUIET)
        self.kept.input(self.take_kept, [pane.desk, self.kept, ask.session], [pane.desk, *clip], **QUIET)
        self.upload.upload(self.take_uploads, [pane.desk, self.upload], [pane.desk, *clip], **PRIVATE)
        pane.start.click(self.ask, [pane.desk, self.which, self.mode, self.tongue, *self.given], pane.shows, **QUIET)
        pane.earlier.input(self.reopen, [pane.desk, pane.earlier], everything, **QUIET)
        pane.drop.click(self.delete, [pane.desk], everything, **QUIET)

    # -- opening ------------------------------------------------------------------------------------------------

    def open_page(self, desk: Desk, page: Any, own: Any) -> Updates:
        lang = language(page.get("lang") if isinstance(page, dict) else None)
        round = own.get("round") if isinstance(own, dict) else None
        desk = replace(desk, lang=lang, round=round if isinstance(round, str) else None)
        tongue = gr.Radio(value=lang, label=say("skill_tongue", lang))
        return {**self._words(lang, _FIRST), self.tongue: tongue, **self._open(desk)}

    def set_language(self, desk: Desk, wanted: Any, which: str) -> Updates:
        desk = replace(desk, lang=language(wanted))
        return {**self._words(desk.lang, which), **self.pane.shown(desk), **self._clips(desk)}

    def enter(self, desk: Desk, asked: Session) -> Updates:
        """The tab is looked at: the clip of the Ask tab, where none was chosen here."""
        if not desk.clips and asked.clip is not None:
            desk = replace(desk, clips=(RoundClip(asked.clip.sha256, asked.clip.start, asked.clip.end),))
        return {self.pane.desk: desk, self.note: self.pane.demo(desk.lang), **self._clips(desk)}

    def reopen(self, desk: Desk, round: Any) -> Updates:
        return self._open(replace(desk, round=str(round) if round else None))

    def delete(self, desk: Desk) -> Updates:
        try:
            return self._open(self.pane.delete(desk))
        except USER_ERRORS as error:
            return self.pane.told(translate(str(error), desk.lang))

    # -- what is asked ------------------------------------------------------------------------------------------

    def choose_skill(self, desk: Desk, which: str) -> Updates:
        return {self.dimensions: _dimensions(which, desk.lang), self.pane.progress: ""}

    def take_kept(self, desk: Desk, chosen: Any, asked: Session) -> Updates:
        """The videos in the order in which they were chosen; one that is open in the Ask tab comes with its range."""
        known = {clip.video: clip for clip in desk.clips}
        if asked.clip is not None:
            known.setdefault(asked.clip.sha256, RoundClip(asked.clip.sha256, asked.clip.start, asked.clip.end))
        clips = tuple(known.get(str(sha), RoundClip(str(sha))) for sha in chosen or ())
        desk = replace(desk, clips=clips)
        return {self.pane.desk: desk, **self._clips(desk)}

    def take_uploads(self, desk: Desk, paths: list[str] | None) -> Updates:
        problem = ""
        for path in paths or []:
            try:
                sha, _ = self.studio.add_video(Path(path), Path(path).name)
            except USER_ERRORS as error:
                problem = problem_html(translate(str(error), desk.lang))
                continue
            if all(clip.video != sha for clip in desk.clips):
                desk = replace(desk, clips=(*desk.clips, RoundClip(sha)))
        updates = {self.pane.desk: desk, **self._clips(desk)}
        return {**updates, self.problem: problem} if problem else updates

    def ask(self, desk: Desk, which: str, mode: str, tongue: str, title: str, speech: str, dimensions: str) -> Updates:
        """Begin; where that is refused, the sentence that says why, and everything stays as it is."""
        if not desk.clips:
            return self.pane.told(say("skill_no_clip", desk.lang))
        try:
            given = Given(title or "", speech or "", dimensions or "")
            made = self.studio.comments.ask(which, desk.clips, given, language(tongue), mode)
        except USER_ERRORS as error:
            return self.pane.told(translate(str(error), desk.lang))
        return self.pane.shown(replace(desk, round=made.id))

    # -- what is shown ------------------------------------------------------------------------------------------

    def _open(self, desk: Desk) -> Updates:
        """A round with its clips and what was given; or none."""
        made = self.pane.round_of(desk)
        if made is None or made.skill not in SKILLS:
            desk = replace(desk, round=None)
            return {**self.pane.shown(desk), **self._clips(desk)}
        desk = replace(desk, clips=made.clips)
        return {**self._asked(made, desk.lang), **self.pane.shown(desk), **self._clips(desk)}

    def _asked(self, made: Round, lang: Language) -> Updates:
        given = made.wishes
        dimensions = _dimensions(made.skill, lang, str(given.get("dimensions", "")))
        return {
            self.which: gr.Radio(_skills(lang), value=made.skill, label=say("skill_which", lang)),
            self.mode: gr.Radio(_modes(lang), value=made.mode, label=say("mode", lang)),
            self.tongue: gr.Radio(value=made.language, label=say("skill_tongue", lang)),
            self.title: gr.Textbox(given.get("title", ""), label=say("title_of", lang)),
            self.speech: gr.Textbox(given.get("speech", ""), label=say("speech_of", lang)),
            self.dimensions: dimensions,
        }

    def _clips(self, desk: Desk) -> Updates:
        """The chosen clips with their numbers; a sentence where a file is gone."""
        names = {video.sha256: video.name for video in self.studio.store.comments.videos()}
        cells, problem = [], ""
        for clip in desk.clips:
            try:
                picture = _picture(self.studio.comments.file(clip.video))
            except USER_ERRORS as error:
                problem, picture = problem_html(translate(str(error), desk.lang)), ""
            part = range_of(clip, desk.lang)
            cells.append((f"{names.get(clip.video, clip.video[:8])} {part}".strip(), picture))
        choices = kept(self.studio.store.comments.videos())
        known = {sha for _, sha in choices}
        value = [clip.video for clip in desk.clips if clip.video in known]
        return {
            self.clips: clips_html(cells, desk.lang),
            self.problem: problem,
            self.kept: gr.Dropdown(choices, value=value, label=say("skill_clips", desk.lang)),
        }

    def _words(self, lang: Language, which: str) -> Updates:
        return {
            self.tab: gr.Tab(label=say("skill", lang)),
            self.intro: say("skill_intro", lang),
            self.note: self.pane.demo(lang),
            self.which: gr.Radio(_skills(lang), label=say("skill_which", lang)),
            self.context: gr.Accordion(label=say("context", lang)),
            self.upload: gr.UploadButton(label=say("skill_upload", lang)),
            self.mode: gr.Radio(_modes(lang), label=say("mode", lang)),
            self.tongue: gr.Radio(label=say("skill_tongue", lang)),
            self.title: gr.Textbox(label=say("title_of", lang)),
            self.speech: gr.Textbox(label=say("speech_of", lang)),
            self.dimensions: _dimensions(which, lang),
        }


def _skills(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"skill_{name}", lang), name) for name in SKILLS]


def _modes(lang: Language) -> list[tuple[str, str]]:
    return [(say(f"mode_{mode}", lang), mode) for mode in MODES if mode in SWITCHES]


def _dimensions(which: str, lang: Language, value: str | None = None) -> gr.Textbox:
    """Where the attributes are typed, of the question that wants them."""
    given: dict[str, Any] = {} if value is None else {"value": value}
    return gr.Textbox(
        label=say("skill_dimensions", lang),
        placeholder=say("skill_dimensions_hint", lang),
        lines=3,
        max_lines=8,
        visible=skill_of(which).wants_dimensions,
        elem_id="kd-dimensions",
        **given,
    )


@lru_cache(maxsize=64)
def _picture(file: Path) -> str:
    """A frame from the middle of a video as a small data URL."""
    frames = sample(Clip(file), PRESETS["keye-vl-preview"].with_limits(max_frames=4))
    return thumbnail(frames.images[len(frames.images) // 2])
