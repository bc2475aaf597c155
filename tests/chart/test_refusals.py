"""What is refused: values that the schema does not know, and values that do not fit together, which says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart import schema
from tests.chart.helm import Helm, Refused

OPEN = {"Values of charts above": "global", "Options that each provider has its own of": "options"}
"""The only objects that may have any key."""
REFUSED_BY_SCHEMA: list[tuple[str, dict[str, Any]]] = [
    ("nonsense", {"nonsense": 1}),
    ("replica", {"receiver": {"replica": 3}}),
    ("replicas", {"receiver": {"replicas": "three"}}),
    ("enabled", {"ingress": {"enabled": "yes"}}),
    ("worker_proceses", {"settings": {"worker_proceses": 2}}),
    ("log_level", {"settings": {"log_level": "loud"}}),
    ("retention_days", {"settings": {"retention_days": 7}}),
    ("listen", {"settings": {"listen": "0.0.0.0:80"}}),
    ("management", {"receiver": {"settings": {"management": True}}}),
    ("provider", {"sources": {"shop": {"provider": "stripe", "secrets": {"key": "k"}}}}),
    ("secrets", {"sources": {"shop": {"provider": "hisab"}}}),
    ("a__b", {"sources": {"a__b": {"provider": "hisab", "secrets": {"key": "k"}}}}),
    ("Shop", {"sources": {"Shop": {"provider": "hisab", "secrets": {"key": "k"}}}}),
    ("end_", {"sources": {"end_": {"provider": "hisab", "secrets": {"key": "k"}}}}),
    ("receipts.txt", {"handlers": {"files": {"receipts.txt": "x = 1"}}}),
    ("volume", {"handlers": {"volume": {"claim": "a", "configMap": "b"}}}),
    ("mounts", {"pod": {"mounts": [{"path": "/x", "secret": "a", "claim": "b"}]}}),
    ("digest", {"image": {"digest": "sha256:abc"}}),
    ("image", {"trial": {"valkey": {"image": "valkey/valkey:latest"}}}),
    ("image", {"trial": {"valkey": {"image": "valkey/valkey"}}}),
    ("terminationGracePeriodSeconds", {"workers": {"terminationGracePeriodSeconds": 20}}),
    ("terminationGracePeriodSeconds", {"workers": {"events": {"terminationGracePeriodSeconds": 20}}}),
    ("minReplicas", {"workers": {"keda": {"minReplicas": 0}}}),
    ("maxUnavailable", {"receiver": {"pdb": {"maxUnavailable": 0}}}),
    ("runAsUser", {"pod": {"runAsUser": 0}}),
    ("type", {"service": {"type": "ExternalName"}}),
    ("component", {"pod": {"labels": {"app.kubernetes.io/component": "mine"}}}),
    ("hosts", {"ingress": {"hosts": ["https://hooks.example.com/"]}}),
    ("hostnames", {"management": {"httpRoute": {"hostnames": ["Hooks.example.com"]}}}),
    ("maxUnavailable", {"receiver": {"pdb": {"maxUnavailable": "0%"}}}),
    # As a key with nothing after it is read.
    ("sources", {"sources": None}),
    ("handlers", {"handlers": None}),
    ("podSelektor", {"networkPolicy": {"ingressFrom": [{"podSelektor": {}}]}}),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    (
        r"existingSecret\.name=billhook\. Or look around first, with --set trial\.enabled=true",
        {"existingSecret": {"name": ""}},
    ),
    (r"trial\.enabled brings its own Secret: leave out existingSecret\.name", {"trial": {"enabled": True}}),
    (r"image\.tag: latest is another image each day; name a version", {"image": {"tag": "latest"}}),
    (
        r"sources\.billhook: .* give this one another name",
        {"sources": {"billhook": {"provider": "hisab", "secrets": {"key": "k"}}}},
    ),
    (r"test\.source: shop is none of sources", {"test": {"source": "shop"}}),
    (
        r"workers\.events: hpa and keda would both set the number of pods; enable one of them",
        {
            "workers": {"events": {"hpa": {"enabled": True}, "keda": {"enabled": True}}},
            "prometheus": {"address": "http://p"},
        },
    ),
    (r"workers\.deliveries\.keda: set prometheus\.address", {"workers": {"deliveries": {"keda": {"enabled": True}}}}),
    (
        r"receiver\.hpa: minReplicas is more than maxReplicas",
        {"receiver": {"hpa": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}},
    ),
    (
        r"workers\.events\.keda: minReplicas is more than maxReplicas",
        {"workers": {"events": {"keda": {"enabled": True, "minReplicas": 11}}}, "prometheus": {"address": "http://p"}},
    ),
    (
        r"receiver\.hpa: set receiver\.resources\.requests\.cpu",
        {"receiver": {"hpa": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
    ),
    (
        r"receiver\.terminationGracePeriodSeconds: with a drain_seconds of 30 it takes at least 60",
        {"receiver": {"settings": {"drain_seconds": 30}}},
    ),
    (r"ingress\.hosts: name at least one host", {"ingress": {"enabled": True}}),
    (r"httpRoute\.parentRefs: name the Gateway", {"httpRoute": {"enabled": True}}),
    (r"management\.ingress\.hosts: name at least one host", {"management": {"ingress": {"enabled": True}}}),
    (r"management\.httpRoute\.parentRefs: name the Gateway", {"management": {"httpRoute": {"enabled": True}}}),
    (
        r"management\.enabled: without its pods, management\.ingress and management\.httpRoute lead nowhere",
        {"management": {"enabled": False, "ingress": {"enabled": True, "hosts": ["a.example.com"]}}},
    ),
    (
        r"management\.terminationGracePeriodSeconds: with a drain_seconds of 30 it takes at least 60",
        {"management": {"settings": {"drain_seconds": 30}}},
    ),
    (r"networkPolicy\.database\.to: say where it is", {"networkPolicy": {"enabled": True}}),
    (
        r"networkPolicy\.redis\.to: say where it is",
        {"networkPolicy": {"enabled": True, "database": {"to": [{"podSelector": {}}]}}},
    ),
]


@pytest.mark.parametrize(("name", "values"), REFUSED_BY_SCHEMA)
def test_the_schema_refuses_and_names_what_is_wrong(helm: Helm, name: str, values: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="values don't meet the specifications of the schema") as refused:
        helm.render(overridden=values)

    assert name in str(refused.value)


@pytest.mark.parametrize(("message", "values"), REFUSED)
def test_values_that_do_not_fit_together_are_refused_with_what_to_do(
    helm: Helm, message: str, values: dict[str, Any]
) -> None:
    with pytest.raises(Refused, match=message):
        helm.render(overridden=values)


def test_a_trial_has_a_source_of_its_own(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"sources\.trial: a trial brings a source of that name"):
        helm.render("default-trial", overridden={"sources": {"trial": {"provider": "hisab", "secrets": {"key": "k"}}}})


def test_a_secret_of_a_source_needs_a_name_where_there_is_no_other(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"sources\.shop\.secrets\.name: say which Secret has the key k"):
        helm.render("default-trial", overridden={"sources": {"shop": {"provider": "hisab", "secrets": {"key": "k"}}}})


def test_a_proxy_has_to_be_reachable(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"workers\.deliveries\.egress: .* say where it is"):
        helm.render("egress-proxy", overridden={"workers": {"deliveries": {"egress": []}}})


def test_what_is_off_may_be_incomplete(helm: Helm) -> None:
    helm.render(overridden={"workers": {"schedules": {"enabled": False, "keda": {"enabled": True}}}})


def test_a_chart_above_may_have_its_own_values(helm: Helm) -> None:
    assert helm.render(overridden={"global": {"region": "ma"}}) == helm.render()


def objects(definition: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every definition of an object, by the name of its value."""
    if isinstance(definition, dict):
        if definition.get("type") == "object":
            yield name, definition
        for key, inner in definition.items():
            yield from objects(inner, key)


def test_the_schema_is_closed_everywhere() -> None:
    open_ones = {
        name
        for name, definition in objects(json.loads(schema.FILE.read_text()))
        # A map is none: it takes any key, but each with a value of one type.
        if definition.get("additionalProperties", True) is True
    }

    assert open_ones == set(OPEN.values())


def test_the_schema_and_the_defaults_have_the_same_keys() -> None:
    whole = json.loads(schema.FILE.read_text())
    defaults = yaml.safe_load((schema.CHART / "values.yaml").read_text())

    def same(definition: dict[str, Any], value: Any, path: str) -> None:
        if "$ref" in definition:
            definition = whole["definitions"][definition["$ref"].rpartition("/")[2]]
        # What is empty, and what may differ by queue, names a few of many keys.
        if (
            not isinstance(value, dict)
            or not value
            or path in {".workers.events", ".workers.deliveries", ".receiver.settings", ".management.settings"}
        ):
            return
        if "properties" not in definition or path.endswith((".requests", ".limits", ".to")):
            return
        assert set(definition["properties"]) - {"global"} == set(value), path
        for key, inner in value.items():
            same(definition["properties"][key], inner, f"{path}.{key}")

    same(whole, defaults, "")
