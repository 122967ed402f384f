"""Where a model comes from: a folder on this machine, or a hub id that the user asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import EngineError

NANO = Path(__file__).resolve().parents[2] / "assets" / "keye-nano"
"""The demonstration model that ships with the project."""

_PLAIN = {"model": 2, "adapter": 2, "release": 1}
"""Names that say what a folder is and not whose: of so many folders around it are the names to be told as well."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json")  # never code, never pickles

Report = Callable[[str, float | None], None]
"""Called with a sentence and a fraction 0..1 (None: unknown)."""


def resolve_model(model: str | None, report: Report | None = None) -> Path:
    """The folder of a model named by the user.

    `model` is a folder, a hub id such as `Kwai-Keye/Keye-VL-8B-Preview`, or None for keye-nano. Only a hub id
    reaches the network, because the user asked for it; a copy that is already there is used as it is.
    Raises EngineError where there is no such model."""
    if not model:
        return NANO
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise EngineError(
                f"{folder} has no config.json, so it is not a model folder; "
                "give the folder that holds config.json and the .safetensors files."
            )
        return folder
    if folder.exists():
        raise EngineError(f"{folder} is a file; give the folder that holds config.json and the .safetensors files.")
    if _HUB_ID.fullmatch(model):
        return _download(model, report or (lambda sentence, fraction: None))
    raise EngineError(
        f"There is no model folder {folder}; give an existing folder or a hub id like Kwai-Keye/Keye-VL-8B-Preview."
    )


def name_of(folder: Path) -> str:
    """What a folder of a model or an adapter is called: its own name, or where that tells nothing the names around it,
    as of a run's `evening/sft/model`: evening-sft."""
    folder = folder.resolve()
    around = [parent.name for parent in folder.parents[: _PLAIN.get(folder.name, 0)] if parent.name]
    return "-".join(reversed(around)) or folder.name


def _download(hub_id: str, report: Report) -> Path:
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm

    best = 0.0  # the library counts the bytes in two bars, received and written: the one further on is told

    class Bar(tqdm):
        """The library's own bar in the terminal; the bytes are told to the page as well."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            nonlocal best
            if self.unit == "B" and self.total and self.n / self.total > best:
                best = self.n / self.total
                report(f"Downloading {hub_id}: {self.n / 1e9:.2f} of {self.total / 1e9:.2f} GB", best)
            return shown

    report(f"Downloading {hub_id}", None)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_WANTED), tqdm_class=Bar))
    except Exception as error:  # the hub's errors share no base class; all of them mean the same to the user
        raise EngineError(
            f"{hub_id} could not be downloaded ({type(error).__name__}); check the name and the connection, "
            "or download it elsewhere and give its folder."
        ) from error
