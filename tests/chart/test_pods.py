"""What every pod keeps to, whatever the values."""

from __future__ import annotations

from typing import Any

import pytest

from receiver import server
from tests.chart.helm import Helm
from tests.chart.objects import SETS, Pod, of_kind, one, pod, pods
from tests.chart.schema import CHART
from workers import worker

COMMANDS = {
    "receiver": ["billhook", "serve"],
    "management": ["billhook", "serve"],
    "events": ["billhook", "work", "--queues", "events"],
    "deliveries": ["billhook", "work", "--queues", "deliveries"],
    "schedules": ["billhook", "work", "--queues", "schedules"],
    "beat": ["billhook", "beat"],
    "migration": ["billhook", "migrate"],
}


def breaches(found: Pod) -> list[str]:
    """What of the restricted Pod Security Standard a pod does not keep to."""
    spec, security = found.spec, found.spec["securityContext"]
    wrong = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        wrong.append("runAsNonRoot")
    if security["seccompProfile"]["type"] not in {"RuntimeDefault", "Localhost"}:
        wrong.append("seccompProfile")
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    wrong += [volume["name"] for volume in spec["volumes"] if not set(volume) - {"name"} <= allowed]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own: dict[str, Any] = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            wrong.append("allowPrivilegeEscalation")
        if own["capabilities"] != {"drop": ["ALL"]}:
            wrong.append("capabilities")
        wrong += ["hostPort" for port in container.get("ports", []) if "hostPort" in port]
    return wrong


@pytest.mark.parametrize("values", SETS)
def test_it_meets_the_restricted_pod_security_standard(helm: Helm, values: str) -> None:
    for found in pods(helm.render(values)):
        assert breaches(found) == [], found.component


@pytest.mark.parametrize("values", SETS)
def test_its_file_system_is_read_only_but_for_folders_of_its_own(helm: Helm, values: str) -> None:
    for found in pods(helm.render(values)):
        assert found.container["securityContext"]["readOnlyRootFilesystem"] is True
        empty = {volume["name"] for volume in found.spec["volumes"] if "emptyDir" in volume}
        # The claim of the trial's database is made from a template, and stands among no volumes.
        written = {mount["name"] for mount in found.container["volumeMounts"] if not mount.get("readOnly")}
        assert written - {"data"} <= empty
        assert "/tmp" in {mount["mountPath"] for mount in found.container["volumeMounts"]}
        if found.ours:
            assert found.environment["BILLHOOK_STATE_DIR"] in {
                mount["mountPath"] for mount in found.container["volumeMounts"] if mount["name"] in empty
            }


