"""Names: none is too long, and no two releases share one."""

from __future__ import annotations

import itertools

import pytest

from tests.chart.helm import Helm
from tests.chart.objects import SETS, identity, of_kind, pods

LONGEST = "r" * 53
"""Helm takes no longer name of a release."""
RELEASES = ("release", "billhook", "billhook-b", "shop-billhook", LONGEST, "r" * 52 + "s", f"{'r' * 45}-billho")


@pytest.mark.parametrize("values", SETS)
def test_no_name_is_too_long(helm: Helm, values: str) -> None:
    objects = helm.render(values, name=LONGEST)
    for thing in objects:
        # A StatefulSet's is in a label with eleven more characters, a Job's pods get six more.
        limit = {"StatefulSet": 52, "Job": 57}.get(thing["kind"], 63)
        assert len(thing["metadata"]["name"]) <= limit, identity(thing)
        assert all(len(label) <= 63 for label in thing["metadata"]["labels"].values())
    for found in pods(objects):
        assert all(len(label) <= 63 for label in found.metadata["labels"].values())
        assert all(len(volume["name"]) <= 63 for volume in found.spec["volumes"])


def test_a_name_that_is_given_is_cut_too(helm: Helm) -> None:
    for thing in helm.render(overridden={"fullnameOverride": "f" * 70, "nameOverride": "n" * 63}):
        assert len(thing["metadata"]["name"]) <= 63


@pytest.mark.parametrize("values", ["trial-guarded", "production"])
def test_two_releases_in_one_namespace_share_no_object(helm: Helm, values: str) -> None:
    for first, second in itertools.combinations(RELEASES, 2):
        one, other = ({identity(thing) for thing in helm.render(values, name=name)} for name in (first, second))
        assert one.isdisjoint(other), (first, second)


@pytest.mark.parametrize("values", ["trial-guarded", "production"])
def test_no_selector_of_a_release_finds_the_pods_of_another(helm: Helm, values: str) -> None:
    others = list(pods(helm.render(values, name="another")))
    for thing in helm.render(values):
        spec = thing.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        labels = selector.get("matchLabels", selector)
        if labels:
            assert not [found for found in others if labels.items() <= found.metadata["labels"].items()]


def test_a_dashboard_has_its_release_in_the_name_of_its_file(helm: Helm) -> None:
    files = [
        set(config["data"])
        for name in ("one", "two")
        for config in of_kind(helm.render("production", name=name), "ConfigMap")
    ]

    assert files == [{"one-billhook.json"}, {"two-billhook.json"}]


def test_names_can_be_chosen(helm: Helm) -> None:
    names = {thing["metadata"]["name"] for thing in helm.render(overridden={"fullnameOverride": "hooks"})}

    assert names == {
        "hooks",
        *(f"hooks-{part}" for part in ("receiver", "management", "events", "deliveries", "schedules", "beat")),
        *(f"hooks-{part}" for part in ("migration", "test-health")),
    }
