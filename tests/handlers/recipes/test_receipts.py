from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from handlers import Context, Event
from handlers.recipes import receipts
from handlers.recipes.receipts import issue_receipt
from handlers.testing import event, run


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ledger.db"
    monkeypatch.setattr(receipts, "LEDGER", str(file))
    return file


def rows(ledger: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(ledger)) as connection:
        return connection.execute("SELECT reference, invoice, amount FROM entries ORDER BY entry").fetchall()


def test_a_paid_invoice_is_booked_and_its_receipt_sent(ledger: Path) -> None:
    ran = run(issue_receipt, event("invoice.paid"))

    assert ran.outcome == "succeeded", ran.trace
    assert rows(ledger) == [(ran.event.id, "inv_8f3a91", "12480.00")]
    assert ran.emitted == [
        ("receipt.issued", {"invoice": "inv_8f3a91", "number": "FAC-2026-0142", "total": "12480.00", "entry": 1})
    ]


def test_a_start_that_is_repeated_books_nothing_twice_and_sends_the_same(ledger: Path) -> None:
    first = run(issue_receipt, event("invoice.paid"))
    again = run(issue_receipt, event("invoice.paid"), store=first.store)

    assert len(rows(ledger)) == 1
    assert (again.emitted, again.keys) == (first.emitted, first.keys)


def test_each_payment_has_a_row_of_its_own(ledger: Path) -> None:
    run(issue_receipt, event("invoice.paid"))
    second = run(issue_receipt, event("invoice.paid", data={"id": "inv_2", "total": "0.10"}))

    assert [(invoice, amount) for _, invoice, amount in rows(ledger)] == [("inv_8f3a91", "12480.00"), ("inv_2", "0.10")]
    assert second.emitted[0].data["entry"] == 2


def test_a_row_that_was_written_before_its_process_died_is_found_again(ledger: Path) -> None:
    def dies_afterwards(event: Event, ctx: Context) -> None:
        issue_receipt(event, ctx)
        raise SystemExit

    paid = event("invoice.paid")
    died = run(dies_afterwards, paid)
    again = run(issue_receipt, paid, store=died.store)

    assert (died.outcome, died.emitted) == ("failed", [])
    assert [emitted.data["entry"] for emitted in again.emitted] == [1]
    assert len(rows(ledger)) == 1


def test_a_delivery_without_an_amount_is_discarded(ledger: Path) -> None:
    ran = run(issue_receipt, event("invoice.paid", provider="hibr"))

    assert ran.outcome == "discarded"
    assert not ledger.exists()


def test_a_ledger_that_cannot_be_written_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(receipts, "LEDGER", str(tmp_path / "missing" / "ledger.db"))

    ran = run(issue_receipt, event("invoice.paid"))

    assert (ran.outcome, ran.emitted) == ("failed", [])
    assert isinstance(ran.error, sqlite3.OperationalError)
    assert f'File "{receipts.__file__}"' in ran.trace  # ours, but there to be changed