@pytest.mark.parametrize("values", SETS)
def test_every_mount_has_its_volume_and_every_volume_its_mount(helm: Helm, values: str) -> None:
    for found in pods(helm.render(values)):
        claims = {claim["metadata"]["name"] for claim in found.owner["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in found.spec["volumes"]} | claims
        assert {mount["name"] for mount in found.container["volumeMounts"]} == volumes


@pytest.mark.parametrize("values", SETS)
def test_it_asks_for_cpu_and_memory_and_has_a_limit_of_memory(helm: Helm, values: str) -> None:
    for found in pods(helm.render(values)):
        resources = found.container["resources"]
        assert set(resources["requests"]) >= {"cpu", "memory"}, found.component
        assert "memory" in resources["limits"]


@pytest.mark.parametrize("values", SETS)
def test_its_image_has_a_version(helm: Helm, values: str) -> None:
    for found in pods(helm.render(values)):
        image = found.container["image"]
        assert ":" in image.rpartition("/")[2], image
        assert not image.endswith(":latest")


@pytest.mark.parametrize("values", SETS)
def test_it_gets_no_token_and_no_variables_of_services(helm: Helm, values: str) -> None:
    for account in of_kind(helm.render(values), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for found in pods(helm.render(values)):
        assert found.spec["automountServiceAccountToken"] is False
        assert found.spec["enableServiceLinks"] is False


def test_each_component_runs_its_command(helm: Helm) -> None:
    assert {one.component: one.container["command"] for one in pods(helm.render())} == {
        **COMMANDS,
        "test": pod(helm.render(), "test").container["command"],
    }


def test_the_image_is_billhooks_of_the_charts_version(helm: Helm) -> None:
    assert pod(helm.render(), "beat").container["image"] == "billhook:0.1.0"
    assert pod(helm.render("handlers-image"), "beat").container["image"].endswith("shop/billhook:0.1.0-shop.7")
    assert "billhook@sha256:7d86" in pod(helm.render("production"), "beat").container["image"]


def test_the_chart_and_the_image_agree_on_the_user_and_on_the_folder_of_state(helm: Helm) -> None:
    dockerfile = (CHART.parent / "Dockerfile").read_text()
    for found in pods(helm.render()):
        security = found.spec["securityContext"]
        assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in dockerfile
        assert f"BILLHOOK_STATE_DIR={found.environment['BILLHOOK_STATE_DIR']}\n" in dockerfile


def test_no_pod_is_killed_while_it_stops_by_itself(helm: Helm) -> None:
    for values in SETS:
        for found in pods(helm.render(values)):
            if found.component in {"events", "deliveries", "schedules"}:
                assert found.spec["terminationGracePeriodSeconds"] > worker.STOPS_WITHIN + 5
            elif found.component in {"receiver", "management"}:
                drain = int(found.environment["BILLHOOK_DRAIN_SECONDS"])
                assert found.spec["terminationGracePeriodSeconds"] > drain + server.GRACE + 5


@pytest.mark.parametrize("component", ["receiver", "management"])
def test_what_serves_is_asked_over_http(helm: Helm, component: str) -> None:
    container = pod(helm.render(), component).container

    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_workers_and_beat_are_asked_whether_they_consume(helm: Helm) -> None:
    for component in ("events", "deliveries", "schedules", "beat"):
        container = pod(helm.render(), component).container
        assert container["livenessProbe"]["exec"] == {"command": ["billhook", "alive"]}
        assert container["startupProbe"]["exec"] == {"command": ["billhook", "alive"]}
        assert "readinessProbe" not in container


def test_the_receiver_goes_on_until_no_more_requests_come(helm: Helm) -> None:
    assert pod(helm.render(), "receiver").environment["BILLHOOK_DRAIN_SECONDS"] == "5"
    assert "BILLHOOK_DRAIN_SECONDS" not in pod(helm.render(), "beat").environment


def test_pods_are_spread_over_zones_and_nodes(helm: Helm) -> None:
    for values, mode in (("minimal", "ScheduleAnyway"), ("production", "DoNotSchedule")):
        for found in pods(helm.render(values)):
            if found.component in {"migration", "test"}:
                assert "topologySpreadConstraints" not in found.spec
                continue
            constraints = found.spec["topologySpreadConstraints"]
            assert [spread["topologyKey"] for spread in constraints] == [
                "topology.kubernetes.io/zone",
                "kubernetes.io/hostname",
            ]
            assert {spread["whenUnsatisfiable"] for spread in constraints} == {mode}
            for spread in constraints:
                assert spread["labelSelector"]["matchLabels"].items() <= found.metadata["labels"].items()


def test_pods_need_not_be_spread(helm: Helm) -> None:
    found = pod(helm.render(overridden={"pod": {"topologySpread": ""}}), "receiver")

    assert "topologySpreadConstraints" not in found.spec


def test_a_component_changes_what_it_has_of_all_pods(helm: Helm) -> None:
    everywhere = {"nodeSelector": {"disk": "ssd", "pool": "all"}, "tolerations": [{"key": "a", "operator": "Exists"}]}
    own = {"nodeSelector": {"pool": "big"}, "tolerations": [], "annotations": {"reloader": "on"}}
    objects = helm.render(overridden={"pod": everywhere, "workers": {"pod": own}})

    assert pod(objects, "receiver").spec["nodeSelector"] == {"disk": "ssd", "pool": "all"}
    assert pod(objects, "receiver").spec["tolerations"] == [{"key": "a", "operator": "Exists"}]
    assert pod(objects, "events").spec["nodeSelector"] == {"disk": "ssd", "pool": "big"}
    assert "tolerations" not in pod(objects, "events").spec
    assert pod(objects, "events").metadata["annotations"]["reloader"] == "on"


def test_a_queue_changes_what_it_has_of_all_workers(helm: Helm) -> None:
    objects = helm.render(
        overridden={
            "workers": {
                "replicas": 5,
                "pdb": {"enabled": True},
                "schedules": {"pdb": {"enabled": False}},
                "deliveries": {"replicas": 0, "resources": {"limits": {"memory": "9Gi"}}},
            }
        }
    )

    replicas = {name: one(objects, "Deployment", name)["spec"]["replicas"] for name in ("deliveries", "schedules")}
    assert replicas == {"deliveries": 0, "schedules": 5}
    assert {found["metadata"]["name"] for found in of_kind(objects, "PodDisruptionBudget")} == {
        f"release-billhook-{component}" for component in ("receiver", "management", "events", "deliveries", "beat")
    }
    resources = pod(objects, "deliveries").container["resources"]
    assert resources == {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "9Gi"}}


def test_a_queue_can_be_left_out(helm: Helm) -> None:
    assert "schedules" not in {one.component for one in pods(helm.render("openshift"))}


def test_the_cluster_may_choose_users(helm: Helm) -> None:
    security = pod(helm.render("openshift"), "receiver").spec["securityContext"]

    assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_no_two_workers_differ_but_in_what_they_are_for(helm: Helm) -> None:
    """Handlers apart, which only one of them has."""
    events, deliveries = (pod(helm.render("handlers-volume"), queue) for queue in ("events", "deliveries"))
    more = set(events.environment.items()) - set(deliveries.environment.items())

    assert more == {("BILLHOOK_HANDLERS", "/handlers/volume/*.py")}
    mounts = [mount for mount in events.container["volumeMounts"] if mount not in deliveries.container["volumeMounts"]]
    assert mounts == [{"name": "handler-volume", "mountPath": "/handlers/volume", "readOnly": True}]
