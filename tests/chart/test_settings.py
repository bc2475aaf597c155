"""What a pod's variables say, Billhook reads as it was meant: each pod's are loaded as the process would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.chart import schema
from tests.chart.helm import Helm, Object
from tests.chart.objects import SETS, Pod, pod, pods
from workers import settings
from workers.redis_url import parse
from workers.settings import Settings, Source

SECRETS = {
    "database-url": "postgresql://billhook:s3cret@db.internal/billhook?sslmode=verify-full&sslrootcert=/etc/tls/ca.crt",
    "redis-url": "rediss://:s3cret@redis.internal:6380/0",
    "redis-sentinels-url": "rediss+sentinel://:s3cret@sentinels.data:26379/billing-cache"
    "?sentinel_password=an0ther&ssl_ca_certs=/etc/redis-tls/ca.crt",
    "encryption-keys": "nZ2VzT0m3Sl7H5m3kq7sVQ8n3mQ0o8r1m6Xo3yq5b3E=",
    "egress-proxy": "http://proxy.internal:4750",
    "sentry-dsn": "https://0123456789abcdef@sentry.internal/7",
    "source-secret": "the secret of the trial",
}
"""What is in the Secrets that value sets refer to, by key; any other key has a text of its own."""
VALUES: dict[str, Any] = {
    "redis_prefix": "shop:",
    "trusted_proxies": ["10.0.0.0/8", "fd00::/8"],
    "max_body_bytes": 1_048_577,
    "read_timeout": 2.5,
    "max_waiting": 12_345_678,
    "sweep_interval": 0.25,
    "retention_days": 40,
    "egress_networks": ["10.9.0.0/16"],
    "egress_ports": [443, "9443"],
    "log_level": "debug",
    "log_format": "console",
    "endpoint_rate": 0,
}


class Running:
    """Loads the settings of a pod, with its Secrets as files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._folder = folder

    def settings(self, found: Pod) -> Settings:
        """Raises settings.SettingsError where the process would not start."""
        mounted = {path: SECRETS.get(key, f"text of {key}") for path, key in mounts(found).items()}
        with self._monkeypatch.context() as variables:
            for name, value in found.environment.items():
                if not name.endswith("_FILE"):
                    variables.setenv(name, value)
                    continue
                file = self._folder / value.replace("/", "_")
                file.write_text(mounted[value] + "\n")
                variables.setenv(name, str(file))
            return settings.load()


