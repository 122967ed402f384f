"""What stands around an answer: its reasoning as blocks with title and duration, tool calls within the thought,
pictures of what was looked at; what went wrong; what it cost. From plain data; what a model wrote is escaped by
`app.views`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from app.i18n import Language, say, translate
from app.steps import Step, Steps
from app.views import answer_markdown, clock, question_markdown
from engine.reasoning.modes import MODE_NAMES
from finetune.feedback import Answer

if TYPE_CHECKING:
    from app.jobs import Snapshot

Block = dict[str, Any]


def waiting(now: Snapshot, lang: Language) -> str:
    """What an answer that has not begun waits for."""
    return f"{say(now.waiting, lang, n=now.position)} …"


def warnings(answer: Answer, steps: Steps, lang: Language) -> list[str]:
    """What went wrong with an answer, and what was done to it while it ran, as Markdown."""
    told = [answer.error] if answer.error else []
    told += [step.text for step in steps if step.kind == "note"]
    return [f"⚠ {question_markdown(translate(sentence, lang))}" for sentence in told]


def thought_facts(answer: Answer, lang: Language) -> list[str]:
    """What the thought of an answer cost; nothing where there was none."""
    usage, timings = answer.usage or {}, answer.timings or {}
    if not usage.get("thought_tokens"):
        return []
    seconds = f"{timings.get('thought') or 0.0:.1f}"
    return [say("thought_meta", lang, seconds=seconds, tokens=usage["thought_tokens"])]


def ran_as(mode: str, steps: Steps, lang: Language) -> str:
    """The mode of an answer as it is shown; for auto also what the model chose."""
    shown = say(f"mode_{mode}", lang) if mode in MODE_NAMES else mode
    kinds = {step.kind for step in steps}
    if mode == "auto" and kinds & {"analysis", "thought"}:
        shown += f" → {say('mode_think' if 'thought' in kinds else 'mode_no_think', lang)}"
    return shown


def thought_messages(steps: Steps, running: bool, span: tuple[float, float], lang: Language, key: str) -> list[Block]:
    """The blocks of one answer as `gr.Chatbot` takes them. `running`: the answer itself has not begun, so the last
    block is still open; otherwise every block is closed. `key` tells the blocks of answers apart."""
    blocks: list[Block] = []
    root: Block | None = None
    for step in steps:
        if step.kind == "note":
            continue
        if step.kind == "result" and blocks and blocks[-1]["of"] == "call":
            block = blocks[-1]
            block["content"] += "\n\n" + _result(step, lang)
            block["metadata"]["duration"] += step.seconds
        else:
            text = _call(step) if step.kind == "call" else answer_markdown(step.text, *span)
            block = {"role": "assistant", "content": text, "of": step.kind, "metadata": _metadata(step, lang)}
            block["metadata"]["id"] = f"{key}-{len(blocks)}"
            if step.kind == "analysis":
                pass
            elif root is None:
                root = block
            else:
                block["metadata"]["parent_id"] = root["metadata"]["id"]
            blocks.append(block)
        if root is not None and block is not root:  # the whole of the thought took as long as its parts
            root["metadata"]["duration"] += step.seconds
    for block in blocks:
        last = block is blocks[-1] or block is root
        block["metadata"]["status"] = "pending" if running and last else "done"
        block["metadata"]["duration"] = round(block["metadata"]["duration"], 1)
        del block["of"]
    return blocks


def _metadata(step: Step, lang: Language) -> Block:
    title = say(f"step_{step.kind}", lang, name=_name(step.text) if step.kind == "call" else "")
    return {"title": title, "duration": step.seconds}


def _name(call: str) -> str:
    """The tool that a call names; `python` for code."""
    try:
        name = json.loads(call)["name"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "python" if "\n" in call or "(" in call else "?"
    return re.sub(r"\W", "", str(name))[:20] or "?"


def _call(step: Step) -> str:
    """The call as it was written, in a fence that it cannot close."""
    ticks = max((len(run) for run in re.findall("`+", step.text)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}\n{step.text.strip()}\n{fence}"


def _result(step: Step, lang: Language) -> str:
    parts = []
    if step.time is not None:
        at = clock(step.time, tenths=True)
        parts.append(f"[{at}](#t={step.time:g})")
    # The pictures were made here, of pixels: only they may stand in the text as pictures.
    for picture, name in ((step.frame, "looked_at"), (step.image, "was_shown")):
        if picture.startswith("data:image/jpeg;base64,"):
            parts.append(f"![{say(name, lang)}]({picture})")
    if step.text:
        said = answer_markdown(translate(step.text, lang), 0.0, -1.0)
        parts.append("\n\n" + (said if step.ok else f"⚠ {said}"))
    return " ".join(parts).strip()
