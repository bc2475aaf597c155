"""A real browser: Chromium, driven by Playwright, which reaches nothing but this machine.

It is the one that is installed; where there is none, Debian's package is, if this is root on Debian.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--font-render-hinting=none",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_LOCK = Path(tempfile.gettempdir()) / "billhook-tests-chromium.lock"


class Lacking(Exception):
    """There is none, and none can be had; the message says why."""


def found() -> str:
    """The program. Raises Lacking."""
    if installed := _installed():
        return installed
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Lacking(f"there is no {', '.join(_NAMES)} on PATH, and only root on Debian can install it")
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if (installed := _installed()) is None:
            _install()
            installed = _installed()
    if installed is None:
        raise Lacking("Debian's package chromium has no program of that name")
    return installed


@contextmanager
def browser() -> Iterator[Browser]:
    """One that runs. Raises Lacking."""
    program = found()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


def _installed() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def _install() -> None:
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "-q", "install", "-y", "--no-install-recommends", "chromium")
    for command in (install, ("apt-get", "-q", "update"), install):
        ended = subprocess.run(
            command, env=os.environ | quiet, capture_output=True, text=True, check=False, timeout=600
        )
        if command == install and ended.returncode == 0:
            return
    raise Lacking(f"there is no Chromium, and apt-get cannot install it: {ended.stderr.strip() or 'no reason is told'}")
