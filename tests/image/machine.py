"""What a build takes from outside: a clean Debian with Python 3.11 for a base, and the wheels of the locks.

Both are fetched once, through the machine's own configuration of apt and pip, and kept in ~/.cache/billhook-tests.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import Marker, default_environment

SUITE = "bookworm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "billhook-tests"
_TOOLS = ("apt-get", "dpkg-deb", "wget", "gpgv", "unshare", "nsenter", "chroot", "setpriv", "tar")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ROOM = 2 << 30  # bytes
_KEPT_FOR = 30 * 86_400  # seconds
_PACKAGES = "python3.11,python3.11-venv,python3-distutils"
# As in the slim image, there is no bytecode; and nothing that only a person reads.
_NOT_KEPT = ("__pycache__", "./var/cache/apt/archives/*.deb", "./usr/share/doc/*", "./usr/share/man/*")


def lacks() -> str:
    """What this machine lacks to make a clean root and to enter it; empty where it can."""
    if sys.platform != "linux" or not _KEYS.exists():
        return "it is not Debian"
    if os.geteuid() != 0:
        return "we are not root"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"it has no {', '.join(missing)}"
    inside = "mount -t tmpfs none /mnt && chroot / true"
    entering = ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-c", inside]
    tried = subprocess.run(entering, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"it does not let us: {tried.stderr.strip()}"


def scratch() -> str | None:
    """Where to build: in memory if there is room, since thousands of small files are slow to delete elsewhere."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return None
    found = os.statvfs(memory)
    room = found.f_bavail * found.f_frsize > _ROOM and not found.f_flag & (os.ST_NOEXEC | os.ST_NODEV)
    return str(memory) if room else None


def clean_root() -> Path:
    """A tar file with a minimal Debian and Python 3.11, made with debootstrap. Raises CalledProcessError offline."""
    recipe = hashlib.sha256(repr((_PACKAGES, _NOT_KEPT)).encode()).hexdigest()[:16]
    kept = CACHE / f"{SUITE}-{recipe}.tar"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="billhook-debian-", dir=scratch()) as folder:
            root, made = Path(folder, "root"), Path(folder, "made.tar")
            _debootstrap(Path(folder), root)
            # The image names its interpreter so.
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
            left_out = [f"--exclude={pattern}" for pattern in _NOT_KEPT]
            _run("tar", "-C", root, *left_out, "-cf", made, ".")
            _keep(made, kept)
    return kept


def _debootstrap(folder: Path, root: Path) -> None:
    # Neither the machine's package lists nor its packages are touched.
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    apt = ["apt-get", "-q", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
    apt += ["-o", "APT::Sandbox::User=root"]
    _run(*apt, "update")
    _run(*apt, "download", "debootstrap", cwd=folder)
    _run("dpkg-deb", "-x", *folder.glob("debootstrap_*.deb"), folder)
    sources = _run(*apt, "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages")
    mirrors = re.findall(r"^Debian\|(.+)$", sources, re.MULTILINE)
    program = folder / "usr/sbin/debootstrap"
    environ = os.environ | {"DEBOOTSTRAP_DIR": str(folder / "usr/share/debootstrap")}
    # In a mount namespace of its own: what it mounts is gone with it.
    command = ["unshare", "--mount", program, "--variant=minbase", f"--include={_PACKAGES}", SUITE, root, mirrors[0]]
    _run(*command, env=environ)


def wheels(locks: Sequence[Path], python: str) -> Path:
    """A folder with the wheels that these locks name for Python `python`, such as 3.11.2, on this machine."""
    text = "".join(lock.read_text() for lock in locks)
    wanted = _for_python(text, python)
    kept = CACHE / f"wheels-{python}-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if not kept.exists():
        for outdated in CACHE.glob("wheels-*"):
            if outdated.stat().st_mtime < time.time() - _KEPT_FOR:
                shutil.rmtree(outdated)
        with tempfile.TemporaryDirectory(prefix="billhook-wheels-") as folder:
            (made := Path(folder, "wheels")).mkdir()
            # One file for each lock could be given too, but a package that stands in two of them may not.
            (list_ := Path(folder, "wanted.txt")).write_text(wanted)
            version = ".".join(python.split(".")[:2])
            pip = [sys.executable, "-m", "pip", "download", "-qq", "--python-version", version, "-d", made]
            _run(*pip, "--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", list_)
            CACHE.mkdir(parents=True, exist_ok=True)
            _keep(made, kept)
    return kept


def _for_python(lock: str, python: str) -> str:
    """The entries of locks that are meant for this Python, once each and without the conditions, which pip would read
    as being of its own Python."""
    versions = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    there = {**{name: str(value) for name, value in default_environment().items()}, **versions}
    entries = re.findall(
        r"^([a-z0-9._\[\],-]+==[^ ;\\]+)(?: ; ([^\\\n]+?))?((?: \\\n +--hash=\S+)+)", lock, re.MULTILINE
    )
    return "".join(
        sorted({f"{pin}{hashes}\n" for pin, marker, hashes in entries if not marker or Marker(marker).evaluate(there)})
    )


def _keep(made: Path, kept: Path) -> None:
    """Move what is complete to where it is looked for; another run may have been faster."""
    beside = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.move(made, beside)
    try:
        beside.rename(kept)
    except OSError:
        shutil.rmtree(beside)


def _run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=env, stdout=subprocess.PIPE, check=True, text=True, timeout=600).stdout
