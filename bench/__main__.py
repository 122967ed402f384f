"""Measures how fast the studio is, against what else there is, on this machine.

python -m bench                  every row, each in a process of its own
python -m bench decode tokens    some of them
python -m bench --write          every row, and BENCHMARKS.md and bench/history.jsonl are written (make bench)

--json prints the figures as JSON, --runs N takes another number of runs (default 5), --tiny only shows that the rows
work. Exit code 1: a row failed."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Line, Row, Size, from_json, not_measured, to_json
from bench.report import machine, markdown, table, write
from bench.rows import NAMES, row

ROOT = Path(__file__).resolve().parents[1]
ROW_SECONDS = 420
_MARK = "bench-row "


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, add_help=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--runs", type=int, default=5, help="runs of everything (default 5)")
    parser.add_argument("--tiny", action="store_true", help="as little as possible: shows only that the rows work")
    parser.add_argument("--write", action="store_true", help="write BENCHMARKS.md and bench/history.jsonl")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if unknown := sorted(set(given.rows) - set(NAMES)):
        parser.error(f"there is no row {', '.join(unknown)}; rows: {', '.join(NAMES)}")
    if given.runs < 1:
        parser.error("--runs must be at least 1")
    if given.write and (given.rows or given.tiny or given.runs < 5):
        parser.error("--write takes every row at full size with at least 5 runs")
    size = Size(given.runs, given.tiny)
    if given.here:
        (name,) = given.rows
        print(_MARK + json.dumps([to_json(line) for line in row(name).measure(size)]), flush=True)
        return 0
    return _all(given.rows or list(NAMES), size, given.json, given.write)


def _all(names: list[str], size: Size, as_json: bool, to_files: bool) -> int:
    found = machine()
    measured: list[tuple[Row, list[Line]]] = []
    failed = 0
    for name in names:
        began = time.monotonic()
        chosen = row(name)
        try:
            lines = _apart(name, size)
        except RuntimeError as error:
            failed += 1
            lines = [not_measured("the whole row", f"it failed: {error}")]
        measured.append((chosen, lines))
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if not as_json:
            print(f"\n{chosen.what}\n{table(lines)}", flush=True)
    if as_json:
        rows = {chosen.name: [to_json(line) for line in lines] for chosen, lines in measured}
        print(json.dumps({"machine": found, "rows": rows}, indent=1, ensure_ascii=False))
    if to_files:
        write(ROOT, found, measured)
        print(markdown(found, measured) if not as_json else "", end="")
    return 1 if failed else 0


def _apart(name: str, size: Size) -> list[Line]:
    """Measure a row in a process of its own, which may take no more than a while. RuntimeError says why it failed."""
    options = ["--runs", str(size.runs), *(["--tiny"] if size.tiny else [])]
    command = [sys.executable, "-m", "bench", name, "--here", *options]
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A session of its own, so that what the row started can be ended with it.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
    try:
        out, said = process.communicate(timeout=ROW_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took more than {ROW_SECONDS} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for line in out.splitlines():
        if line.startswith(_MARK):
            return [from_json(fields) for fields in json.loads(line[len(_MARK) :])]
    lines = said.strip().splitlines()
    raise RuntimeError(lines[-1] if lines else f"exit code {process.returncode}")


if __name__ == "__main__":
    sys.exit(main())
