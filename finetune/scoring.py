"""What counts as right, and how sure a share is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence


def plain(text: str) -> str:
    """An answer without case, marks and double spaces; colons stay, because times have them."""
    return " ".join(re.sub(r"[^\w:]+", " ", text.casefold()).split())


def right(answer: str, truth: str) -> bool:
    """Every word right, in order."""
    return plain(answer) == plain(truth)


def clauses(text: str) -> frozenset[str]:
    """The facts of a caption or a list: "a red star moves left", each by itself, without the article."""
    parts = re.split(r",| and ", text)
    return frozenset(re.sub(r"^(an?) ", "", plain(part)) for part in parts if plain(part))


def clause_recall(answer: str, truth: str) -> float:
    """The share 0..1 of the true facts that the answer states."""
    wanted = clauses(truth)
    return len(wanted & clauses(answer)) / len(wanted) if wanted else 0.0


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def floor(truths: Sequence[str]) -> float:
    """The accuracy of always giving the most frequent answer, chosen in hindsight: nobody blind can do better
    without looking at the question's words."""
    return Counter(plain(t) for t in truths).most_common(1)[0][1] / len(truths) if truths else 0.0
