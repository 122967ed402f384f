"""A conversation as the chat shows it: questions, answers, and the reasoning before these in collapsible blocks with
title and duration, tool calls within the thought, pictures of what was looked at; two answers that are compared side by
side (`app.sides`); what was thought of an answer, under it (`app.said`). From plain data; what was typed or written by
a model is escaped by `app.views`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components.chatbot import ComponentMessage

from app.i18n import Language, say, translate
from app.said import said_html
from app.sides import sides_html
from app.steps import Steps, from_row
from app.thoughts import ran_as, thought_facts, thought_messages, waiting, warnings
from app.views import answer_markdown, question_markdown
from engine.reasoning.modes import MODE_NAMES
from engine.reasoning.sandbox import unavailable
from engine.runtime.base import speaker
from finetune.feedback import Answer

if TYPE_CHECKING:
    from app.jobs import Snapshot
    from app.studio import Turn

# What a component of HTML says of itself, all but its value. Made here, once: within an event Gradio takes a new
# component for a change to one that exists, and makes nothing that could be asked.
_GIVEN: dict[str, Any] = {"apply_default_css": False, "render": False}
_PROPS = gr.HTML(**_GIVEN).get_config()


def chat_messages(turns: Sequence[Turn], now: Sequence[Snapshot], lang: Language) -> list[dict[str, Any]]:
    """A conversation as `gr.Chatbot` takes it. `now` is how far the newest answer is while it is being written, or the
    left and the right one of a comparison, or further drafts of an answer; empty where nothing runs."""
    messages: list[dict[str, Any]] = []
    drafts = {answer.id for turn in turns if turn.drafts is not None for answer in turn.drafts.answers[1:]}
    drafted = {snapshot.answer: snapshot for snapshot in now or () if snapshot.answer in drafts}
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": question_markdown(turn.question.text)})
        running = now if number == len(turns) - 1 and not drafted else ()
        key = f"t{number}"
        if turn.comparison is not None:
            shown = sides_html(turn.comparison, running, turn.span, lang)
            messages.append({"role": "assistant", "content": _html(shown)})
        elif running:
            (snapshot,) = running
            messages += thought_messages(snapshot.steps, not snapshot.text, turn.span, lang, key)
            if snapshot.text or not snapshot.steps:
                messages.append({"role": "assistant", "content": _running(turn, snapshot, lang)})
        elif turn.answer is not None:
            steps = from_row(turn.answer.reasoning)
            messages += thought_messages(steps, False, turn.span, lang, key)
            messages.append({"role": "assistant", "content": _finished(turn.answer, steps, turn, lang)})
            if turn.answer.finish != "running":
                messages.append({"role": "assistant", "content": _html(said_html(turn, drafted, lang))})
    return messages


def _html(html: str) -> ComponentMessage:
    """A message of HTML, as the chat itself would make it of a component: which takes longer than all else of an
    answer, and all of a conversation are shown anew whenever its last answer grows."""
    return ComponentMessage(component="html", value=html, constructor_args=_GIVEN, props={**_PROPS, "value": html})


def _running(turn: Turn, now: Snapshot, lang: Language) -> str:
    return answer_markdown(now.text, *turn.span) if now.text else f"<small>{escape(waiting(now, lang))}</small>"


def _finished(answer: Answer, steps: Steps, turn: Turn, lang: Language) -> str:
    parts = [answer_markdown(answer.text, *turn.span)] if answer.text else []
    parts += warnings(answer, steps, lang)
    facts = [ran_as(answer.mode, steps, lang)]
    if ended := say(f"finish_{answer.finish}", lang):
        facts.append(ended)
    if (usage := answer.usage) and answer.timings and answer.timings.get("first_token") is not None:
        facts.append(
            say(
                "meta",
                lang,
                model=speaker(answer.model or "", answer.adapter),
                visual=f"{usage['visual_tokens']:,}",
                first=f"{answer.timings['first_token']:.2f}",
                tokens=usage["answer_tokens"],
                total=f"{answer.timings['total']:.2f}",
            )
        )
        facts += thought_facts(answer, lang)
    parts.append(f"<small>{escape(' · '.join(facts))}</small>")
    return "\n\n".join(parts)


def mode_choices(lang: Language) -> list[tuple[str, str]]:
    """The switch above the question: (what it says, the mode)."""
    return [(say(f"mode_{name}", lang), name) for name in MODE_NAMES]


def mode_hint(mode: str, lang: Language) -> str:
    """What a mode means, and of what this machine cannot do in it, why."""
    missing = translate(unavailable(), lang) if mode == "think_with_image" else ""
    return f"{say(f'mode_hint_{mode}', lang)} {missing}".strip()
