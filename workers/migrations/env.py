"""Alembic's entry: migrate over the connection that `workers.database.alter` opened."""

from __future__ import annotations

from alembic import context

from workers.models import Model

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Model.metadata,
    # SQLite changes a table by copying it; Alembic does so where this is set.
    render_as_batch=True,
    compare_type=True,
    # Locks are let go soon, and a revision that makes indexes beside others keeps to itself.
    transaction_per_migration=connection.dialect.name == "postgresql",
)
with context.begin_transaction():
    context.run_migrations()
