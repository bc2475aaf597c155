"""What can be wrong with an endpoint or a delivery as somebody wants it.

BillhookError
├── EndpointError       what was asked for cannot be; the message says what to change
│   ├── NoEndpoint      there is none with that id
│   └── WrongState      the endpoint is not in a state for it
└── DeliveryError       a delivery cannot be sent as asked
    ├── NoDelivery      there is none with that id
    └── HasSucceeded    it succeeded, and it was not said that it is to be sent once more
"""

from __future__ import annotations

from collections.abc import Sequence

from handlers.errors import BillhookError


class EndpointError(BillhookError):
    """An endpoint cannot be as asked; the message is one sentence, without any secret."""


class NoEndpoint(EndpointError):
    """There is no endpoint with that id."""


class WrongState(EndpointError):
    """The endpoint is not in a state for what was asked."""


class DeliveryError(BillhookError):
    """A delivery cannot be sent as asked; the message is one sentence that says what to do."""


class NoDelivery(DeliveryError):
    """There is no delivery with one of the ids."""


class HasSucceeded(DeliveryError):
    """Deliveries succeeded, and are sent once more only where that is said."""

    def __init__(self, delivery_ids: Sequence[str]) -> None:
        self.named = ", ".join(delivery_ids)
        super().__init__(f"{self.named} succeeded: say --succeeded to send the same message once more")
