"""The image, made without a container engine: the Dockerfile's own steps, run in a place of `places`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from string import Template

from tests.acceptance.stack import await_
from tests.image import dockerfile
from tests.image.places import Call, Place

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Image:
    """What a built image is: its files, and what it says of how to run it."""

    place: Place
    environ: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    labels: dict[str, str] = field(default_factory=dict)
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def path(self, inside: str) -> Path:
        """Where a file of the image is."""
        return self.place.path(inside)

    def run(self, *command: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image to its end; `options` are BILLHOOK_…, in lower case."""
        started = self.place.started(self.call(command, options))
        return subprocess.run(started, capture_output=True, text=True, timeout=60, env=_HOST, check=False)

    def billhook(self, *command: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Billhook to its end."""
        return self.run(*self.entrypoint, *command, **options)

    @contextmanager
    def started(self, *command: str, **options: str) -> Iterator[Process]:
        """A command of Billhook, the image's own if none is given, that runs for the block."""
        call = self.call([*self.entrypoint, *(command or self.command)], options)
        with tempfile.TemporaryFile() as log:
            outer = subprocess.Popen(
                self.place.started(call), stdout=log, stderr=log, env=_HOST, start_new_session=True
            )
            process = Process(self, outer, log.fileno(), call)
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(outer.pid, signal.SIGKILL)
                outer.wait(10)

    def call(self, words: Sequence[str], options: Mapping[str, str]) -> Call:
        """How the image says that a program is run."""
        given = {f"BILLHOOK_{name.upper()}": value for name, value in options.items()}
        return Call(words, self.workdir, {**self.environ, **given}, self.user)


@dataclass
class Process:
    """A command of an image while it runs."""

    image: Image
    outer: subprocess.Popen[bytes]
    _log: int
    _call: Call

    @property
    def pid(self) -> int:
        """Its process id out here."""
        outer = self.outer.pid
        if not self.image.place.is_process_1:
            return outer
        children = Path(f"/proc/{outer}/task/{outer}/children")
        return int(await_(children.read_text, "it is started", seconds=10).split()[0])

    @property
    def log(self) -> str:
        """What it has written so far."""
        return os.pread(self._log, 1 << 20, 0).decode()

    def says(self, text: str) -> None:
        """Wait until it has written this."""

        def written() -> bool:
            assert self.outer.poll() is None, self.log
            return text in self.log

        await_(written, f"it says {text!r}", seconds=30)

    def status(self) -> dict[str, str]:
        """What the kernel says of it."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def healthy(self) -> bool:
        """What the image's health check says."""
        call = replace(self.image.call(self.image.health, {}), environ=self._call.environ)
        checked = subprocess.run(
            self.image.place.beside(self.pid, self._call, call), env=_HOST, timeout=20, check=False
        )
        return checked.returncode == 0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal from outside, as an engine does, and wait for as long as it may take; its exit status."""
        os.kill(self.pid, number)
        return self.outer.wait(30)


_HOST = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}


def build(place: Place, arguments: Mapping[str, str]) -> Image:
    """Do what the Dockerfile says."""
    with tempfile.TemporaryDirectory(prefix="billhook-context-") as context:
        dockerfile.lay_out_context(ROOT, Path(context))
        for stage in dockerfile.stages((ROOT / "Dockerfile").read_text()):
            place.stage(stage.name)
            image = Image(place, {"PATH": place.base_path})
            known: dict[str, str] = {}
            for step in stage.steps:
                if step.keyword == "ARG":
                    known |= {name: arguments.get(name, value) for name, value in dockerfile.pairs(step.value).items()}
                _step(image, step, known, Path(context))
    return image


def _step(image: Image, step: dockerfile.Step, known: Mapping[str, str], context: Path) -> None:
    place, value = image.place, step.value
    match step.keyword:
        case "RUN":
            assert image.user == "0:0", "a step of the build that is not root's is not understood here"
            place.run(value, image.workdir, image.environ)
        case "COPY":
            _copy(image, shlex.split(value), context)
        case "ENV":
            expanded = Template(value).substitute({**image.environ, **known})
            image.environ |= dockerfile.pairs(expanded)
        case "LABEL":
            image.labels |= dockerfile.pairs(Template(value).substitute(known))
        case "WORKDIR":
            image.workdir = value
            place.path(value).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = value
        case "ENTRYPOINT":
            image.entrypoint = json.loads(value)
        case "CMD":
            image.command = json.loads(value)
        case "HEALTHCHECK":
            image.health = json.loads(value.partition("CMD ")[2])


def _copy(image: Image, words: list[str], context: Path) -> None:
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
    *sources, destination = words
    to = PurePosixPath(image.workdir, destination)
    for name in sources:
        source = image.place.path(name, stage) if stage else context / name
        into = len(sources) > 1 or destination.endswith("/")
        image.place.copy(source, image.place.path(str(to / name if into and source.is_file() else to)))
