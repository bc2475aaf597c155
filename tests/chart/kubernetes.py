"""Kubernetes' own schemas, strict: an unknown field is an error. They come with the package kubernetes-validate.

That package's `validate` reads a file of 1.5 MB for each object; here it is read once for each version.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"}
"""Kinds that others define: Kubernetes has no schema of them."""


def complaint(thing: dict[str, Any], version: str) -> str | None:
    """What Kubernetes of that version finds wrong with an object; None: nothing."""
    error = best_match(_validator(version, thing["kind"], thing["apiVersion"]).iter_errors(thing))
    return f"{error.json_path}: {error.message}" if error else None


@cache
def _validator(version: str, kind: str, api_version: str) -> Draft202012Validator:
    # rbac.authorization.k8s.io/v1 is rbac-v1 there.
    shorter = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = _read(version, f"{kind.lower()}-{shorter}.json")
    registry: Registry[Any] = Resource.from_contents(schema) @ _definitions(version)
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Registry[Any]:
    registry: Registry[Any] = Registry()
    return Resource.from_contents(_read(version, "_definitions.json")) @ registry


def _read(version: str, name: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return json.loads((folder / name).read_text("utf-8"))
