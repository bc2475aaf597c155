"""A trial without a cluster: each pod's command with its variables and files, and then the pods of `helm test`.

What Kubernetes would do is done by hand here: Secrets and ConfigMaps become files, a Service becomes an address.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
from redis import Redis

from tests.acceptance.stack import await_
from tests.chart.helm import Helm, Object
from tests.chart.objects import Pod, of_kind, pod, pods
from tests.chart.test_settings import mounts
from tests.conftest import new_database
from tests.services import free_port

SERVING = ("receiver", "management")
PROCESSES = (*SERVING, "events", "deliveries", "schedules", "beat")
PREFIX = "billhook-chart-test:"


class Node:
    """This machine as the only node of a cluster."""

    def __init__(self, objects: Sequence[Object], secrets: Mapping[str, str], folder: Path) -> None:
        self._objects = objects
        self._secrets = secrets
        self._folder = folder
        self._ports = {component: free_port() for component in SERVING}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, component: str) -> None:
        """Start a pod's container."""
        found = pod(self._objects, component)
        with (self._folder / f"{component}.log").open("wb") as log:
            process = subprocess.Popen(
                self._command(found), env=self._environment(found), cwd=self._folder, stdout=log, stderr=log
            )
        self._processes[component] = process

    def until(self, probe: Callable[[str], bool], component: str) -> None:
        """Wait until a probe of a container succeeds. Where it does not, what the container wrote says why."""

        def succeeds() -> bool:
            assert self._processes[component].poll() is None, "it has ended"
            return probe(component)

        try:
            await_(succeeds, f"{component} is {probe.__name__}", 180)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(component)}") from None

    def alive(self, component: str) -> bool:
        """Whether the probe of a container succeeds."""
        found = pod(self._objects, component)
        command = found.container["livenessProbe"]["exec"]["command"]
        probe = subprocess.run(command, env=self._environment(found), capture_output=True, check=False, timeout=60)
        return probe.returncode == 0

    def run(self, found: Pod) -> str:
        """Run a pod's container to its end, which has to be a good one; what it printed."""
        ended = subprocess.run(
            self._command(found),
            env=self._environment(found),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stdout

    def ready(self, component: str) -> bool:
        """Whether the probe of what serves succeeds."""
        path = pod(self._objects, component).container["readinessProbe"]["httpGet"]["path"]
        try:
            return self.get(component, path).is_success
        except httpx.HTTPError:
            return False

    def get(self, component: str, path: str) -> httpx.Response:
        """What its Service would answer."""
        return httpx.get(f"http://127.0.0.1:{self._ports[component]}{path}", trust_env=False, timeout=30)

    def log(self, component: str) -> str:
        """What a container has written so far."""
        return (self._folder / f"{component}.log").read_text()

    def stop(self) -> None:
        """End everything."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            process.wait(30)

    def _command(self, found: Pod) -> list[str]:
        command: list[str] = found.container["command"]
        for component, port in self._ports.items():
            name = f"//release-billhook-{component}"
            command = [re.sub(f"{name}(:80)?(?=/|$)", f"//127.0.0.1:{port}", part) for part in command]
        return command

    def _environment(self, found: Pod) -> dict[str, str]:
        # The image has both commands on its path.
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": self._tmp(found),
        }
        keys = mounts(found)
        for name, value in found.environment.items():
            match name:
                case "BILLHOOK_LISTEN":
                    environment[name] = f"127.0.0.1:{self._ports[found.component]}"
                case "BILLHOOK_METRICS_LISTEN":
                    environment[name] = f"127.0.0.1:{free_port()}"
                case "BILLHOOK_STATE_DIR":
                    environment[name] = str(self._folder / "state")
                case "BILLHOOK_HANDLERS":
                    environment[name] = value.replace("/handlers/files", str(self._handlers()))
                case _ if name.endswith("_FILE"):
                    environment[name] = str(self._file(keys[value]))
                case _:
                    environment[name] = value
        return {**environment, "BILLHOOK_REDIS_PREFIX": PREFIX}

    def _tmp(self, found: Pod) -> str:
        """Each pod has its own; there lies what tells that it is alive."""
        folder = self._folder / "tmp" / found.component
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def _file(self, key: str) -> Path:
        path = self._folder / f"secret-{key}"
        path.write_text(self._secrets[key])
        return path

    def _handlers(self) -> Path:
        folder = self._folder / "handlers-of-values"
        folder.mkdir(exist_ok=True)
        (config,) = of_kind(self._objects, "ConfigMap")
        for name, text in config["data"].items():
            (folder / name).write_text(text)
        return folder


@pytest.fixture
def node(helm: Helm, tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Node]:
    objects = helm.render("default-trial")
    (secret,) = of_kind(objects, "Secret")
    with new_database(postgres_url) as database_url:
        node = Node(objects, {**secret["stringData"], "database-url": database_url, "redis-url": redis_url}, tmp_path)
        yield node
        node.stop()
    with Redis.from_url(redis_url) as redis:
        for key in redis.scan_iter(f"{PREFIX}*"):
            redis.delete(key)


def test_it_starts_and_the_pods_of_helm_test_succeed(helm: Helm, node: Node) -> None:
    testers = {found.metadata["name"]: found for found in _testers(helm.render("default-trial"))}
    assert "migrated the schema" in node.run(pod(helm.render("default-trial"), "migration"))

    for component in PROCESSES:
        node.start(component)
    for component in SERVING:
        node.until(node.ready, component)
    for component in PROCESSES[len(SERVING) :]:
        node.until(node.alive, component)
    healthy = node.run(testers["release-billhook-test-health"])
    made = node.run(testers["release-billhook-test-round-trip"])

    assert healthy == '{"status":"ok"}\n' * 2
    answers = {component: node.get(component, "/api/v1/events").status_code for component in SERVING}
    assert answers == {"receiver": 404, "management": 401}, "there are none, and: who are you?"
    assert made.endswith("is processed\n")
    assert "an event of the trial has come" in node.log("events")


def _testers(objects: list[Object]) -> Iterator[Pod]:
    # Their own names, since pods of one component have the same labels.
    for found in pods(objects):
        if found.component == "test":
            yield Pod(found.owner, found.owner["metadata"], found.spec)


def test_one_is_sent_only_as_a_source_that_values_name(helm: Helm) -> None:
    def commands(values: str) -> list[list[str]]:
        return [found.container["command"][3:] for found in _testers(helm.render(values))]

    health = ["http://release-billhook-receiver:80/readyz", "http://release-billhook-management/readyz"]
    assert commands("minimal") == [health]
    assert commands("production") == [health]
    assert commands("handlers-configmap") == [health, ["http://release-billhook-receiver:80", "shop", "invoice.paid"]]
    assert commands("default-trial") == [health, ["http://release-billhook-receiver:80", "trial", "invoice.paid"]]
