"""What options accept: the types of `workers.settings`, each with its check.

A check says what it wants without quoting the value, which may be secret or in the wrong place.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from workers import redis_url


def _items(value: object) -> object:
    """A list written as JSON, or separated by commas or line ends (a mounted file has one item a line)."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return orjson.loads(value)
    return [item.strip() for item in re.split(r"[,\n]", value) if item.strip()]


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("not host:port")
    return value


def _hours(value: float) -> float:
    if 0 < value < 0.1:
        raise ValueError("neither 0 nor 0.1 or more")
    return value


def _zone(value: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        raise ValueError("no such time zone") from None
    return value


def _database(value: SecretStr) -> SecretStr:
    parts = _url(value)
    if parts.scheme in {"postgresql", "postgresql+psycopg"}:
        # Where something is missing, PostgreSQL's client would fall back to defaults that nobody meant.
        if not (parts.hostname or "host=" in parts.query) or parts.path in {"", "/"}:
            raise ValueError("names no host, or no database")
    elif parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2:
        raise ValueError("not a postgresql:// or sqlite:/// URL")
    return value


def _redis(value: SecretStr) -> SecretStr:
    redis_url.parse(value.get_secret_value())
    return value


def _url(value: SecretStr) -> SplitResult:
    """The parts of a URL, checked without quoting any: one of them may be a password in the wrong place."""
    try:
        parts = urlsplit(value.get_secret_value())
        misplaced = parts.netloc.count("@") > 1 or parts.port == 0
    except ValueError:
        raise ValueError("not a URL: the host or the port is malformed") from None
    if misplaced or parts.fragment or any(character.isspace() for character in value.get_secret_value()):
        raise ValueError("not a URL: write @ in a password as %40, # as %23, and a space as %20")
    return parts


def _ports(value: tuple[str, ...]) -> tuple[str, ...]:
    for port in value:
        if port != "*" and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"{port!r} is no port: a number from 1 to 65535, or * for any")
    return value


def _proxy(value: SecretStr) -> SecretStr:
    parts = _url(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        raise ValueError("not the URL of a proxy, such as http://proxy.internal:3128")
    return value


def _dsn(value: SecretStr) -> SecretStr:
    parts = _url(value)
    project = parts.path.rpartition("/")[2]
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError("not a DSN of Sentry's, such as https://KEY@sentry.internal/1")
    if not parts.username or not (project.isascii() and project.isdigit()):
        raise ValueError("a DSN of Sentry's has its key before the @, and ends with the number of the project")
    return value


def _api(value: str) -> str:
    import httpx  # what will call it; most sources have no such URL

    try:
        parts = urlsplit(value)
        complete = parts.scheme in {"http", "https"} and httpx.URL(value).host and parts.port != 0
    except (httpx.InvalidURL, ValueError):
        complete = False
    if not complete or parts.query or parts.fragment or any(character.isspace() for character in value):
        raise ValueError("not an http:// or https:// URL with a host, and without ? or #")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise ValueError(f"{network!r} is no IP address or network") from None
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_items)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_items)]
AuditHours = Annotated[float, Field(ge=0, le=720), AfterValidator(_hours)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Address = Annotated[str, AfterValidator(_address)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
ApiUrl = Annotated[str, AfterValidator(_api)]
Networks = Annotated[Names, AfterValidator(_networks)]
Ports = Annotated[Names, AfterValidator(_ports)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
SentryDsn = Annotated[SecretStr, AfterValidator(_dsn)]
Zone = Annotated[str, AfterValidator(_zone)]
