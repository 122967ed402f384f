"""Chat templates, and how typed text is kept from acting as a control token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerFast

from engine.errors import EngineError

_ROLES = ("system", "user", "assistant", "tool")
_STRUCTURE = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|frame|>",
    "<|fast_start|>",
    "<|fast_end|>",
)
"""What a prompt is built from. Markup that a model writes itself, like <think> or a box, is not among it."""

_JOINER = "\u2060"  # invisible and of no width; a reader sees what was typed


def control_strings(tokenizer: PreTrainedTokenizerFast) -> re.Pattern[str]:
    """A pattern of every text that this tokenizer, or the processor, takes for the structure of a prompt."""
    strings = {str(token) for token in tokenizer.all_special_tokens} | set(_STRUCTURE)
    return re.compile("|".join(re.escape(s) for s in sorted(strings, key=len, reverse=True) if len(s) > 1))


def sanitize(text: str, controls: re.Pattern[str]) -> str:
    """`text` with an invisible character inside every control string, after its first character.

    Works for every reader of the prompt, a server that tokenises it by itself included. Text without control
    strings comes back as it is; doing it twice changes nothing more."""
    return controls.sub(lambda match: match[0][0] + _JOINER + match[0][1:], text)


class Template:
    """A compiled Jinja template, run in the sandbox: it can format, not act."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise EngineError(
                f"The chat template cannot be read ({error}); download chat_template.json again."
            ) from error

    def render(self, messages: Sequence[dict[str, Any]], clean: Callable[[str], str], **kwargs: Any) -> str:
        safe = [_clean_message(message, clean) for message in messages]
        try:
            return self._template.render(messages=safe, **kwargs)
        except jinja2.TemplateError as error:
            raise EngineError(f"The chat template refuses these messages ({error}); check their parts.") from error


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _clean_message(message: dict[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise EngineError(f"A message has the role {role!r}; use one of {', '.join(_ROLES)}.")
    if isinstance(content, str):
        return {**message, "content": clean(content)}
    parts: list[dict[str, Any]] = []
    for part in content or ():
        text = part.get("text") if part.get("type", "text") == "text" else None
        if text is None:
            parts.append(dict(part))
        elif parts and parts[-1].get("type") == "text":
            # Joined before cleaning: the template sets no separator, so halves of a control string would meet.
            parts[-1]["text"] += str(text)
        else:
            parts.append({"type": "text", "text": str(text)})
    for part in parts:
        if part.get("type") == "text":
            part["text"] = clean(part["text"])
    return {**message, "content": parts}


def load_template(folder: Path) -> str | None:
    """The template of a model folder: the processor's own file first, then the tokenizer's. None if there is none."""
    for name in ("chat_template.json", "chat_template.jinja", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        source: Any = path.read_text("utf-8")
        if name.endswith(".json"):
            try:
                source = json.loads(source).get("chat_template")
            except (ValueError, AttributeError) as error:
                raise EngineError(f"{path} is not valid JSON with fields; download it again.") from error
        if isinstance(source, str) and source:
            return source
    return None
