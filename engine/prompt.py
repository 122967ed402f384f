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


_OPEN = "\ue000the turn stays open here\ue000"  # private use: no tokenizer and no template knows it


def render(messages: Sequence[Message], template: Callable[..., str]) -> tuple[str, list[Frames | np.ndarray]]:
    """The text that the model reads, with one placeholder for each medium, and the media in that order.

    `template` renders messages as text (`KeyeProcessor.apply_chat_template`). A last message of the assistant is
    continued: its turn is begun with what it holds and not closed. Otherwise the assistant's turn is opened."""
    if not messages or messages[-1].role != "assistant":
        chat, media = to_chat(messages)
        return template(chat, add_generation_prompt=True), media
    begun = Message("assistant", (*messages[-1].parts, _OPEN))
    chat, media = to_chat([*messages[:-1], begun])
    text = template(chat, add_generation_prompt=False)
    return text[: text.rindex(_OPEN)], media
