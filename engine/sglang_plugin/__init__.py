"""What SGLang loads to host Keye-VL: configuration, tokenizer, model, media processor, and a platform without a GPU.

Nothing of SGLang is changed. It finds this package through the entry points in `entry/` and the three variables that
`environment` sets. All of it runs in SGLang's own virtual environment, which also holds what engine/video and
engine/keye import; `launch.py` starts the server."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository: what must be importable in every process of the server."""
ENTRY_POINTS = Path(__file__).resolve().parent / "entry"
"""Holds nothing but the .dist-info folder, so that being on the path adds no module names."""


def environment(architecture: str) -> dict[str, str]:
    """The variables of a server process that will host `architecture` (a class of engine.sglang_plugin.models)."""
    inherited = os.environ.get("PYTHONPATH")
    path = [str(ROOT), str(ENTRY_POINTS), *([inherited] if inherited else [])]
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "engine.sglang_plugin.models",
        "SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE": "engine.sglang_plugin.processors",
        "SGLANG_EXTERNAL_MM_MODEL_ARCH": architecture,
    }
