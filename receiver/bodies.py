"""A body as people read it, at a terminal or in a browser: JSON indented, other text as it is, bytes in hexadecimal.

Everything is made of pieces, each with its colour. What came is shown, and not what a parser made of it: numbers,
escapes and repeated names stay as they were sent. Nothing in it can act on the terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would move the cursor, colour the terminal or turn the text around; and halves of characters."""
SHOWN = 20_000
"""Characters that are shown of a body."""
DUMPED = 256
"""Bytes that are shown of one that is no text."""

_JSON = re.compile(
    r'(?P<cyan>"(?:[^"\\]|\\.)*"(?=\s*:))|(?P<green>"(?:[^"\\]|\\.)*")|(?P<dim>[{}\[\],:])|(?P<magenta>[^\s{}\[\],:"]+)'
)
"""What JSON is made of: names, strings, punctuation, the rest; each group is named by its colour."""


def escaped(text: str) -> str:
    """Text of somebody else's as it can be shown at a terminal: what is no letter stands there as `\\x1b`."""
    return _CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def of_body(body: bytes) -> Iterator[tuple[str, str]]:
    """The body, indented by two, with the end that is not shown told in bytes."""
    if not body:
        yield "  (no body)", "dim"
        return
    try:
        text = body.decode()
    except UnicodeDecodeError:
        yield from _dump(body)
        return
    room = SHOWN
    for piece, colour in _indented(text) if _is_json(text) else [(_lines(text), "")]:
        yield piece[:room], colour
        room -= len(piece)
        if room < 0:
            yield _cut(body), "yellow"
            return


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _indented(text: str) -> Iterator[tuple[str, str]]:
    depth, before = 1, ""
    yield "  ", ""
    for found in _JSON.finditer(text):
        part = found[0]
        closes = part in ("}", "]")
        depth -= closes
        if (before in ("{", "[")) != closes or before == ",":  # not within {} and []
            yield "\n" + "  " * depth, ""
        yield escaped(part), found.lastgroup or ""
        if part == ":":
            yield " ", ""
        depth += part in ("{", "[")
        before = part


def _lines(text: str) -> str:
    return "\n".join(f"  {line}" for line in escaped(text[: SHOWN + 1]).split("\n"))


def _dump(body: bytes) -> Iterator[tuple[str, str]]:
    for start in range(0, min(len(body), DUMPED), 16):
        line = body[start : start + 16]
        yield ("\n" if start else "") + f"  {start:08x}  {line.hex(' '):<47}  ", ""
        yield "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line), "green"
    if len(body) > DUMPED:
        yield _cut(body), "yellow"


def _cut(body: bytes) -> str:
    return f"\n  … cut here; {len(body)} bytes came"
