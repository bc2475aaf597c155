"""How values are shown on a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from receiver.bodies import escaped, of_body
from workers.overview import MOST

NOTHING = "\N{EN DASH}"
"""Where there is no value."""


def moment(value: datetime | None) -> Markup:
    """A moment in UTC, to the second; a program finds it whole."""
    if value is None:
        return Markup('<span class="text-secondary">{}</span>').format(NOTHING)
    shown = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        shown.isoformat(), shown.isoformat(timespec="milliseconds"), f"{shown:%Y-%m-%d %H:%M:%S}Z"
    )


def state(value: str) -> Markup:
    """A status, in the colour of how good it is."""
    return Markup('<span class="state state-{}">{}</span>').format(value, value)


def body(value: bytes) -> Markup:
    """A body as it was signed: JSON indented, other text as it is, bytes in hexadecimal."""
    pieces = of_body(value)
    return Markup("").join(
        Markup('<span class="part-{}">{}</span>').format(colour, piece) if colour else escape(piece)
        for piece, colour in pieces
    )


def text(value: object) -> str:
    """Anything as text of one sort of letters: lists with commas, objects as JSON, controls written out."""
    match value:
        case None:
            shown = NOTHING
        case bool():
            shown = "yes" if value else "no"
        case list() | tuple():
            shown = ", ".join(text(item) for item in value)
        case dict():
            shown = json.dumps(value, ensure_ascii=False, default=str)
        case bytes():
            shown = value.decode("utf-8", "backslashreplace")
        case datetime():
            shown = f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        case _:
            shown = str(value)
    return escaped(shown)


def many(count: int, what: str) -> str:
    """As in `1 run` and `2 runs`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def capped(value: int) -> str:
    """A count; as many as are counted at most stand for as many or more."""
    return f"{value:,}" + ("+" if value >= MOST else "")


def took(milliseconds: int | None) -> str:
    """How long something took: in milliseconds, from ten seconds on in the units of `seconds`."""
    if milliseconds is None:
        return NOTHING
    return f"{milliseconds:,} ms" if milliseconds < 10_000 else seconds(milliseconds / 1000)


def seconds(value: float) -> str:
    """How long, in the largest unit of which it is one or more."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= length:
            return f"{value / length:.0f} {unit}"
    return f"{value:.0f} s"


FILTERS: dict[str, Callable[..., Any]] = {
    "moment": moment, "state": state, "body": body, "text": text, "capped": capped, "many": many, "seconds": seconds,
    "took": took,
}  # fmt: skip
