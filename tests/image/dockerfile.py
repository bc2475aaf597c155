"""Reads a Dockerfile and its .dockerignore: as much of their grammar as ours use, and an error for the rest."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Template

_DONE = ("ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD")
_ONLY_SAID = ("EXPOSE", "STOPSIGNAL")


@dataclass(frozen=True)
class Step:
    """One instruction, as RUN and what follows it, its lines joined."""

    keyword: str
    value: str


@dataclass(frozen=True)
class Stage:
    """What stands between one FROM and the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        """The values of its instructions of one kind."""
        return [step.value for step in self.steps if step.keyword == keyword]


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile; defaults of ARGs before the first stand for themselves in FROM."""
    defaults: dict[str, str] = {}
    found: list[Stage] = []
    for step in _steps(text):
        if step.keyword not in (*_DONE, *_ONLY_SAID):
            raise ValueError(f"{step.keyword} is not understood here: {step.value}")
        if step.keyword == "FROM":
            base, _, name = step.value.partition(" AS ")
            found.append(Stage(Template(base).substitute(defaults), name))
        elif not found:
            defaults |= pairs(step.value)
        else:
            found[-1].steps.append(step)
    return found


def _steps(text: str) -> Iterator[Step]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = "\n".join(lines).replace("\\\n", "")
    for line in joined.splitlines():
        if line.strip():
            keyword, value = line.split(maxsplit=1)
            yield Step(keyword, value.strip())


def pairs(value: str) -> dict[str, str]:
    """The names and values of an ARG, an ENV or a LABEL."""
    return dict(word.split("=", 1) for word in shlex.split(value))


def lay_out_context(repository: Path, context: Path) -> None:
    """Copy what a build would be sent: the repository, less what .dockerignore leaves out."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def left_out(folder: str, names: list[str]) -> list[str]:
        here = PurePosixPath(Path(folder).relative_to(repository).as_posix())
        return [name for name in names if not _kept(here / name, patterns)]

    shutil.copytree(repository, context, ignore=left_out, dirs_exist_ok=True)


def _kept(path: PurePosixPath, patterns: list[str]) -> bool:
    kept = True
    for pattern in patterns:
        expression = re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        # What is said of a folder is said of all in it.
        if any(re.fullmatch(expression, str(one)) for one in (path, *path.parents)):
            kept = pattern.startswith("!")
    return kept
