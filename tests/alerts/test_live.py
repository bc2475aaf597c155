"""What real processes serve: promtool finds nothing to complain of, and the alerts tell well from unwell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.stack import Stack, await_, delivery, embedded
from tests.alerts.promtool import Promtool
from tests.alerts.rules import FILE, declared
from tests.services import free_port

HANDLER = """
from handlers import on

@on("invoice.paid")
def receipt(event, ctx):
    ctx.emit("receipt.issued", {"invoice": event.object_id})
"""
ABSENT = {"serve": "BillhookReceiverAbsent", "work": "BillhookWorkersAbsent", "beat": "BillhookBeatAbsent"}


def test_the_metrics_of_each_process_are_well_formed_and_their_alerts_tell_which_is_absent(
    promtool: Promtool, tmp_path: Path
) -> None:
    (tmp_path / "my_handlers.py").write_text(HANDLER)
    with embedded(tmp_path) as stack:
        served = metrics_of(stack)

    for name, text in served.items():
        status, said = promtool.run("check", "metrics", read=text)
        assert (name, status, said) == (name, 0, "")
    names = {sample.name for text in served.values() for sample in samples(text) if sample.name.startswith("billhook_")}
    assert {name for name in names if not name.endswith("_created")} <= declared().keys()

    # Half of what the receiver got was forged; of the rest nothing is amiss.
    forged = "BillhookVerificationFailing"
    tests = [course("all are there", served, [forged])]
    for name, alert in ABSENT.items():
        rest = {other: text for other, text in served.items() if other != name}
        tests.append(course(f"without {name}", rest, [alert, forged] if "serve" in rest else [alert]))
    file = tmp_path / "live.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": tests}))
    status, said = promtool.run("test", "rules", file)
    assert status == 0, said


def metrics_of(stack: Stack) -> dict[str, str]:
    """What each process serves once there has been something to count."""
    urls = {"serve": stack.url}
    stack.start("serve")
    for name in ("work", "beat"):
        address = f"127.0.0.1:{free_port()}"
        urls[name], stack.environment["BILLHOOK_METRICS_LISTEN"] = f"http://{address}", address
        stack.start(name)
    for number, event_type in enumerate(("invoice.paid", "customer.created", "invoice.paid")):
        request = delivery(number % 2, event_type)
        for body in (request.body, request.body + b" "):
            httpx.post(f"{stack.url}/webhooks/shop", content=body, headers=request.headers, trust_env=False)

    def read(name: str) -> str:
        try:
            return httpx.get(f"{urls[name]}/metrics", trust_env=False).raise_for_status().text
        except httpx.HTTPError:
            return ""

    await_(lambda: stack.events() == stack.events("processed") + stack.events("ignored"), "all are handled")
    await_(lambda: "billhook_runs_total" in read("work"), "the worker has counted")
    return {name: await_(partial(read, name), f"{name} serves metrics") for name in urls}


def samples(text: str) -> Iterable[Any]:
    return (sample for family in text_string_to_metric_families(text) for sample in family.samples)


def course(name: str, served: dict[str, str], firing: list[str]) -> dict[str, Any]:
    """A test of promtool's: where these texts are served unchanged for half an hour, these alerts fire and no other."""
    series = [
        {"series": f"{sample.name}{{{labels(sample, instance)}}}", "values": f"{sample.value:.0f}x30"}
        for instance, text in served.items()
        for sample in samples(text)
        if sample.name.startswith("billhook_") or sample.name == "python_info"
    ]
    looked = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "20m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in firing],
    }
    return {"name": name, "interval": "1m", "input_series": series, "promql_expr_test": [looked]}


def labels(sample: Any, instance: str) -> str:
    pairs = sample.labels | {"job": "billhook", "instance": instance}
    return ", ".join(f'{name}="{value}"' for name, value in pairs.items())
