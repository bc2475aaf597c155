"""The Dockerfile and its locks, as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.image import dockerfile
from tests.image.image import ROOT

LOCKS = ("requirements-image.lock", "requirements-build.lock")
STAGES = dockerfile.stages((ROOT / "Dockerfile").read_text())


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock, with their versions and conditions."""
    found = re.findall(r"^([a-z0-9._-]+)(==[^\\\n]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {name: pin.strip() for name, pin in found}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def test_the_linter_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")

    command: list[str | Path] = [program, "--no-color", ROOT / "Dockerfile"]

    linted = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


def test_the_locks_have_hashes_and_no_address_of_a_registry() -> None:
    for lock in LOCKS:
        text = (ROOT / lock).read_text()
        entries = re.findall(r"^[a-z0-9._-]+==[^\n]+\\\n {4}--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)

        assert "://" not in text
        assert len(entries) == len(pins(lock)) > 0


def test_each_version_is_the_one_that_is_tested() -> None:
    tested = pins("requirements.lock")

    for lock in LOCKS:
        assert {name: pin for name, pin in pins(lock).items() if tested.get(name) != pin} == {}


def test_what_the_project_needs_is_locked_for_the_image_and_of_its_extras_what_watches_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements-image.lock").read_text()
    entries = re.findall(r"^([a-z0-9._-]+)==(.*?)(?=^[a-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    ours = {name for name, entry in entries if re.search(r"^ +#(?: via)? +billhook$", entry, re.MULTILINE)}

    extras = project["optional-dependencies"]
    assert ours == names([*project["dependencies"], *extras["otel"], *extras["sentry"]])


def test_the_builder_gets_what_the_build_system_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]
    assert names(project["build-system"]["requires"]) <= pins("requirements-build.lock").keys()


def test_what_is_copied_is_all_that_a_build_is_sent(tmp_path: Path) -> None:
    dockerfile.lay_out_context(ROOT, tmp_path / "context")

    copied = {
        name for stage in STAGES for value in stage.all("COPY") if "--from=" not in value for name in value.split()[:-1]
    }
    assert {path.name for path in (tmp_path / "context").iterdir()} == copied
    assert list((tmp_path / "context").rglob("__pycache__")) == []


def test_the_base_is_named_once_and_can_be_given_by_digest() -> None:
    assert {stage.base for stage in STAGES} == {"python:3.11-slim-bookworm"}
    assert "sha256" not in (ROOT / "Dockerfile").read_text()
