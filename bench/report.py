"""What is written of a measurement: a table for the terminal, BENCHMARKS.md, a line of history."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.figures import Line, Row, Series, to_json

HERE = Path(__file__).resolve().parent
_PACKAGES = ("torch", "transformers", "numpy", "av", "opencv-python-headless", "pillow", "gradio")

Measured = list[tuple[Row, list[Line]]]


def machine() -> dict[str, Any]:
    """Where and with what was measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu,
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return found.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# -- tables -----------------------------------------------------------------------------------------------------

_HEAD = "| | ours | against | figure | goal | reached |\n|---|---|---|---|---|---|\n"


def table(lines: list[Line]) -> str:
    """Lines as a Markdown table."""
    return _HEAD + "".join(
        f"| {line.name} | {series(line.ours, line.unit)} | {series(line.theirs, line.unit)} "
        f"| {_figure(line)} | {_goal(line)} | {_reached(line)} |\n"
        for line in lines
    )


def series(values: Series | None, unit: str) -> str:
    """Median and, behind it, the lowest and the highest."""
    if values is None:
        return "–"
    low, high = values.spread
    return f"{number(values.median)} {unit} ({number(low)}–{number(high)})"


def number(value: float) -> str:
    """Three figures, and never in powers of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.6f}".rstrip("0")


def _figure(line: Line) -> str:
    if line.figure is None:
        return line.note or "not measured"
    return f"**{number(line.figure)} {line.figure_unit}**"


def _goal(line: Line) -> str:
    if line.goal is None:
        return "–"
    return f"{'≤' if line.goal.at_most else '≥'} {number(line.goal.limit)} {line.figure_unit}"


def _reached(line: Line) -> str:
    return {True: "yes", False: "no", None: "–"}[line.reached]


# -- files ------------------------------------------------------------------------------------------------------


def markdown(found: dict[str, Any], measured: Measured) -> str:
    """The whole of BENCHMARKS.md."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items() if number)
    parts = [
        "# How fast Keye Studio is\n",
        "Written by `make bench`; one row alone: `python -m bench ROW`. Every figure compares two things that took "
        "turns in one run. Medians, with the lowest and the highest run behind them. "
        "Earlier measurements are in [bench/history.jsonl](bench/history.jsonl).\n",
        f"Measured {found['time']} at commit {found['commit'] or '–'} on {found['processor']}, {found['cores']} cores, "
        f"{found['memory_gb']} GB, GPU: {found['gpu'] or 'none'}; load before: {found['load_before']}. "
        f"{found['system']}, Python {found['python']}, {packages}.\n",
        "## All rows\n",
        "| row | | figure | goal | reached |\n|---|---|---|---|---|\n"
        + "".join(
            f"| [{chosen.name}](#{chosen.name}) | {line.name} | {_figure(line)} | {_goal(line)} | {_reached(line)} |\n"
            for chosen, lines in measured
            for line in lines
        ),
    ]
    for chosen, lines in measured:
        notes = "".join(f"* {line.name}: {line.note}.\n" for line in lines if line.note and line.figure is not None)
        parts.append(
            f"## {chosen.name}\n\n**{chosen.what}**, against {chosen.against}. Goal: {chosen.goal}.\n\n"
            f"{chosen.how}\n\n{table(lines)}{chr(10) + notes if notes else ''}"
        )
    parts.append((HERE / "tried.md").read_text("utf-8"))
    return "\n".join(parts)


def write(root: Path, found: dict[str, Any], measured: Measured) -> None:
    """BENCHMARKS.md, and one line more in the history."""
    (root / "BENCHMARKS.md").write_text(markdown(found, measured), "utf-8")
    rows = {chosen.name: [to_json(line) for line in lines] for chosen, lines in measured}
    with (root / "bench" / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**found, "rows": rows}, ensure_ascii=False) + "\n")
