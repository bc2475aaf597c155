"""The values that several commands accept: the same everywhere, and refused in the same way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from receiver.cli.options import moment
from receiver.cli.output import Failure, WrongUse

NOW = datetime(2026, 6, 5, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2026-06-01", datetime(2026, 6, 1, tzinfo=UTC)),
        ("2026-06-01T10:30", datetime(2026, 6, 1, 10, 30, tzinfo=UTC)),
        ("2026-06-01T10:30Z", datetime(2026, 6, 1, 10, 30, tzinfo=UTC)),
        ("2026-06-01T10:30+04:00", datetime(2026, 6, 1, 6, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_date_a_time_or_how_long_ago(text: str, meant: datetime) -> None:
    assert moment("--since", text, NOW) == meant


@pytest.mark.parametrize(
    "text",
    ["", "7", "d", "-7d", "7w", "1.5d", "9999999999d", "yesterday", "2026-02-30", "\uff17d", "0001-01-01T00:00+01:00"],
)
def test_what_is_no_moment_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(
        WrongUse, match=r"^--until: .* is not a date, a time such as .*, or how long ago: 7d"
    ) as refused:
        moment("--until", text, NOW)

    assert Failure.of(refused.value).status == 2
