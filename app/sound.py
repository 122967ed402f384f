"""The sound of the clip in the Ask tab: the waveform under the player, and what is said: as subtitles, as a list that
can be searched, and as something the model is given or not. What is done is in `app.hearing`; what is shown is made by
the functions at the end, from plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import gradio as gr

from app.hearing import Listening
from app.i18n import Language, say, translate
from app.session import Session
from app.studio import USER_ERRORS, ClipChoice, Studio
from app.views import clock, problem_html
from app.wiring import QUIET, Updates, asset
from engine.sound import Sound, with_transcript, write_vtt
from engine.sound.measure import KINDS
from engine.timed import Timed
from finetune.feedback.transcripts import Transcript

_MOST_LINES = 4000  # of a list; what a longer one holds is in the subtitles all the same
_HALF = 50  # of the height of the drawing, in its own units


class SoundPane:
    """Call `build_wave` under the player, `build_said` where the transcript belongs, and `wire` inside the page. It
    follows the session by itself."""

    def __init__(self, studio: Studio, session: gr.State) -> None:
        self.studio = studio
        self.session = session

    def build_wave(self, lang: Language) -> None:
        script = asset("sound.js")
        self.wave = gr.HTML("", js_on_load=script, elem_id="ks-sound")

    def build_said(self, lang: Language) -> None:
        self.shown_of = gr.State(None)  # what the components show, so that nothing is drawn twice
        self.ticker = gr.Timer(1.0, active=False)
        with gr.Accordion(say("said", lang), open=False, visible=False, elem_id="ks-said") as self.said:
            self.give = gr.Checkbox(label=say("said_give", lang), container=False, visible=False, elem_id="ks-give")
            self.lines = gr.HTML("", elem_id="ks-lines")
            with gr.Row():
                self.write = gr.Button(say("said_write", lang), size="sm", visible=False, elem_id="ks-write")
                self.halt = gr.Button(say("stop", lang), size="sm", variant="stop", visible=False, elem_id="ks-halt")
                self.subtitles = gr.UploadButton(
                    say("said_upload", lang), size="sm", file_types=[".srt", ".vtt"], elem_id="ks-subtitles"
                )

    def wire(self, resample: Callable[[Session], Updates], strip: Sequence[Any]) -> None:
        """`resample` gives the updates of `strip` for a session whose frames changed."""
        shown = [self.wave, self.said, self.give, self.lines, self.write, self.halt, self.subtitles, self.ticker]
        own = [*shown, self.shown_of]
        self._resample = resample
        changed = [self.session, *strip, *own]
        self.session.change(
            self.follow, [self.session, self.shown_of], own, trigger_mode="always_last", concurrency_limit=4, **QUIET
        )
        self.give.input(self.take_give, [self.session, self.give], [self.session, *strip], **QUIET)
        self.subtitles.upload(self.take_subtitles, [self.session, self.subtitles], changed, **QUIET)
        self.write.click(self.take_write, [self.session], own, **QUIET)
        self.halt.click(self.take_halt, [self.session], None, **QUIET)
        self.ticker.tick(self.tick, [self.session, self.shown_of], changed, concurrency_limit=None, **QUIET)

    # -- events -------------------------------------------------------------------------------------------------

    def follow(self, session: Session, shown_of: Any) -> Iterator[Updates]:
        """The session changed: where that concerns the sound, everything anew; first what is there at once."""
        key = self._key(session)
        if key == shown_of:
            yield {self.shown_of: gr.skip()}
            return
        if session.clip is None:
            yield {**self._shown(session, None), self.shown_of: key}
            return
        yield {self.wave: f'<p class="ks-note">{escape(say("sound_measuring", session.lang))} …</p>'}
        yield {**self._with_sound(session), self.shown_of: key}

    def take_give(self, session: Session, on: bool) -> Updates:
        """The model is to be given what is said, or not any more: the frames it gets change with it."""
        session = replace(session, limits=replace(session.limits, speech=bool(on)))
        return self._resample(session)

    def take_subtitles(self, session: Session, file: str | None) -> Updates:
        if session.clip is None or file is None:
            return {self.lines: problem_html(say("no_video", session.lang))}
        try:
            self.studio.hearing.give(session.clip.sha256, Path(file))
        except USER_ERRORS as error:
            return {self.lines: problem_html(translate(str(error), session.lang)) + self._list(session)}
        return self._anew(session)

    def take_write(self, session: Session) -> Updates:
        """Begin to write down what is said; what was written before is there at once."""
        if session.clip is None:
            return {self.lines: problem_html(say("no_video", session.lang))}
        try:
            self.studio.hearing.begin(session.clip.sha256)
        except USER_ERRORS as error:
            return {self.lines: problem_html(translate(str(error), session.lang)) + self._list(session)}
        return {**self._with_sound(session), self.shown_of: self._key(session)}

    def take_halt(self, session: Session) -> None:
        if session.clip is not None:
            self.studio.hearing.stop(session.clip.sha256)

    def tick(self, session: Session, shown_of: Any) -> Updates:
        """Once a second while something is written down."""
        clip = session.clip
        if clip is None:
            return {self.ticker: gr.Timer(active=False)}
        state = self.studio.hearing.state(clip.sha256)
        if state.running:
            return {self.lines: _progress(state, session.lang) + self._list(session)}
        return self._anew(session)

    # -- what is shown ------------------------------------------------------------------------------------------

    def _anew(self, session: Session) -> Updates:
        """After what is said has changed; the frames too, where the model is given it."""
        updates = {**self._with_sound(session), self.shown_of: self._key(session)}
        return {**updates, **self._resample(session)} if session.limits.speech else {self.session: session, **updates}

    def _key(self, session: Session) -> Any:
        """What the pane shows depends on this."""
        if session.clip is None:
            return (session.lang, None)
        found = self.studio.hearing.transcript(session.clip.sha256)
        made = found.created if found else None
        clip = session.clip
        return (session.lang, clip.sha256, clip.start, clip.end, session.limits.speech, made)

    def _with_sound(self, session: Session) -> Updates:
        assert session.clip is not None
        try:
            sound = self.studio.hearing.sound(session.clip.sha256)
        except USER_ERRORS as error:
            told = f'<p class="ks-note">{escape(translate(str(error), session.lang))}</p>'
            return {**self._shown(session, None), self.wave: told}
        return self._shown(session, sound)

    def _shown(self, session: Session, sound: Sound | None) -> Updates:
        lang, clip, hearing = session.lang, session.clip, self.studio.hearing
        found = hearing.transcript(clip.sha256) if clip else None
        state = hearing.state(clip.sha256) if clip else Listening()
        speech = hearing.speech
        written = speech is not None and found is not None and found.source == "speech" and found.by == speech.name
        can_write = speech is not None and clip is not None and sound is not None and sound.channels > 0
        lines = _progress(state, lang) + self._list(session)
        if state.error:
            lines = problem_html(translate(state.error, lang)) + lines
        return {
            self.wave: wave_html(sound, found, clip, lang) if sound is not None and clip else "",
            self.said: gr.Accordion(label=_title(found, lang), visible=clip is not None),
            self.give: gr.Checkbox(
                value=session.limits.speech, label=say("said_give", lang), visible=bool(found and found.cues)
            ),
            self.lines: lines,
            self.write: gr.Button(say("said_write", lang), visible=can_write and not written and not state.running),
            self.halt: gr.Button(say("stop", lang), visible=state.running),
            self.subtitles: gr.UploadButton(say("said_upload", lang)),
            self.ticker: gr.Timer(active=state.running),
        }

    def _list(self, session: Session) -> str:
        found = self.studio.hearing.transcript(session.clip.sha256) if session.clip else None
        return lines_html(found, self.studio.hearing.speech is not None, session.lang)


def _title(found: Transcript | None, lang: Language) -> str:
    return say("said", lang) if found is None else say("said_by", lang, n=f"{len(found.cues):,}", by=found.by)


def _progress(state: Listening, lang: Language) -> str:
    if not state.running:
        return ""
    share = 100 * state.share
    return (
        f'<div class="ks-cost"><span>{escape(say("said_writing", lang))} …</span><span>{share:.0f} %</span></div>'
        f'<div class="ks-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}">'
        f'<i style="width:{share:.1f}%"></i></div>'
    )


def wave_html(sound: Sound, found: Transcript | None, clip: ClipChoice, lang: Language) -> str:
    """The waveform as a picture to click in, coloured by what is heard, with the chosen range; where there is no sound,
    that. The subtitles ride along, for the player."""
    cues = found.cues if found else ()
    subtitles = ""
    if cues:
        code = escape(found.language if found and found.language else lang, quote=True)
        label = escape(say("subtitles", lang), quote=True)
        subtitles = (
            f'<pre class="ks-vtt" hidden data-lang="{code}" data-label="{label}">{escape(write_vtt(cues))}</pre>'
        )
    note = f'<p class="ks-note">{escape(translate(sound.note, lang))}</p>' if sound.note else ""
    if not sound.channels or not sound.low:
        return note + subtitles
    if cues:
        sound = with_transcript(sound, cues)
    start, end = clip.start or 0.0, sound.duration if clip.end is None else clip.end
    left, right = (100 * second / sound.duration for second in (start, min(end, sound.duration)))
    legend = _legend(sound, bool(cues), lang)
    button = (
        f'<button type="button" class="ks-cc" aria-pressed="true">{escape(say("subtitles", lang))}</button>'
        if cues
        else ""
    )
    return (
        f'<div class="ks-wave" role="slider" tabindex="0" data-duration="{sound.duration:.3f}" '
        f'aria-label="{escape(say("sound_label", lang), quote=True)}" aria-valuemin="0" '
        f'aria-valuemax="{sound.duration:.1f}" aria-valuenow="0" aria-valuetext="0:00" '
        f'aria-describedby="ks-wave-legend" style="--from:{left:.3f}%;--to:{right:.3f}%">'
        f'<svg viewBox="0 0 {len(sound.low)} {2 * _HALF}" preserveAspectRatio="none" aria-hidden="true">'
        f'{_paths(sound)}</svg><i class="ks-before"></i><i class="ks-after"></i><i class="ks-head"></i></div>'
        f'<div class="ks-legend" id="ks-wave-legend">{legend}{button}</div>{note}{subtitles}'
    )


def _paths(sound: Sound) -> str:
    """One path for each kind: a line from the lowest to the highest sample of every column, at least a hair."""
    columns = len(sound.low)
    covered = min(sound.spans[-1].end, sound.duration) if sound.spans else sound.duration
    width = covered / columns  # seconds; a track may end before the pictures do
    scale = covered / sound.duration
    lines: dict[str, list[str]] = {kind: [] for kind in KINDS}
    at = 0
    for i in range(columns):
        second = (i + 0.5) * width
        while at < len(sound.spans) - 1 and sound.spans[at].end <= second:
            at += 1
        kind = sound.spans[at].kind if sound.spans else "sound"
        top, bottom = _HALF * (1 - sound.high[i] / 100), _HALF * (1 - sound.low[i] / 100)
        middle = (top + bottom) / 2
        top, bottom = min(top, middle - 0.8), max(bottom, middle + 0.8)
        lines[kind].append(f"M{(i + 0.5) * scale:.1f} {top:.1f}V{bottom:.1f}")
    return "".join(f'<path class="ks-w-{kind}" d="{"".join(drawn)}"/>' for kind, drawn in lines.items() if drawn)


def _legend(sound: Sound, known: bool, lang: Language) -> str:
    """How much of the clip is of each kind, and how loud it is. `known`: what is said is; otherwise speech is only what
    sounds like it."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for kind, spans in groupby(sorted(sound.spans, key=lambda span: span.kind), lambda span: span.kind):
        seconds[kind] = sum(span.end - span.start for span in spans)
    total = sum(seconds.values()) or 1.0
    words = {kind: say(f"sound_{kind}", lang) for kind in KINDS}
    if not known:
        words["speech"] = say("sound_like_speech", lang)
    items = [
        f'<span class="ks-key ks-k-{kind}">{escape(words[kind])} {100 * length / total:.0f} %</span>'
        for kind, length in seconds.items()
        if length
    ]
    level = say("sound_level", lang, loudness=_decibels(sound.loudness), peak=_decibels(sound.peak))
    return "".join(items) + f'<span class="ks-level">{escape(level)}</span>'


def _decibels(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def lines_html(found: Transcript | None, can_write: bool, lang: Language) -> str:
    """What is said, line by line: a click seeks, and a word typed above leaves only the lines that hold it."""
    if found is None:
        hint = "said_none" if can_write else "said_none_no_model"
        return f'<p class="ks-note">{escape(say(hint, lang))}</p>'
    if not found.cues:
        return f'<p class="ks-note">{escape(say("said_nothing", lang))}</p>'
    search = escape(say("said_search", lang), quote=True)
    lines = "".join(_line(cue) for cue in found.cues[:_MOST_LINES])
    return (
        f'<div class="ks-transcript"><input type="search" class="ks-search" placeholder="{search}" '
        f'aria-label="{search}"><span class="ks-hits" role="status"></span><ol>{lines}</ol></div>'
    )


def _line(cue: Timed) -> str:
    return (
        f'<li><button type="button" data-seek="{cue.start:.2f}" data-until="{cue.end:.2f}">'
        f"<time>{clock(cue.start)}</time><span>{escape(cue.text)}</span></button></li>"
    )
