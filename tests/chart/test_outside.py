"""What of the receiver is open to the outside, and how."""

from __future__ import annotations

from tests.chart.helm import Helm
from tests.chart.objects import of_kind, one


def test_nothing_is_open_by_default(helm: Helm) -> None:
    kinds = {thing["kind"] for thing in helm.render()}

    assert not kinds & {"Ingress", "HTTPRoute"}
    assert one(helm.render(), "Service", "receiver")["spec"]["type"] == "ClusterIP"


def test_an_ingress_leads_to_the_webhooks_alone(helm: Helm) -> None:
    (ingress,) = of_kind(helm.render("production"), "Ingress")
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


def test_a_route_of_the_gateway_api_leads_to_the_webhooks_alone(helm: Helm) -> None:
    (route,) = of_kind(helm.render("gateway"), "HTTPRoute")

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
