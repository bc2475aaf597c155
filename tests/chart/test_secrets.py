"""No secret is a value, and none is rendered where others can read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from tests.chart import schema
from tests.chart.helm import Helm, Refused
from tests.chart.objects import SETS, of_kind, pods, strings

SECRET = re.compile(r"secret|password|passwd|token|private.?key|api.?key|encryption", re.IGNORECASE)
REFERENCES = {
    "name and key of existingSecret": {"existingSecret", "encryptionKeys"},
    "name of a Secret": {"pullSecrets", "tlsSecret", "secret", "secretKeyRef"},
    "a reference, {key, name}": {"secrets", "api_key"},
}
"""Values whose names say secret, and what they are instead of one."""


def names(definition: object) -> Iterator[str]:
    """Every name of a value that the schema knows."""
    if isinstance(definition, dict):
        properties = definition.get("properties", {})
        yield from properties
        for inner in (*properties.values(), *definition.values()):
            yield from names(inner)
    elif isinstance(definition, list):
        for inner in definition:
            yield from names(inner)


def test_no_value_is_a_secret() -> None:
    whole = json.loads(schema.FILE.read_text())

    assert {name for name in names(whole) if SECRET.search(name)} == set().union(*REFERENCES.values())


def test_no_default_is_a_secret() -> None:
    values = yaml.safe_load((schema.CHART / "values.yaml").read_text())

    assert values["existingSecret"]["name"] == ""
    assert not [text for text in strings(values) if re.search(r"://[^/]*:[^/]*@", text)]


@pytest.mark.parametrize("values", [name for name in SETS if "trial" not in name])
def test_no_secret_is_rendered(helm: Helm, values: str) -> None:
    objects = helm.render(values)

    assert not of_kind(objects, "Secret")
    for text in strings(objects):
        assert not re.search(r"://[^/\s]*:[^/\s]*@|whsec_|BEGIN [A-Z ]*PRIVATE KEY", text)


@pytest.mark.parametrize("values", SETS)
def test_a_variable_has_a_secret_only_as_the_path_of_a_file(helm: Helm, values: str) -> None:
    secret = re.compile(
        r"BILLHOOK_(DATABASE_URL|REDIS_URL|ENCRYPTION_KEYS|EGRESS_PROXY|SENTRY_DSN|.*__SECRETS|.*__API_KEY)"
    )
    for found in pods(helm.render(values)):
        assert [name for name in found.environment if secret.fullmatch(name)] == []


def test_secrets_are_mounted_for_the_group_of_the_process_alone(helm: Helm) -> None:
    for found in pods(helm.render("production")):
        for volume in found.spec["volumes"]:
            mode = volume.get("projected", volume.get("secret", {})).get("defaultMode")
            assert mode in {None, 0o440}


def test_a_trial_makes_its_own_and_keeps_them_in_a_secret(helm: Helm) -> None:
    objects = helm.render("default-trial")
    (secret,) = of_kind(objects, "Secret")
    data = secret["stringData"]

    Fernet(data["encryption-keys"])
    assert f":{data['password']}@release-billhook-postgresql/billhook" in data["database-url"]
    others = [text for thing in objects if thing is not secret for text in strings(thing)]
    assert not [text for text in others for key in ("password", "encryption-keys") if data[key] in text]


@pytest.mark.parametrize(
    "value",
    [
        {"sources": {"shop": {"provider": "hisab", "secrets": ["whsec_x"]}}},
        {"sources": {"shop": {"provider": "hisab", "secrets": "whsec_x"}}},
        {"sources": {"shop": {"provider": "hisab", "secrets": {"key": "k"}, "api_key": "hisab_live"}}},
        {"settings": {"database_url": "postgresql://u:p@h/d"}},
        {"settings": {"encryption_keys": ["k"]}},
        {"receiver": {"env": [{"name": "BILLHOOK_DATABASE_URL", "value": "postgresql://u:p@h/d"}]}},
    ],
)
def test_a_secret_as_a_value_is_refused(helm: Helm, value: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="values don't meet the specifications of the schema"):
        helm.render(overridden=value)
