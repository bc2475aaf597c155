"""What lists of events, runs, deliveries and messages are found by: large tables, whose writers are not kept out.

Revision: 0007, after 0006. Each step may be done already: this is begun anew where it was broken off.
"""

from __future__ import annotations

from workers.migrating import add_index, drop_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ENDED = "status IN ('succeeded', 'exhausted', 'refused', 'cancelled')"
_FAILED = "status IN ('exhausted', 'refused', 'cancelled')"
_OPEN = "status IN ('waiting', 'dead')"


def upgrade() -> None:
    add_index("ix_messages_created_at", "messages", ["created_at"])
    add_index("ix_messages_type", "messages", ["type", "id"])
    add_index("ix_deliveries_ended", "deliveries", ["endpoint_id", "status", "id"], where=_ENDED)
    add_index("ix_deliveries_failed", "deliveries", ["status", "id"], where=_FAILED)
    add_index("ix_events_seek", "events", ["status", "source", "type", "id"])
    add_index("ix_events_object", "events", ["object_id", "id"], where="object_id IS NOT NULL")
    add_index("ix_handler_runs_seek", "handler_runs", ["handler", "status", "id"])
    # Only now, since each of these has a successor that begins with the same column.
    drop_index("ix_deliveries_endpoint_id", "deliveries")
    drop_index("ix_events_status", "events")


def downgrade() -> None:
    add_index("ix_events_status", "events", ["status"], where=_OPEN)
    add_index("ix_deliveries_endpoint_id", "deliveries", ["endpoint_id"])
    drop_index("ix_handler_runs_seek", "handler_runs")
    drop_index("ix_events_object", "events")
    drop_index("ix_events_seek", "events")
    drop_index("ix_deliveries_failed", "deliveries")
    drop_index("ix_deliveries_ended", "deliveries")
    drop_index("ix_messages_type", "messages")
    drop_index("ix_messages_created_at", "messages")
