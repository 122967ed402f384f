"""What a checkpoint is told of the tools: only in the mode that has them, and only as its folder asks."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.events import ToolCall
from engine.keye import KeyeProcessor
from engine.prompt import render
from engine.reasoning import tools
from engine.reasoning.loop import MOST_CALLS, reason
from engine.reasoning.modes import MODES, ModeName
from engine.reasoning.parser import events_of
from engine.reasoning.tools import NAMES, Workbench, instructions, with_tools
from engine.runtime.base import Decoding, Message
from engine.runtime.checkpoint import tool_prompt_of
from engine.runtime.source import NANO
from tests.reasoning.conftest import Scripted

PICTURE = np.arange(200 * 200 * 3, dtype=np.uint32).reshape(200, 200, 3).astype(np.uint8)
ASKED = [Message("user", (PICTURE, "What is written?"))]
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
PLAIN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"<|im_start|>user\n{IMAGE}What is written?SWITCH<|im_end|>\n<|im_start|>assistant\n"
)


def read(mode: ModeName, wanted: str | bool, asked: list[Message] = ASKED) -> str:
    """The text that a model reads in a mode, whose folder asks for `wanted`."""
    runtime = Scripted(["red"])
    runtime.tool_prompt = wanted
    list(reason(runtime, asked, Decoding(), threading.Event(), MODES[mode]))
    text, _ = render(runtime.heard[0], KeyeProcessor.from_pretrained(NANO).apply_chat_template)
    return text


@pytest.mark.parametrize("wanted", [True, False, "Look closer with your tools."])
@pytest.mark.parametrize("mode", ["auto", "think", "no_think"])
def test_other_modes_are_asked_as_ever(mode: ModeName, wanted: str | bool) -> None:
    assert read(mode, wanted) == PLAIN.replace("SWITCH", {"auto": "", "think": "/think", "no_think": "/no_think"}[mode])


def test_thinking_with_the_image_is_asked_as_the_folder_wants() -> None:
    plain = PLAIN.replace("SWITCH", "/agentic_think")
    assert read("think_with_image", False) == plain
    own = "Look closer with your tools."
    assert read("think_with_image", own) == plain.replace("assistant.<|im_end|>", f"assistant.\n\n{own}<|im_end|>")
    told = read("think_with_image", True)
    before, after = plain.split("assistant.<|im_end|>")
    assert told.startswith(f"{before}assistant.\n\nWhile you think") and told.endswith(f"<|im_end|>{after}")


def test_a_system_prompt_that_is_there_stays_in_front() -> None:
    asked = [Message("system", ("Be brief.",)), *ASKED]
    assert "system\nBe brief.\n\nWhile you think" in read("think_with_image", True, asked)
    assert "system\nBe brief.<|im_end|>" in read("think", True, asked)


def test_the_model_that_ships_is_not_told_and_others_are(tmp_path: Path) -> None:
    assert tool_prompt_of(NANO) is False
    assert tool_prompt_of(tmp_path) is True
    file = tmp_path / "preprocessor_config.json"
    shutil.copy(Path("tests/golden/keye-vl-8b-preview/preprocessor_config.json"), file)
    assert tool_prompt_of(tmp_path) is True
    for wanted in (True, False, "Zoom in."):
        file.write_text(json.dumps({"tool_prompt": wanted}))
        assert tool_prompt_of(tmp_path) == wanted
    for content, words in (('{"tool_prompt": 3}', "true, false or a text"), ("[1]", "valid JSON"), ("{", "valid JSON")):
        file.write_text(content)
        with pytest.raises(EngineError, match=words):
            tool_prompt_of(tmp_path)


def test_every_tool_is_named_with_what_it_takes_and_the_example_works() -> None:
    text = instructions(MOST_CALLS, code=True)
    named = re.findall(r"^- (\w+): ", text, re.M)
    assert tuple(named) == NAMES[:-1] and "python" in text and f"At most {MOST_CALLS} calls" in text
    shown = text.replace('"time": 2.5', '"picture": 1')
    events = events_of(f"<think>{shown}</think>", tools=True)
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [call.code for call in calls] == [False]
    assert Workbench(ASKED).run(calls[0], threading.Event()).ok
    for name, arguments in re.findall(r"^- (\w+): ([^;]*);", text, re.M):
        given = {word.split()[0] for word in arguments.split(", ") if word != "no arguments"}
        values = {"box": [0, 0, 60, 60], "degrees": 90, "factor": 2, "times": 2, "columns": 2, "rows": 2, "time": 1}
        call = json.dumps({"name": name, "arguments": {key: values[key] for key in given}})
        result = Workbench(ASKED).run(ToolCall(call), threading.Event())
        assert result.ok or "There is no clip" in result.text, (name, result.text)


def test_python_is_not_spoken_of_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "unavailable", lambda: "No sandbox here.")
    (system, _) = with_tools(ASKED, True, MOST_CALLS)
    assert "python" not in str(system.parts[0]).lower()
