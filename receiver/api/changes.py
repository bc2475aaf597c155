"""How a request changes something: in one transaction with its entry in the audit log and with the answer that is kept.

With an `Idempotency-Key` a request that is sent again gets the answer of the first; with `If-Match` it is carried out
only on the version that the caller has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from cryptography.fernet import MultiFernet
from fastapi import Depends, Header, Request, Response, Security
from pydantic import BaseModel

from receiver.api.access import caller as find_caller
from receiver.api.answers import One, tag_of
from receiver.api.errors import ApiError
from receiver.api.services import Services
from workers import idempotency
from workers.api_keys import Caller
from workers.app import Runtime, ring
from workers.idempotency import Answered, Asked, Do
from workers.leases import utcnow
from workers.vault import open_vault

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=idempotency.LONGEST,
        description="Send the same key with the same request again, and it is carried out once; kept for 24 hours.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=100, description="The ETag of the version that is to be changed."),
]


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes something: by whom, when, and under which key."""

    runtime: Runtime
    caller: Caller
    asked: Asked | None
    now: datetime

    @property
    def actor(self) -> str:
        """As the audit log names who asked."""
        return self.caller.actor

    @property
    def vault(self) -> MultiFernet:
        """What encrypts secrets. Raises VaultError."""
        return open_vault(self.runtime.settings)

    def carry_out(
        self, do: Callable[[], BaseModel | None], *, status: int = 200, rings: Sequence[tuple[str, list[str]]] = ()
    ) -> Response:
        """Do it, once for its key, and answer with what it made; `rings` (task, ids) are told to the workers after it.

        `do` works on the database by `self.runtime.engine` alone, and what it does commits or fails as a whole.
        """

        def once(_connection: Any) -> Answered:
            made = do()
            body = b"" if made is None else One(data=made).model_dump_json().encode()
            return Answered(204 if made is None else status, body)

        answered = self._once(once)
        for task, ids in rings:
            if ids:
                ring(task, ids)
        return _response(answered)

    def begin(self, do: Callable[[], str], *, first: Callable[[], None]) -> tuple[str, bool]:
        """Begin, once for its key, what goes on after the transaction: the id of it, and whether it was begun before.

        Who asks again is answered with what has become of it. `first` asks somebody else whether it can be begun, which
        must not be in a transaction; it is not asked again for what was begun.
        """
        begun = None
        if self.asked is not None:
            begun = idempotency.before(self.runtime.engine, self.asked, self.now, vault=self.vault)
        if begun is None:
            first()
            begun = self._once(lambda _: Answered(202, do().encode()))
        return begun.body.decode(), begun.before

    def _once(self, do: Do) -> Answered:
        vault = self.vault if self.asked is not None else None
        return idempotency.carry_out(self.runtime.engine, do, self.now, asked=self.asked, vault=vault)


def answer(made: BaseModel, status: int, *, before: bool = False) -> Response:
    """What was made, as it is answered; `before`: to who asked for it already."""
    return _response(Answered(status, One(data=made).model_dump_json().encode(), before))


def _response(answered: Answered) -> Response:
    headers = {"Idempotency-Replayed": "true"} if answered.before else {}
    if answered.status == 204:
        return Response(status_code=204, headers=headers)
    return Response(answered.body, answered.status, headers, media_type="application/json")


def changing(scope: str) -> Any:
    """The dependency of an operation that changes something: `Annotated[Change, changing("events:write")]`."""

    async def change(
        request: Request,
        # Not in an annotation, which could not be resolved: the scope is known in here alone.
        caller: Caller = Security(find_caller, scopes=[scope]),  # noqa: B008
        key: IdempotencyKey = None,
    ) -> Change:
        asked = None if key is None else Asked(caller.id, key, _digest(request, await request.body()))
        return Change(Services.of(request).runtime, caller, asked, utcnow())

    return Depends(change)


def _digest(request: Request, body: bytes) -> bytes:
    parts = (request.method.encode(), request.url.path.encode(), request.url.query.encode(), body)
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts)).digest()


def expect(current: BaseModel, if_match: str | None) -> None:
    """Raise ApiError 412 where the caller has seen another version than this one."""
    if if_match is None or if_match.strip() == "*":
        return
    if tag_of(current) not in [one.strip() for one in if_match.split(",")]:
        raise ApiError(412, "it was changed since you read it: read it again")
