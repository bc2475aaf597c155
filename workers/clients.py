"""API clients of the configured sources, one for each in a process: making one costs a TLS context."""

from __future__ import annotations

from typing import Any

from handlers.errors import ProviderUnavailable
from handlers.providers import PROVIDERS
from workers.settings import Settings


class Clients:
    """The clients of one process; made when first asked for, kept with their connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """The client of the source `name`.

        Raises ProviderUnavailable when there is none or it has no API key: once that is set, the same call succeeds.
        """
        if name not in self._clients:
            self._clients[name] = self._make(name)
        return self._clients[name]

    def _make(self, name: str) -> Any:
        source = self._settings.sources.get(name)
        if source is None:
            raise ProviderUnavailable("NO_SOURCE", f"there is no source {name!r} in the settings")
        if source.api_key is None:
            variable = f"BILLHOOK_SOURCES__{name.upper()}__API_KEY"
            raise ProviderUnavailable("NO_API_KEY", f"the source {name!r} has no API key: set {variable}")
        options = {"api_url": source.api_url} if source.api_url else {}
        return PROVIDERS[source.provider].client(api_key=source.api_key.get_secret_value(), **options)
