"""Where a command works: on the database here, or at the management API of a Billhook elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from receiver.cli.output import WrongUse
from workers.addresses import embedded

if TYPE_CHECKING:
    from receiver.cli.remote.client import Api

COMMANDS = (
    "acknowledge", "audit-log", "deliveries", "endpoints", "event", "events", "keys", "replay", "runs", "schedules",
    "sources", "stats",
)  # fmt: skip
"""Those that go over the API too; `schedules import` and `take-over` do not."""
OVER_THE_API = (
    f"Over the API of a Billhook elsewhere, which --url and --key name, go: {', '.join(COMMANDS)}. "
    "Write them before the command: billhook --url https://billhook.example events --status dead"
)
_URL, _KEY, _KEY_FILE = "BILLHOOK_URL", "BILLHOOK_KEY", "BILLHOOK_KEY_FILE"
_A_KEY = re.compile("[!-~]{1,500}")

Url = Annotated[
    str | None,
    typer.Option(
        help=f"Work on the Billhook at this address, over its management API; also {_URL}. Default: the database here.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        help=f"The API key for it: @FILE, or - to read it from stdin. Better {_KEY} or {_KEY_FILE}: "
        "what is written here is seen by who lists the processes.",
        show_default=False,
    ),
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        from receiver.versions import VERSION

        print(f"billhook {VERSION}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Say which version this is, and end.")
]

_connect: ContextVar[Callable[[], Api] | None] = ContextVar("connect", default=None)


def elsewhere() -> Api | None:
    """The API that the command is to go over; None where it works on the database here. Raises WrongUse."""
    connect = _connect.get()
    return None if connect is None else connect()


def choose(context: typer.Context, url: Url = None, key: Key = None, _version: Version = False) -> None:
    """Note where the command is to work. Raises WrongUse, also for a command that works here alone."""
    address = os.environ.get(_URL) if url is None else url
    _connect.set(None)
    if not address:
        if key is not None:
            raise WrongUse("--key: say --url too")
        return
    checked = _address(address, _URL if url is None else "--url")
    _connect.set(partial(_connected, context, checked, key))
    name = context.invoked_subcommand
    if name not in COMMANDS and "--help" not in sys.argv:
        raise WrongUse(f"`billhook {name}` works on this machine alone: {_without(url)}")


def refuse_elsewhere() -> None:
    """Refuse what works on the database here where the API is to be gone over. Raises WrongUse."""
    if _connect.get() is not None:
        raise WrongUse("this works on this machine alone: leave --url and BILLHOOK_URL out")


@lru_cache(maxsize=1)
def _connected(context: typer.Context, url: str, key: str | None) -> Api:
    from receiver.cli.remote.client import connect

    api = connect(url, _key(key, os.environ))
    if is_heard(url):
        print(f"billhook: {url} is not https: whoever listens on the way reads the key", file=sys.stderr)
    context.call_on_close(api.http.close)
    return api


def is_heard(url: str) -> bool:
    """Whether the key leaves this machine unencrypted."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        address = ip_address(host)
        here = (embedded(address) or address).is_loopback
    except ValueError:
        here = host == "localhost"
    return parts.scheme == "http" and not here


def _without(url: str | None) -> str:
    return f"unset {_URL}" if url is None else "leave --url out"


def _address(text: str, option: str) -> str:
    """The address without a slash at its end. Raises WrongUse, which repeats nothing that may be a password."""
    example = "such as https://billhook.example"
    try:
        parts = urlsplit(text)
        _ = parts.port
        well = parts.scheme in {"http", "https"} and bool(parts.hostname) and text.isascii() and text.isprintable()
    except ValueError:
        well = False
    if not well:
        raise WrongUse(f"{option}: write an address, {example}")
    if "@" in parts.netloc:
        raise WrongUse(f"{option}: leave user and password out: the key says who asks")
    if parts.query or parts.fragment or " " in text:
        raise WrongUse(f"{option}: write the address alone, {example}")
    return text.rstrip("/").removesuffix("/api/v1")


def _key(given: str | None, environ: Mapping[str, str]) -> str:
    """The key, from the option or else the environment. Raises WrongUse, which never repeats it."""
    file = environ.get(_KEY_FILE)
    if given is None and file and environ.get(_KEY):
        raise WrongUse(f"{_KEY_FILE}: {_KEY} is set too; set only one of them")
    if given == "-":
        option, key = "--key", sys.stdin.readline()
    elif given is not None and given.startswith("@"):
        option, key = "--key", _read("--key", given[1:])
    elif given is not None:
        option, key = "--key", given
    elif file:
        option, key = _KEY_FILE, _read(_KEY_FILE, file)
    else:
        option, key = _KEY, environ.get(_KEY, "")
    if not key.strip():
        raise WrongUse(f"{option}: no key is there; `billhook keys create` makes one, and --url needs it")
    if _A_KEY.fullmatch(key.strip()) is None:
        raise WrongUse(f"{option}: what is there is no API key")
    return key.strip()


def _read(option: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise WrongUse(f"{option}: cannot read {path}: {error.strerror}; it names a file with the key") from None
    except ValueError:
        raise WrongUse(f"{option}: {path} is not a text file") from None
