"""Measures the served model on this machine, for the table in the README:  python -m scripts.measure_sglang [MODEL]"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from engine.events import Done
from engine.runtime.base import Decoding, Message, Runtime
from engine.runtime.local import LocalRuntime
from engine.runtime.sglang import SGLangRuntime
from engine.runtime.sglang_server import Supervisor
from engine.video import Clip, sample

CLIP = Path(__file__).resolve().parents[1] / "assets" / "demo" / "three-shapes.mp4"
TOKENS = 256
# Noise, so that every answer has the full length.
NOISE = Decoding(max_tokens=TOKENS, temperature=50.0, top_k=0, top_p=1.0, seed=1)


def memory(pid: int) -> float:
    """GB of a process and its children, shared pages counted once."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 1e9


def answer(runtime: Runtime, messages: list[Message]) -> Done:
    done = list(runtime.stream(messages, NOISE, threading.Event()))[-1]
    assert isinstance(done, Done), done
    return done


def median(measure: Callable[[], float], times: int = 3) -> float:
    return statistics.median(measure() for _ in range(times))


def figures(runtime: Runtime, users: tuple[int, ...]) -> None:
    own = runtime.info().sampling

    def about(start: float) -> list[Message]:
        """The demo clip from `start` seconds on: another start is another clip, which nothing remembers."""
        return [Message("user", (sample(Clip(CLIP, start), own), "What happens?"))]

    answer(runtime, about(0.0))  # the first request of all warms up
    starts = iter(i / 100 for i in range(1, 100))

    def first_word(start: Callable[[], float]) -> float:
        return answer(runtime, about(start())).first_token_seconds or 0.0

    print(f"  first word, new clip   {median(lambda: first_word(lambda: next(starts))):.3f} s")
    print(f"  first word, follow-up  {median(lambda: first_word(lambda: 0.0)):.3f} s")
    for count in users:

        def rate(count: int = count) -> float:
            began = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                tokens = sum(
                    done.answer_tokens for done in pool.map(lambda _: answer(runtime, about(0.0)), range(count))
                )
            return tokens / (time.perf_counter() - began)

        print(f"  tokens/s, {count} at once    {median(rate):.0f}")


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else None
    load = os.getloadavg()[0]
    print(f"{psutil.cpu_count()} cores, load before {load:.1f}")
    supervisor = Supervisor(model)
    runtime = SGLangRuntime(supervisor)
    began = time.perf_counter()
    try:
        info = runtime.info()
        assert supervisor.pid is not None
        print(f"sglang, {info.name} on {info.device} ({info.dtype})")
        print(f"  start to ready         {time.perf_counter() - began:.1f} s")
        figures(runtime, (1, 8))
        print(f"  memory                 {memory(supervisor.pid):.2f} GB")
    finally:
        began = time.perf_counter()
        runtime.close()
        print(f"  stopped in             {time.perf_counter() - began:.1f} s")
    here = LocalRuntime(model)
    began = time.perf_counter()
    print(f"local, {here.info().name}\n  start to ready         {time.perf_counter() - began:.1f} s")
    figures(here, (1, 8))


if __name__ == "__main__":
    main()
