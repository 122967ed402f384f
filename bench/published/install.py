"""Puts the published utilities into `.bench/published`, once:  python -m bench.published.install

Two versions of one package are measured, so each has a folder. torch, numpy, Pillow and cv2 are those of .venv."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / ".bench" / "published"
VERSIONS = ("1.0.0", "1.5.2")


def search_path(version: str) -> list[Path]:
    """Where a process finds this version of the utilities. Raises FileNotFoundError where it was not installed."""
    found = [FOLDER / version, FOLDER / "needs"]
    if not all((folder / ".ready").exists() for folder in found):
        raise FileNotFoundError("the published utilities are not installed (python -m bench.published.install)")
    return found


def install() -> None:
    _pip(FOLDER / "needs", "-r", str(HERE / "requirements.txt"))
    for version in VERSIONS:
        _pip(FOLDER / version, f"keye-vl-utils=={version}")


def _pip(target: Path, *what: str) -> None:
    if (target / ".ready").exists():
        return
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *what], check=True)
    (target / ".ready").touch()  # last: an interrupted installation starts again


if __name__ == "__main__":
    install()
