"""The database: whether it answers, its schema, what is encrypted in it, and whether its books balance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from redis import RedisError
from sqlalchemy.exc import DBAPIError

from receiver.cli.doctor.finding import Finding, Site, milliseconds, needed
from receiver.cli.output import Failure, many
from workers import audited, database, diagnosis
from workers.audit import stuck
from workers.delivery.reencryption import outdated
from workers.gauges import dead_events
from workers.vault import VaultError, open_vault

SLOW = 0.1
"""Seconds for a question and its answer; each batch of deliveries takes several."""


def of_database(site: Site) -> Iterator[Finding]:
    """Whether it answers, and how soon."""
    if site.engine is None:
        where = site.settings.state_dir
        yield Finding("database", "ok", f"none yet; the first command that needs it makes it in {where}")
        return
    try:
        server = diagnosis.of_database(site.engine)
    except DBAPIError as error:
        yield Finding("database", "fault", Failure.of(error).message, "start it, or correct the URL")
        return
    said = f"{server.product} answers in {milliseconds(server.latency)}"
    if server.latency > SLOW:
        yield Finding("database", "warning", said, "bring it nearer: each batch of deliveries asks it several times")
    else:
        yield Finding("database", "ok", said)


def of_schema(site: Site) -> Iterator[Finding]:
    """Whether it is the one this version works with."""
    found, ours = database.revision(needed(site.engine)), database.SCHEMA
    if found == ours:
        yield Finding("schema", "ok", f"at {found}, as this version needs it")
    elif found is None:
        yield Finding("schema", "fault", "there is none yet", "run `billhook migrate`")
    elif found < ours:
        yield Finding("schema", "fault", f"at {found}, older than this version's {ours}", "run `billhook migrate`")
    else:
        yield Finding("schema", "fault", f"at {found}, newer than this version's {ours}", "run a newer billhook")


def of_encryption(site: Site) -> Iterator[Finding]:
    """Whether there is a key, and whether the keys open what is stored."""
    engine = needed(site.engine)
    try:
        open_vault(site.settings)
    except VaultError as error:
        yield Finding("encryption", "fault", str(error), "workers that deliver do not start without one")
        return
    found = outdated(engine, site.settings)
    if found.unreadable:
        named = ", ".join(found.unreadable[:5]) + (" and more" if len(found.unreadable) > 5 else "")
        said = f"no key opens what is stored of {named}"
        yield Finding("encryption", "fault", said, "add the key that it was encrypted with to BILLHOOK_ENCRYPTION_KEYS")
    if found.amount.values:
        said = f"{many(found.amount.values, 'value')} under an older key"
        yield Finding("encryption", "warning", said, "run `billhook reencrypt` before you take that key away")
    if not (found.unreadable or found.amount.values):
        yield Finding("encryption", "ok", "the first key opens all that is stored")


def of_books(site: Site) -> Iterator[Finding]:
    """Whether what waits will be taken up, and what the workers' last audit found of all the rest."""
    faults = stuck(needed(site.engine))
    for fault in faults:
        yield Finding("books", "fault", f"{fault.rule}: {' '.join(fault.ids)}", "run `billhook audit`, and report it")
    if faults:
        return
    with suppress(RedisError):
        found = None if site.redis is None else audited.last(site.redis, site.settings.redis_prefix)
        if found is not None and found.faults:
            said = f"the audit of {found.at:%Y-%m-%d %H:%M}Z found {many(found.faults, 'fault')}"
            yield Finding("books", "fault", said, "run `billhook audit`, which names the ids, and report it")
            return
    yield Finding("books", "ok", "all that waits will be taken up; `billhook audit` proves the rest")


def of_dead_events(site: Site) -> Iterator[Finding]:
    """Events that wait for a person."""
    with database.read(needed(site.engine)) as connection:
        count = dead_events(connection)
    if count:
        todo = "`billhook events --status dead` lists them; mend, then `billhook replay --status dead`"
        yield Finding("dead events", "warning", f"{count} that nobody has acknowledged", todo)
    else:
        yield Finding("dead events", "ok", "none")
