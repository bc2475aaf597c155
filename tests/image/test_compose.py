"""compose.yaml, as far as it can be judged without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from receiver.server import GRACE
from tests.image.image import ROOT
from workers import settings
from workers.vault import open_vault
from workers.worker import STOPS_WITHIN

OURS = ("migrate", "receiver", "worker", "beat")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, with what they share merged in."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


def test_it_is_what_the_schema_of_compose_allows() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    command: list[str | Path] = [program, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"]

    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nothing_in_it_has_a_capability_or_a_file_system_to_write_to(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert service["tmpfs"][0] == "/tmp:mode=1777"


def test_all_our_services_are_of_one_image_and_told_apart_by_their_command(services: dict[str, Any]) -> None:
    assert {services[name]["image"] for name in OURS} == {"billhook"}
    assert [services[name]["command"] for name in OURS] == [["migrate"], ["serve"], ["work"], ["beat"]]


def test_nothing_starts_before_what_it_needs(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    for name in ("receiver", "worker", "beat"):
        assert services[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        }
    assert {name for name, service in services.items() if "healthcheck" in service} == {"database", "redis"}


def test_there_is_more_time_to_stop_than_is_taken(services: dict[str, Any]) -> None:
    assert {services[name]["stop_grace_period"] for name in OURS} == {"30s"}
    assert max(GRACE, STOPS_WITHIN) < 30


def test_only_this_machine_is_let_in(services: dict[str, Any]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "receiver": ["127.0.0.1:8000:8000"]
    }


def test_the_trial_values_are_settings_that_billhook_takes(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OURS:
        for variable, value in services[name]["environment"].items():
            monkeypatch.setenv(variable, value)

        taken = settings.load()
        open_vault(taken)

        assert settings.unknown_variables() == []
        assert taken.database_url is not None
        assert taken.database_url.get_secret_value().startswith("postgresql://billhook:trial-password@database/")
        assert list(taken.sources) == ["shop"]


def test_the_database_is_made_as_it_is_asked_for(services: dict[str, Any]) -> None:
    made = services["database"]["environment"]
    url = f"postgresql://{made['POSTGRES_USER']}:{made['POSTGRES_PASSWORD']}@database/{made['POSTGRES_DB']}"

    assert {services[name]["environment"]["BILLHOOK_DATABASE_URL"] for name in OURS} == {url}


def test_every_secret_in_it_says_that_it_is_for_trial(services: dict[str, Any]) -> None:
    secret = ("KEY", "SECRET", "PASSWORD", "SOURCES", "DATABASE_URL")
    values = [
        value
        for service in services.values()
        for variable, value in service.get("environment", {}).items()
        if any(word in variable for word in secret)
    ]

    assert len(values) > 5
    assert [value for value in values if "trial" not in value] == []
