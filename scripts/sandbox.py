"""Installs bubblewrap, the sandbox of the model's own code, where that is possible; without it the tests of the sandbox
are skipped and the studio runs no code.

`python scripts/sandbox.py` says what is missing and never fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    if not shutil.which("bwrap") and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "bubblewrap"], check=False)

    from engine.reasoning.sandbox import unavailable

    if reason := unavailable():
        print(f"{reason} The tests of the sandbox are skipped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
