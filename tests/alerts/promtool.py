"""promtool, Prometheus' own tool for rules: on PATH, or out of Debian's package prometheus, without installing it.

What was fetched lies in a folder of the user's cache, since a fresh one costs a download of 20 MB.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "billhook-tests"


class Lacking(Exception):
    """There is none, and none can be had; the message says why."""


@dataclass(frozen=True)
class Promtool:
    """The program, and where it came from."""

    program: Path
    origin: str

    def run(self, *arguments: str | Path, read: str | None = None, folder: Path | None = None) -> tuple[int, str]:
        """Its exit status and all that it said."""
        command = [self.program, *arguments]
        ended = subprocess.run(
            command, input=read, cwd=folder, capture_output=True, text=True, check=False, timeout=120
        )
        return ended.returncode, ended.stdout + ended.stderr


def found() -> Promtool:
    """Raises Lacking."""
    if installed := shutil.which("promtool"):
        return Promtool(Path(installed), "the one on PATH")
    kept = CACHE / "promtool"
    if kept.exists():
        return Promtool(kept, "that of Debian's package")
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        raise Lacking(f"there is no promtool on PATH, and this is not Debian: it has no {' and no '.join(missing)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "promtool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not kept.exists():
            _fetch(kept)
    return Promtool(kept, "that of Debian's package")


def _fetch(kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        # Neither the machine's package lists nor its packages are touched. Its lists serve if there are any.
        for part in ("lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True)
        own = ("-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}")
        try:
            if _apt(folder, "download", "prometheus"):
                _apt(folder, *own, "update")
                if said := _apt(folder, *own, "download", "prometheus"):
                    raise Lacking(f"there is no promtool on PATH, and apt-get cannot download prometheus: {said}")
            package = next(folder.glob("prometheus_*.deb"))
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True, capture_output=True)
        except subprocess.SubprocessError as error:
            raise Lacking(f"there is no promtool on PATH, and that of Debian cannot be had: {error}") from None
        (folder / "usr/bin/promtool").rename(kept)


def _apt(folder: Path, *arguments: str) -> str:
    """Run it; what it said if it failed."""
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    return (ended.stderr.strip() or "no reason is told") if ended.returncode else ""
