"""A traceback with the author's own code only: what is between it and the error is ours or a library's."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_OURS = tuple(f"{_ROOT / package}{os.sep}" for package in ("handlers", "workers", "receiver"))
_TO_BE_READ = tuple(str(_ROOT / "handlers" / part) for part in ("examples.py", f"recipes{os.sep}"))
"""Ours as well, but shown as an author's: they are there to be tried and changed."""
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def of(error: BaseException) -> str:
    """The traceback of an error and of those it came from, without frames of Billhook and of libraries."""
    told = traceback.TracebackException.from_exception(error)
    for one in _chain(told):
        frames = [frame for frame in one.stack if _is_the_authors(frame.filename)]
        one.stack = traceback.StackSummary.from_list(frames)
    return "".join(told.format())


def _is_the_authors(file: str) -> bool:
    if file.startswith(_TO_BE_READ):
        return True
    return not file.startswith((*_OURS, *_LIBRARIES, "<frozen "))


def _chain(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    yield told
    for one in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if one is not None:
            yield from _chain(one)
