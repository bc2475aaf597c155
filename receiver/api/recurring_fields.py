"""The fields of recurring invoices, as they are asked for and as they are shown."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from receiver.api.answers import Model, Moment, Pages, Pagination, id_of
from workers.models import prose
from workers.schedule.plans import LONGEST_TEXT, MOST_ITEMS, MOST_OCCURRENCES
from workers.schedule.schedules import Filter

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGITS, _DECIMALS = 15, 10
_NUMBER = rf"^-?[0-9]{{1,{_DIGITS}}}(\.[0-9]{{1,{_DECIMALS}}})?$"


def storable(text: str) -> str:
    """Text that a database can be asked for. Raises ValueError."""
    if prose(text) != text:
        raise ValueError("has characters that cannot be stored")
    return text


def _day(value: object) -> date:
    # Pydantic would take moments and seconds since 1970 too.
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        raise ValueError("must be a date, YYYY-MM-DD")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("is no day of the calendar") from None


def _number(value: object) -> str:
    """The decimal string that the engine takes; what such a string may be, the engine says."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number, or text such as 1300.00")
    number = Decimal(value)
    # Looked at first: written out, 1e999999999 would fill the memory.
    if number.adjusted() >= _DIGITS or int(number.as_tuple().exponent) < -_DECIMALS:
        raise ValueError(f"may have {_DIGITS} digits before the point and {_DECIMALS} behind it")
    return format(number if number else abs(number), "f")


def unset() -> Any:
    """Stands for what was not given; it is never read."""
    return None


Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=date)]
Number = Annotated[
    str,
    BeforeValidator(_number),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _NUMBER}], "examples": [1300, "1300.00"]}
    ),
]
Frequency = Literal["weekly", "biweekly", "monthly", "quarterly", "biannually", "yearly"]
Status = Literal["active", "paused", "completed", "cancelled"]
CatchUp = Annotated[
    Literal["all", "latest", "none"], Field(description="What of due dates that were missed gets an invoice.")
]
Interval = Annotated[StrictInt, Field(ge=1, le=12, description="Multiplies the period.")]
DayOfMonth = Annotated[StrictInt, Field(ge=1, le=28, description="Not with weekly and biweekly.")]
DayOfWeek = Annotated[StrictInt, Field(ge=0, le=6, description="0 is Sunday; only with weekly and biweekly.")]
Most = Annotated[
    StrictInt, Field(ge=1, le=MOST_OCCURRENCES, description="Ends after so many due dates, whatever became of them.")
]
Days = Annotated[StrictInt, Field(ge=0, le=365, description="Days that the customer has to pay.")]
Name = Annotated[str, Field(max_length=LONGEST_TEXT, description="For people.")]
Finalize = Annotated[StrictBool, Field(description="Finalize each invoice; otherwise it stays a draft.")]
Send = Annotated[StrictBool, Field(description="And send it; needs `auto_finalize`.")]
End = Annotated[Day, Field(description="The last day that may be due.")]
Options = Annotated[dict[str, Any], Field(description="What the provider must be told beside that.")]


class WantedItem(Model):
    """What is billed, as it is asked for."""

    description: str = Field(min_length=1)
    quantity: Number
    unit_price: Number
    tax_rate: Number | None = Field(None, description="In percent. Default: the provider's, which is 20 at Hisab.")


Items = Annotated[list[WantedItem], Field(min_length=1, max_length=MOST_ITEMS)]


class _Given(Model):
    """What is asked of a schedule."""

    def fields(self) -> dict[str, Any]:
        """What was given, for the engine."""
        given = self.model_dump(exclude_unset=True)
        if given.get("items") is not None:
            given["items"] = [
                {name: value for name, value in item.items() if value is not None} for item in given["items"]
            ]
        return given


class WantedSchedule(_Given):
    """A recurring invoice as it is asked for."""

    customer_id: str = Field(min_length=1, max_length=LONGEST_TEXT, description="The customer's id at the provider.")
    frequency: Frequency
    start_date: Day = Field(description="The first day that may be due.")
    items: Items
    source: str = Field(
        default_factory=unset,
        max_length=63,
        description="The source whose API makes the invoices; may be left out where only one can.",
    )
    name: Name = ""
    interval_count: Interval = 1
    day_of_month: DayOfMonth | None = None
    day_of_week: DayOfWeek | None = None
    end_date: End | None = None
    max_occurrences: Most | None = None
    auto_finalize: Finalize = False
    auto_send: Send = False
    days_until_due: Days = 30
    currency: str = Field("MAD", pattern="^[A-Z]{3}$")
    catch_up: CatchUp = "all"
    options: Options = Field(default_factory=dict)


class ChangedSchedule(_Given):
    """What of a recurring invoice is to be changed; null takes away what need not be there."""

    frequency: Frequency = Field(default_factory=unset)
    items: Items = Field(default_factory=unset)
    name: Name = Field(default_factory=unset)
    interval_count: Interval = Field(default_factory=unset)
    day_of_month: DayOfMonth | None = Field(default_factory=unset)
    day_of_week: DayOfWeek | None = Field(default_factory=unset)
    end_date: End | None = Field(default_factory=unset)
    max_occurrences: Most | None = Field(default_factory=unset)
    auto_finalize: Finalize = Field(default_factory=unset)
    auto_send: Send = Field(default_factory=unset)
    days_until_due: Days = Field(default_factory=unset)
    catch_up: CatchUp = Field(default_factory=unset)
    options: Options = Field(default_factory=unset)


