"""keye-nano once for all tests of a file's run, and a run of a benchmark in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.runtime.base import Runtime
from finetune.bench.open_runtime import open_runtime


@pytest.fixture(scope="session")
def nano() -> Iterator[Runtime]:
    """The real keye-nano. Its weights change: no test looks at what it says."""
    runtime = open_runtime(None)
    runtime.info()
    yield runtime
    runtime.close()
