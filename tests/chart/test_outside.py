"""What of the receiver is open to the outside, and how."""

from __future__ import annotations

from tests.chart.helm import Helm
from tests.chart.objects import of_kind, one, pods, strings


def test_nothing_is_open_by_default(helm: Helm) -> None:
    kinds = {thing["kind"] for thing in helm.render()}

    assert not kinds & {"Ingress", "HTTPRoute"}
    assert one(helm.render(), "Service", "receiver")["spec"]["type"] == "ClusterIP"


def test_an_ingress_leads_to_the_webhooks_alone(helm: Helm) -> None:
    ingress = one(helm.render("production"), "Ingress", "receiver")
    spec = ingress["spec"]

    assert spec["ingressClassName"] == "nginx"
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}
    assert spec["tls"] == [{"secretName": "billhook-certificate", "hosts": ["hooks.example.com"]}]
    (rule,) = spec["rules"]
    assert rule["host"] == "hooks.example.com"
    assert [(path["path"], path["pathType"]) for path in rule["http"]["paths"]] == [("/webhooks", "Prefix")]


def test_an_ingress_may_have_several_hosts_and_paths_and_no_certificate(helm: Helm) -> None:
    own = {
        "enabled": True,
        "hosts": ["a.example.com", "b.example.com"],
        "paths": ["/webhooks/shop", "/webhooks/market"],
    }
    (ingress,) = of_kind(helm.render(overridden={"ingress": own}), "Ingress")

    assert "tls" not in ingress["spec"]
    assert "ingressClassName" not in ingress["spec"]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == own["hosts"]
    for rule in ingress["spec"]["rules"]:
        assert [path["path"] for path in rule["http"]["paths"]] == own["paths"]


def test_a_path_is_what_was_written(helm: Helm) -> None:
    paths = ["/web hooks #1", "/a: {b}, c"]
    on = {"enabled": True, "paths": paths}
    values = {"ingress": {**on, "hosts": ["a.example.com"]}, "httpRoute": {**on, "parentRefs": [{"name": "public"}]}}
    objects = helm.render(overridden=values)
    (rule,) = one(objects, "Ingress", "receiver")["spec"]["rules"]
    (matches,) = one(objects, "HTTPRoute", "receiver")["spec"]["rules"]

    assert [path["path"] for path in rule["http"]["paths"]] == paths
    assert [match["path"]["value"] for match in matches["matches"]] == paths


def test_a_route_of_the_gateway_api_leads_to_the_webhooks_alone(helm: Helm) -> None:
    route = one(helm.render("gateway"), "HTTPRoute", "receiver")

    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["hooks.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/webhooks"}}],
                "backendRefs": [{"name": "release-billhook-receiver", "port": 80}],
            }
        ],
    }


def test_a_load_balancer_has_the_port_that_values_say(helm: Helm) -> None:
    service = one(helm.render("openshift"), "Service", "receiver")["spec"]

    assert service["type"] == "LoadBalancer"
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(8080, "http")]


def test_the_management_has_a_host_of_its_own(helm: Helm) -> None:
    objects = helm.render("production")
    spec = one(objects, "Ingress", "management")["spec"]
    (rule,) = spec["rules"]
    paths = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}

    assert spec["ingressClassName"] == "internal"
    assert rule["host"] == "billhook.internal.example.com"
    assert paths == dict.fromkeys(("/api/v1", "/console"), "release-billhook-management")


def test_the_management_may_have_a_route_of_the_gateway_api(helm: Helm) -> None:
    spec = one(helm.render("gateway"), "HTTPRoute", "management")["spec"]
    (rule,) = spec["rules"]

    assert spec["hostnames"] == ["billhook.internal.example.com"]
    assert spec["parentRefs"] == [{"name": "internal", "namespace": "gateways"}]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/api/v1", "/console"]
    assert rule["backendRefs"] == [{"name": "release-billhook-management", "port": 80}]


def test_a_load_balancer_before_the_receiver_reaches_no_management(helm: Helm) -> None:
    objects = helm.render("openshift")
    open_to_all = [found for found in of_kind(objects, "Service") if found["spec"].get("type") == "LoadBalancer"]

    for service in open_to_all:
        (found,) = (
            one for one in pods(objects) if service["spec"]["selector"].items() <= one.metadata["labels"].items()
        )
        assert found.environment["BILLHOOK_MANAGEMENT"] == "false"
    assert len(open_to_all) == 1


def test_the_management_can_be_left_out(helm: Helm) -> None:
    objects = helm.render("production", overridden={"management": {"enabled": False, "ingress": {"enabled": False}}})

    assert not [thing for thing in objects if thing["metadata"]["name"].endswith("-management")]
    assert not [text for thing in objects for text in strings(thing) if "-management" in text]
