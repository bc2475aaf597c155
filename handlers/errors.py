"""What can go wrong on the handlers' side, as one tree.

BillhookError
├── VerificationError      a delivery is not from whom it says (reason: a metric's label)
├── ParseError             a verified body is not an event
├── RegistrationError      a handler cannot be registered or its module not loaded
├── ProviderError          a provider's API refused or failed (code, status, retry_after)
│   └── ProviderUnavailable    … and the same call may succeed later
├── StepError              a step of a handler is misused, or its result cannot be kept
├── LeaseLost              a run went on for so long that it is another process's by now
├── Retry                  raised by a handler: run me again
└── Discard                raised by a handler: this event is none of my business
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class BillhookError(Exception):
    """Root of everything Billhook raises on purpose."""


class VerificationError(BillhookError):
    """A delivery failed verification; `reason` is one stable lower-case word, fit for a metric's label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ParseError(BillhookError):
    """A body that verified is not an event of its provider; the message says what is missing."""


class RegistrationError(BillhookError):
    """A handler cannot be registered, or a module of handlers cannot be loaded."""


class ProviderError(BillhookError):
    """A provider's API answered with an error.

    `code` is the provider's own (`INVOICE_NOT_DRAFT`), `status` the HTTP status (0: no answer came), `details`
    what it says of single fields, `request_id` what its support asks for.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
        details: Sequence[Mapping[str, str]] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.details = tuple(details)
        self.request_id = request_id


class ProviderUnavailable(ProviderError):
    """The API did not answer, was over its limit (429) or failed (5xx): the same call may succeed later."""


class StepError(BillhookError):
    """A step's name was used before, or its result is not JSON, not bytes, or too large to keep."""


class LeaseLost(BillhookError):
    """The run was given to another process, because this one was silent beyond its timeout."""


class Retry(BillhookError):
    """Raise it in a handler to be run again after `after` seconds (default: the handler's own backoff)."""

    def __init__(self, message: str = "asked to be run again", *, after: float | None = None) -> None:
        if after is not None and not isinstance(after, int | float):
            raise TypeError(f"after is a number of seconds, not {type(after).__name__}")
        super().__init__(message)
        self.after = after


class Discard(BillhookError):
    """Raise it in a handler to end the run for good without calling it a failure; `reason` is recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
