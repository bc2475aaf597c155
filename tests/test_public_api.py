from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import handlers
from handlers import registry
from handlers.context import Context
from handlers.errors import BillhookError, Discard, Retry
from handlers.event import Event

PUBLIC = ["Context", "Discard", "Event", "Retry", "on"]


def test_the_public_names_are_what_is_exported() -> None:
    exported = [
        name
        for name, value in vars(handlers).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    ]

    assert handlers.__all__ == PUBLIC
    assert sorted(exported) == sorted(PUBLIC)


def test_each_public_name_is_the_thing_it_says() -> None:
    assert (handlers.Context, handlers.Event, handlers.Discard, handlers.Retry) == (Context, Event, Discard, Retry)
    assert handlers.on == registry.REGISTRY.on
    assert issubclass(Retry, BillhookError)
    assert issubclass(Discard, BillhookError)


def test_each_public_name_is_explained() -> None:
    for name in PUBLIC:
        assert inspect.getdoc(getattr(handlers, name)), name


def test_a_handlers_module_needs_no_server_stack() -> None:
    program = (
        "import sys, handlers; "
        "heavy = {'starlette', 'celery', 'redis', 'sqlalchemy', 'prometheus_client', 'aiohttp'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
