"""What a machine runs out of while it trains, in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

NO_MEMORY = (
    "The memory ran out; what was learnt up to the last saved step is kept. Give a smaller batch_tokens, LoRA or "
    "four_bit, or close other programs, and go on."
)


def shortage(text: str, out: Path) -> str | None:
    """What ran out, from an error's text or the end of a log; None for anything else. torch tells of full memory and
    of a full disk as of a RuntimeError, so that the text has to say."""
    if re.search(r"MemoryError|[Oo]ut ?of ?[Mm]emory|allocate memory|bad_alloc", text):
        return NO_MEMORY
    if re.search(r"No space left|Disk quota exceeded", text):
        return f"The disk that holds {out} is full; the last saved state is kept. Make room and go on."
    return None
