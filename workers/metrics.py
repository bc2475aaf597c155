"""The Prometheus metrics, each declared once. Labels have few values: never an id, an address or a URL."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

DELIVERIES = Counter(
    "billhook_deliveries", "Deliveries received, by what became of them.", ["source", "outcome", "reason"]
)
ACCEPT_SECONDS = Histogram(
    "billhook_accept_seconds",
    "Seconds from a verified delivery to its committed batch.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
BATCH_SIZE = Histogram(
    "billhook_accept_batch_size", "Deliveries that one commit stored.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
RUNS = Counter("billhook_runs", "Ended starts of handlers, by outcome.", ["handler", "outcome"])
HANDLER_SECONDS = Histogram("billhook_handler_seconds", "Seconds a handler took.", ["handler"])
EVENT_AGE = Histogram(
    "billhook_event_age_seconds",
    "Seconds from the receipt of an event to the end of a handler's first start.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600, 36_000),
)
REPLAYED = Counter("billhook_replayed", "Runs that were asked for again, or for the first time on an old event.")
ATTEMPTS = Counter("billhook_attempts", "Attempts to deliver to endpoints, by outcome.", ["outcome"])
DELIVERED_SECONDS = Histogram(
    "billhook_delivered_seconds",
    "Seconds from a message's commit to its delivery.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600, 36_000, 360_000),
)
ENDPOINTS = Counter(
    "billhook_endpoint_changes",
    "Changes of endpoints: held off, released, warned about, disabled, recovered.",
    ["change"],
)
REDELIVERED = Counter(
    "billhook_redelivered", "Deliveries that were asked for again: retried, recovered or missing ones.", ["kind"]
)
OCCURRENCES = Counter("billhook_occurrences", "Due dates of schedules, by what became of them.", ["source", "outcome"])
OCCURRENCE_DELAY = Histogram(
    "billhook_occurrence_delay_seconds",
    "Seconds from the moment that an invoice was due to the moment that it was made.",
    ["source"],
    buckets=(1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600),
)
SCHEDULES = Counter(
    "billhook_schedule_changes", "Schedules that Billhook itself completed or paused.", ["source", "change"]
)
BUDGET_WAITS = Counter("billhook_budget_waits", "Times that schedules waited for the limit of an API.", ["source"])
RECONCILED = Counter(
    "billhook_reconciled", "Changes found at a provider's API, by whether their events had come.", ["source", "outcome"]
)
RUNG_AGAIN = Counter("billhook_rung_again", "Due work that the sweep announced.", ["queue"])
PRUNED = Counter("billhook_pruned", "Rows deleted after their retention time.", ["table"])
PROCESSES_LOST = Counter(
    "billhook_worker_processes_lost", "Processes of a worker's pool that ended and were replaced, by why.", ["reason"]
)
DATABASE_ERRORS = Counter("billhook_database_errors", "Failures of the database, by what kind they are.", ["kind"])
REDIS_ERRORS = Counter("billhook_redis_errors", "Redis calls that failed and were done without.", ["call"])
