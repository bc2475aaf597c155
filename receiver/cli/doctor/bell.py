"""Redis, the processes that hear it, and what waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from redis import RedisError
from sqlalchemy.exc import DBAPIError

from receiver.cli.doctor.finding import Finding, Site, milliseconds, needed
from receiver.cli.output import Failure
from workers import database, diagnosis
from workers.embedded import binary
from workers.gauges import backlogs, due_at_sources
from workers.leases import utcnow
from workers.presence import WITHIN, announced
from workers.redis_url import parse

SLOW = 0.1
"""Seconds for a question and its answer; each batch of deliveries asks once."""
OLD = 60.0
"""Seconds that something may have been due before somebody should look."""
LONG = 1_000
"""Messages in a queue; the sweep adds none beyond a hundred."""


def of_redis(site: Site) -> Iterator[Finding]:
    """Whether it answers, how soon, and whether it keeps what it is given."""
    if site.redis is None:
        binary()  # raises EmbeddedError, which says what to install
        yield Finding("redis", "ok", "the embedded server; it starts with `billhook up` and does not run now")
        return
    try:
        server = diagnosis.of_redis(site.redis)
    except (RedisError, OSError) as error:
        said = f"it does not answer: {type(error).__name__}; deliveries are accepted all the same, handlers run late"
        yield Finding("redis", "fault", said, "start it, or correct BILLHOOK_REDIS_URL")
        return
    said = f"{server.product} answers in {milliseconds(server.latency)}"
    if not server.writable:
        yield Finding("redis", "fault", f"{server.product} is a replica, and takes no writes", "name the master")
    elif server.latency > SLOW:
        yield Finding("redis", "warning", said, "bring it nearer: each batch of deliveries asks it")
    else:
        yield Finding("redis", "ok", said)
    if server.unsafe_policy:
        limit = f"at {server.full_at} bytes" if server.full_at else "once maxmemory is set"
        said = f"maxmemory-policy is {server.unsafe_policy}: {limit} it would throw queues away"
        yield Finding("redis", "warning", said, "set maxmemory-policy to noeviction")


def of_sentinels(site: Site) -> Iterator[Finding]:
    """Where there are some: who is the master, and whether all of them answer."""
    if site.settings.redis_url is None:
        return
    servers = parse(site.settings.redis_url.get_secret_value())
    if not servers.name:
        return
    silent = diagnosis.silent_sentinels(servers, 0.8)
    said = f"the master of {servers.name} is {diagnosis.master(needed(site.redis))}"
    if silent:
        count = f"{len(silent)} of {len(servers.hosts)} do not answer: {', '.join(silent)}"
        yield Finding("sentinels", "warning", f"{said}; {count}", "start them: a majority must agree on a new master")
    else:
        yield Finding("sentinels", "ok", f"{said}; all {len(servers.hosts)} answer")


def of_clocks(site: Site) -> Iterator[Finding]:
    """How far the clocks of the servers are from this machine's. Leases and due dates go by the clocks."""
    seen: dict[str, float | None] = {}
    if site.engine is not None:
        with suppress(DBAPIError):  # that it does not answer is said elsewhere
            seen["database"] = diagnosis.of_database(site.engine).ahead
    if site.redis is not None:
        with suppress(RedisError):
            seen["Redis"] = diagnosis.of_redis(site.redis).ahead
    worst = max((abs(ahead) for ahead in seen.values() if ahead is not None), default=0.0)
    told = ", ".join(_told(name, ahead) for name, ahead in seen.items() if ahead is not None)
    todo = "have both machines ask a time server (NTP)"
    if worst > site.settings.lease_grace / 2:
        said = f"{told}: work may be taken from a process that still has it"
        yield Finding("clocks", "fault", said, f"{todo}, or raise BILLHOOK_LEASE_GRACE for now")
    elif worst > 1.0:
        yield Finding("clocks", "warning", told, todo)
    elif told:
        yield Finding("clocks", "ok", told)


def _told(name: str, ahead: float) -> str:
    if abs(ahead) < 0.001:
        return f"{name} as here"
    return f"{name} {abs(ahead):.3f} s {'ahead' if ahead > 0 else 'behind'}"


def of_processes(site: Site) -> Iterator[Finding]:
    """Who has said of late, in Redis, that it does its work."""
    known = [] if site.redis is None else announced(site.redis, site.settings.redis_prefix)
    for name, does in (("work", "runs handlers"), ("beat", "ticks")):
        mine = [one for one in known if one.name == name]
        alive = [one for one in mine if one.silent <= WITHIN]
        if alive:
            hosts = ", ".join(sorted({one.host for one in alive}))
            yield Finding("processes", "ok", f"{len(alive)} `billhook {name}` on {hosts}")
        else:
            last = f"; the last was heard {mine[0].silent:.0f} s ago, on {mine[0].host}" if mine else ""
            said = f"no `billhook {name}` that {does} was heard of{last}"
            yield Finding("processes", "warning", said, f"start `billhook {name}`, or `billhook up` for all of them")


def of_queues(site: Site) -> Iterator[Finding]:
    """What is due and not taken, and what lies in Celery's queues."""
    with database.read(needed(site.engine)) as connection:
        now = utcnow()
        found = backlogs(connection, now, due_at_sources(connection, now))
    try:
        lengths = {} if site.redis is None else diagnosis.queue_lengths(site.redis, site.settings)
    except RedisError as error:
        lengths = {}
        yield Finding("queues", "warning", f"their messages could not be counted: {Failure.of(error).message}")
    for one in found:
        messages = f", {lengths[one.queue]} messages" if one.queue in lengths else ""
        if one.waiting and one.oldest > OLD:
            said = f"{one.queue}: {one.waiting} due, the oldest for {one.oldest:.0f} s{messages}"
            yield Finding(
                "queues", "warning", said, f"are there workers with `--queues {one.queue}`, and enough of them?"
            )
        elif lengths.get(one.queue, 0) > LONG:
            todo = "are there workers enough? messages are hints only, and none is lost"
            yield Finding("queues", "warning", f"{one.queue}: {one.waiting} due{messages}", todo)
        else:
            yield Finding("queues", "ok", f"{one.queue}: {one.waiting} due{messages}")
