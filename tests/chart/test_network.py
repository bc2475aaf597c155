"""Who may reach whom: the policies are asked as a network plugin would, with an address or with a pod's labels."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.chart.helm import Helm, Object
from tests.chart.objects import SETS, of_kind, one, pods
from workers.delivery import egress

COMPONENTS = ("receiver", "management", "events", "deliveries", "schedules", "beat", "migration", "test")
PRIVATE = (
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "127.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "0.0.0.0",  # noqa: S104 - nobody listens
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "fd00:ec2::254",
    "fe80::1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
)
PUBLIC = ("1.1.1.1", "93.184.216.34", "172.32.0.1", "169.253.0.1", "2606:4700:4700::1111")
DATABASE, REDIS, COLLECTOR = "10.0.5.10", "10.0.5.20", "10.0.5.30"
"""Where the value set `production` has them."""


def reaches(policy: Object, address: str, port: int, protocol: str = "TCP") -> bool:
    """Whether a policy lets its pods reach an address."""
    return any(
        _has(rule.get("ports"), port, protocol) and _is(rule.get("to"), address)
        for rule in policy["spec"].get("egress", [])
    )


def _has(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(one.get("port") == port and one["protocol"] == protocol for one in ports)


def _is(peers: list[dict[str, Any]] | None, address: str) -> bool:
    """No peers are all of them."""
    if not peers:
        return True
    found = ip_address(address)
    blocks = [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
    return any(
        found in ip_network(block["cidr"]) and not any(found in ip_network(one) for one in block.get("except", []))
        for block in blocks
    )


def reaches_pods(policy: Object, labels: dict[str, str], port: int) -> bool:
    """Whether a policy lets its pods reach pods of the same namespace with these labels."""
    return any(
        _has(rule.get("ports"), port, "TCP")
        and any(
            "namespaceSelector" not in peer and peer["podSelector"]["matchLabels"].items() <= labels.items()
            for peer in rule.get("to", [])
            if "podSelector" in peer
        )
        for rule in policy["spec"]["egress"]
    )


def policies(helm: Helm, values: str) -> dict[str, Object]:
    """By component."""
    return {
        found["metadata"]["labels"]["app.kubernetes.io/component"]: found
        for found in of_kind(helm.render(values), "NetworkPolicy")
    }


def test_there_are_none_unless_they_are_asked_for(helm: Helm) -> None:
    assert policies(helm, "minimal") == {}


@pytest.mark.parametrize("values", [name for name in SETS if name in {"production", "network-policy", "trial-guarded"}])
def test_every_pod_is_under_one(helm: Helm, values: str) -> None:
    found = policies(helm, values)

    assert set(found) == {one.component for one in pods(helm.render(values))}
    for policy in found.values():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("address", PRIVATE)
def test_no_pod_reaches_a_private_or_link_local_address(helm: Helm, component: str, address: str) -> None:
    policy = policies(helm, "production")[component]

    assert not [port for port in (53, 80, 443, 5432, 6379, 8443, 9090) if reaches(policy, address, port)]


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC])
def test_billhook_itself_agrees_on_what_is_public(address: str) -> None:
    try:
        egress.check_address(address, egress.Egress())
    except egress.Refused:
        assert address in PRIVATE
    else:
        assert address in PUBLIC


def test_deliveries_reach_public_addresses_at_the_ports_of_the_settings(helm: Helm) -> None:
    policy = policies(helm, "production")["deliveries"]

    for address in PUBLIC:
        assert {port for port in (22, 25, 80, 443, 8443, 9443) if reaches(policy, address, port)} == {80, 443, 8443}


def test_deliveries_reach_the_networks_of_the_settings(helm: Helm) -> None:
    policy = policies(helm, "network-policy")["deliveries"]

    for address in ("10.9.77.1", "10.8.1.7", "fd00:1::7", "1.1.1.1"):
        assert {port for port in (80, 443, 9443) if reaches(policy, address, port)} == {443, 9443}
    assert not reaches(policy, "10.8.1.8", 443)
    assert not reaches(policies(helm, "network-policy")["events"], "10.9.77.1", 443)


def test_any_port_may_be_open_to_deliveries(helm: Helm) -> None:
    ports = {"settings": {"egress_ports": ["*"]}}
    policy = one(helm.render("network-policy", overridden=ports), "NetworkPolicy", "deliveries")

    for address in ("1.1.1.1", "10.9.77.1"):
        assert reaches(policy, address, 31_337)
    assert not reaches(policy, "10.1.2.3", 31_337)


def test_with_a_proxy_deliveries_reach_nothing_else(helm: Helm) -> None:
    policy = policies(helm, "egress-proxy")["deliveries"]

    assert not [address for address in PUBLIC if reaches(policy, address, 443)]
    assert reaches_pods(policy, {"app": "smokescreen"}, 4750)


def test_servers_are_reached_by_those_who_need_them(helm: Helm) -> None:
    for component, policy in policies(helm, "production").items():
        assert reaches(policy, DATABASE, 5432)
        assert reaches(policy, REDIS, 6380) == (component != "migration")
        assert not reaches(policy, DATABASE, 22)
        assert not reaches(policy, "10.0.5.11", 5432)


def test_redis_is_reached_with_its_sentinels(helm: Helm) -> None:
    for component, policy in policies(helm, "sentinels").items():
        for app, port in (("valkey", 6379), ("valkey-sentinel", 26379)):
            rules = [rule for rule in policy["spec"]["egress"] if _has(rule.get("ports"), port, "TCP")]
            reached = [peer.get("podSelector", {}).get("matchLabels") for rule in rules for peer in rule["to"]]
            assert ({"app": app} in reached) == (component != "migration")


def test_handlers_reach_public_addresses_and_what_values_name(helm: Helm) -> None:
    policy = policies(helm, "production")["events"]

    assert reaches(policy, "1.1.1.1", 587)
    assert reaches(policy, "10.0.7.25", 587)
    assert not reaches(policy, "10.0.7.25", 25)
    assert not reaches(policies(helm, "production")["deliveries"], "10.0.7.25", 587)


def test_apis_of_providers_are_reached_by_those_who_call_them(helm: Helm) -> None:
    callers = {name for name, policy in policies(helm, "production").items() if reaches(policy, "1.1.1.1", 443)}

    assert callers == {"receiver", "management", "events", "deliveries", "schedules"}


def test_names_are_resolved_where_values_say(helm: Helm) -> None:
    for policy in policies(helm, "network-policy").values():
        assert reaches(policy, "169.254.20.10", 53)
        assert reaches(policy, "169.254.20.10", 53, "UDP")
        assert not reaches(policy, "169.254.169.254", 53, "UDP")


def test_metrics_and_the_receiver_are_open_to_those_that_values_name(helm: Helm) -> None:
    found = policies(helm, "production")

    def names(component: str) -> list[str]:
        (rule,) = found[component]["spec"]["ingress"]
        selectors = [peer.get("namespaceSelector", {"matchLabels": {}}) for peer in rule["from"]]
        return [str(selector["matchLabels"].get("kubernetes.io/metadata.name")) for selector in selectors]

    assert names("receiver") == ["ingress-nginx", "monitoring", "None"]
    assert names("management") == ["office", "monitoring", "None"]
    assert names("events") == names("beat") == ["monitoring"]
    assert "ingress" not in found["migration"]["spec"]
    assert "ingress" not in found["test"]["spec"]


@pytest.mark.parametrize("component", ["receiver", "management"])
def test_the_pods_of_helm_test_reach_what_they_ask(helm: Helm, component: str) -> None:
    objects = helm.render("production")
    (asked,) = (found for found in pods(objects) if found.component == component)
    tester = next(found for found in pods(objects) if found.component == "test")
    found = policies(helm, "production")

    assert reaches_pods(found["test"], asked.metadata["labels"], 8000)
    (rule,) = found[component]["spec"]["ingress"]
    assert [peer for peer in rule["from"] if "podSelector" in peer] == [
        {"podSelector": {"matchLabels": dict(_selector(found["test"]))}}
    ]
    assert _selector(found["test"]).items() <= tester.metadata["labels"].items()


def _selector(policy: Object) -> dict[str, str]:
    labels: dict[str, str] = policy["spec"]["podSelector"]["matchLabels"]
    return labels


def test_the_servers_of_a_trial_are_reached_by_its_own_pods_only(helm: Helm) -> None:
    objects = helm.render("trial-guarded")
    found = policies(helm, "trial-guarded")
    labels = {one.component: one.metadata["labels"] for one in pods(objects)}

    for component in COMPONENTS:
        assert reaches_pods(found[component], labels["postgresql"], 5432)
        assert reaches_pods(found[component], labels["valkey"], 6379) == (component != "migration")
    for server in ("postgresql", "valkey"):
        assert "egress" not in found[server]["spec"]
        (rule,) = found[server]["spec"]["ingress"]
        (peer,) = rule["from"]
        assert peer["podSelector"]["matchLabels"].items() <= labels["receiver"].items()
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "release"


def test_what_is_traced_reaches_the_collector(helm: Helm) -> None:
    found = policies(helm, "production")
    reaching = {name for name, policy in found.items() if reaches(policy, COLLECTOR, 4318)}

    assert {"receiver", "management", "events", "deliveries", "schedules"} <= reaching
    assert "migration" not in reaching
    assert not [name for name, policy in policies(helm, "trial-guarded").items() if reaches(policy, COLLECTOR, 4318)]
