"""API keys, users, idempotency keys; and what lists of events, runs, deliveries and messages are found by.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OF_SCHEDULES = ("source", "status", "customer_id", "frequency")
"""What lists of schedules are filtered by."""


_ENDED = "status IN ('succeeded', 'exhausted', 'refused', 'cancelled')"
_FAILED = "status IN ('exhausted', 'refused', 'cancelled')"


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hint", sa.String(length=8), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_signed_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String(length=80), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    for column in _OF_SCHEDULES:
        op.create_index(f"ix_schedules_{column}_id", "schedules", [column, "id"])
    op.create_index("ix_messages_created_at", "messages", ["created_at"])
    op.create_index("ix_messages_type", "messages", ["type", "id"])
    _partial("ix_deliveries_ended", "deliveries", ["endpoint_id", "status", "id"], _ENDED)
    _partial("ix_deliveries_failed", "deliveries", ["status", "id"], _FAILED)
    op.drop_index("ix_deliveries_endpoint_id", "deliveries")
    _tallies()
    _browsing()


def _tallies() -> None:
    op.create_table(
        "tallies",
        sa.Column("what", sa.String(length=8), nullable=False),
        sa.Column("step", sa.String(length=6), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=12), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("what", "step", "at", "name", "kind", "outcome", name="pk_tallies"),
    )
    op.create_table(
        "stale_hours",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stale_hours"),
    )


_OBJECT = sa.text("object_id IS NOT NULL")
_OPEN = sa.text("status IN ('waiting', 'dead')")


def _browsing() -> None:
    op.drop_index("ix_events_status", "events")
    op.create_index("ix_events_seek", "events", ["status", "source", "type", "id"])
    op.create_index("ix_events_object", "events", ["object_id", "id"], postgresql_where=_OBJECT, sqlite_where=_OBJECT)
    op.create_index("ix_handler_runs_seek", "handler_runs", ["handler", "status", "id"])
    op.create_index("ix_audit_log_actor", "audit_log", ["actor", "id"])
    op.create_index("ix_audit_log_action", "audit_log", ["action", "id"])


def downgrade() -> None:
    for column in _OF_SCHEDULES:
        op.drop_index(f"ix_schedules_{column}_id", "schedules")
    op.create_index("ix_deliveries_endpoint_id", "deliveries", ["endpoint_id"])
    op.drop_index("ix_deliveries_failed", "deliveries")
    op.drop_index("ix_deliveries_ended", "deliveries")
    op.drop_index("ix_messages_type", "messages")
    op.drop_index("ix_messages_created_at", "messages")
    op.drop_index("ix_audit_log_action", "audit_log")
    op.drop_index("ix_audit_log_actor", "audit_log")
    op.drop_index("ix_handler_runs_seek", "handler_runs")
    op.drop_index("ix_events_object", "events")
    op.drop_index("ix_events_seek", "events")
    op.create_index("ix_events_status", "events", ["status"], postgresql_where=_OPEN, sqlite_where=_OPEN)
    op.drop_table("stale_hours")
    op.drop_table("tallies")
    op.drop_table("idempotency_keys")
    op.drop_table("users")
    op.drop_table("api_keys")
