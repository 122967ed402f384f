"""Messages to the text and the media that the model reads: the one place where a prompt is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.runtime.base import Message, Part
from engine.timed import MOST_STRETCHES, SHORTEST, Timed, said, sayable, stretches, whole
from engine.video.budget import plan
from engine.video.probe import probe
from engine.video.sampler import sample
from engine.video.types import Clip, Frames, Sampling, VideoInfo


def to_chat(messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[Frames | np.ndarray]]:
    """Split messages into what the chat template renders and the media in the order of their placeholders.

    Returns the messages as the published template takes them (content parts with a `type` of text, image or
    video) and the clips and pictures."""
    chat: list[dict[str, Any]] = []
    media: list[Frames | np.ndarray] = []
    for message in messages:
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                content.append({"type": "video" if isinstance(part, Frames) else "image"})
                media.append(part)
        chat.append({"role": message.role, "content": content})
    return chat, media


CONTINUE_TURN = "continue_turn"
"""What a server's chat template is told for a chat whose last turn is to be continued."""

_OPEN = "\ue000the turn stays open here\ue000"  # private use: no tokenizer and no template knows it


def render(messages: Sequence[Message], template: Callable[..., str]) -> tuple[str, list[Frames | np.ndarray]]:
    """The text that the model reads, with one placeholder for each medium, and the media in that order.

    `template` renders messages as text (`KeyeProcessor.apply_chat_template`). A last message of the assistant is
    continued: its turn is begun with what it holds and not closed. Otherwise the assistant's turn is opened."""
    chat, media = to_chat(messages)
    if continues(messages):
        return render_open(chat, template), media
    return template(chat, add_generation_prompt=True), media


def continues(messages: Sequence[Message]) -> bool:
    """Whether the model goes on with a turn of its own that was begun."""
    return bool(messages) and messages[-1].role == "assistant"


def render_open(chat: Sequence[dict[str, Any]], template: Callable[..., str]) -> str:
    """The text of a chat as `to_chat` gives it, whose last turn is not closed."""
    *before, last = chat
    content = last["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    begun = {**last, "content": [*parts, {"type": "text", "text": _OPEN}]}
    text = template([*before, begun], add_generation_prompt=False)
    return text[: text.rindex(_OPEN)]


# -- what is said ---------------------------------------------------------------------------------------------------


def interleaved(
    clip: Clip,
    cues: Sequence[Timed],
    sampling: Sampling,
    *,
    info: VideoInfo | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Part, ...]:
    """A clip and what is said in it, in the order of time: frames up to the end of a cue, then the cue (section 3.1 of
    the report: the text of speech interleaved with frames; rows for training have the same form). A clip in which
    nothing is said is its frames alone.

    All stretches together keep the budget and the number of frames that the whole clip has: each gets its share by
    its seconds, and is as long as the fewest frames need. Times of frames and cues count from the clip's start. Raises
    as `sample` does."""
    info = info or probe(clip.path)
    planned = plan(info, clip, sampling)
    start, end = clip.start or 0.0, info.duration if clip.end is None else min(clip.end, info.duration)
    fewest = sampling.min_frames / planned.fps
    shortest = max(SHORTEST, fewest, (end - start) / MOST_STRETCHES)
    found = whole(stretches([cue for cue in cues if sayable(cue.text)], start, end, shortest), end)
    if not any(stretch.cues for stretch in found):
        return (sample(clip, sampling, info=info, progress=progress, cancelled=cancelled),)
    parts: list[Part] = []
    done = 0
    for stretch in found:
        share = (stretch.end - stretch.start) / (end - start)
        limits = sampling.with_limits(
            max_frames=max(1, int(planned.frame_count * share + 1e-6)), budget=max(1, int(sampling.budget * share))
        )
        if len(found) == 1:
            limits = sampling
        part = replace(clip, start=stretch.start, end=stretch.end, zero=start)
        frames = sample(part, limits, info=info, cancelled=cancelled)
        # What was reduced is told of the whole; what a stretch was reduced to is only its share.
        lost = [note for note in frames.notes if note not in plan(info, part, limits).notes]
        frames = replace(frames, notes=(*(() if parts else planned.notes), *lost))
        done += len(frames.images)
        if progress is not None:
            progress(min(done, planned.frame_count), planned.frame_count)
        parts += [frames, f"{said(stretch.cues, start)}\n" if stretch.cues else "\n"]
    return tuple(parts)


def joined(parts: Sequence[Part], sampling: Sampling | None = None) -> Frames:
    """The frames among the parts of one clip as if they had been taken at once, for whoever shows or counts them.
    `sampling` is that of the whole; without it, that of the parts with their budgets and frames added up."""
    several = [part for part in parts if isinstance(part, Frames)]
    first, last = several[0], several[-1]
    if len(several) == 1:
        return first
    limits = sampling or replace(
        first.sampling,
        budget=sum(frames.sampling.budget for frames in several),
        max_frames=sum(frames.sampling.max_frames for frames in several),
    )
    times = [time for frames in several for time in frames.times]
    seconds = max(times[-1] - times[0], 1e-6)
    return replace(
        first,
        clip=replace(first.clip, end=last.clip.end),
        sampling=limits,
        images=tuple(image for frames in several for image in frames.images),
        times=tuple(times),
        kinds=tuple(kind for frames in several for kind in frames.kinds),
        fps=(len(times) - 1) / seconds,
        notes=tuple(dict.fromkeys(note for frames in several for note in frames.notes)),
    )
