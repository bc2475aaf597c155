"""Loading handlers in the process of the tests, with nothing left of it for the next one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handlers.registry import REGISTRY

GOOD = """
from handlers import on

@on("invoice.paid")
def receipt(event, ctx):
    pass
"""


@contextmanager
def nothing_loaded() -> Iterator[None]:
    """An empty registry for the block; what is loaded, registered or put on the path in it is gone after it."""
    registered, unused = dict(REGISTRY._handlers), dict(REGISTRY._unused)
    modules, path = dict(sys.modules), list(sys.path)
    REGISTRY._handlers.clear()
    REGISTRY._unused.clear()
    try:
        yield
    finally:
        REGISTRY._handlers.clear()
        REGISTRY._handlers.update(registered)
        REGISTRY._unused.clear()
        REGISTRY._unused.update(unused)
        for name in set(sys.modules) - set(modules):
            del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:] = path


def written(path: Path, text: str = GOOD) -> Path:
    """A file with that text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
