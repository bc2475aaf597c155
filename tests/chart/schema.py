"""The parts of values.schema.json that follow from Billhook's settings; `python -m tests.chart.schema` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handlers.providers import PROVIDERS
from workers.settings import Settings, Source

CHART = Path(__file__).parent.parent.parent / "helm"
FILE = CHART / "values.schema.json"
DECIDED = {
    "state_dir": "a folder of the pod",
    "listen": "pod.listenAddress",
    "metrics_listen": "pod.listenAddress",
    "sources": "sources",
    "handlers": "handlers",
    "database_url": "existingSecret",
    "redis_url": "existingSecret",
    "encryption_keys": "existingSecret",
    "egress_proxy": "existingSecret",
    "sentry_dsn": "existingSecret",
    "management": "management",
}
"""Settings that values give in another way, or the chart itself."""


def settings() -> dict[str, Any]:
    """The definition of `settings`: every option that is none of DECIDED."""
    options = Settings.model_json_schema()["properties"]
    properties = {name: _plain(option) for name, option in options.items() if name not in DECIDED}
    properties["egress_ports"]["items"]["type"] = ["integer", "string"]
    return _closed(properties)


def source() -> dict[str, Any]:
    """The definition of one of `sources`: as its options are, but secrets are references."""
    options = Source.model_json_schema()["properties"]
    properties = {name: _plain(option) for name, option in options.items()}
    properties["provider"]["enum"] = sorted(PROVIDERS)
    properties["secrets"] = properties["api_key"] = {"$ref": "#/definitions/reference"}
    return {**_closed(properties), "required": ["provider", "secrets"]}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(option: dict[str, Any]) -> dict[str, Any]:
    """Without null: what is not set is left out."""
    (kind,) = (kind for kind in option.get("anyOf", [option]) if kind.get("type") != "null")
    kind = {key: value for key, value in kind.items() if key not in {"title", "default"}}
    return {"description": option["description"], **kind}


if __name__ == "__main__":
    schema = json.loads(FILE.read_text("utf-8"))
    schema["definitions"] |= {"settings": settings(), "source": source()}
    FILE.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", "utf-8")
