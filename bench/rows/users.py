"""The page with sixteen users who are all being answered, against one."""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Line, Row, Series, Size, at_most
from bench.rows.tokens import endless

TOKENS = 512


@dataclass(frozen=True)
class Seen:
    """What one user saw: seconds between updates that showed other text, and until the first of them; and how many
    seconds each token of the answer took once it had begun."""

    gaps: list[float]
    first: float
    token: float
    failed: bool


def measure(size: Size) -> list[Line]:
    import gradio as gr

    from app.ask import AskTab
    from app.config import AppConfig
    from app.demos import load_demos
    from app.studio import Studio
    from engine.runtime.local import LocalRuntime

    many, tokens = (2, 128) if size.tiny else (16, TOKENS)
    with endless() as folder, tempfile.TemporaryDirectory() as data:
        studio = Studio(AppConfig(data=Path(data)), LocalRuntime(str(folder), device="cpu"))
        with gr.Blocks() as page:
            tab = AskTab(page, studio, load_demos())
        studio.runtime.info()
        _together(tab, 1, tokens)  # warms up
        alone: list[list[Seen]] = []
        crowd: list[list[Seen]] = []
        for _ in range(size.runs):
            alone.append(_together(tab, 1, tokens))
            crowd.append(_together(tab, many, tokens))
        studio.close()
    ours, theirs = (Series(tuple(_between(users) for users in runs)) for runs in (crowd, alone))
    failed = sum(user.failed for users in crowd for user in users)
    wait = Series(tuple(median(user.first for user in users) for users in crowd))
    first = Series(tuple(users[0].first for users in alone))
    many_token, one_token = (
        Series(tuple(median(user.token for user in users) for users in runs)) for runs in (crowd, alone)
    )
    return [
        Line(
            f"{many} users: median time between updates of an answer that is being written",
            "s",
            ours,
            theirs,
            ours.median / theirs.median,
            "×",
            at_most(2),
            "a page is shown what there is 25 times a second at most; the others see their place in the queue",
        ),
        Line(
            f"{many} users: seconds for a token of an answer that is being written",
            "s",
            many_token,
            one_token,
            many_token.median / one_token.median,
            "×",
            None,
            "no goal: the local runtime answers two at a time, token by token in turn",
        ),
        Line(f"{many} users: failed requests", figure=float(failed), figure_unit="failed", goal=at_most(0)),
        Line(
            f"{many} users: time to the first word, median user",
            "s",
            wait,
            first,
            wait.median / first.median,
            "×",
            None,
            "no goal: they wait for each other",
        ),
    ]


def _between(users: list[Seen]) -> float:
    gaps = [gap for user in users for gap in user.gaps]
    return median(gaps) if gaps else float("nan")


def _together(tab: Any, users: int, tokens: int) -> list[Seen]:
    start = threading.Barrier(users)
    with ThreadPoolExecutor(users) as pool:
        return list(pool.map(lambda _: _user(tab, tokens, start), range(users)))


def _user(tab: Any, tokens: int, start: threading.Barrier) -> Seen:
    """Pick a demo clip, ask, and follow the answer, through the handlers that the page calls."""
    from app.session import Session

    demo = next(iter(tab.clip.demos.values()))
    start.wait()
    began = time.perf_counter()
    try:
        session = tab.clip._take(Session(), demo.file, (), lambda *args, **kwargs: None)[tab.session]
        updates = tab.ask(session, "What happens?", "auto", False, None, False, tokens, 0, False)
        session = updates[tab.session]
        seen, moments = "", []
        for update in tab.follow(session):
            shown = _written(update.get(tab.chat))
            if shown and shown != seen:
                seen = shown
                moments.append(time.perf_counter())
        answer = tab.studio.turns(session.conversation)[-1].answer
        if answer is None or answer.timings is None or answer.finish not in ("stop", "length"):
            return Seen([], time.perf_counter() - began, float("nan"), True)
        token = (answer.timings["total"] - answer.timings["first_token"]) / (tokens - 1)
    except Exception:  # whatever it was, the user saw a failure
        return Seen([], time.perf_counter() - began, float("nan"), True)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    return Seen(gaps, (moments[0] if moments else time.perf_counter()) - began, token, False)


def _written(chat: Any) -> str:
    """What the model has written as far as the chat shows it, thoughts and answer; empty while the user waits."""
    parts = []
    for message in getattr(chat, "value", None) or []:
        get = message.get if isinstance(message, dict) else partial(getattr, message)
        if get("role") == "assistant" and "<small>" not in (text := str(get("content"))):
            parts.append(text)
    return "\n".join(parts)


ROW = Row(
    name="users",
    what="the app with 16 users streaming",
    against="one user",
    goal="no request fails, median time between tokens of the page at most 2×",
    how="Threads that do what a page does: pick a clip, ask, follow the answer as it grows, through the page's own "
    "handlers and the store, without the network. Answers of 512 tokens; one user and sixteen take turns.",
    measure=measure,
)
