"""Makes `engine` and `tests.media` importable however pytest is started, and finds recorded figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@pytest.fixture
def golden() -> Callable[[str], Path]:
    """A recorded figure by its name, such as "utils/slow_fast_cases.json". Large ones live beside the repository; a
    test that needs one is skipped where they are missing."""

    def find(name: str) -> Path:
        for folder in (ROOT / "tests" / "golden", ROOT.parent / "shared" / "golden"):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"the recorded figure {name} is not on this machine")

    return find


@pytest.fixture(autouse=True)
def fresh_cache() -> None:
    from engine.video.sampler import CACHE

    CACHE.clear()
