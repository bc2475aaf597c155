"""What is asked over the network: the receiver, the endpoints, and, if that is wanted, the providers' APIs."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.errors import ProviderError, ProviderUnavailable
from handlers.providers import PROVIDERS
from receiver.cli.doctor.finding import Finding, Site, needed
from receiver.cli.output import many
from workers import database
from workers.clients import Clients
from workers.delivery.egress import Egress
from workers.delivery.reach import places, reach
from workers.vault import VaultError, open_vault

MOST_ENDPOINTS = 100
PATIENCE = 2.0
"""Seconds for a connection."""


def of_receiver(site: Site) -> Iterator[Finding]:
    """Whether it is ready, where BILLHOOK_LISTEN says."""
    import httpx

    host, _, port = site.settings.listen.rpartition(":")
    local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not to listen there
    url = f"http://{local}:{port}/readyz"
    try:
        answer = httpx.get(url, timeout=PATIENCE, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        said = f"none answers at {local}:{port}"
        yield Finding("receiver", "warning", said, "start `billhook serve`, unless it runs on another machine")
        return
    if answer.status_code == 200:
        yield Finding("receiver", "ok", f"ready at {local}:{port}")
        return
    try:
        said = " ".join(str(value) for value in answer.json().values())
    except (ValueError, AttributeError):
        said = "no answer of Billhook's"
    todo = "is it another program's port? See BILLHOOK_LISTEN" if answer.status_code != 503 else "see its log"
    yield Finding("receiver", "fault", f"{url} answers {answer.status_code}: {said[:200]}", todo)


def of_endpoints(site: Site) -> Iterator[Finding]:
    """Whether each enabled one can be connected to, by the same rules as a delivery; no request is sent."""
    engine = needed(site.engine)
    try:
        vault = open_vault(site.settings)
    except VaultError:
        vault = None
    with database.read(engine) as connection:
        found = places(connection, vault, MOST_ENDPOINTS)
    reached = reach(found.enabled, Egress.of(site.settings), PATIENCE)
    failed = [one for one in reached if one.error]
    good = len(reached) - len(failed)
    more = f"; {found.more} more were not tried" if found.more else ""
    yield Finding("endpoints", "ok", f"{good} of {many(len(reached), 'enabled one')} can be connected to{more}")
    for one in failed:
        said = f"{one.place.id}: {one.detail}"
        if one.error == "refused":
            yield Finding("endpoints", "fault", said, "nothing is ever sent there: change its URL, or the setting")
        else:
            todo = f"`billhook endpoints show {one.place.id}` tells where it is; its subscriber must mend it"
            yield Finding("endpoints", "warning", said, todo)
    for endpoint_id, reason in found.disabled:
        because = f": {reason}" if reason else ""
        todo = f"`billhook endpoints enable {endpoint_id}` once it is well again"
        yield Finding("endpoints", "warning", f"{endpoint_id} is disabled{because}", todo)


def of_apis(site: Site) -> Iterator[Finding]:
    """Whether the key of each source works."""
    asked = {name: one for name, one in site.settings.sources.items() if site.online and one.api_key is not None}
    with Clients(site.settings, deadline=PATIENCE) as clients:
        for name, source in asked.items():
            ask = PROVIDERS[source.provider].ask
            if ask is None:
                continue
            try:
                ask(clients.get(name))
            except ProviderUnavailable as error:
                todo = "try again; can it be reached from here? See its api_url"
                yield Finding("api keys", "warning", f"{name} ({source.provider}): {error}", todo)
            except ProviderError as error:
                todo = f"correct BILLHOOK_SOURCES__{name.upper()}__API_KEY"
                yield Finding("api keys", "fault", f"{name} ({source.provider}): {error}", todo)
            else:
                yield Finding("api keys", "ok", f"{name} ({source.provider}): its API takes the key")
