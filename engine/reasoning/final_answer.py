"""What of a model's raw text is its answer: the published evaluation's rule, quirks included (KC-MMBENCH.md §3)."""

from __future__ import annotations

import re

_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_BOX = "\\boxed{"


def final_answer(text: str) -> str:
    """The answer within raw model output: what follows the analysis and the thought, then the last complete
    `<answer>` if there is one, then the content of the last `\\boxed{}` in it.

    A thought or an answer that was never closed is left as it is, so a cut answer stays recognisable."""
    rest = text.rpartition("</analysis>")[2].rpartition("</think>")[2].strip()
    if "<answer>" not in rest:
        return _boxed(rest)
    complete = _ANSWER.findall(rest)
    return _boxed(complete[-1]) if complete else rest


def is_unfinished(text: str) -> bool:
    """Whether a thought or an answer was opened and never closed, as in an answer cut at the token limit."""
    return any(text.rfind(f"<{tag}>") > text.rfind(f"</{tag}>") for tag in ("analysis", "think", "answer"))


def _boxed(text: str) -> str:
    """The content of the last `\\boxed{` up to its brace.

    As published, the scan counts from depth 1 even where there is no box: an unmatched `}` cuts the text off before
    it. Text that closes no brace is kept whole."""
    scanned = text.rpartition(_BOX)[2]
    depth = 1
    for position, character in enumerate(scanned):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return scanned[:position]
    return scanned
