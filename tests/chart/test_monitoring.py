"""Metrics, alerts and the dashboard: each names only what Billhook has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.chart.helm import Helm
from tests.chart.objects import of_kind, one, pods
from tests.chart.schema import CHART

DOCUMENT = (CHART.parent / "docs" / "metrics.md").read_text()
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
SCALING = CHART / "templates" / "workers" / "scaledobject.yaml"


def metrics(text: str) -> set[str]:
    """The metrics of Billhook that a text names, as they are declared: without what Prometheus adds."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bbillhook_\w+", text)}


@pytest.mark.parametrize("file", [ALERTS, DASHBOARD, SCALING], ids=lambda file: file.stem)
def test_every_metric_that_is_named_is_documented(file: Path) -> None:
    named = metrics(file.read_text())

    assert named
    assert [name for name in sorted(named) if f"`{name}" not in DOCUMENT] == []


def test_prometheus_finds_every_process(helm: Helm) -> None:
    objects = helm.render("production")
    (monitor,) = of_kind(objects, "ServiceMonitor")
    spec = monitor["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    services = [found for found in of_kind(objects, "Service") if wanted <= found["metadata"]["labels"].items()]
    scraped = {
        found.component
        for service in services
        for port in service["spec"]["ports"]
        for endpoint in spec["endpoints"]
        for found in pods(objects)
        if port["name"] == endpoint["port"] and service["spec"]["selector"].items() <= found.metadata["labels"].items()
    }

    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert {(endpoint["path"], endpoint["interval"]) for endpoint in spec["endpoints"]} == {("/metrics", "30s")}
    assert scraped == {"receiver", "management", "events", "deliveries", "schedules", "beat"}


def test_what_is_scraped_bears_the_component_that_alerts_ask_for(helm: Helm) -> None:
    (monitor,) = of_kind(helm.render("production"), "ServiceMonitor")
    labels = {re.sub(r"\W", "_", label): label for label in monitor["spec"]["targetLabels"]}
    named = set(re.findall(r'app_kubernetes_io_component!?="(\w+)"', ALERTS.read_text()))

    assert named == {"management"}
    service = one(helm.render("production"), "Service", "management")
    assert service["metadata"]["labels"][labels["app_kubernetes_io_component"]] == "management"


def test_without_prometheus_there_are_no_services_for_it(helm: Helm) -> None:
    services = of_kind(helm.render(), "Service")

    assert {found["metadata"]["name"] for found in services} == {
        "release-billhook-receiver",
        "release-billhook-management",
    }


def test_the_alerts_are_those_of_the_file(helm: Helm) -> None:
    (rule,) = of_kind(helm.render("production"), "PrometheusRule")

    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())


def test_alerts_link_to_where_the_runbooks_are_kept(helm: Helm) -> None:
    for folder in ("https://git.example.com/docs/runbooks", "https://git.example.com/docs/runbooks/"):
        objects = helm.render("production", overridden={"prometheusRule": {"runbooks": folder}})
        (rule,) = of_kind(objects, "PrometheusRule")
        given = [alert["annotations"] for group in rule["spec"]["groups"] for alert in group["rules"]]

        assert [annotations["runbook_url"] for annotations in given] == [
            f"https://git.example.com/{alert['annotations']['runbook']}" for alert in alerts()
        ]
        assert not [annotations for annotations in given if "runbook" in annotations]


def alerts() -> list[dict[str, Any]]:
    """Every alert of the file."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_every_alert_says_what_it_is_and_how_bad() -> None:
    assert "BillhookNothingReceived" in {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["alert"].startswith("Billhook")
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert {"summary", "description"} <= set(alert["annotations"])


def test_the_dashboard_is_that_of_the_file(helm: Helm) -> None:
    config = one(helm.render("production"), "ConfigMap", "dashboard")

    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["release-billhook.json"]) == json.loads(DASHBOARD.read_text())


def test_every_panel_asks_something_of_the_chosen_namespace() -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]

    assert len(panels) > 10
    for panel in panels:
        assert panel["description"]
        for target in panel["targets"]:
            selectors = re.findall(r"billhook_\w+\{([^}]*)\}", target["expr"])
            assert selectors
            assert all('namespace=~"$namespace"' in selector for selector in selectors)


def test_every_question_of_the_dashboard_is_promql() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))


def test_what_keda_asks_is_promql(helm: Helm) -> None:
    for scaled in (*of_kind(helm.render("keda"), "ScaledObject"), *of_kind(helm.render("production"), "ScaledObject")):
        promql_parser.parse(scaled["spec"]["triggers"][0]["metadata"]["query"])


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
