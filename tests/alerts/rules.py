"""The alerts as they are written, and what there is for them to speak of: metrics, their labels and values."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import promql_parser
import yaml
from prometheus_client.metrics import Histogram, MetricWrapperBase

from workers import gauges, metrics, noted

ROOT = Path(__file__).parents[2]
FILE = ROOT / "helm" / "files" / "alerts.yaml"
TESTS = sorted(Path(__file__).parent.glob("*.yaml"))
OF_OTHERS = {"python_info", "up"}
"""Metrics that are not ours."""
OF_TARGETS = {"namespace", "job", "instance"}
"""Labels that Prometheus itself gives."""


OF_THE_CHART = {"app_kubernetes_io_component"}
"""Labels that its ServiceMonitor gives."""


@dataclass(frozen=True)
class Alert:
    """One rule."""

    name: str
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]


@cache
def alerts() -> tuple[Alert, ...]:
    """All rules, in their order."""
    groups = yaml.safe_load(FILE.read_text("utf-8"))["groups"]
    return tuple(
        Alert(rule["alert"], rule["expr"], rule["labels"], rule["annotations"])
        for group in groups
        for rule in group["rules"]
    )


@cache
def declared() -> dict[str, frozenset[str]]:
    """Every series that Billhook serves, with its labels."""
    series: dict[str, frozenset[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Histogram):
            series |= {f"{metric._name}_{part}": frozenset(metric._labelnames) for part in ("count", "sum")}
            series[f"{metric._name}_bucket"] = frozenset({*metric._labelnames, "le"})
        elif isinstance(metric, MetricWrapperBase):
            series[f"{metric._name}{'_total' * (metric._type == 'counter')}"] = frozenset(metric._labelnames)
    return series | of_the_beat()


def of_the_beat() -> dict[str, frozenset[str]]:
    """Its gauges are made when they are asked for, so they are read in the source: name, help, labels."""
    modules = [ast.parse(inspect.getsource(module)) for module in (gauges, noted)]
    nodes = [node for tree in modules for node in ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and _name(node.func) == "GaugeMetricFamily"]
    return {
        ast.literal_eval(call.args[0]): frozenset(
            label for option in call.keywords if option.arg == "labels" for label in ast.literal_eval(option.value)
        )
        for call in calls
    }


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Every selector of an expression. Raises ValueError where it is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def see(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), see)
    yield from found


def unknown(expression: str) -> list[str]:
    """What an expression names that is not there. Raises ValueError where it is no PromQL."""
    wrong = []
    for selector in selectors(expression):
        name = selector.name or ""
        if name in OF_OTHERS:
            continue
        if name not in declared():
            wrong.append(name)
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_THE_CHART:
                continue
            if matcher.name not in declared()[name]:
                wrong.append(f"{name}{{{matcher.name}}}")
            elif not _values(matcher) <= literals():
                wrong.append(f"{name}{{{matcher}}}")
    return wrong


def _values(matcher: promql_parser.Matcher) -> set[str]:
    """The values that it names: patterns are left out, but not plain alternatives."""
    if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):  # these have no hash
        return {matcher.value}
    return {value for value in matcher.value.split("|") if re.fullmatch(r"\w*", value)}


@cache
def trees() -> tuple[ast.Module, ...]:
    """The code."""
    packages = ("handlers", "receiver", "workers")
    return tuple(ast.parse(path.read_text("utf-8")) for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def literals() -> frozenset[str]:
    """Every text that stands in the code by itself, as the value of a label has to."""
    return frozenset(
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
