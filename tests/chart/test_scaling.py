"""How many pods there are, and who decides it."""

from __future__ import annotations

from tests.chart.helm import Helm
from tests.chart.objects import of_kind, one, pods
from workers.app import QUEUES


def test_a_deployment_has_replicas_only_where_no_autoscaler_decides(helm: Helm) -> None:
    for values in ("minimal", "production", "cpu-autoscaling", "keda"):
        objects = helm.render(values)
        scaled = {
            scaler["spec"]["scaleTargetRef"]["name"]
            for scaler in (*of_kind(objects, "HorizontalPodAutoscaler"), *of_kind(objects, "ScaledObject"))
        }
        without = {
            found["metadata"]["name"] for found in of_kind(objects, "Deployment") if "replicas" not in found["spec"]
        }
        assert without == scaled


def test_there_is_a_deployment_for_each_class_of_queue(helm: Helm) -> None:
    components = {found.component for found in pods(helm.render()) if found.owner["kind"] == "Deployment"}

    assert components == {"receiver", "management", *QUEUES, "beat"}


def test_cpu_decides_where_it_is_asked_to(helm: Helm) -> None:
    objects = helm.render("cpu-autoscaling")
    targets = {
        found["spec"]["scaleTargetRef"]["name"]: found["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]
        for found in of_kind(objects, "HorizontalPodAutoscaler")
    }

    assert targets == {
        "release-billhook-receiver": 70,
        "release-billhook-events": 80,
        "release-billhook-deliveries": 80,
    }


def test_waiting_work_decides_where_it_is_asked_to(helm: Helm) -> None:
    objects = helm.render("keda")
    for queue in QUEUES:
        labels = f'namespace="billing",queue="{queue}",app_kubernetes_io_instance="release"'
        scaled = one(objects, "ScaledObject", queue)
        (trigger,) = scaled["spec"]["triggers"]
        assert scaled["apiVersion"] == "keda.sh/v1alpha1"
        assert scaled["spec"]["scaleTargetRef"] == {"name": f"release-billhook-{queue}"}
        assert scaled["spec"]["minReplicaCount"] >= 1
        assert trigger["type"] == "prometheus"
        assert trigger["metadata"] == {
            "serverAddress": "https://prometheus.example.com",
            "query": f"max(billhook_waiting{{{labels}}})",
            "threshold": "1000" if queue == "deliveries" else "200",
        }
        assert trigger["authenticationRef"] == {"name": "prometheus-token"}
        # So many pods also while Prometheus is away.
        assert scaled["spec"]["fallback"]["replicas"] >= scaled["spec"]["minReplicaCount"]


def test_work_is_counted_by_namespace_where_others_scrape(helm: Helm) -> None:
    scaled = one(helm.render("keda", overridden={"serviceMonitor": {"enabled": False}}), "ScaledObject", "events")
    (trigger,) = scaled["spec"]["triggers"]

    assert trigger["metadata"]["query"] == 'max(billhook_waiting{namespace="billing",queue="events"})'


def test_a_budget_never_forbids_to_drain_a_node(helm: Helm) -> None:
    for budget in of_kind(helm.render("production"), "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_rollout_of_the_receiver_takes_none_away_first(helm: Helm) -> None:
    strategy = one(helm.render(), "Deployment", "receiver")["spec"]["strategy"]

    assert strategy == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
