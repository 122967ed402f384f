"""What the Comment and Skills tabs have in common: a round that runs and is watched, its drafts and what is chosen of
them, and the rounds before it. What is done is in `app.commenting`, what is shown in `app.drafts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import gradio as gr

from app.commenting import Now
from app.drafts import demo_html, progress_html
from app.i18n import Language, say, translate
from app.studio import USER_ERRORS, Studio
from app.views import clock, problem_html
from app.wiring import QUIET, Updates, asset
from engine.runtime.base import ModelInfo
from finetune.feedback.comments import COMMENT, Choice, Round, RoundClip
from finetune.feedback.rows import Video

Drawn = Callable[[Round | None, Now | None, Language], str]

_CHOICES: dict[str, Choice] = {choice: choice for choice in get_args(Choice)}  # what a browser may say


@dataclass(frozen=True)
class Desk:
    """What one of the two tabs of one browser tab is looking at; everything that must last is in the store."""

    lang: Language = "en"
    clips: tuple[RoundClip, ...] = ()
    round: str | None = None


class RoundPane:
    """Call `build_buttons` and `build` where they belong, and `wire` inside the page. `skills` are the rounds it lists;
    `name` goes before the ids of its elements."""

    def __init__(
        self, studio: Studio, name: str, skills: Sequence[str], drawn: Drawn, remembered: gr.BrowserState
    ) -> None:
        self.studio, self.name, self.skills, self.drawn = studio, name, tuple(skills), drawn
        self.desk = gr.State(Desk())
        self.remembered = remembered
        self.start: gr.Button
        self.stop: gr.Button

    # -- components ---------------------------------------------------------------------------------------------

    def build_buttons(self, lang: Language) -> None:
        self.ticker = gr.Timer(0.4, active=False)
        with gr.Row():
            self.start = gr.Button(say(f"{self.name}_start", lang), variant="primary", elem_id=f"kd-{self.name}-start")
            self.stop = gr.Button(say("stop", lang), variant="stop", visible=False, elem_id=f"kd-{self.name}-stop")

    def build(self, lang: Language) -> None:
        self.progress = bare(f"kd-{self.name}-progress")
        script = asset("drafts.js")
        self.drafts = bare(f"kd-{self.name}-drafts", self.drawn(None, None, lang), js_on_load=script)
        with gr.Row(elem_classes="kd-earlier"):
            self.earlier = gr.Dropdown([], label=say("earlier", lang), elem_id=f"kd-{self.name}-earlier", scale=3)
            self.drop = gr.Button(say("delete", lang), size="sm", elem_id=f"kd-{self.name}-delete", min_width=80)
        self.follows = [self.progress, self.drafts, self.start, self.stop, self.ticker]
        self.shows = [self.desk, self.remembered, *self.follows, self.earlier, self.drop]

    def wire(self) -> None:
        self.ticker.tick(self.follow, [self.desk], [*self.follows, self.earlier], concurrency_limit=None, **QUIET)
        self.stop.click(self.halt, [self.desk], self.follows, concurrency_limit=None, **QUIET)
        self.drafts.select(self.choose, [self.desk], [self.progress, self.drafts], concurrency_limit=None, **QUIET)

    # -- events -------------------------------------------------------------------------------------------------

    def follow(self, desk: Desk) -> Updates:
        """Twice a second while a round runs."""
        updates = self.state(desk)
        now = self.studio.comments.now(desk.round)
        if now is None or not now.running:
            updates[self.earlier] = self.listed(desk)
        return updates

    def halt(self, desk: Desk) -> Updates:
        self.studio.comments.stop(desk.round)
        return self.state(desk)

    def choose(self, desk: Desk, event: gr.EventData) -> Updates:
        """Pick, rewrite or reject a draft; the same once more takes it back."""
        draft, said = str(event._data.get("draft")), _CHOICES.get(str(event._data.get("choice")))
        text = str(event._data.get("text") or "")
        comments = self.studio.store.comments
        try:
            made = comments.round(desk.round or "")
            known = next((one for one in made.drafts if one.id == draft), None)
            again = known is not None and said != "edited" and known.choice == said
            comments.choose(draft, None if again else said, text)
            made = comments.round(made.id)
        except USER_ERRORS as error:
            return {self.progress: problem_html(translate(str(error), desk.lang))}
        now = self.studio.comments.now(made.id)
        return {self.progress: progress_html(made, now, desk.lang), self.drafts: self.drawn(made, now, desk.lang)}

    def delete(self, desk: Desk) -> Desk:
        """The desk without its round, which is gone."""
        if desk.round is not None:
            self.studio.comments.delete(desk.round)
        return replace(desk, round=None)

    # -- what is shown ------------------------------------------------------------------------------------------

    def round_of(self, desk: Desk) -> Round | None:
        """The round that is looked at; None where there is none any more, or it cannot be read."""
        try:
            return self.studio.store.comments.round(desk.round) if desk.round is not None else None
        except USER_ERRORS:
            return None

    def state(self, desk: Desk) -> Updates:
        """How far the round is, and its drafts."""
        made, now = self.round_of(desk), self.studio.comments.now(desk.round)
        running = made is not None and now is not None and now.running
        return {
            self.progress: progress_html(made, now, desk.lang),
            self.drafts: self.drawn(made, now, desk.lang),
            self.start: gr.Button(say(f"{self.name}_start", desk.lang), visible=not running),
            self.stop: gr.Button(say("stop", desk.lang), visible=running),
            self.ticker: gr.Timer(active=running),
        }

    def shown(self, desk: Desk) -> Updates:
        """All of the pane."""
        return {
            self.desk: desk,
            self.remembered: {"round": desk.round},
            **self.state(desk),
            self.earlier: self.listed(desk),
            self.drop: gr.Button(say("delete", desk.lang), visible=desk.round is not None),
        }

    def listed(self, desk: Desk) -> gr.Dropdown:
        """The rounds before, the newest first."""
        comments = self.studio.store.comments
        rows = comments.rounds(self.skills, limit=50)
        names = {video.sha256: video.name for video in comments.videos()}
        choices = [(_title(made, names, desk.lang), made.id) for made in rows]
        here = desk.round if any(made.id == desk.round for made in rows) else None
        return gr.Dropdown(choices, value=here, label=say("earlier", desk.lang), visible=bool(choices))

    def told(self, sentence: str) -> Updates:
        return {self.progress: problem_html(sentence)}

    def info(self) -> ModelInfo | None:
        """What answers, once it is ready."""
        runtime = self.studio.runtime
        return runtime.info() if runtime.status().state == "ready" else None

    def demo(self, lang: Language) -> str:
        return demo_html(self.info(), f"{self.name}_demo", lang)


def _title(made: Round, names: dict[str, str], lang: Language) -> str:
    about = " + ".join(names.get(clip.video, clip.video[:8]) for clip in made.clips)
    what = "" if made.skill == COMMENT else f"{say(f'skill_{made.skill}', lang)} · "
    return f"{what}{about} · {made.created[:16].replace('T', ' ')}"


def memory(name: str) -> gr.BrowserState:
    """What the browser remembers of a pane. Made outside of the tabs, because what is in a tab is not there before the
    tab is looked at, and a page that was loaded asks for it at once."""
    return gr.BrowserState({"round": None}, storage_key=f"keye-studio-{name}")


def bare(name: str, html: str = "", **more: Any) -> gr.HTML:
    """A place for HTML of our own, which takes no room while it is empty."""
    return gr.HTML(html, elem_id=name, elem_classes="kd-bare", padding=False, apply_default_css=False, **more)


def kept(videos: Sequence[Video]) -> list[tuple[str, str]]:
    """The kept videos to choose from: (what is shown, content hash)."""
    return [(f"{video.name} · {video.created[:10]}", video.sha256) for video in videos]


def range_of(clip: RoundClip, lang: Language) -> str:
    """The part of a video that is looked at; empty for the whole."""
    if clip.start is None and clip.end is None:
        return ""
    start = clock(clip.start or 0.0, tenths=True)
    end = clock(clip.end, tenths=True) if clip.end is not None else say("range_end", lang)
    return f"{start}–{end}"
