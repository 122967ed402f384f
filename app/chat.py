"""A conversation as the chat shows it: questions, answers, and the reasoning before these in collapsible blocks with
title and duration, tool calls within the thought, pictures of what was looked at. From plain data; what was typed or
written by a model is escaped by `app.views`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from app.i18n import Language, say, translate
from app.steps import Step, Steps, from_row
from app.views import answer_markdown, clock, question_markdown
from engine.reasoning.modes import MODE_NAMES
from engine.reasoning.sandbox import unavailable
from finetune.feedback import Answer

if TYPE_CHECKING:
    from app.jobs import Snapshot
    from app.studio import Turn

Block = dict[str, Any]


def chat_messages(turns: Sequence[Turn], now: Snapshot | None, lang: Language) -> list[dict[str, Any]]:
    """A conversation as `gr.Chatbot` takes it. `now` is how far the newest answer is while it is being written."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": question_markdown(turn.question.text)})
        running = now is not None and number == len(turns) - 1
        if running:
            assert now is not None
            messages += thought_messages(now.steps, not now.text, turn.span, lang, f"t{number}")
            if now.text or not now.steps:
                messages.append({"role": "assistant", "content": _running(turn, now, lang)})
        elif turn.answer is not None:
            steps = from_row(turn.answer.reasoning)
            messages += thought_messages(steps, False, turn.span, lang, f"t{number}")
            messages.append({"role": "assistant", "content": _finished(turn.answer, steps, turn, lang)})
    return messages


def _running(turn: Turn, now: Snapshot, lang: Language) -> str:
    if now.text:
        return answer_markdown(now.text, *turn.span)
    return f"<small>{escape(say(now.waiting, lang, n=now.position))} …</small>"


def _finished(answer: Answer, steps: Steps, turn: Turn, lang: Language) -> str:
    parts = [answer_markdown(answer.text, *turn.span)] if answer.text else []
    if answer.error:
        parts.append(f"⚠ {question_markdown(translate(answer.error, lang))}")
    parts += [f"⚠ {question_markdown(translate(step.text, lang))}" for step in steps if step.kind == "note"]
    facts = [ran_as(answer.mode, steps, lang)]
    if ended := say(f"finish_{answer.finish}", lang):
        facts.append(ended)
    if (usage := answer.usage) and answer.timings and answer.timings.get("first_token") is not None:
        facts.append(
            say(
                "meta",
                lang,
                model=answer.model,
                visual=f"{usage['visual_tokens']:,}",
                first=f"{answer.timings['first_token']:.2f}",
                tokens=usage["answer_tokens"],
                total=f"{answer.timings['total']:.2f}",
            )
        )
        if usage.get("thought_tokens"):
            thought = f"{answer.timings.get('thought') or 0.0:.1f}"
            facts.append(say("thought_meta", lang, seconds=thought, tokens=usage["thought_tokens"]))
    parts.append(f"<small>{escape(' · '.join(facts))}</small>")
    return "\n\n".join(parts)


def mode_choices(lang: Language) -> list[tuple[str, str]]:
    """The switch above the question: (what it says, the mode)."""
    return [(say(f"mode_{name}", lang), name) for name in MODE_NAMES]


def mode_hint(mode: str, lang: Language) -> str:
    """What a mode means, and of what this machine cannot do in it, why."""
    missing = translate(unavailable(), lang) if mode == "think_with_image" else ""
    return f"{say(f'mode_hint_{mode}', lang)} {missing}".strip()


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
