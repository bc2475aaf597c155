"""README, values, notes and Chart.yaml agree with each other and with the project."""

from __future__ import annotations

import re
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.chart import readme
from tests.chart.helm import Helm
from tests.chart.objects import SETS
from tests.chart.schema import CHART
from workers.settings import Settings

ROOT = CHART.parent
README = readme.README.read_text()


def test_the_readme_has_every_value_with_its_default_and_comment() -> None:
    found = readme.TABLE.search(README)

    assert found is not None
    assert found[2] == readme.table(), "run: python -m tests.chart.readme"


def test_a_value_without_a_comment_is_found(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("# About a.\na: 1\nb:\n  c: 2\n")

    with pytest.raises(readme.Undescribed, match=r"values\.yaml:4: b\.c has no comment above it"):
        readme.table(tmp_path / "values.yaml")


def documents(language: str) -> list[str]:
    """The blocks of code in the README."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readmes_values_are_accepted(helm: Helm) -> None:
    (values,) = (text for text in documents("yaml") if text.startswith("# mine.yaml"))

    assert helm.render(yaml.safe_load(values))


def test_the_readmes_external_secret_has_the_keys_that_pods_read() -> None:
    (external,) = (yaml.safe_load(text) for text in documents("yaml") if "ExternalSecret" in text)
    keys = yaml.safe_load((CHART / "values.yaml").read_text())["existingSecret"]["keys"]

    assert external["spec"]["target"] == {"name": "billhook"}
    assert {item["secretKey"] for item in external["spec"]["data"]} == {key for key in keys.values() if key}


def test_every_option_that_texts_of_the_chart_name_is_one() -> None:
    texts = README + (CHART / "values.yaml").read_text() + (CHART / "templates" / "NOTES.txt").read_text()
    named = set(re.findall(r"settings\.([a-z_]+)", texts))

    assert named
    assert named <= set(Settings.model_fields)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (CHART / target).exists(), target


def test_the_chart_is_for_this_version_of_billhook() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert chart["appVersion"] == project["project"]["version"]
    assert chart["name"] == project["project"]["name"]


def test_the_wheel_does_not_carry_the_chart() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["handlers", "workers", "receiver"]


def test_a_package_has_what_a_cluster_needs_and_no_values_of_tests(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", str(CHART), "--destination", str(tmp_path))
    with tarfile.open(tmp_path / "billhook-0.1.0.tgz") as package:
        names = {name.removeprefix("billhook/") for name in package.getnames()}

    assert names >= {"README.md", "values.schema.json", "files/alerts.yaml", "templates/validations.yaml"}
    assert not [name for name in names if name.startswith("ci/")]


@pytest.mark.parametrize("values", SETS)
def test_the_notes_say_what_to_do_next(helm: Helm, values: str) -> None:
    notes = helm.notes(values)

    assert "\n  helm test release --namespace billing\n" in notes
    assert "kubectl exec deployment/release-billhook-receiver --namespace billing -- billhook audit" in notes
    assert ("THIS IS A TRIAL, not for production" in notes) == ("trial" in values)
    assert not re.search(r"<no value>|%!|\n\n\n", notes)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("minimal", "kubectl port-forward service/release-billhook-receiver 8000:80 --namespace billing"),
        ("production", "https://hooks.example.com/webhooks/SOURCE"),
        ("gateway", "https://hooks.example.com/webhooks/SOURCE"),
        ("minimal", "kubectl port-forward service/release-billhook-management 8001:80 --namespace billing"),
        ("production", "https://billhook.internal.example.com/console"),
        ("gateway", "https://billhook.internal.example.com/console"),
        (
            "minimal",
            "kubectl exec -it deployment/release-billhook-management --namespace billing -- billhook users add NAME",
        ),
        ("gateway", "name the network of the Ingress or Gateway in settings.trusted_proxies"),
        ("openshift", "http://ADDRESS:8080/webhooks/SOURCE"),
        ("minimal", "No source is configured"),
        ("minimal", "No handlers are configured"),
        ("openshift", "no process starts before `billhook migrate` was run"),
    ],
)
def test_the_notes_tell_where_deliveries_come_in_and_what_is_missing(helm: Helm, values: str, told: str) -> None:
    assert told in helm.notes(values)


def test_the_notes_do_not_warn_of_what_is_there(helm: Helm) -> None:
    notes = helm.notes("production")

    assert "No source" not in notes
    assert "No proxy" not in notes
    assert "No handlers" not in notes
