"""Starts SGLang's server with this package in it:  python -m engine.sglang_plugin.launch --model-path DIR [options]

Takes SGLang's own options and runs in SGLang's virtual environment. The environment may set:

    KEYE_SGLANG_API_KEY    the key that requests must bring; never on the command line, where other users can read it
    KEYE_SGLANG_GUARD=1    standard input is a pipe from the supervisor: when it closes, the server ends"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def main(options: list[str]) -> None:
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    if os.environ.get("KEYE_SGLANG_GUARD"):
        threading.Thread(target=_end_with_supervisor, name="guard", daemon=True).start()
    key = os.environ.pop("KEYE_SGLANG_API_KEY", None)
    load_plugins()
    arguments = prepare_server_args([*options, *([f"--api-key={key}"] if key else [])])
    _serve_facts(arguments)
    try:
        run_server(arguments)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


def _serve_facts(arguments: Any) -> None:
    """Adds GET /keye_info: what a client on another machine cannot read from the checkpoint's folder."""
    from sglang.srt.entrypoints.http_server import app

    from engine.runtime.checkpoint import describe_checkpoint  # only now: without a GPU the platform must come first

    device = arguments.device or "cuda"
    info = describe_checkpoint(Path(arguments.model_path), device, str(arguments.dtype))
    facts = dataclasses.asdict(info) | {"users": arguments.max_running_requests or 0}

    @app.get("/keye_info")
    def keye_info() -> dict[str, Any]:
        return facts


def _end_with_supervisor() -> None:
    """Wait until the pipe closes, which happens however the supervisor ended, then end the whole process group."""
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
