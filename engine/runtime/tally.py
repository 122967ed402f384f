"""What is counted and timed while an answer is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.events import Done, Finish


@dataclass
class Tally:
    """What `Done` will say; filled as the answer goes."""

    began: float
    text: str = ""
    prompt_tokens: int = 0
    visual_tokens: int = 0
    answer_tokens: int = 0
    cached_tokens: int = 0
    adapter: str | None = None
    queue_seconds: float = 0.0
    prepare_seconds: float = 0.0
    first_token_seconds: float | None = None
    _clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def elapsed(self) -> float:
        return self._clock() - self.began

    def done(self, finish: Finish, model: str) -> Done:
        return Done(
            finish=finish,
            text=self.text,
            model=model,
            prompt_tokens=self.prompt_tokens,
            visual_tokens=self.visual_tokens,
            answer_tokens=self.answer_tokens,
            cached_tokens=self.cached_tokens,
            adapter=self.adapter,
            queue_seconds=self.queue_seconds,
            prepare_seconds=self.prepare_seconds,
            first_token_seconds=self.first_token_seconds,
            total_seconds=self.elapsed(),
        )
