"""API clients of the configured sources, one for each in a process: making one costs a TLS context."""

from __future__ import annotations

import atexit
import threading
import weakref
from types import TracebackType
from typing import Any, Self

from celery import signals

from handlers.errors import ProviderUnavailable
from handlers.providers import PROVIDERS
from workers.settings import Settings

_open: weakref.WeakSet[Clients] = weakref.WeakSet()
"""All of this process."""


@signals.worker_process_shutdown.connect  # a process of the worker's pool ends without what `atexit` knows
def close_all(**_: Any) -> None:
    """Close the clients of this process, because it ends."""
    for clients in list(_open):
        clients.close()


atexit.register(close_all)


class Clients:
    """The clients of one process; made when first asked for, kept with their connections until that ends."""

    def __init__(self, settings: Settings, *, max_wait: float = 0.0, deadline: float = 90.0) -> None:
        """`max_wait`: seconds that a client waits for its API's limit. By default none: it waits in the database.

        `deadline`: seconds that one call may take.
        """
        self._settings = settings
        self._limits = {"max_wait": max_wait, "deadline": deadline}
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        _open.add(self)

    def get(self, name: str) -> Any:
        """The client of the source `name`.

        Raises ProviderUnavailable when there is none or it has no API key: once that is set, the same call succeeds.
        """
        with self._lock:
            if name not in self._clients:
                self._clients[name] = self._make(name)
            return self._clients[name]

    def close(self) -> None:
        """Close those that there are, and their connections; who asks for one after that gets a new one."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def meant(self, name: str | None, own: str) -> Any:
        """The client that a handler means by the name of a source or of a provider; None: the event's `own` source.

        Of several sources of one provider the event's own is meant. Raises ProviderUnavailable as `get`.
        """
        if name is None or name in self._settings.sources:
            return self.get(name or own)
        of_provider = [source for source, one in self._settings.sources.items() if one.provider == name]
        if own in of_provider:
            return self.get(own)
        if len(of_provider) > 1:
            names = ", ".join(of_provider)
            raise ProviderUnavailable("NO_SOURCE", f"several sources are of provider {name!r}; name one: {names}")
        return self.get(of_provider[0] if of_provider else name)

    def _make(self, name: str) -> Any:
        source = self._settings.sources.get(name)
        if source is None:
            raise ProviderUnavailable("NO_SOURCE", f"there is no source {name!r} in the settings")
        if source.api_key is None:
            variable = f"BILLHOOK_SOURCES__{name.upper()}__API_KEY"
            raise ProviderUnavailable("NO_API_KEY", f"the source {name!r} has no API key: set {variable}")
        client = PROVIDERS[source.provider].client
        if client is None:
            raise ProviderUnavailable("NO_API", f"{source.provider} is no provider with an API")
        options = {"api_url": source.api_url} if source.api_url else {}
        try:
            return client(api_key=source.api_key.get_secret_value(), **self._limits, **options)
        except ValueError as error:  # its message quotes no secret
            raise ProviderUnavailable(
                "BAD_SETTINGS", f"the client of source {name!r} cannot be made: {error}"
            ) from None
