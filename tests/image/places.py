"""Where the steps of the Dockerfile are run, and then what they made: a root of its own, or else a folder.

`Root` is a clean Debian that is entered with chroot: every step is run as it is written, and the commands are process 1
of a namespace, as a numeric user without any capability, on a file system that cannot be written. `Folder` is for a
machine on which that is not allowed: its paths stand for those of the image, the steps that change the system itself
are left out, and the environment is empty but for what the image says.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PIP = {"PIP_NO_INDEX": "1"}
"""The build reaches no registry: what the locks name was fetched before."""
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")

_DEVICES = """
mount -t proc proc {root}/proc
mount -t tmpfs -o mode=0755 tmpfs {root}/dev
for device in null zero full random urandom; do
    touch {root}/dev/$device
    mount --bind /dev/$device {root}/dev/$device
done
ln -s /proc/self/fd {root}/dev/fd
mkdir {root}/dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs {root}/dev/shm
"""
_BUILD = (
    _DEVICES
    + """
mount --bind {wheels} {root}/mnt
exec chroot {root} env -i -C {workdir} {environ} {command}
"""
)
_ENTER = "exec {chroot} setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --inh-caps=-all \
--bounding-set=-all env -i -C {workdir} {environ} {command}"
_START = (
    "mount --bind {root} {root}\nmount -o remount,bind,ro {root}\n"
    + _DEVICES
    + """
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs {root}/tmp
"""
    + _ENTER
)


@dataclass(frozen=True)
class Call:
    """A program of the image, and how the image says that it is run."""

    words: Sequence[str]
    workdir: str
    environ: Mapping[str, str]
    user: str

    def quoted(self) -> dict[str, str]:
        """What the scripts above want of it."""
        uid, gid = self.user.split(":")
        quoted = {"environ": _assigned(self.environ), "command": shlex.join(self.words)}
        return {**quoted, "workdir": shlex.quote(self.workdir), "uid": uid, "gid": gid}


class Place(Protocol):
    """Where stages are built and commands are started."""

    says: str
    base_path: str
    is_process_1: bool
    """Whether a command that is started is process 1 of a namespace."""
    is_confined: bool
    """Whether it has the image's user, no capability, and a file system that cannot be written."""

    def stage(self, name: str) -> None:
        """Begin with a stage: its base is there and nothing else."""

    def path(self, inside: str, stage: str = "") -> Path:
        """Where a path of the image is; of another stage if one is named."""

    def run(self, command: str, workdir: str, environ: Mapping[str, str]) -> None:
        """Run a command of the build, as root."""

    def copy(self, source: Path, destination: Path) -> None:
        """Copy a file, or what is in a folder, with all its attributes."""

    def started(self, call: Call) -> list[str]:
        """The command that starts it out here, inside as process 1 where that can be."""

    def beside(self, process: int, running: Call, call: Call) -> list[str]:
        """The command that runs it beside what runs as a process of this id, as `docker exec` does."""


class Root:
    """Clean roots below `folder`, one for each stage."""

    says = "a clean Debian root, entered with chroot, read-only, with process 1 a numeric user without capabilities"
    base_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    is_process_1 = True
    is_confined = True

    def __init__(self, folder: Path, tar: Path, wheels: Path) -> None:
        self._folder, self._tar, self._wheels = folder, tar, wheels
        self._stage = ""

    def stage(self, name: str) -> None:
        self._stage = name or "last"
        self.path("/").mkdir()
        subprocess.run(["tar", "-C", self.path("/"), "-xf", self._tar], check=True)

    def path(self, inside: str, stage: str = "") -> Path:
        return self._folder / (stage or self._stage) / inside.lstrip("/")

    def run(self, command: str, workdir: str, environ: Mapping[str, str]) -> None:
        call = Call(["/bin/sh", "-c", command], workdir, {**PIP, "PIP_FIND_LINKS": "/mnt", **environ}, "0:0")
        script = _BUILD.format(root=self._root, wheels=shlex.quote(str(self._wheels)), **call.quoted())
        # No network either.
        subprocess.run([*_NAMESPACES, "--net", "sh", "-euc", script], check=True)

    def copy(self, source: Path, destination: Path) -> None:
        _copy(source, destination)

    def started(self, call: Call) -> list[str]:
        script = _START.format(chroot=f"chroot {self._root}", root=self._root, **call.quoted())
        return [*_NAMESPACES, "sh", "-euc", script]

    def beside(self, process: int, running: Call, call: Call) -> list[str]:
        entering = f"nsenter --target {process} --mount --pid --root --wd"
        return ["sh", "-euc", _ENTER.format(chroot=entering, **call.quoted())]

    @property
    def _root(self) -> str:
        return shlex.quote(str(self.path("/")))


class Folder:
    """One folder that stands for the root of every stage."""

    is_confined = False
    _PATHS = re.compile(r"(?<![\w./-])(/opt/billhook|/build|/app|/var/lib/billhook)(?![\w.-])")

    def __init__(self, folder: Path, wheels: Path, because: str) -> None:
        self._folder, self._wheels = folder, wheels
        python = folder / "usr/local/bin/python"
        for needed in (python.parent, folder / "tmp"):
            needed.mkdir(parents=True)
        python.symlink_to(sys._base_executable)  # type: ignore[attr-defined]
        self.base_path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
        entering = ["unshare", "--user", "--map-root-user", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self._namespaces = entering if sys.platform == "linux" and _succeeds(*entering, "true") else []
        self.is_process_1 = bool(self._namespaces)
        self.says = (
            f"a folder, and run {'as' if self.is_process_1 else 'not as'} process 1, since for a clean root {because}; "
            "the steps of the last stage are not run, and its user and read-only root are not proven"
        )
        self._last = False

    def stage(self, name: str) -> None:
        self._last = not name

    def path(self, inside: str, stage: str = "") -> Path:
        return self._folder / inside.lstrip("/")

    def run(self, command: str, workdir: str, environ: Mapping[str, str]) -> None:
        if not self._last:
            environ = {**PIP, "PIP_FIND_LINKS": str(self._wheels), **self._moved(environ)}
            subprocess.run(["sh", "-c", self._here(command)], cwd=self.path(workdir), env=environ, check=True)

    def copy(self, source: Path, destination: Path) -> None:
        if source != destination:
            _copy(source, destination)

    def started(self, call: Call) -> list[str]:
        return [*self._namespaces, *self._command(call.words, call)]

    def beside(self, process: int, running: Call, call: Call) -> list[str]:
        told = self._folder / f"{process}.cmdline"
        told.write_text("\0".join(running.words))
        return self._command([word.replace("/proc/1/cmdline", str(told)) for word in call.words], call)

    def _command(self, words: Sequence[str], call: Call) -> list[str]:
        environ = {"TMPDIR": str(self.path("/tmp")), **self._moved(call.environ)}
        command = f"exec env -i {_assigned(environ)} {self._here(shlex.join(words))}"
        return ["sh", "-euc", f"cd {shlex.quote(str(self.path(call.workdir)))}; {command}"]

    def _here(self, text: str) -> str:
        return self._PATHS.sub(lambda found: str(self.path(found[1])), text)

    def _moved(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {name: self._here(value) for name, value in environ.items()}


def _succeeds(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def _assigned(environ: Mapping[str, str]) -> str:
    return shlex.join(f"{name}={value}" for name, value in environ.items())


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
    else:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, destination)
