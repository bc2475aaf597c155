"""The fields of an endpoint, as it is asked for and as it is changed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field

from receiver.api.answers import Model
from workers.delivery import specs
from workers.delivery.egress import MAX_URL

EndpointId = Annotated[str, Path(max_length=40, description="`ep_…`")]

Url = Annotated[str, Field(max_length=MAX_URL, description="http or https; private addresses only where settings say.")]
Description = Annotated[str, Field(max_length=specs.MAX_DESCRIPTION, description="For people.")]
EventTypes = Annotated[
    tuple[str, ...],
    Field(
        min_length=1,
        max_length=specs.MAX_PATTERNS,
        description="Types, prefixes such as `receipt.*`, or `*`, which is all but Billhook's own `billhook.*`.",
    ),
]
Sources = Annotated[
    tuple[str, ...], Field(max_length=1000, description="Only what comes of these sources; none is every source.")
]
Forward = Annotated[bool, Field(description="Also what providers send, as it was received.")]
Headers = Annotated[
    dict[str, str],
    Field(description="Headers of its own, such as a token for a gateway. Written only: their names are shown."),
]
Signing = Annotated[Literal["v1", "v1a", "v1,v1a"], Field(description="HMAC-SHA256, Ed25519, or both.")]
Schedule = Annotated[
    tuple[Annotated[float, Field(ge=0, le=specs.LONGEST_WAIT, allow_inf_nan=False)], ...] | None,
    Field(min_length=1, max_length=specs.MAX_ATTEMPTS, description="Seconds before each attempt; null is the usual."),
]
Rate = Annotated[
    int | None,
    Field(ge=0, le=specs.MAX_RATE, description="Deliveries a second; 0 is without limit, null is the setting."),
]
Concurrency = Annotated[
    int | None, Field(ge=1, le=specs.MAX_CONCURRENCY, description="Deliveries at once; null is the setting.")
]
Ca = Annotated[str | None, Field(description="PEM of the authorities that vouch for it; null is the usual ones.")]
ClientCertificate = Annotated[
    str | None,
    Field(description="PEM of the certificate that Billhook shows to it, and of its key. Written only."),
]


class WantedEndpoint(Model):
    """An endpoint as it is asked for."""

    url: Url
    description: Description = ""
    event_types: EventTypes = ("*",)
    sources: Sources = ()
    forward: Forward = False
    headers: Headers = Field(default_factory=dict)
    signing: Signing = "v1"
    schedule: Schedule = None
    rate: Rate = None
    concurrency: Concurrency = None
    ca: Ca = None
    client_certificate: ClientCertificate = None
    secret: str | None = Field(
        None, max_length=200, description="A `whsec_…` that the subscriber has already; one is made without it."
    )


class ChangedEndpoint(Model):
    """What is to be changed of an endpoint: what is given, and nothing else. Lists and headers are replaced whole."""

    # Only what is given is read, so these are never taken, and are in no description as a list of defaults would be.
    url: Url = Field(default_factory=str)
    description: Description = Field(default_factory=str)
    event_types: EventTypes = Field(default_factory=tuple)
    sources: Sources = Field(default_factory=tuple)
    forward: Forward = Field(default_factory=bool)
    headers: Headers = Field(default_factory=dict)
    signing: Signing = Field(default_factory=lambda: "v1")
    schedule: Schedule = None
    rate: Rate = None
    concurrency: Concurrency = None
    ca: Ca = None
    client_certificate: ClientCertificate = None
