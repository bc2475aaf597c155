"""Every value set of ci/: what comes out is what Kubernetes takes, and fits together."""

from __future__ import annotations

import copy

import pytest

from tests.chart.helm import Helm, Object, Refused
from tests.chart.kubernetes import CUSTOM, VERSIONS, complaint
from tests.chart.objects import SETS, identity, of_kind, pod, pods


@pytest.mark.parametrize("values", SETS)
def test_a_strict_linter_has_nothing_to_say(helm: Helm, values: str) -> None:
    assert "0 chart(s) failed" in helm.lint(values)


def test_nor_has_it_where_nothing_is_set(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.lint({})


@pytest.mark.parametrize("values", SETS)
def test_every_object_is_valid_in_every_kubernetes(helm: Helm, values: str) -> None:
    for version in VERSIONS:
        for thing in helm.render(values, kubernetes="1.29.0" if version == "1.29" else "1.37.0"):
            if thing["kind"] not in CUSTOM:
                assert complaint(thing, version) is None, (version, identity(thing))


def test_a_field_that_kubernetes_does_not_know_is_found(helm: Helm) -> None:
    thing = copy.deepcopy(pod(helm.render(), "beat").owner)
    thing["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"

    for version in VERSIONS:
        assert "imagePullPolice" in str(complaint(thing, version))


@pytest.mark.parametrize("values", SETS)
def test_the_helm_of_the_line_before_makes_the_same(helm: Helm, old_helm: Helm, values: str) -> None:
    def comparable(objects: list[Object]) -> dict[tuple[str, str], Object]:
        # The Secret of a trial is another each time.
        return {identity(thing): thing for thing in objects if thing["kind"] != "Secret"}

    assert comparable(old_helm.render(values)) == comparable(helm.render(values))


@pytest.mark.parametrize("values", SETS)
def test_no_two_objects_have_one_name(helm: Helm, values: str) -> None:
    names = [identity(thing) for thing in helm.render(values)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("values", SETS)
def test_every_object_is_in_the_namespace_and_says_whose_it_is(helm: Helm, values: str) -> None:
    for thing in helm.render(values):
        metadata = thing["metadata"]
        assert metadata["namespace"] == "billing", identity(thing)
        assert metadata["labels"]["app.kubernetes.io/name"] == "billhook"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "release"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["labels"]["helm.sh/chart"] == "billhook-0.1.0"


@pytest.mark.parametrize("values", SETS)
def test_every_selector_finds_the_pods_of_its_component_and_no_others(helm: Helm, values: str) -> None:
    objects = helm.render(values)
    everyone = list(pods(objects))
    for thing in objects:
        spec = thing.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if thing["kind"] in {"Service", "ServiceMonitor"} or not selector:
            continue
        found = [one for one in everyone if selector["matchLabels"].items() <= one.metadata["labels"].items()]
        component = thing["metadata"]["labels"]["app.kubernetes.io/component"]
        assert {one.component for one in found} == {component}, identity(thing)


@pytest.mark.parametrize("values", SETS)
def test_every_service_leads_to_a_port_that_its_pods_have(helm: Helm, values: str) -> None:
    objects = helm.render(values)
    for service in of_kind(objects, "Service"):
        found = [one for one in pods(objects) if service["spec"]["selector"].items() <= one.metadata["labels"].items()]
        assert len(found) == 1, identity(service)
        named = {port["name"] for port in found[0].container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


@pytest.mark.parametrize("values", SETS)
def test_what_an_object_names_is_there(helm: Helm, values: str) -> None:
    objects = helm.render(values)
    there = {identity(thing) for thing in objects}
    outside = {"billhook", "default"}
    for found in pods(objects):
        account = found.spec.get("serviceAccountName", "default")
        assert account in outside or ("ServiceAccount", account) in there
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in of_kind(objects, kind):
            assert ("Deployment", scaler["spec"]["scaleTargetRef"]["name"]) in there
    for route in of_kind(objects, "Ingress"):
        for rule in route["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert ("Service", path["backend"]["service"]["name"]) in there
    for route in of_kind(objects, "HTTPRoute"):
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            assert ("Service", backend["name"]) in there
    for service in of_kind(objects, "StatefulSet"):
        assert ("Service", service["spec"]["serviceName"]) in there


@pytest.mark.parametrize("values", SETS)
def test_what_goes_before_the_release_needs_nothing_of_it(helm: Helm, values: str) -> None:
    objects = helm.render(values)
    later = {
        identity(thing)
        for thing in objects
        if "helm.sh/hook" not in thing["metadata"].get("annotations", {}) and thing["kind"] != "NetworkPolicy"
    }
    for found in pods(objects):
        if not found.owner["metadata"].get("annotations", {}).get("helm.sh/hook", "").startswith("pre-"):
            continue
        assert ("ServiceAccount", found.spec["serviceAccountName"]) not in later
        named = {source["secret"]["name"] for volume in found.spec["volumes"] for source in _sources(volume)}
        assert not {("Secret", name) for name in named} & later
        assert not [volume for volume in found.spec["volumes"] if "configMap" in volume]


def _sources(volume: Object) -> list[Object]:
    sources: list[Object] = volume.get("projected", {}).get("sources", [])
    return sources


def test_the_migration_goes_before_an_install_and_an_upgrade(helm: Helm) -> None:
    annotations = pod(helm.render(), "migration").owner["metadata"]["annotations"]

    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_what_the_migration_needs_is_there_before_it(helm: Helm) -> None:
    hooks = {
        thing["kind"]: int(thing["metadata"]["annotations"]["helm.sh/hook-weight"])
        for thing in helm.render("production")
        if thing["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-install,pre-upgrade"
    }

    assert sorted(hooks) == ["Job", "NetworkPolicy", "ServiceAccount"]
    assert hooks["ServiceAccount"] < hooks["Job"]
    assert hooks["NetworkPolicy"] < hooks["Job"]


def test_the_migration_of_a_trial_waits_for_its_database(helm: Helm) -> None:
    job = pod(helm.render("default-trial"), "migration").owner

    assert "annotations" not in job["metadata"]
    assert job["metadata"]["name"] == "release-billhook-migration-1"
    assert job["spec"]["backoffLimit"] > 10
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"


def test_a_migration_can_be_left_to_others(helm: Helm) -> None:
    assert "Job" not in {thing["kind"] for thing in helm.render("openshift")}


def test_a_kubernetes_that_is_too_old_is_refused(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"requires kubeVersion: >=1\.29"):
        helm.render(kubernetes="1.28.0")
