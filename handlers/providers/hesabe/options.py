"""What a schedule tells Hesabe beside what every schedule says (Hesabe, Single invoice; Subscription invoice)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from handlers.providers.hesabe import fields
from handlers.providers.hesabe.models import InvoiceSubType, PaymentType, SubscriptionType

CHANNELS: Mapping[str, InvoiceSubType] = {
    "sms": InvoiceSubType.SMS,
    "whatsapp": InvoiceSubType.WHATSAPP,
    "email": InvoiceSubType.EMAIL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """An agreement with the customer. Both are to be told, because the documents contradict each other."""

    type: SubscriptionType | str
    """As it is sent; see `SubscriptionType`."""
    on_demand: bool
    """What that means for this account: whether we capture each payment, or Hesabe all by itself."""

    def __post_init__(self) -> None:
        fields.choice("type", self.type, SubscriptionType)
        if not isinstance(self.on_demand, bool):
            raise ValueError("on_demand must be true or false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a schedule. Raises ValueError that begins with the name of one."""

    mobile_number: str
    customer_name: str
    payment_types: Sequence[str]
    country_code: str = "965"
    email: str | None = None
    language: str | None = None
    description: str | None = None
    webhook: str | None = None
    channel: str | None = None
    """How the invoice is sent: a key of `CHANNELS`. None: by SMS, where it is sent at all."""
    subscription: Subscription | None = None
    """None: each due date has an invoice of its own."""

    def __post_init__(self) -> None:
        fields.mobile_number("mobile_number", self.mobile_number)
        fields.text("customer_name", self.customer_name)
        fields.choices("payment_types", self.payment_types, PaymentType)
        fields.country_code("country_code", self.country_code)
        fields.email("email", self.email)
        fields.language("language", self.language)
        fields.optional_text("description", self.description, fields.MAX_DESCRIPTION)
        fields.url("webhook", self.webhook)
        if self.channel is not None:
            fields.one_of("channel", self.channel, tuple(CHANNELS))
        if not (self.subscription is None or isinstance(self.subscription, Subscription)):
            raise ValueError("subscription must be an object with type and on_demand")


def options_of(given: Mapping[str, Any]) -> Options:
    """Read them from JSON. Raises ValueError: one sentence that begins with `options`."""
    read = dict(given)
    if isinstance(types := given.get("payment_types"), list | tuple):
        read["payment_types"] = [str(one) if isinstance(one, int) else one for one in types]
    if isinstance(subscription := given.get("subscription"), Mapping):
        read["subscription"] = _read(Subscription, subscription, "options.subscription")
    return _read(Options, read, "options")


T = TypeVar("T", Options, Subscription)


def _read(kind: type[T], given: Mapping[str, Any], where: str) -> T:
    known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(kind)}
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise ValueError(f"{where}: there is no {unknown!r}; Hesabe takes {', '.join(known)}.")
    told = {name: value for name, value in given.items() if value is not None}
    missing = next((name for name, needed in known.items() if needed and name not in told), None)
    if missing is not None:
        raise ValueError(f"{where}.{missing} is needed.")
    try:
        return kind(**told)
    except ValueError as error:
        raise ValueError(f"{where}.{error}.") from None
