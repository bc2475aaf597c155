"""In which order `billhook --help` lists the commands, and under which headings."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

PANELS = {
    "Run it": ("up", "serve", "work", "beat", "migrate", "settings", "alive"),
    "Write handlers": ("init", "new", "run-handler", "check", "handlers"),
    "Look": ("doctor", "tail", "stats", "events", "event", "runs", "sources", "deliveries", "audit", "audit-log"),
    "Mend": ("replay", "acknowledge", "reconcile"),
    "Endpoints and schedules": ("endpoints", "schedules"),
    "Keep": ("keys", "users", "reencrypt", "prune"),
    "Develop": ("send", "listen", "sandbox", "demo"),
}
_PLACES = {name: place for place, name in enumerate(name for names in PANELS.values() for name in names)}
_HEADINGS = {name: heading for heading, names in PANELS.items() for name in names}


class Ordered(TyperGroup):
    """Commands in the order of the panels."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: _PLACES.get(name, len(_PLACES)))


def arrange(app: typer.Typer) -> None:
    """Put the commands that are registered under their headings."""
    for command in app.registered_commands:
        command.rich_help_panel = _HEADINGS.get(_name(command))
    for group in app.registered_groups:
        group.rich_help_panel = _HEADINGS.get(str(group.name))


def _name(command: Any) -> str:
    """As it is given: its own, or that of its function."""
    return str(command.name or command.callback.__name__.replace("_", "-"))
