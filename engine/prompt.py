"""Messages to the text and the media that the model reads: the one place where a prompt is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.runtime.base import Message
from engine.video.types import Frames


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
