"""The page's configuration: one dataclass, filled from flags and the environment, printed at start."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path

from app.errors import AppError
from engine.runtime.source import NANO

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class AppConfig:
    model: str | None = None  # a folder or a hub id; None is keye-nano
    device: str | None = None  # cpu, cuda …; None takes what is there
    runtime: str | None = None  # local, sglang, or the address of a server; None takes what is there
    host: str = "127.0.0.1"
    port: int = 7860
    data: Path = Path("data")  # the store and the videos
    max_upload_gb: float = 4.0
    asr: Path | None = None  # folder of a Whisper checkpoint that writes down what is said
    password: str | None = None  # asked for (with the user name `keye`) where the page is not on loopback only

    @classmethod
    def from_flags(cls, argv: list[str] | None = None) -> AppConfig:
        """Flags first, then KEYE_STUDIO_<NAME> from the environment, then the defaults. AppError on nonsense."""
        parser = argparse.ArgumentParser(prog="python -m app", description="Keye Studio in the browser.")
        parser.add_argument("--model", metavar="DIR", help="a model folder or hub id (default: keye-nano)")
        parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: what is there)")
        parser.add_argument("--runtime", help="local, sglang or http://host:port (default: what fits here)")
        parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine only)")
        parser.add_argument("--port", type=int, help="port to listen on (default: 7860)")
        parser.add_argument("--data", type=Path, help="folder of the conversations and videos (default: data)")
        parser.add_argument("--max-upload-gb", type=float, help="largest upload (default: 4)")
        parser.add_argument("--asr", metavar="DIR", type=Path, help="a Whisper checkpoint that writes down speech")
        parser.add_argument("--password", help="ask for this password (user name: keye)")
        given = vars(parser.parse_args(argv))
        values = {}
        for field in fields(cls):
            value = given[field.name]
            if value is None:
                value = os.environ.get(f"KEYE_STUDIO_{field.name.upper()}") or None
            if value is not None:
                values[field.name] = value
        try:
            config = cls(
                **{
                    **values,
                    "port": int(values.get("port", cls.port)),
                    "data": Path(values.get("data", cls.data)),
                    "asr": Path(values["asr"]).expanduser() if "asr" in values else None,
                    "max_upload_gb": float(values.get("max_upload_gb", cls.max_upload_gb)),
                }
            )
        except ValueError as error:
            raise AppError(f"A setting is not a number ({error}); correct the flag or the variable.") from error
        config._check()
        return config

    @property
    def started_with(self) -> str:
        """The model folder, hub id or address that answers unless something was promoted over it."""
        if self.runtime is not None and "://" in self.runtime:
            return self.runtime
        folder = Path(self.model or NANO).expanduser()
        return str(folder.resolve()) if folder.is_dir() else str(self.model)

    def _check(self) -> None:
        if not 0 < self.port < 65536:
            raise AppError(f"Port {self.port} does not exist; take one between 1 and 65535.")
        if not self.max_upload_gb > 0:
            raise AppError(f"The largest upload is {self.max_upload_gb} GB; give more than 0.")
        if self.host not in _LOOPBACK and not self.password:
            raise AppError(
                f"{self.host} lets other machines reach this page: give a password with --password as well, "
                "or leave --host out."
            )

    def __str__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "password")
        return ", ".join(f"{name}={value}" for name, value in shown if value is not None)
