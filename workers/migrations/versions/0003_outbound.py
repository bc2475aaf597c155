"""Endpoints with filters, headers, several secrets, limits and a health of their own; forwarded and repeated messages.

Revision: 0003, after 0002.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LINE = ["endpoint_id", "again", "next_attempt_at"]
_OPEN = sa.text("status IN ('waiting', 'running')")

_COLUMNS: dict[str, tuple[sa.Column[Any], ...]] = {
    "messages": (
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("forwarded", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("content_type", sa.Text(), server_default="application/json", nullable=False),
    ),
    "deliveries": (
        sa.Column("again", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("prior", sa.Integer(), server_default="0", nullable=False),
    ),
    "endpoints": (
        sa.Column("sources", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("forward", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=True),
        sa.Column("signing", sa.String(length=8), server_default="v1", nullable=False),
        sa.Column("schedule", sa.JSON(), nullable=True),
        sa.Column("rate", sa.Integer(), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("ca", sa.Text(), nullable=True),
        sa.Column("client_certificate", sa.LargeBinary(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("warned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
    ),
}


def upgrade() -> None:
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.add_column(table, column)
    op.create_table(
        "endpoint_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("endpoint_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=3), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name=op.f("fk_endpoint_keys_endpoint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoint_keys")),
    )
    op.create_index("ix_endpoint_keys_endpoint_id", "endpoint_keys", ["endpoint_id"])
    # An endpoint's id stands in its first key's: one is enough until it is rotated.
    op.execute(
        "INSERT INTO endpoint_keys (id, endpoint_id, kind, secret, created_at) "
        "SELECT 'key' || substr(id, 3), id, 'v1', secret, created_at FROM endpoints WHERE length(secret) > 0"
    )
    op.drop_column("endpoints", "secret")
    op.execute("UPDATE deliveries SET again = true WHERE attempts > 0")
    op.execute(
        "UPDATE messages SET source = (SELECT source FROM events WHERE events.id = messages.event_id) "
        "WHERE event_id IS NOT NULL"
    )
    op.create_index("ix_deliveries_line", "deliveries", _LINE, postgresql_where=_OPEN, sqlite_where=_OPEN)
    # What is due is looked for by endpoint.
    op.drop_index("ix_deliveries_ring_at", "deliveries")


def downgrade() -> None:
    rung = sa.text("ring_at IS NOT NULL")
    op.create_index("ix_deliveries_ring_at", "deliveries", ["ring_at"], postgresql_where=rung, sqlite_where=rung)
    op.drop_index("ix_deliveries_line", "deliveries")
    # With a default, which SQLite keeps: to change the column it would copy the table, which others refer to.
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    empty = sa.text("x''" if on_sqlite else "''")
    op.add_column("endpoints", sa.Column("secret", sa.LargeBinary(), server_default=empty, nullable=False))
    newest = "(SELECT secret FROM endpoint_keys WHERE endpoint_id = endpoints.id AND kind = 'v1' "
    newest += "ORDER BY created_at DESC, id DESC LIMIT 1)"
    op.execute(f"UPDATE endpoints SET secret = {newest} WHERE EXISTS {newest}")  # noqa: S608 - our own words
    # Without a secret of that kind there is nothing that the older version could sign with.
    reason = "it has no secret of the kind v1"
    op.execute(f"UPDATE endpoints SET status = 'disabled', disabled_reason = '{reason}' WHERE length(secret) = 0")  # noqa: S608
    if not on_sqlite:
        op.alter_column("endpoints", "secret", server_default=None)
    op.drop_table("endpoint_keys")
    for table, columns in reversed(_COLUMNS.items()):
        for column in reversed(columns):
            op.drop_column(table, column.name)