class Item(Model):
    """What is billed. Numbers are decimal strings, as they were written."""

    description: str
    quantity: str = Field(examples=["1"])
    unit_price: str = Field(examples=["10400.00"])
    tax_rate: str | None = Field(None, description="In percent; null: the provider's.")


class Schedule(Model):
    """A recurring invoice."""

    id: str
    source: str
    name: str
    status: Status
    reason: str | None = Field(description="Why Billhook paused it.")
    customer_id: str
    frequency: Frequency
    interval_count: int
    day_of_month: int | None
    day_of_week: int | None
    start_date: date
    end_date: date | None
    next_run_date: date | None = Field(description="The next due date, while it is active.")
    next_run_at: Moment | None = Field(description="When that day begins in its time zone.")
    max_occurrences: int | None
    planned: int = Field(description="Due dates that have come so far.")
    failures: int = Field(description="Due dates that failed in a row.")
    timezone: str = Field(description="Decides when a day begins: its source's, when it was created.")
    auto_finalize: bool
    auto_send: bool
    days_until_due: int
    currency: str
    items: list[Item]
    catch_up: str
    options: dict[str, Any]
    external_id: str | None = Field(description="What it is known by where it was imported from.")
    agreement: str | None = Field(
        description="The provider's id of the invoice by which the customer agreed to be charged."
    )
    created_at: Moment
    updated_at: Moment | None
    ended_at: Moment | None = Field(description="When it was completed or cancelled.")


class Occurrence(Model):
    """What became of one due date."""

    id: str
    scheduled_date: date
    status: Literal["success", "failed", "skipped", "waiting", "running", "held"]
    generated_at: Moment | None = Field(description="When it ended.")
    invoice_id: str | None
    invoice_number: str | None
    invoice_total: str | None
    error_code: str | None
    error_message: str | None
    attempts: int
    next_attempt_at: Moment | None = Field(description="When it is taken up, while it waits.")
    event_id: str | None = Field(description="The event that reports how it ended.")


class WholeSchedule(Schedule):
    """A recurring invoice with the latest entries of its history."""

    history: list[Occurrence]


class Preview(Model):
    """A due date to come."""

    due_on: date
    pay_by: date
    total: str = Field(description="With taxes.", examples=["12480.00"])
    currency: str


class Numbers(BaseModel):
    """Which page it is, and how many there are."""

    total: int
    page: int
    perPage: int
    totalPages: int


class ListMeta(BaseModel):
    """What is told beside a list."""

    pagination: Numbers | Pagination


class Listed(BaseModel):
    """A page of recurring invoices."""

    success: Literal[True] = True
    data: list[Schedule]
    meta: ListMeta


class Preceding(Pages):
    """Which entries of a history."""

    listed = "occ"

    limit: Annotated[int, Query(ge=1, le=100, description="How many on a page.")] = 20


class Following(BaseModel):
    """How far a preview goes."""

    model_config = ConfigDict(extra="forbid")

    next: Annotated[int, Query(ge=1, le=100, description="How many due dates.")] = 12
    issue_date: Annotated[
        Day | None, Query(description="The date that the invoices are to bear. Default: each its due date.")
    ] = None


_Sought = AfterValidator(storable)


class Wanted(BaseModel):
    """Which recurring invoices, and which page of them."""

    model_config = ConfigDict(extra="forbid")

    page: Annotated[int | None, Query(ge=1, le=10**9, description="From 1, which is the default.")] = None
    per_page: Annotated[int | None, Query(ge=1, le=100, description="Default: 20.")] = None
    limit: Annotated[int | None, Query(ge=1, le=200, description="How many; not with `page` or `per_page`.")] = None
    cursor: Annotated[
        str | None, Query(max_length=200, description="`meta.pagination.next_cursor` of the page before; as `limit`.")
    ] = None
    order: Annotated[Literal["asc", "desc"], Query(description="By when they were created.")] = "desc"
    status: Status | None = None
    customer_id: Annotated[str | None, _Sought, Query(max_length=LONGEST_TEXT)] = None
    frequency: Frequency | None = None
    source: Annotated[str | None, _Sought, Query(max_length=63)] = None
    search: Annotated[
        str | None, _Sought, Query(max_length=LONGEST_TEXT, description="What stands in name, customer or id.")
    ] = None

    @field_validator("limit", "cursor")
    @classmethod
    def _alone(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and (info.data.get("page") is not None or info.data.get("per_page") is not None):
            raise ValueError("not together with page or per_page: these are two ways to page")
        return value

    @property
    def by_cursor(self) -> bool:
        """Whether it is asked for in our way."""
        return self.limit is not None or self.cursor is not None

    @property
    def after(self) -> str | None:
        """The id behind which the page begins. Raises ApiError 400."""
        return None if self.cursor is None else id_of(self.cursor, "sch")

    @property
    def meant(self) -> Filter:
        """The filters, for the engine."""
        names = ("source", "status", "customer_id", "frequency", "search")
        return Filter(**{name: getattr(self, name) for name in names})
