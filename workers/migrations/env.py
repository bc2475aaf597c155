"""Alembic's entry: migrate over the connection that `workers.database.migrate` opened and commits."""

from __future__ import annotations

from alembic import context

from workers.models import Model

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Model.metadata,
    # SQLite changes a table by copying it; Alembic does so where this is set.
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
