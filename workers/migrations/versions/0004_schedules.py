"""Schedules that are paused, changed, imported and caught up with; occurrences that are taken by source.

Revision: 0004, after 0003.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LINE = ["source", "next_attempt_at"]
_OPEN = sa.text("status IN ('waiting', 'running')")
_IMPORTED = sa.text("external_id IS NOT NULL")
_RUNG = sa.text("ring_at IS NOT NULL")

_COLUMNS: dict[str, tuple[sa.Column[Any], ...]] = {
    "schedules": (
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("options", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("catch_up", sa.String(length=8), server_default="all", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("anchor_date", sa.Date(), nullable=True),
        sa.Column("anchor_day", sa.Integer(), nullable=True),
        sa.Column("prior", sa.Integer(), server_default="0", nullable=False),
        sa.Column("planned", sa.Integer(), server_default="0", nullable=False),
        sa.Column("agreement", sa.Text(), nullable=True),
        sa.Column("agreement_token", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
    ),
    "occurrences": (
        sa.Column("source", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("issue_on", sa.Date(), nullable=True),
        sa.Column("draft", sa.JSON(), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("invoice_number", sa.Text(), nullable=True),
        sa.Column("invoice_total", sa.Text(), nullable=True),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("event_id", sa.String(length=40), nullable=True),
    ),
}


def upgrade() -> None:
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.add_column(table, column)
    op.execute(
        "UPDATE schedules SET planned = (SELECT count(*) FROM occurrences WHERE occurrences.schedule_id = schedules.id)"
    )
    op.execute(
        "UPDATE occurrences SET source = (SELECT source FROM schedules WHERE schedules.id = occurrences.schedule_id), "
        "event_id = (SELECT min(events.id) FROM events WHERE events.delivery_id = occurrences.id "
        "AND events.provider = 'billhook')"
    )
    op.create_index(
        "uq_schedules_external_id",
        "schedules",
        ["source", "external_id"],
        unique=True,
        postgresql_where=_IMPORTED,
        sqlite_where=_IMPORTED,
    )
    op.create_index("ix_occurrences_line", "occurrences", _LINE, postgresql_where=_OPEN, sqlite_where=_OPEN)
    # What is due is looked for by source.
    op.drop_index("ix_occurrences_ring_at", "occurrences")


def downgrade() -> None:
    # The older version knows neither; what is held, and what was skipped, it shall leave alone.
    op.execute("UPDATE occurrences SET status = 'failed', error = 'held', ring_at = NULL WHERE status = 'held'")
    op.execute("UPDATE occurrences SET status = 'failed' WHERE status = 'skipped'")
    op.create_index("ix_occurrences_ring_at", "occurrences", ["ring_at"], postgresql_where=_RUNG, sqlite_where=_RUNG)
    op.drop_index("ix_occurrences_line", "occurrences")
    op.drop_index("uq_schedules_external_id", "schedules")
    for table, columns in reversed(_COLUMNS.items()):
        for column in reversed(columns):
            op.drop_column(table, column.name)
