"""A clip and its sampling written as one URL, so that both travel wherever a video's address does.

    file:///videos/a.mp4#t=2.0,9.5&fps=1.0&max_frames=16&budget=512

The time range is the W3C's media fragment `t` in seconds; beside it stand `zero`, where the model's times count from,
and any field of `Sampling`. A fragment never
leaves the client of an HTTP server, so the same form serves for http and data URLs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from engine.errors import EngineError
from engine.video.types import Clip, Sampling

_LIMITS = ("fps", "max_frames", "budget")
_FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Sampling)}


def clip_url(clip: Clip, sampling: Sampling, source: str | None = None) -> str:
    """The URL of `clip` sampled as `sampling` says; `source` is the URL of its file if that is not its path.

    `read_clip_url` gives the same range and an equal Sampling back, whatever the reader's defaults are."""
    where = source if source is not None else "file://" + quote(str(Path(clip.path).absolute()))
    pieces = []
    if clip.start is not None or clip.end is not None:
        # repr: the shortest text that reads back as the same number, so that both sides pick the same frames.
        pieces.append(f"t={'' if clip.start is None else repr(float(clip.start))}")
        pieces[-1] += "" if clip.end is None else f",{float(clip.end)!r}"
    if clip.zero is not None:
        pieces.append(f"zero={float(clip.zero)!r}")
    for name in _FIELDS:
        value = getattr(sampling, name)
        pieces.append(f"{name}={quote(str(value).lower() if isinstance(value, bool) else str(value), safe='')}")
    return where + "#" + "&".join(pieces)


def read_clip_url(url: str, sampling: Sampling, **limits: float | None) -> tuple[str, Clip, Sampling]:
    """The address without its fragment, the clip, and `sampling` changed by the fragment.

    `limits` are fps, max_frames and budget given beside the URL; the fragment wins. A plain path may hold a `#` of its
    own: only fields known here make it a fragment. The clip's path is what stands in the URL; see `local_path`.
    Raises EngineError for a field that is unknown or makes no sense."""
    where, mark, fragment = url.rpartition("#")
    given: dict[str, str] = {}
    if mark:
        for piece in fragment.split("&"):
            name, _, value = piece.partition("=")
            given[name] = unquote(value)
        unknown = [name for name in given if name not in ("t", "zero", *_FIELDS)]
        if unknown and "://" not in where and not where.startswith("data:"):
            where, given = url, {}
        elif unknown:
            known = ", ".join(("t", "zero", *_FIELDS))
            raise EngineError(f"The video's address has an unknown field {unknown[0]!r:.60}; known: {known}.")
    else:
        where = url
    start, end = _range(given.pop("t", None))
    zero = given.pop("zero", None)
    fields = {name: _value(name, text) for name, text in given.items()}
    asked = {name: fields.pop(name, limits.get(name)) for name in _LIMITS}
    changed = dataclasses.replace(sampling.with_limits(**asked), **fields)
    clip = Clip(Path(local_path(where) or where[:200]), start, end, None if zero is None else _number("zero", zero))
    return where, clip, changed


def local_path(where: str) -> str | None:
    """The path that `where` names on this machine: a file URL or an absolute path. None for any other address."""
    if where.startswith("file://"):
        return unquote(where.removeprefix("file://").removeprefix("localhost"))
    return where if where.startswith("/") else None


def _range(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    start, comma, end = text.removeprefix("npt:").partition(",")
    return (_number("t", start) if start or not comma else None), (_number("t", end) if end else None)


def _value(name: str, text: str) -> Any:
    kind = _FIELDS[name]
    if kind == "bool":
        return {"true": True, "false": False}.get(text, text)  # Sampling refuses anything else
    if kind == "int":
        number = _number(name, text)
        return int(number) if number == int(number) else number
    return _number(name, text) if kind == "float" else text


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise EngineError(f"{name}={text:.40} in the video's address is not a number.")
    return number
