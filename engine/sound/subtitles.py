"""Subtitle files to cues and back: what others wrote is read with pysubs2 and not trusted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import pysubs2

from engine.errors import EngineError
from engine.timed import Timed, in_order

SUFFIXES = (".srt", ".vtt")
LARGEST = 16 << 20
"""Bytes of a file that is read."""

MOST_CUES = 20_000


def read_subtitles(text: str, form: str) -> tuple[Timed, ...]:
    """The cues of an srt or vtt text in the order of their starts, without markup; () where there are none."""
    try:
        events = pysubs2.SSAFile.from_string(text, format_=form)
    except Exception:  # the library raises a dozen kinds for texts that are no subtitles
        return ()
    return in_order(
        Timed(event.start / 1000, event.end / 1000, " ".join(event.plaintext.split()))
        for event in events
        if not event.is_comment and 0 <= event.start <= event.end
    )


def load_subtitles(path: str | Path) -> tuple[Timed, ...]:
    """The cues of an .srt or .vtt file. Raises EngineError, saying what is wrong with it."""
    file = Path(path)
    form = file.suffix.lower()
    if form not in SUFFIXES:
        raise EngineError(f"{file.name} is no subtitle file; give an .srt or .vtt file.")
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise EngineError(f"{file.name} cannot be read ({error.strerror}); give an .srt or .vtt file.") from None
    if len(raw) > LARGEST:
        raise EngineError(f"{file.name} is too large for subtitles; give an .srt or .vtt file of at most 16 MiB.")
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise EngineError(f"{file.name} is not written in UTF-8; save it as UTF-8 and give it again.") from None
    cues = read_subtitles(text.replace("\r\n", "\n").replace("\r", "\n"), form.removeprefix("."))
    if not cues:
        raise EngineError(f"{file.name} holds no line with a time and a text; give an .srt or .vtt file.")
    if len(cues) > MOST_CUES:
        raise EngineError(f"{file.name} has more than {MOST_CUES:,} lines; cut the video and its subtitles.")
    return cues


def write_vtt(cues: Sequence[Timed]) -> str:
    """Cues as a WebVTT file, one line of text each. What would be markup in a cue is shown as it is written."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        text = escape(" ".join(cue.text.split()), quote=False)
        blocks.append(f"{_stamp(cue.start)} --> {_stamp(max(cue.end, cue.start + 0.001))}\n{text}\n")
    return "\n".join(blocks)


def _stamp(seconds: float) -> str:
    minutes, thousandths = divmod(round(seconds * 1000), 60_000)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{thousandths // 1000:02}.{thousandths % 1000:03}"
