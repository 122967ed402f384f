"""Keye Studio in the browser:  python -m app [--model DIR] [--port N]"""

from __future__ import annotations

import os
import socket
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

from app.config import AppConfig
from app.errors import AppError
from engine.errors import EngineError
from finetune.errors import FinetuneError


def main(argv: list[str] | None = None) -> int:
    try:
        config = AppConfig.from_flags(argv)
        _check_port(config)
        print(f"Keye Studio: {config}", flush=True)
        from app.page import serve  # after the cheap checks: gradio and torch take seconds to import

        serve(config)
    except (AppError, EngineError, FinetuneError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _check_port(config: AppConfig) -> None:
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise AppError(
                f"{config.host}:{config.port} cannot be used ({error.strerror}); "
                "stop what runs there or take another port: make app PORT=7861."
            ) from error


if __name__ == "__main__":
    sys.exit(main())
