"""The tokenizer that the server renders chats with: engine/keye's template, in which typed text is only text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from engine.errors import EngineError
from engine.keye import KeyeProcessor
from engine.prompt import CONTINUE_TURN, render_open


class KeyeTokenizer(PreTrainedTokenizerFast):
    """A checkpoint's tokenizer.json.

    SGLang asks the tokenizer for the prompt of a chat. Its own class would render the checkpoint's text-only template
    and let a user type control tokens; this one asks the processor, as the local runtime does."""

    renderer: KeyeProcessor | None = None

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:  # type: ignore[override]
        """The prompt of one conversation as text, or as ids with `tokenize`.

        ValueError (HTTP 400) for what the template refuses, and for tools, which it has no place for."""
        assert self.renderer is not None
        tokenize = options.pop("tokenize", True)
        prompt_only = options.pop("add_generation_prompt", False)
        as_dict = options.pop("return_dict", True)
        if options.pop("tools", None):
            raise ValueError("Keye-VL's template has no place for tools; leave them out.")
        known = {name: options[name] for name in ("add_vision_id",) if name in options}
        try:
            if options.get(CONTINUE_TURN):
                text = render_open(conversation, self.renderer.apply_chat_template)
            else:
                text = self.renderer.apply_chat_template(conversation, add_generation_prompt=prompt_only, **known)
        except EngineError as error:
            raise ValueError(str(error)) from error
        if not tokenize:
            return text
        return self(text) if as_dict else self.encode(text)


class ServedProcessor(KeyeProcessor):
    """KeyeProcessor whose tokenizer renders through it."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> ServedProcessor:
        processor = super().from_pretrained(folder)
        assert isinstance(processor, cls)
        tokenizer = KeyeTokenizer(tokenizer_object=processor.tokenizer.backend_tokenizer, **_special(processor))
        tokenizer.chat_template = processor.chat_template
        tokenizer.renderer = processor
        processor.tokenizer = tokenizer
        return processor


def _special(processor: KeyeProcessor) -> dict[str, Any]:
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return {name: getattr(processor.tokenizer, name) for name in names} | {"clean_up_tokenization_spaces": False}
