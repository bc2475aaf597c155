"""The rules, by promtool; and what it cannot know: that metrics, labels and values are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.alerts.promtool import Promtool
from tests.alerts.rules import FILE, OF_TARGETS, ROOT, TESTS, Alert, alerts, declared, selectors, trees, unknown

NAMES = [alert.name for alert in alerts()]


def test_promtool_takes_the_rules(promtool: Promtool) -> None:
    status, said = promtool.run("check", "rules", "--lint=all", "--lint-fatal", FILE)

    assert status == 0, said
    assert f"{len(NAMES)} rules found" in said


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_alerts_fire_and_end_as_these_series_say(promtool: Promtool, file: Path) -> None:
    status, said = promtool.run("test", "rules", file)

    assert status == 0, said


def test_each_alert_is_seen_to_be_silent_to_fire_and_to_end() -> None:
    seen = dict.fromkeys(NAMES, "")
    for file in TESTS:
        for test in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            looks: list[dict[str, Any]] = test["alert_rule_test"]
            for name in {look["alertname"] for look in looks}:
                mine = "".join("!" if look["exp_alerts"] else "." for look in looks if look["alertname"] == name)
                seen[name] += f" {mine}"

    assert [name for name, course in seen.items() if not re.search(r"\.!+\.", course)] == []
    assert list(seen) == NAMES


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_speaks_of_what_there_is(alert: Alert) -> None:
    assert unknown(alert.expression) == []


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_says_how_grave_it_is_what_it_found_and_where_to_read_on(alert: Alert) -> None:
    assert re.fullmatch(r"Billhook[A-Z][A-Za-z]+", alert.name)
    assert alert.labels.keys() == {"severity"}
    assert alert.labels["severity"] in {"warning", "critical"}
    assert alert.annotations.keys() == {"summary", "description", "runbook"}
    assert "$value" in alert.annotations["description"] or alert.name.endswith("Absent")
    assert (ROOT / alert.annotations["runbook"]).is_file()


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_two_installations_in_one_prometheus_are_told_apart(alert: Alert) -> None:
    aggregations: list[promql_parser.AggregateExpr] = []

    def see(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            aggregations.append(node)

    promql_parser.walk(promql_parser.parse(alert.expression), see)

    assert aggregations
    kept = [aggregation.modifier for aggregation in aggregations]
    assert all(modifier is not None and "namespace" in modifier.labels for modifier in kept)
    labels = {label for modifier in kept if modifier is not None for label in modifier.labels} - OF_TARGETS
    used = [declared().get(selector.name or "", frozenset()) for selector in selectors(alert.expression)]
    assert labels <= frozenset().union(*used)


def test_each_reason_of_a_failed_verification_is_counted_and_no_other() -> None:
    expression = next(alert.expression for alert in alerts() if alert.name == "BillhookVerificationFailing")
    counted, of_all = sorted(set(re.findall(r'reason=~"(.+?)"', expression)), key=len)
    reasons = {"throttled"} | raised("VerificationError")
    others = (raised("Refused") | {"disconnected"}) - reasons

    assert of_all == f"|{counted}"
    assert len(reasons) > 8
    assert {reason for reason in reasons if not re.fullmatch(counted, reason)} == set()
    assert others > {
        "timeout",
        "too_large",
        "not_an_event",
        "unavailable",
        "overloaded",
        "unconfirmed",
        "unknown_source",
    }
    assert {reason for reason in others if re.fullmatch(counted, reason)} == set()


def test_each_reason_to_turn_a_good_delivery_away_is_counted() -> None:
    expression = next(alert.expression for alert in alerts() if alert.name == "BillhookDeliveriesTurnedAway")

    assert set(re.findall(r'reason=~"(.+?)"', expression)) == {"unavailable|overloaded|unconfirmed"}
    assert {"unavailable", "overloaded", "unconfirmed"} == raised("Refused", answered="_LATER")


def raised(error: str, answered: str = "") -> set[str]:
    """The first argument of each such error that the code raises; only where it is answered so."""
    calls = [
        node
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == error and node.args
    ]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
        if not answered or ast.unparse(call.args[1]) == answered
    }
