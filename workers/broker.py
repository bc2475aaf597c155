"""How the two clients of Redis are told of the same servers: redis-py, and Celery's transport.

With sentinels both ask for the master whenever they connect; one that answers "read only" has been one, and is left.
"""

from __future__ import annotations

import ssl
from copy import copy
from typing import Any, cast
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from workers.redis_url import Servers
from workers.settings import SettingsError

_A_SENTINEL_ANSWERS_WITHIN = 2.0
"""Seconds. One that is gone must not hold up the question to the next."""


class Sentinels(Sentinel):
    """The client's; it moves who answered to the front of its list, and two threads at once would lose one from it."""

    def discover_master(self, service_name: str) -> Any:
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        found = super(Sentinels, asked).discover_master(service_name)  # type: ignore[no-untyped-call]
        self.sentinels = asked.sentinels
        return found


def client(servers: Servers, answer_within: float) -> Redis:
    """A client of the server that takes writes. `answer_within` (seconds) bounds every wait for an answer."""
    options: dict[str, Any] = {
        "db": servers.database,
        "username": servers.username,
        "password": servers.password,
        "socket_timeout": answer_within,
        # Once more at once, if a connection was closed while idle. Who can do without Redis must not wait for it.
        "retry": Retry(NoBackoff(), 1, supported_errors=(NotConnected,)),
    }
    if servers.socket:
        return Redis(unix_socket_path=servers.socket, **options)
    options |= {"socket_connect_timeout": answer_within, **_tls(servers)}
    if servers.name:
        sentinels: Any = Sentinels(servers.hosts, sentinel_kwargs=_sentinels(servers, answer_within))  # type: ignore[no-untyped-call]
        return cast("Redis", sentinels.master_for(servers.name, **options))
    ((host, port),) = servers.hosts
    return Redis(host=host, port=port, **options)


def sentinels(servers: Servers, answer_within: float) -> list[bool]:
    """Whether each of the sentinels answers, in their order."""
    asked = Sentinel(servers.hosts, sentinel_kwargs=_sentinels(servers, answer_within))  # type: ignore[no-untyped-call]
    return [_pongs(one) for one in asked.sentinels]


def _pongs(server: Redis) -> bool:
    try:
        return bool(server.ping())
    except RedisError:
        return False


def configuration(servers: Servers, answer_within: float) -> dict[str, Any]:
    """What of Celery's configuration says where the broker is; of its transport's options, those that do."""
    transport: dict[str, Any] = {"socket_timeout": answer_within, "socket_connect_timeout": answer_within}
    if servers.name:
        transport |= {"master_name": servers.name, "sentinel_kwargs": _sentinels(servers, answer_within)}
    return {
        "broker_url": ";".join(_urls(servers)),
        "broker_use_ssl": False if servers.tls is None else dict(servers.tls),
        "broker_transport_options": transport,
    }


def check(servers: Servers) -> None:
    """Raises SettingsError where TLS names a file that cannot be used; found out later it would look like an outage."""
    if servers.tls is None:
        return
    tls = {name: value for name, value in servers.tls.items() if isinstance(value, str)}
    context = ssl.create_default_context()
    option, holds = "ssl_ca_certs", "no certificate in PEM"
    try:
        if "ssl_ca_certs" in tls:
            context.load_verify_locations(tls["ssl_ca_certs"])
        option, holds = "ssl_certfile", "no certificate and key that belong together, or ssl_password does not open it"
        if "ssl_certfile" in tls:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(tls["ssl_certfile"], tls.get("ssl_keyfile"), tls.get("ssl_password", ""))
    except (OSError, ValueError) as error:
        readable = isinstance(error, (ssl.SSLError, ValueError))
        reason = f"holds {holds}" if readable else f"cannot be read: {getattr(error, 'strerror', None)}"
        raise SettingsError(f"BILLHOOK_REDIS_URL: {option} {reason}") from None


def _sentinels(servers: Servers, answer_within: float) -> dict[str, Any]:
    within = min(answer_within, _A_SENTINEL_ANSWERS_WITHIN)
    return {
        "username": servers.sentinel_username,
        "password": servers.sentinel_password,
        "socket_timeout": within,
        "socket_connect_timeout": within,
        "retry": Retry(NoBackoff(), 0),
        **_tls(servers),
    }


def _tls(servers: Servers) -> dict[str, Any]:
    return {} if servers.tls is None else {"ssl": True, **servers.tls}


def _urls(servers: Servers) -> list[str]:
    """As Celery's transport has them: user, password and database in each, since it takes them in turn."""
    credentials = f"{_quoted(servers.username)}:{_quoted(servers.password)}@"
    credentials = credentials if servers.username or servers.password else ""
    if servers.socket:
        return [f"redis+socket://{credentials}{quote(servers.socket)}?virtual_host={servers.database}"]
    scheme = "sentinel" if servers.name else "redis" if servers.tls is None else "rediss"
    hosts = ((f"[{host}]" if ":" in host else host, port) for host, port in servers.hosts)
    return [f"{scheme}://{credentials}{host}:{port}/{servers.database}" for host, port in hosts]


def _quoted(text: str | None) -> str:
    return quote(text or "", safe="")
