"""What the operations of the API work with: it comes with each request, and the application itself knows none of it.

So the application, whose making takes half a second, is the same for every receiver of a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

from fastapi import Request

from receiver.api.doorman import Doorman
from workers.app import Runtime
from workers.schedule.at_once import AtOnce
from workers.schedule.browsing import Counts

SERVICES = "billhook.services"
"""Where, in the scope, they are."""


@dataclass(frozen=True, slots=True)
class Services:
    """Of one receiver."""

    runtime: Runtime
    doorman: Doorman
    at_once: AtOnce
    counts: Counts

    @classmethod
    def of(cls, request: Request) -> Self:
        """Those of the receiver that a request came to."""
        return cast(Self, request.scope[SERVICES])
