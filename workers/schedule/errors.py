"""What can be wrong with what is asked of a schedule, by the codes of the Hisab document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from handlers.errors import BillhookError

VALIDATION_ERROR = "VALIDATION_ERROR"
INVALID_STATE = "INVALID_STATE"
QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
NOT_FOUND = "NOT_FOUND"
_FIELD = re.compile(r"[A-Za-z_]+(?:\[[0-9]+\])?(?:\.[A-Za-z_]+)*")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def problem_of(sentence: str) -> Problem:
    """The problem that a sentence tells which begins with the field's name."""
    field = _FIELD.match(sentence)
    name = field[0] if field else ""
    return Problem(name, sentence[len(name) :].lstrip(": ").rstrip("."))


class ScheduleError(BillhookError):
    """A schedule cannot be as asked. `code` is one of the above, or CUSTOMER_INACTIVE; `details` names the fields."""

    def __init__(self, code: str, message: str, details: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = tuple(details)


def invalid(*problems: Problem) -> ScheduleError:
    """VALIDATION_ERROR, with each of them."""
    return ScheduleError(VALIDATION_ERROR, "; ".join(map(str, problems)), problems)


def invalid_state(message: str) -> ScheduleError:
    """INVALID_STATE: what is asked cannot be done to a schedule that is as this one."""
    return ScheduleError(INVALID_STATE, message)