def mounts(found: Pod) -> dict[str, str]:
    """Where the pod has which key of a Secret."""
    folder = next(mount["mountPath"] for mount in found.container["volumeMounts"] if mount["name"] == "secrets")
    volume = next(volume for volume in found.spec["volumes"] if volume["name"] == "secrets")
    items = [item for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
    return {f"{folder}/{item['path']}": item["key"] for item in items}


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Running:
    return Running(monkeypatch, tmp_path)


@pytest.mark.parametrize("values", SETS)
def test_every_pod_starts_with_its_variables(helm: Helm, running: Running, values: str) -> None:
    for found in pods(helm.render(values)):
        if found.ours:
            loaded = running.settings(found)
            assert loaded.database_url is not None
            assert loaded.database_url.get_secret_value() == SECRETS["database-url"]
            assert str(loaded.state_dir) == "/var/lib/billhook"


@pytest.mark.parametrize("component", ["management", "deliveries"])  # the one makes what the other signs with
def test_secrets_are_read_from_where_they_are_mounted(helm: Helm, running: Running, component: str) -> None:
    loaded = running.settings(pod(helm.render("production"), component))

    assert loaded.redis_url is not None
    assert loaded.redis_url.get_secret_value() == SECRETS["redis-url"]
    assert [key.get_secret_value() for key in loaded.encryption_keys] == [SECRETS["encryption-keys"]]
    shop = loaded.sources["shop"]
    assert [secret.get_secret_value() for secret in shop.secrets] == ["text of shop-secrets"]
    assert shop.api_key is not None
    assert loaded.sentry_dsn is not None
    assert loaded.sentry_dsn.get_secret_value() == SECRETS["sentry-dsn"]
    assert shop.api_key.get_secret_value() == "text of shop-api-key"


def test_the_url_of_redis_may_be_that_of_its_sentinels(helm: Helm, running: Running) -> None:
    for component in ("receiver", "events", "beat"):
        found = pod(helm.render("sentinels"), component)

        redis_url = running.settings(found).redis_url

        assert redis_url is not None
        servers = parse(redis_url.get_secret_value())
        assert (servers.hosts, servers.name) == ((("sentinels.data", 26379),), "billing-cache")
        authority = Path(str((servers.tls or {})["ssl_ca_certs"]))
        assert str(authority.parent) in {mount["mountPath"] for mount in found.container["volumeMounts"]}


def test_a_source_has_the_options_that_values_give(helm: Helm, running: Running) -> None:
    loaded = running.settings(pod(helm.render("production"), "receiver"))

    assert (loaded.sources["shop"].provider, loaded.sources["shop"].timezone) == ("hisab", "Africa/Casablanca")
    assert loaded.sources["shop"].reconcile_hours == 6
    assert loaded.sources["market"].options == {"livemode": True}


@pytest.mark.parametrize("name", ["a", "my-shop", "my_shop", "shop-2_b", "2nd"])
def test_a_source_may_have_any_name_that_fits_a_variable(helm: Helm, running: Running, name: str) -> None:
    options = {"signature": "X-Sign", "type": "event", "content": "{timestamp}.{body}", "timestamp": "X-Time"}
    source = {"provider": "generic", "secrets": {"key": "s"}, "options": options, "max_schedules": 2_000_000}
    loaded = running.settings(pod(helm.render(overridden={"sources": {name: source}}), "receiver"))

    assert loaded.sources[name].options == options
    assert loaded.sources[name].max_schedules == 2_000_000


def test_every_setting_arrives_as_it_was_written(helm: Helm, running: Running) -> None:
    loaded = running.settings(pod(helm.render(overridden={"settings": VALUES}), "receiver"))

    given = json.loads(json.dumps({name: getattr(loaded, name) for name in VALUES}))
    assert given == {**VALUES, "egress_ports": ["443", "9443"]}


def test_every_setting_can_be_given(helm: Helm, running: Running) -> None:
    defaults = Settings().model_dump(mode="json", exclude_none=True)
    values = {name: value for name, value in defaults.items() if name not in schema.DECIDED}
    loaded = running.settings(pod(helm.render(overridden={"settings": values}), "schedules"))

    assert {name: loaded.model_dump(mode="json")[name] for name in values} == values


def test_a_component_has_options_of_its_own(helm: Helm, running: Running) -> None:
    objects = helm.render("production")
    processes = {queue: running.settings(pod(objects, queue)).worker_processes for queue in ("events", "schedules")}

    assert processes == {"events": 4, "schedules": 2}
    assert running.settings(pod(objects, "events")).retention_days == 60


def test_receiver_and_workers_are_told_where_traces_go(helm: Helm) -> None:
    told = {
        found.component: (found.environment["OTEL_EXPORTER_OTLP_ENDPOINT"], found.environment["OTEL_TRACES_SAMPLER"])
        for found in pods(helm.render("production"))
        if "OTEL_EXPORTER_OTLP_ENDPOINT" in found.environment
    }

    assert told == dict.fromkeys(
        ("receiver", "management", "events", "deliveries", "schedules"),
        ("http://collector.monitoring:4318", "parentbased_traceidratio"),
    )


def test_processes_listen_where_their_ports_are(helm: Helm, running: Running) -> None:
    for values, address in (("minimal", "0.0.0.0"), ("gateway", "[::]")):  # noqa: S104 - in a pod of its own
        for found in pods(helm.render(values)):
            if not (ports := found.container.get("ports")):
                continue
            loaded = running.settings(found)
            listen = loaded.listen if found.component in {"receiver", "management"} else loaded.metrics_listen
            assert listen == f"{address}:{ports[0]['containerPort']}"


@pytest.mark.parametrize("values", SETS)
def test_only_the_pods_of_management_serve_it(helm: Helm, running: Running, values: str) -> None:
    serving = {
        found.component: running.settings(found).management
        for found in pods(helm.render(values))
        if found.ours and found.container["command"] == ["billhook", "serve"]
    }

    assert serving == {"receiver": False, "management": True}


def test_only_what_runs_handlers_has_them(helm: Helm, running: Running) -> None:
    for values, handlers in {
        "minimal": (),
        "handlers-configmap": ("/handlers/files/*.py",),
        "handlers-volume": ("/handlers/volume/*.py",),
        "handlers-image": ("shop.handlers", "/app/*.py"),
    }.items():
        for found in pods(helm.render(values)):
            assert running.settings(found).handlers == (handlers if found.component == "events" else ())


def test_handlers_of_values_are_files_that_workers_have(helm: Helm) -> None:
    objects = helm.render("handlers-configmap")
    found = pod(objects, "events")
    mount = next(mount for mount in found.container["volumeMounts"] if mount["mountPath"] == "/handlers/files")
    volume = next(volume for volume in found.spec["volumes"] if volume["name"] == mount["name"])
    config = next(thing for thing in objects if thing["kind"] == "ConfigMap")

    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert "def send_receipt" in config["data"]["receipts.py"]


def test_workers_start_anew_when_handlers_change(helm: Helm) -> None:
    def template(code: str) -> Object:
        files = {"receipts.py": code}
        return pod(helm.render(overridden={"handlers": {"files": files}}), "events").metadata

    assert template("x = 1") != template("x = 2")


def test_the_migration_knows_the_database_and_nothing_else(helm: Helm) -> None:
    found = pod(helm.render("production"), "migration")

    assert list(mounts(found).values()) == ["database-url"]
    assert set(found.environment) == {"BILLHOOK_STATE_DIR", "BILLHOOK_DATABASE_URL_FILE"}


def test_variables_of_ones_own_are_passed_on(helm: Helm) -> None:
    assert {
        "name": "SMTP_PASSWORD",
        "valueFrom": {"secretKeyRef": {"name": "shop-smtp", "key": "password"}},
    } in pod(helm.render("production"), "events").container["env"]


def test_the_schema_has_exactly_the_settings() -> None:
    definitions = json.loads(schema.FILE.read_text())["definitions"]

    assert definitions["settings"] == schema.settings(), "run: python -m tests.chart.schema"
    assert definitions["source"] == schema.source(), "run: python -m tests.chart.schema"


def test_every_setting_is_a_value_or_decided_by_the_chart() -> None:
    listed = set(schema.settings()["properties"])

    assert listed.isdisjoint(schema.DECIDED)
    assert listed | set(schema.DECIDED) == set(Settings.model_fields)
    assert set(schema.source()["properties"]) == set(Source.model_fields)
