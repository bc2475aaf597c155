"""What the API answers, in the shape in which the database does: rows, whose moments are moments; and what it reads."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import quote

from receiver.cli.output import CommandError
from receiver.versions import VERSION

if TYPE_CHECKING:
    from workers.models import AnyRow

_MOMENTS = ("_at", "_until", "_since")


class Object(dict[str, Any]):
    """An object of an answer, which says so where it lacks what this version looks for."""

    def __missing__(self, name: str) -> NoReturn:
        raise _lacks(name)

    def __or__(self, other: Any) -> Object:  # type: ignore[override]
        return Object({**self, **other})

    def pop(self, name: str, *_: Any) -> Any:
        value = self[name]
        del self[name]
        return value


class _Row(SimpleNamespace):
    """Has what is read of a row of the database: its columns, and all of them."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name) if name.startswith("__") else _lacks(name)

    def _asdict(self) -> dict[str, Any]:
        return Object(vars(self))


def _lacks(name: str) -> CommandError:
    return CommandError(f"the API answers without {name!r}: there is another version of Billhook, this is {VERSION}")


def row(shown: Mapping[str, Any], **beside: Any) -> AnyRow:
    """A row that has these columns, and what is given beside."""
    return cast("AnyRow", _Row(**values(shown) | beside))


def values(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a dict."""
    return Object({name: _value(name, value) for name, value in shown.items()})


def content(shown: Mapping[str, Any], name: str) -> bytes:
    """Bytes that the API shows as a text, or as base64 where they are none."""
    text, encoded = shown[name], shown[f"{name}_base64"]
    return base64.b64decode(encoded) if text is None else cast(str, text).encode()


def named(name: str) -> str:
    """A name as one part of a path, dots too: `..` is no way up."""
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E")


def written(moment: datetime | None) -> str | None:
    """A moment as the API reads it."""
    return None if moment is None else moment.isoformat()


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str) and (name == "at" or name.endswith(_MOMENTS)):
        return datetime.fromisoformat(value)
    return value
