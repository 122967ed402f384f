"""The clip's half of the Ask tab: the player, the demo clips, the time range, the frames that the model gets and the
limits of their sampling. It builds its components and answers their events; what is done is in `app.studio`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.demos import Demo
from app.i18n import Language, say, translate
from app.session import Session
from app.sound import SoundPane
from app.studio import USER_ERRORS, ClipChoice, Limits, Studio
from app.views import Suggestion, demos_html, problem_html, strip_html, suggestions_html
from app.wiring import PRIVATE, QUIET, Updates, asset
from engine.runtime.base import ModelInfo

PICK_JS = """
element.addEventListener('click', event => {
  const picked = event.target.closest('[data-demo], [data-question]');
  if (picked) trigger('select', {...picked.dataset});
});
"""


class ClipPane:
    """Call `build` inside the column it fills and `wire` inside the page. `session` is the tab's state, `chips` where
    the questions suggested with a demo clip are shown."""

    def __init__(self, studio: Studio, demos: list[Demo], session: gr.State) -> None:
        self.studio = studio
        self.demos = {demo.file.name: demo for demo in demos}
        self.session = session
        self.sound = SoundPane(studio, session)
        self.chips: gr.HTML

    # -- components ---------------------------------------------------------------------------------------------

    def build(self, lang: Language) -> None:
        self.video = gr.Video(label=say("video", lang), sources=["upload"], elem_id="ks-player", buttons=[])
        self.problem = gr.HTML(visible=False, elem_id="ks-problem")
        self.picks = gr.HTML(self._demo_cards(lang), js_on_load=PICK_JS, elem_id="ks-demo-clips")
        self.sound.build_wave(lang)
        self.span = gr.HTML(
            _span(None, 0.0, lang),
            html_template=asset("range.html"),
            js_on_load=asset("range.js"),
            elem_id="ks-range",
        )
        self.strip = gr.HTML(strip_html(None, (), lang), elem_id="ks-strip")
        self.sound.build_said(lang)
        with gr.Accordion(say("settings", lang), open=False, elem_id="ks-settings") as self.settings:
            self.fps = gr.Slider(0.1, 10, value=2, step=0.1, label=say("fps", lang))
            self.max_frames = gr.Slider(1, 768, value=16, step=1, label=say("max_frames", lang))
            self.budget = gr.Slider(4, 65536, value=512, step=1, label=say("budget", lang))
            self.max_tokens = gr.Slider(1, 4096, value=1024, step=1, label=say("max_tokens", lang))
            self.think_budget = gr.Slider(0, 4096, value=0, step=1, label=say("think_budget", lang))
        self.limits = [self.fps, self.max_frames, self.budget]

    def build_suggestions(self) -> None:
        """Above the question, in the other half."""
        self.chips = gr.HTML("", js_on_load=PICK_JS, elem_id="ks-suggestions")

    def wire(self) -> None:
        clip = [self.session, self.video, self.span, self.strip, self.problem, self.picks, self.chips]
        self.video.upload(self.take_upload, [self.session, self.video], clip, concurrency_limit=2, **PRIVATE).then(
            self.player_copy, [self.session], [self.video, self.problem], **QUIET
        )
        self.video.clear(self.drop_video, [self.session], clip, **QUIET)
        self.sound.wire(self.retake, [self.strip, self.problem])
        self.picks.select(self.take_demo, [self.session], clip, **PRIVATE)
        for release in (self.span.release, *(slider.release for slider in self.limits)):
            release(
                self.resample,
                [self.session, self.span, *self.limits],
                [self.session, self.strip, self.problem],
                concurrency_limit=4,
                trigger_mode="always_last",
                **QUIET,
            )

    # -- events -------------------------------------------------------------------------------------------------

    def take_upload(self, session: Session, path: str | None, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        if path is None:
            return {self.problem: gr.skip()}
        return self._take(session, Path(path), (), progress)

    def take_demo(self, session: Session, event: gr.EventData, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        demo = self.demos.get(str(event._data.get("demo")))
        if demo is None:
            return self.told(say("no_video", session.lang))
        return self._take(session, demo.file, demo.questions, progress)

    def _take(self, session: Session, file: Path, questions: tuple[Suggestion, ...], progress: gr.Progress) -> Updates:
        try:
            sha, info = self.studio.add_video(file, file.name)
            session = replace(session, clip=ClipChoice(sha), duration=info.duration, suggestions=questions)
            progress(0.0, desc=say("decoding", session.lang))
            updates = self.shown(session, lambda done, total: progress((done, total)))
        except USER_ERRORS as error:  # the file that was there before is no longer shown: say so by an empty player
            session = replace(session, clip=None, duration=0.0, suggestions=())
            return {**self.emptied(session), **self.told(translate(str(error), session.lang))}
        return updates

    def player_copy(self, session: Session) -> Iterator[Updates]:
        """Where the browser cannot play the file itself: make a copy that it can, and show that."""
        if session.clip is None or self.studio.library.player_file(session.clip.sha256) is not None:
            yield {self.problem: gr.skip()}
            return
        yield self.told(say("converting", session.lang))
        copy = self.studio.library.make_player_file(session.clip.sha256)
        if copy is None:
            yield self.told(say("no_preview", session.lang))
        else:
            yield {self.video: str(copy), self.problem: gr.HTML(visible=False)}

    def drop_video(self, session: Session) -> Updates:
        return self.emptied(replace(session, clip=None, duration=0.0, suggestions=()))

    def resample(self, session: Session, span: Any, fps: float, max_frames: float, budget: float) -> Updates:
        """The range or a limit was changed: the frames and their cost anew."""
        try:
            speech = session.limits.speech
            session = replace(session, limits=replace(self._chosen(fps, max_frames, budget), speech=speech))
        except USER_ERRORS as error:  # the model could not be loaded
            return self.told(translate(str(error), session.lang))
        if session.clip is None:
            return {self.session: session}
        start, end = float(span["start"]), float(span["end"])
        # The ends of the track mean the ends of the file, whatever the slider's rounding made of them.
        clip = replace(
            session.clip,
            start=start if start > 0.05 else None,
            end=end if end < session.duration - 0.05 else None,
        )
        return self.retake(replace(session, clip=clip))

    def retake(self, session: Session) -> Updates:
        """The frames and their cost for what the session has now."""
        if session.clip is None:
            return {self.session: session}
        try:
            frames = self.studio.frames(session.clip, session.limits)
        except USER_ERRORS as error:
            return {self.session: session, **self.told(translate(str(error), session.lang))}
        return {
            self.session: session,
            self.strip: strip_html(frames, frames.notes, session.lang),
            self.problem: gr.HTML(visible=False),
        }

    # -- what is shown ------------------------------------------------------------------------------------------
    # Each of these returns whole updates of the components it names, words and value together, so that they can be
    # merged in any order.

    def shown(self, session: Session, progress: Callable[[int, int], None] | None = None) -> Updates:
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
            self.chips: suggestions_html(session.suggestions, session.lang),
        }

    def emptied(self, session: Session) -> Updates:
        return {
            self.session: session,
            self.video: gr.Video(value=None, label=say("video", session.lang)),
            self.span: _span(None, 0.0, session.lang),
            self.strip: strip_html(None, (), session.lang),
            self.problem: gr.HTML(visible=False),
            self.picks: gr.HTML(self._demo_cards(session.lang), visible=True),
            self.chips: "",
        }

    def told(self, sentence: str) -> Updates:
        """A sentence on what went wrong, under the player."""
        return {self.problem: gr.HTML(problem_html(sentence), visible=True)}

    def sliders(self, info: ModelInfo | None, limits: Limits | None, lang: Language) -> Updates:
        """The limits of sampling: those of the model that is ready, where the user set none."""
        labels = {name: say(name, lang) for name in ("fps", "max_frames", "budget")}
        if info is None:
            return {
                self.fps: gr.Slider(label=labels["fps"]),
                self.max_frames: gr.Slider(label=labels["max_frames"]),
                self.budget: gr.Slider(label=labels["budget"]),
            }
        own = info.sampling
        now = limits.apply(own) if limits else own
        return {
            self.fps: gr.Slider(value=now.fps, label=labels["fps"]),
            self.max_frames: gr.Slider(value=now.max_frames, maximum=own.max_frames, label=labels["max_frames"]),
            self.budget: gr.Slider(value=now.budget, maximum=own.budget, label=labels["budget"]),
        }

    def words(self, lang: Language) -> Updates:
        """The sentences that do not change with what is shown."""
        return {
            self.settings: gr.Accordion(label=say("settings", lang)),
            self.max_tokens: gr.Slider(label=say("max_tokens", lang)),
            self.think_budget: gr.Slider(label=say("think_budget", lang)),
        }

    def _demo_cards(self, lang: Language) -> str:
        return demos_html([(d.file.name, d.title, d.picture) for d in self.demos.values()], lang)

    def _chosen(self, fps: float, max_frames: float, budget: float) -> Limits:
        """What differs from the model's own sampling: only that was set by the user."""
        own = self.studio.runtime.info().sampling
        return Limits(
            fps=None if fps == own.fps else fps,
            max_frames=None if max_frames == own.max_frames else int(max_frames),
            budget=None if budget == own.budget else int(budget),
        )


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
