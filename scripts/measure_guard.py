"""What the repetition guard costs:  python -m scripts.measure_guard

Processor time of the guard over texts of several kinds, as a share of the processor time in which keye-nano, the
fastest model there is, writes as many tokens. A larger model takes longer for a token, the guard does not."""

from __future__ import annotations

import threading
import time

import numpy as np

from engine.events import Answer, Done
from engine.reasoning.guard import Guard
from engine.runtime.base import Decoding, Message
from engine.runtime.local import LocalRuntime
from tests.reasoning.texts import HONEST

_TOKENS = 600
_ROUNDS = 5
_NOISE = Decoding(max_tokens=_TOKENS, temperature=50.0, top_k=0, top_p=1.0, seed=5)  # does not end by itself


def decoding_seconds() -> tuple[float, int]:
    """Processor seconds and tokens of one answer of keye-nano."""
    runtime = LocalRuntime()
    runtime.start()
    runtime.info()
    question = [Message("user", (np.zeros((112, 112, 3), np.uint8), "What is there?"))]
    list(runtime.stream(question, _NOISE, threading.Event()))  # the first one warms up
    began = time.process_time()
    events = list(runtime.stream(question, _NOISE, threading.Event()))
    done = events[-1]
    assert isinstance(done, Done) and isinstance(events[1], Answer)
    return time.process_time() - began, done.answer_tokens


def guard_seconds(text: str, piece: int = 4) -> tuple[float, int]:
    """Processor seconds of the guard over a text that comes in pieces of about a token, and how many these were."""
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    best = float("inf")
    for _ in range(_ROUNDS):
        guard = Guard()
        began = time.process_time()
        for one in pieces:
            guard.push(one)
        best = min(best, time.process_time() - began)
    return best, len(pieces)


def main() -> None:
    seconds, tokens = decoding_seconds()
    token = seconds / tokens
    print(f"keye-nano: {1e3 * token:.2f} ms of processor time a token ({tokens} tokens)")
    texts = {
        "all ordinary texts": "\n\n".join(HONEST.values()),
        "numbers only": " ".join(str(n * 7919 % 1000) for n in range(4000)),
        "nearly a loop": "".join(f"the red circle is {'left' if n % 4 else f'at {n}'} and " for n in range(700)),
        "one letter with breaks": "".join("a" * 300 + chr(98 + n % 20) for n in range(60)),
    }
    for name, text in texts.items():
        spent, pieces = guard_seconds(text)
        print(f"{name:>24}: {1e6 * spent / pieces:6.1f} µs a token, {100 * spent / pieces / token:.2f} % of decoding")


if __name__ == "__main__":
    main()
