"""Looking into what was rendered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chart.helm import Object
from tests.chart.schema import CHART

SETS = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
"""The value sets of ci/."""


@dataclass(frozen=True)
class Pod:
    """A pod, or the template of one, and the object that it stands in."""

    owner: Object
    metadata: dict[str, Any]
    spec: dict[str, Any]

    @property
    def component(self) -> str:
        return str(self.metadata["labels"]["app.kubernetes.io/component"])

    @property
    def container(self) -> dict[str, Any]:
        """The only one."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that have a plain value."""
        return {entry["name"]: entry["value"] for entry in self.container.get("env", []) if "value" in entry}

    @property
    def ours(self) -> bool:
        """Whether it runs Billhook."""
        return self.component not in {"postgresql", "valkey"}


def pods(objects: Sequence[Object]) -> Iterator[Pod]:
    """Every pod that would come of the objects."""
    for owner in objects:
        if owner["kind"] == "Pod":
            yield Pod(owner, owner["metadata"], owner["spec"])
        elif "template" in owner.get("spec", {}):
            yield Pod(owner, owner["spec"]["template"]["metadata"], owner["spec"]["template"]["spec"])


def pod(objects: Sequence[Object], component: str) -> Pod:
    """The pod of that component."""
    return next(found for found in pods(objects) if found.component == component)


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    """Those of a kind."""
    return [found for found in objects if found["kind"] == kind]


def one(objects: Sequence[Object], kind: str, component: str) -> Object:
    """The only object of a kind and component."""
    (found,) = (
        found
        for found in of_kind(objects, kind)
        if found["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    return found


def identity(thing: Object) -> tuple[str, str]:
    """What no two objects of one namespace share."""
    return thing["kind"], thing["metadata"]["name"]


def strings(value: object) -> Iterator[str]:
    """Every text in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (*strings(key), *strings(item))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
