"""What somebody wrote about an endpoint on the command line, as the fields of an `EndpointSpec`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.cli.output import WrongUse

_WAIT = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_FROM_FILE = re.compile(r"([^:=\s]+)=@(.+)", re.DOTALL)
_NAMES = {"type": "event_types", "source": "sources", "header": "headers"}
"""Options that are named otherwise than the field that they fill."""

Types = Annotated[
    list[str] | None, typer.Option("--type", help="An event type, receipt.* or *; once for each. Default: *.")
]
Sources = Annotated[list[str] | None, typer.Option("--source", help="Only what comes of this source; once for each.")]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", help="'Name: value', or Name=@FILE for the value that a file has; once for each."),
]
Signing = Annotated[str | None, typer.Option(help="v1 (HMAC), v1a (Ed25519) or v1,v1a. Default: v1.")]
Schedule = Annotated[
    str | None, typer.Option(help="Waits before the attempts: 0,5s,5m,2h,1d; 1 to 20 of at most 7 days.")
]
Rate = Annotated[int | None, typer.Option(help="Deliveries a second; 0 is without limit.")]
Concurrency = Annotated[int | None, typer.Option(help="Deliveries at once: 1 to 1000.")]
Ca = Annotated[Path | None, typer.Option(help="PEM file of the authorities that vouch for it, not the usual ones.")]
ClientCertificate = Annotated[
    Path | None, typer.Option(help="PEM file of the certificate that it knows us by, and of its key.")
]
Description = Annotated[str | None, typer.Option(help="For people.")]


def wishes(
    *,
    types: Sequence[str] | None,
    sources: Sequence[str] | None,
    headers: Sequence[str] | None,
    schedule: str | None,
    ca: Path | None,
    client_certificate: Path | None,
    **others: Any,
) -> dict[str, Any]:
    """The fields that were written, by their names. Raises WrongUse."""
    found = {
        "event_types": tuple(types) if types else None,
        "sources": tuple(sources) if sources else None,
        "headers": _headers(headers) if headers else None,
        "schedule": None if schedule is None else waits("--schedule", schedule),
        "ca": None if ca is None else _read("--ca", ca),
        "client_certificate": None if client_certificate is None else _read("--client-certificate", client_certificate),
        **others,
    }
    return {name: value for name, value in found.items() if value is not None}


def usual(reset: Sequence[str], given: Collection[str]) -> dict[str, Any]:
    """The fields that are to be as if they had never been written. Raises WrongUse."""
    from workers.delivery.specs import EndpointSpec

    spec = EndpointSpec(url="")
    usually = {one.name: getattr(spec, one.name) for one in fields(spec) if one.name not in {"url", "signing"}}
    options = {name: name.replace("_", "-") for name in usually} | {name: option for option, name in _NAMES.items()}
    names = {option: name for name, option in options.items()}
    found = {}
    for option in reset:
        if option not in names:
            raise WrongUse(f"--reset: {option!r} is none of {', '.join(sorted(names))}")
        if names[option] in given:
            raise WrongUse(f"--reset: {option} is given a value too")
        found[names[option]] = usually[names[option]]
    return found


def waits(option: str, text: str) -> tuple[float, ...]:
    """Seconds, from a text such as `0,5s,5m`. Raises WrongUse, which names the option."""
    return tuple(seconds(option, part.strip()) for part in text.split(","))


def seconds(option: str, text: str) -> float:
    """Seconds, from a text such as `90`, `90s`, `1.5h` or `1d`; whole ones as an integer. Raises WrongUse."""
    found = _WAIT.fullmatch(text)
    if found is None or not text.isascii():
        raise WrongUse(f"{option}: {text!r} is no time such as 0, 5s, 5m, 2h or 1d")
    amount = float(found[1]) * _SECONDS[found[2]]
    return int(amount) if amount.is_integer() else amount


def _headers(written: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in written:
        name, value = _header(text)
        if name in headers:
            raise WrongUse(f"--header: {name!r} stands twice")
        headers[name] = value
    return headers


def _header(text: str) -> tuple[str, str]:
    if (in_file := _FROM_FILE.fullmatch(text)) is not None:
        return in_file[1], _read(f"--header {in_file[1]}", Path(in_file[2])).strip()
    name, colon, value = text.partition(":")
    if not colon:  # what is there may be a secret, so it is not repeated
        raise WrongUse("--header: write 'Name: value', or Name=@FILE")
    return name, value.strip()


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise WrongUse(f"{option}: cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise WrongUse(f"{option}: {path} is not a text file") from None
