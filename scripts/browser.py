"""Makes sure that the end-to-end tests find a browser: the system's Chromium, else Playwright's own.

`python scripts/browser.py` installs what is missing; `chromium()` says where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def chromium() -> str | None:
    """Path of an installed Chromium or Chrome, or None for Playwright's own build."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return None


def main() -> int:
    if chromium():
        return 0
    if subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False).returncode == 0:
        return 0
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        if subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=False).returncode == 0:
            return 0
    print("No browser could be installed: install Chromium, or run `make test-fast`.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
