"""The modes: what is asked for, how it is switched on, and what a model of that mode writes.

Published in the technical report, section 4.2.1 and appendix C, and in the released evaluation code. Video is an
input of every mode, not a mode of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from engine.errors import EngineError
from engine.runtime.base import Decoding, Message

ModeName = Literal["auto", "think", "no_think", "think_with_image"]
MODE_NAMES: tuple[ModeName, ...] = get_args(ModeName)

BENCHMARK = Decoding(greedy=True, max_tokens=2048)
"""How the released evaluation code draws answers; elsewhere they are drawn as `Decoding` is by default."""


@dataclass(frozen=True)
class Mode:
    name: ModeName
    switch: str  # appended to the last text of the user, without a separator
    analysis: bool = False  # begins with <analysis>, which decides between the two ways to answer
    thought: bool = False  # <think> and <answer> are expected
    tools: bool = False  # calls within the thought are run


MODES: dict[ModeName, Mode] = {
    mode.name: mode
    for mode in (
        Mode("auto", "", analysis=True),
        Mode("think", "/think", thought=True),
        Mode("no_think", "/no_think"),
        Mode("think_with_image", "/agentic_think", thought=True, tools=True),
    )
}

ANALYSIS_OPEN, ANALYSIS_CLOSE = "<analysis>", "</analysis>"
THOUGHT_OPEN, THOUGHT_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
RESULT_OPEN, RESULT_CLOSE = "<sandbox_output>", "</sandbox_output>"
CODE_OPEN, CODE_CLOSE = "```python\n", "\n```"
"""The report shows Python in the thought and its output in <sandbox_output>, and names no marks around the code: a
fence is how such code is commonly written. <tool_call> is in the published vocabulary."""


def mode_of(name: str) -> Mode:
    """EngineError for a name that is none of the modes."""
    for mode in MODES.values():
        if mode.name == name:
            return mode
    raise EngineError(f"There is no mode {name}; use one of {', '.join(MODE_NAMES)}.")


def with_switch(messages: Sequence[Message], mode: Mode) -> list[Message]:
    """`messages` with the switch at the end of the last text of the last user message.

    Only the newest question carries one, so that every turn of a conversation may have a mode of its own."""
    out = list(messages)
    if not mode.switch:
        return out
    for at in reversed(range(len(out))):
        if out[at].role == "user":
            parts = list(out[at].parts)
            texts = [i for i, part in enumerate(parts) if isinstance(part, str)]
            if texts:
                parts[texts[-1]] = f"{parts[texts[-1]]}{mode.switch}"
            else:  # pictures alone: the switch is the text
                parts.append(mode.switch)
            out[at] = replace(out[at], parts=tuple(parts))
            return out
    raise EngineError("There is no question to answer; add a message of the user.")


def written(answer: str, *, analysis: str | None = None, thought: str | None = None) -> str:
    """What a model writes: the inverse of the parser, for examples to learn from.

    With an `analysis`, its closing sentence names the mode by whether there is a `thought`. An answer after a thought
    stands in its tags, one without is plain."""
    text = ""
    if analysis is not None:
        chosen = MODES["no_think" if thought is None else "think"].switch
        said = f"{analysis.strip()} Therefore, {chosen} mode is more appropriate.".strip()
        text += f"{ANALYSIS_OPEN}{said}{ANALYSIS_CLOSE}"
    if thought is None:
        return text + answer
    return f"{text}{THOUGHT_OPEN}{thought}{THOUGHT_CLOSE}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"
