"""What can be wrong with an endpoint as somebody wants it.

BillhookError
└── EndpointError       what was asked for cannot be; the message says what to change
    └── NoEndpoint      there is none with that id
"""

from __future__ import annotations

from handlers.errors import BillhookError


class EndpointError(BillhookError):
    """An endpoint cannot be as asked; the message is one sentence, without any secret."""


class NoEndpoint(EndpointError):
    """There is no endpoint with that id."""
