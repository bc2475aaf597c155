"""What a person asks a schedule to be, and whether it can be that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time
from typing import Any

from handlers.invoicing import Billing
from handlers.providers import PROVIDERS
from workers.models import prose
from workers.schedule import rhythm
from workers.schedule.calendar import Frequency, Rule
from workers.schedule.drafts import draft_of
from workers.schedule.errors import Problem, invalid, problem_of
from workers.schedule.rhythm import Rhythm
from workers.settings import Settings

CATCH_UP = ("all", "latest", "none")
LONGEST_TEXT = 255
MOST_ITEMS = 500
MOST_OCCURRENCES = 1_000_000
"""More than there are weeks until the year 9999."""
_DEEPEST = 8
_WHOLE = 2**53
_CURRENCY = re.compile(r"[A-Z]{3}")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,10})?")
_OF_RULE = ("interval_count", "day_of_month", "day_of_week", "end_date", "max_occurrences")
_OF_ITEMS = ("description", "quantity", "unit_price", "tax_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The fields of a schedule as a person gives them, named as in the Hisab document.

    Items are `{description, quantity, unit_price, tax_rate?}` with numbers as decimal strings. `catch_up` (all,
    latest, none) says what becomes of due dates that were missed, `options` what its provider must be told beside.
    """

    source: str
    customer_id: str
    frequency: str
    start_date: date
    items: Sequence[Mapping[str, str]]
    name: str = ""
    interval_count: int = 1
    day_of_month: int | None = None
    day_of_week: int | None = None
    end_date: date | None = None
    max_occurrences: int | None = None
    auto_finalize: bool = False
    auto_send: bool = False
    days_until_due: int = 30
    currency: str = "MAD"
    catch_up: str = "all"
    options: Mapping[str, Any] = field(default_factory=dict)


def check(settings: Settings, plan: Plan) -> None:
    """Raise ScheduleError (VALIDATION_ERROR) that names each field of the plan which cannot be as it is."""
    problems = [
        *_of_source(settings, plan), *_of_texts(plan), *_of_items(plan.items), *_of_options(plan.options),
        *_of_rule(plan),
    ]  # fmt: skip
    if not problems:
        problems = list(_of_provider(billing_of(settings, plan.source), plan))
    if problems:
        raise invalid(*problems)


def billing_of(settings: Settings, source: str) -> Billing:
    """How invoices are made with the provider of a source. Raises KeyError where they cannot be, or there is none."""
    billing = PROVIDERS[settings.sources[source].provider].billing
    if billing is None:
        raise KeyError(source)
    return billing


def sources_that_bill(settings: Settings) -> list[str]:
    """The sources with which invoices can be made."""
    return [
        name
        for name, source in settings.sources.items()
        if source.api_key is not None and PROVIDERS[source.provider].billing is not None
    ]


def only_source(settings: Settings) -> str:
    """The source that is meant where none is named. Raises ScheduleError unless just one can bill."""
    found = sources_that_bill(settings)
    if len(found) != 1:
        there = f"there are {', '.join(found)}" if found else "none in the settings has an api_key"
        raise invalid(Problem("source", f"must be named: {there}"))
    return found[0]


def rhythm_of(plan: Plan) -> Rhythm:
    """When it is due."""
    return Rhythm(**{one.name: getattr(plan, one.name) for one in fields(Rhythm) if hasattr(plan, one.name)})


def _of_source(settings: Settings, plan: Plan) -> Iterator[Problem]:
    source = settings.sources.get(plan.source)
    if source is None:
        yield Problem("source", f"there is no source {plan.source!r} in the settings")
    elif PROVIDERS[source.provider].billing is None:
        yield Problem("source", f"{plan.source!r} is of {source.provider}, with which no invoices are made")
    elif source.api_key is None:
        yield Problem("source", f"{plan.source!r} has no api_key, which invoices are made with")


def _of_texts(plan: Plan) -> Iterator[Problem]:
    if not plan.customer_id.strip():
        yield Problem("customer_id", "must not be empty")
    for name in ("customer_id", "name"):
        if len(getattr(plan, name)) > LONGEST_TEXT or not getattr(plan, name).isprintable():
            yield Problem(name, f"must be printable, and at most {LONGEST_TEXT} characters")
    if plan.auto_send and not plan.auto_finalize:
        yield Problem("auto_send", "needs auto_finalize, because only a finalized invoice can be sent")
    if not 0 <= plan.days_until_due <= 365:
        yield Problem("days_until_due", "must be from 0 to 365")
    if _CURRENCY.fullmatch(plan.currency) is None:
        yield Problem("currency", "must be three capital letters, such as MAD")
    if plan.catch_up not in CATCH_UP:
        yield Problem("catch_up", f"must be one of {', '.join(CATCH_UP)}")


def _of_items(items: Sequence[Mapping[str, str]]) -> Iterator[Problem]:
    if not 1 <= len(items) <= MOST_ITEMS:
        yield Problem("items", f"must be 1 to {MOST_ITEMS}")
    for place, item in enumerate(items):
        if unknown := sorted(set(item) - set(_OF_ITEMS)):
            yield Problem(f"items[{place}]", f"{unknown[0]!r} is none of {', '.join(_OF_ITEMS)}")
        description = item.get("description")
        if not isinstance(description, str) or not description.strip() or not _storable(description):
            yield Problem(f"items[{place}].description", "must be text that can be stored, and not empty")
        for name in ("quantity", "unit_price", *(["tax_rate"] if "tax_rate" in item else [])):
            value = item.get(name)
            if not isinstance(value, str) or _DECIMAL.fullmatch(value) is None:
                yield Problem(f"items[{place}].{name}", "must be a decimal number, such as 1300.00")


def _of_options(options: Mapping[str, Any]) -> Iterator[Problem]:
    if not _plain(options, _DEEPEST):
        yield Problem("options", "may have text, whole numbers, true, false, null, and lists and objects of these")


def _plain(value: Any, depth: int) -> bool:
    """Whether any database can keep it as JSON, and it comes back as it was."""
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, int):
        return -_WHOLE <= value <= _WHOLE
    if isinstance(value, Mapping):
        return depth > 0 and all(_storable(name) and _plain(one, depth - 1) for name, one in value.items())
    if isinstance(value, list | tuple):
        return depth > 0 and all(_plain(one, depth - 1) for one in value)
    return value is None


def _storable(text: str) -> bool:
    """Whether any database can keep it, and any provider be sent it."""
    return prose(text) == text


def _of_rule(plan: Plan) -> Iterator[Problem]:
    try:
        Rule(Frequency(plan.frequency), plan.start_date)
    except ValueError as error:
        yield problem_of(str(error))
        return
    if plan.max_occurrences is not None and plan.max_occurrences > MOST_OCCURRENCES:
        yield Problem("max_occurrences", f"must be at most {MOST_OCCURRENCES}")
    for name in _OF_RULE:  # each by itself, so that all that is wrong is said at once
        try:
            Rule(Frequency(plan.frequency), plan.start_date, **{name: getattr(plan, name)})
        except ValueError as error:
            yield problem_of(str(error))


def _of_provider(billing: Billing, plan: Plan) -> Iterator[Problem]:
    draft = draft_of(
        plan,
        plan.start_date,
        occurrence_id="occ_00000000000000000000000000",
        retries=0,
        recurrences=rhythm.left(rhythm_of(plan), 0),
        now=datetime.combine(plan.start_date, time(), UTC),
    )
    try:
        billing.check(draft)
    except ValueError as error:
        yield problem_of(str(error))
