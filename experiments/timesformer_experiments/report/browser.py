"""Pictures of pages, taken with a Chromium without a window."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from timesformer.errors import InputError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NONE_FOUND = "no Chromium found; install one (Debian: apt-get install chromium) or name it in CHROMIUM"
PATIENCE_SECONDS = 120
"""Time after which a browser that does not answer is ended."""


def find_browser() -> str | None:
    """Find a Chromium: the environment variable CHROMIUM, or one of the usual names on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


def screenshot(page: Path, to: Path, *, size: tuple[int, int], fragment: str = "") -> Path:
    """Write a PNG of a local page as it is shown in a window of so many CSS pixels (width, height).

    fragment: part of the address after `#`

    Raises:
        InputError: no Chromium, or one that made no picture; the message holds what it said.
    """
    browser = find_browser()
    if browser is None:
        raise InputError(NONE_FOUND)
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        made = Path(profile) / "page.png"
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",  # refused to root otherwise; the pages are our own
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            "--virtual-time-budget=20000",
            f"--screenshot={made}",
            page.resolve().as_uri() + (f"#{fragment}" if fragment else ""),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{browser}: no picture of {page.name} within {PATIENCE_SECONDS} s") from error
        if not made.is_file():
            raise InputError(f"{browser}: no picture of {page.name}: {done.stderr[-500:]}")
        to.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, to))
