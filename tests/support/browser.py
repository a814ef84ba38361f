"""A real browser without a window: Debian's package `chromium`, or Google's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")


def _browser(page: Path, address: str | None, *options: str) -> bytes:
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser ({', '.join(_NAMES)}): apt-get install chromium")
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={page.parent / 'browser'}", *options, address or page.as_uri()],
        check=True, capture_output=True, timeout=120,
    )
    return done.stdout


def document(page: Path, address: str | None = None) -> str:
    """The page, or what an address shows of it, after its scripts have run, as HTML."""
    return _browser(page, address, "--window-size=1400,1400", "--dump-dom").decode()


def screenshot(
    page: Path, width: int, height: int, address: str | None = None, *, dark: bool = False
) -> Path:
    """A picture of a window of this size, beside the page."""
    path = page.with_suffix(".dark.png" if dark else ".png")
    scheme = _DARK if dark else ()
    _browser(page, address, *scheme, f"--window-size={width},{height}", f"--screenshot={path}")
    return path
