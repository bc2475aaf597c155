"""`billhook reconcile` against a sandbox of Hisab whose webhooks nobody got."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from handlers.providers.hisab.client import HisabClient
from handlers.providers.hisab.sandbox import create_app
from tests.handlers.providers.sandbox.served import serving
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import COMMAND
from tests.workers.given import rows
from workers.models import EventRow

KEY = "hisab_test_sandbox"
ITEM = {"description": "Integration services", "quantity": 8, "unit_price": 1300}
once = pytest.mark.parametrize("backend", ["embedded"], indirect=True)  # what the database has no part in


@dataclass(frozen=True)
class Api:
    client: HisabClient
    url: str


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, configured: object) -> Iterator[Api]:
    """A Hisab that is three hours behind, so that what is done there now happened then; the source calls it."""
    start = datetime.now(UTC) - timedelta(hours=3)
    with serving(create_app(clock=start, rate_limit=10**6), lifespan="off") as url:
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_URL", f"{url}/api/v1")
        monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_KEY", KEY)
        with HisabClient(api_key=KEY, api_url=f"{url}/api/v1") as client:
            yield Api(client, url)


def switch(api: Api, path: str, **body: Any) -> None:
    """Change something in the sandbox that is not a matter of its API."""
    assert httpx.post(f"{api.url}/sandbox/{path}", json=body, trust_env=False).is_success


def fault(api: Api, kind: str) -> None:
    """The next time that invoices are listed."""
    switch(api, "faults", kind=kind, match="GET /api/v1/invoices", times=1)


def paid(api: Api) -> str:
    """An invoice that is paid two hours before now, and made three; its id."""
    invoices = api.client.invoices
    invoice_id = str(invoices.create(customer_id="cus_2b81fe", issue_date="2026-06-05", items=[ITEM])["id"])
    switch(api, "clock", advance="1h")
    invoices.finalize(invoice_id)
    invoices.pay(invoice_id)
    return invoice_id


def stored(engine: Engine) -> list[str]:
    return [row.type for row in rows(engine, EventRow) if row.reconciled]


OF_A_NEW_SANDBOX = 2
"""The creations of its customers."""


def test_what_was_missed_is_taken_in_and_counted(billhook: Billhook, api: Api, engine: Engine) -> None:
    paid(api)

    first, again = (billhook("reconcile", "--source", "shop", "--since", "1d") for _ in range(2))

    assert (first.status, first.err) == (0, "")
    assert [line.split() for line in first.out.splitlines()] == [
        ["source", "seen", "known", "missed", "too_recent"],
        ["shop", "5", "0", "5", "0"],
    ]
    assert again.out.splitlines()[1].split() == ["shop", "5", "5", "0", "0"]
    assert sorted(stored(engine)) == sorted(
        ["customer.created"] * OF_A_NEW_SANDBOX + ["invoice.created", "invoice.finalized", "invoice.paid"]
    )


def test_a_dry_run_lists_what_it_would_take_in(billhook: Billhook, api: Api, engine: Engine) -> None:
    invoice_id = paid(api)

    ended = billhook("reconcile", "--source", "shop", "--since", "1d", "--dry-run")

    lines = [line.split() for line in ended.out.splitlines()]
    assert ended.status == 0
    assert lines[0] == ["type", "object_id", "occurred_at"]
    assert [line[:2] for line in lines[3:6]] == [
        ["invoice.created", invoice_id],
        ["invoice.finalized", invoice_id],
        ["invoice.paid", invoice_id],
    ]
    assert lines[-1] == ["shop", "5", "0", "5", "0"]
    assert stored(engine) == []


def test_it_prints_json(billhook: Billhook, api: Api, engine: Engine) -> None:
    invoice_id = paid(api)

    (dry,) = billhook("reconcile", "--source", "shop", "--since", "1d", "--dry-run", "--json").objects
    (done,) = billhook("reconcile", "--source", "shop", "--since", "1d", "--json").objects

    counts = {"seen": 5, "known": 0, "missed": 5, "too_recent": 0}
    assert done == {"source": "shop", "since": done["since"], "dry_run": False, **counts}
    assert {name: dry[name] for name in ("source", "dry_run", *counts)} == {"source": "shop", "dry_run": True, **counts}
    assert [change["type"] for change in dry["changes"] if change["object_id"] == invoice_id] == [
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
    ]
    assert all(datetime.fromisoformat(change["occurred_at"]).tzinfo for change in dry["changes"])


def test_how_long_the_provider_is_left_to_deliver_can_be_said(billhook: Billhook, api: Api, engine: Engine) -> None:
    paid(api)

    ended = billhook("reconcile", "--source", "shop", "--since", "1d", "--grace", "150", "--json")

    assert [(row["missed"], row["too_recent"]) for row in ended.objects] == [(3, 2)]
    assert "invoice.paid" not in stored(engine)


@once
def test_a_limit_of_the_api_is_waited_out(billhook: Billhook, api: Api) -> None:
    paid(api)
    fault(api, "too_many")  # which asks for one second

    assert [row["missed"] for row in billhook("reconcile", "--source", "shop", "--since", "1d", "--json").objects] == [
        5
    ]


def test_what_was_taken_in_before_the_api_failed_stays(billhook: Billhook, api: Api, engine: Engine) -> None:
    paid(api)
    fault(api, "error")

    said = billhook("reconcile", "--source", "shop", "--since", "1d").complaint()

    assert said == (
        "the API of source 'shop' ended it: INTERNAL_ERROR: Internal server error; "
        "what was taken in before stays: 2 missed events"
    )
    assert stored(engine) == ["customer.created"] * 2
    assert billhook("reconcile", "--source", "shop", "--since", "1d").out.splitlines()[1].split()[1:4] == [
        "5",
        "2",
        "3",
    ]


@once
def test_a_refused_key_is_one_line_without_the_key(
    billhook: Billhook, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_KEY", "hisab_live_revoked")

    said = billhook("reconcile", "--source", "shop", "--since", "1d", "--dry-run").complaint()

    assert said.startswith("the API of source 'shop' ended it: UNAUTHORIZED")
    assert "revoked" not in said.replace("missing, invalid or revoked", "")
    assert "stay" not in said


@once
@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"--source": "shpo"}, 2, "--source: there is no source 'shpo'; did you mean shop? configured: shop"),
        ({"--since": "soon"}, 2, "--since: 'soon' is not a date, a time such as 2026-06-05T14:00Z, or how long ago"),
        ({"--since": "2999-01-01"}, 2, "--since: 2999-01-01 is still to come"),
        ({"--since": "60d"}, 1, "BILLHOOK_RETENTION_DAYS"),
    ],
    ids=["source", "since", "to come", "too long ago"],
)
def test_what_cannot_be_compared_is_said(
    given: dict[str, str], status: int, said: str, billhook: Billhook, api: Api
) -> None:
    options = {"--source": "shop", "--since": "1d"} | given

    assert said in billhook("reconcile", *(part for option in options.items() for part in option)).complaint(status)


@pytest.mark.parametrize("missing", [["--source", "shop"], ["--since", "1d"], ["--grace", "-1"]])
def test_it_must_be_said_what_is_compared(missing: list[str], billhook: Billhook) -> None:
    assert billhook("reconcile", *missing).misuse()


@once
def test_a_terminal_is_shown_how_far_it_is_and_a_pipe_gets_the_counts(api: Api) -> None:
    paid(api)
    ours, theirs = pty.openpty()

    with os.fdopen(theirs, "wb") as terminal:
        ended = subprocess.run(
            [*COMMAND, "reconcile", "--source", "shop", "--since", "1d", "--json"],
            stdout=subprocess.PIPE,
            stderr=terminal,
            timeout=60,
            check=True,
        )
    shown = os.read(ours, 100_000).decode()
    os.close(ours)

    assert json.loads(ended.stdout)["missed"] == 5
    assert "5 changes seen, 0 known, 5 missed" in shown
