"""Steps, once keys, order, limits, replays, reconciliation, acknowledgement and the audit log.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(name, table, columns, unique=unique, postgresql_where=sa.text(where), sqlite_where=sa.text(where))


def upgrade() -> None:
    op.add_column("events", sa.Column("reconciled", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("events", sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True))
    _partial("ix_events_unplanned", "events", ["object_id"], "ring_at IS NOT NULL")
    _partial("ix_events_reconciled", "events", ["source", "object_id", "type"], "reconciled")

    for column in (
        sa.Column("pauses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replays", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lane", sa.Text(), nullable=True),
        sa.Column("ordered", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("slot", sa.Integer(), nullable=True),
    ):
        op.add_column("handler_runs", column)
    is_open = "ordered AND status IN ('waiting', 'running')"
    line = ["lane", "handler", "occurred_at", "event_id"]
    _partial("ix_handler_runs_lane", "handler_runs", line[:3], "lane IS NOT NULL")
    _partial("ix_handler_runs_line", "handler_runs", line, is_open)
    _partial("uq_handler_runs_lane", "handler_runs", line[:2], "ordered AND status = 'running'", unique=True)
    _partial("uq_handler_runs_slot", "handler_runs", ["handler", "slot"], "slot IS NOT NULL", unique=True)
    _partial("ix_handler_runs_waiting", "handler_runs", ["handler", "next_attempt_at"], "status = 'waiting'")

    op.create_table(
        "steps",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["handler_runs.id"], name=op.f("fk_steps_run_id")),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_steps")),
    )
    op.create_table(
        "once_keys",
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("handler", "key", name=op.f("pk_once_keys")),
    )
    op.create_index("ix_once_keys_run_id", "once_keys", ["run_id"])
    op.create_index("ix_once_keys_created_at", "once_keys", ["created_at"])
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )


def downgrade() -> None:
    for table in ("audit_log", "once_keys", "steps"):
        op.drop_table(table)
    for name in ("ix_handler_runs_waiting", "uq_handler_runs_slot", "uq_handler_runs_lane", "ix_handler_runs_line",
                 "ix_handler_runs_lane"):  # fmt: skip
        op.drop_index(name, "handler_runs")
    for column in ("slot", "occurred_at", "ordered", "lane", "replays", "pauses"):
        op.drop_column("handler_runs", column)
    for name in ("ix_events_reconciled", "ix_events_unplanned"):
        op.drop_index(name, "events")
    for column in ("acknowledged_at", "reconciled"):
        op.drop_column("events", column)
