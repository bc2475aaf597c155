"""The URL of Redis or Valkey: one server, one socket, or servers that sentinels watch.

    redis://[[user]:password@]host[:6379][/database]
    redis+sentinel://[[user]:password@]host[:26379][,host…]/name[/database]
    unix://[[user]:password@]/path/of/the/socket

`rediss` in place of `redis` means TLS, with the sentinels too. Neither Celery nor the Redis client reads the second
form, and they differ in what they make of the others; so each is read here, once, for both. The second is written as
Prefect, LangChain and RedisVL have it: user and password are those of the servers, a sentinel's own stand behind the ?.

An error says what is wanted without quoting any part: each of them may be a password in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix")
_SENTINELS = "redis+sentinel://host:26379,host:26379/name"
_PARTS = re.compile(r"(?P<authority>[^/?]*)(?P<path>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"(?![0-9]+$)[A-Za-z0-9._-]+")
"""Of what sentinels watch, as they accept it. A number alone is a database where the name was forgotten."""
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname")
_OF_SENTINELS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class Servers:
    """What a URL says. `name`: what sentinels at `hosts` call the server that is wanted; empty: there are none."""

    hosts: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    name: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str | bool] | None = field(default=None, repr=False)
    """Options as the Redis client calls them; None: no TLS."""

    def passwords(self) -> tuple[str, ...]:
        """All that are in the URL."""
        of_the_key = (self.tls or {}).get("ssl_password")
        return tuple(str(one) for one in (self.password, self.sentinel_password, of_the_key) if one)


def parse(url: str) -> Servers:
    """What the URL says. Raises ValueError, whose text quotes nothing of it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        if "sentinel" in scheme:
            raise ValueError(f"the URL of sentinels is {_SENTINELS}, or rediss+sentinel:// with TLS")
        raise ValueError("not a redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix:// URL")
    parts = _PARTS.fullmatch(rest)
    if parts is None or "#" in rest or parts["authority"].count("@") > 1 or any(one.isspace() for one in rest):
        raise ValueError("not a URL: write @ in a password as %40, # as %23, / as %2F, ? as %3F, and a space as %20")
    credentials, _, hosts = parts["authority"].rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(parts["query"], scheme)
    server = _socket(hosts, parts["path"], options) if scheme == "unix" else _servers(scheme, hosts, parts["path"])
    return replace(
        server,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if scheme.startswith("rediss") else None,
    )


def _servers(scheme: str, written: str, path: str) -> Servers:
    sentinels = scheme.endswith("+sentinel")
    hosts = tuple(_host(one, 26379 if sentinels else 6379) for one in written.split(","))
    if not sentinels:
        if len(hosts) > 1:
            raise ValueError(f"one host only; the URL of sentinels is {_SENTINELS}")
        return Servers(hosts, database=_database(path.removeprefix("/")))
    name, _, database = path.removeprefix("/").partition("/")
    if not _NAME.fullmatch(unquote(name)):
        raise ValueError(f"behind the sentinels stands the name of what they watch: {_SENTINELS}")
    return Servers(hosts, name=unquote(name), database=_database(database))


def _socket(host: str, path: str, options: Mapping[str, str]) -> Servers:
    if host or not path.removeprefix("/"):
        raise ValueError("a socket is named by its whole path: unix:///path/of/the/socket")
    return Servers(socket=unquote(path), database=_database(options.get("db", "")))


def _host(written: str, default: int) -> tuple[str, int]:
    if not written or written.startswith(":"):
        raise ValueError("names no host")
    found = _HOST.fullmatch(written)
    port = int(found["port"] or default) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError("not a URL: the host or the port is malformed")
    return unquote(found["host"]).strip("[]"), port


def _database(written: str) -> int:
    if not written:
        return 0
    if not (written.isascii() and written.isdigit()):
        raise ValueError("behind the host stands the number of a database, or nothing")
    return int(written)


def _options(query: str | None, scheme: str) -> dict[str, str]:
    known = (
        *(("db",) if scheme == "unix" else ()),
        *(_TLS if scheme.startswith("rediss") else ()),
        *(_OF_SENTINELS if scheme.endswith("+sentinel") else ()),
    )
    pairs = [one.partition("=") for one in query.split("&")] if query else []
    # Not as a form is read: there a + would be a space, and passwords have it.
    found = {name: unquote(value) for name, _, value in pairs}
    if len(found) < len(pairs) or not all(found.values()) or not found.keys() <= set(known):
        raise ValueError(
            f"behind ? stand, once each: {', '.join(known)}" if known else f"{scheme}:// has nothing behind ?"
        )
    return found


def _tls(options: Mapping[str, str]) -> dict[str, str | bool]:
    required, check = options.get("ssl_cert_reqs", "required"), options.get("ssl_check_hostname", "true").lower()
    if required not in {"required", "optional", "none"}:
        raise ValueError("ssl_cert_reqs is required, optional or none")
    if check not in {"true", "false"}:
        raise ValueError("ssl_check_hostname is true or false")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    files = {name: options[name] for name in _TLS[:4] if name in options}
    return {**files, "ssl_cert_reqs": required, "ssl_check_hostname": check == "true" and required != "none"}
