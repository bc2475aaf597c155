"""Resources that have states and nothing more: a draft is changed and deleted, what was posted or filed is not.

That is the sandbox's own choice for all of them; the reference names the actions post, void and send, and says that a
posted invoice cannot be deleted.
"""

from __future__ import annotations

from functools import partial

from handlers.providers.hibr.sandbox.access import Visit
from handlers.providers.hibr.sandbox.answers import conflict, moment
from handlers.providers.hibr.sandbox.records import Action, Kind
from handlers.providers.hibr.sandbox.tables import Record, Resource

DRAFT, POSTED, FILED, VOID = "draft", "posted", "filed", "void"


def kind(resource: str, name: str, scope: str | None, *, filed: bool = False, required: tuple[str, ...] = ()) -> Kind:
    """draft → posted → void, or for what goes to an authority draft → filed."""
    done = FILED if filed else POSTED
    actions = {"file" if filed else "post": Action(change=partial(move, (DRAFT,), done))}
    if not filed:
        actions["void"] = Action(change=partial(move, (POSTED,), VOID))
    return Kind(
        resource=resource,
        object=name,
        scope=scope,
        required=required,
        fixed=frozenset({"status", "posted_at", "filed_at", "voided_at"}),
        create=begin,
        change=change_draft,
        check_delete=check_draft,
        actions=actions,
    )


def begin(visit: Visit, before: Resource, asked: Resource) -> Resource:
    return {"status": DRAFT, **asked}


def change_draft(visit: Visit, before: Resource, asked: Resource) -> Resource:
    if before["status"] != DRAFT:
        raise conflict(f"Only a draft can be changed; this record is {before['status']}.")
    return before | asked


def check_draft(visit: Visit, record: Record) -> None:
    if record.fields["status"] != DRAFT:
        raise conflict(f"Only a draft can be deleted; this {record.object} is {record.fields['status']}.")


def move(sources: tuple[str, ...], target: str, visit: Visit, before: Resource, asked: Resource) -> Resource:
    """To another state, with the moment of it. Raises conflict_error."""
    check_state(before, sources, target)
    stamp = {POSTED: "posted_at", FILED: "filed_at", VOID: "voided_at"}[target]
    return before | {"status": target, stamp: moment(visit.now)}


def check_state(before: Resource, sources: tuple[str, ...], target: str) -> None:
    if before["status"] not in sources:
        raise conflict(f"A record that is {before['status']} cannot become {target}.")
