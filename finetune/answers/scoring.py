"""What counts as right, and how sure a share is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence


def plain(text: str) -> str:
    """An answer without case, marks and double spaces; colons stay, because times have them."""
    return " ".join(re.sub(r"[^\w:]+", " ", text.casefold()).split())


Box = tuple[int, int, int, int]
"""x1, y1, x2, y2: left, top, right and bottom in thousandths of the picture."""

_BOX = re.compile(r"<\|box_start\|>\[\[([0-9]{1,3}), ([0-9]{1,3}), ([0-9]{1,3}), ([0-9]{1,3})\]\]<\|box_end\|>")


def read_box(text: str) -> Box | None:
    """The box in the published notation; None of any other text and of a box without an inside."""
    found = _BOX.fullmatch(text.strip())
    if found is None:
        return None
    x1, y1, x2, y2 = (int(number) for number in found.groups())
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def overlap(answer: str, truth: str) -> float:
    """What two boxes share of what they cover together, 0..1; 0 where one of the texts is no box."""
    a, b = read_box(answer), read_box(truth)
    if a is None or b is None:
        return 0.0
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, across) * max(0, down)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def right(answer: str, truth: str) -> bool:
    """Every word right, in order; of a box, half of what both cover is covered by each."""
    if read_box(truth) is not None:
        return overlap(answer, truth) >= 0.5
    return plain(answer) == plain(truth)


def clauses(text: str) -> frozenset[str]:
    """The facts of a caption or a list: "a red star moves left", each by itself, without the article."""
    parts = re.split(r"[,，、和]| and ", text)
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
