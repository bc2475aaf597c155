"""What is secret is shown when it is made, and never again: everything that a receiver answers and logs is searched."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, urljoin

import httpx
import pytest
from sqlalchemy import Engine, select

from handlers.context import Context
from handlers.event import Event
from receiver.api import application
from tests.conftest import SECRET
from tests.receiver.cli.conftest import Billhook, billhook, configured
from tests.receiver.cli.terminal import COMMAND
from tests.receiver.console.world import World, world
from tests.receiver.edge import wait_until
from tests.services import free_port
from tests.workers.delivery.certificates import certificate, key_of, pem
from tests.workers.given import received
from workers import database
from workers.app import Runtime
from workers.leases import utcnow
from workers.models import EndpointKey, User
from workers.settings import Settings
from workers.vault import decrypt, open_vault

__all__ = ["billhook", "configured"]
pytestmark = [
    pytest.mark.usefixtures("configured"),
    pytest.mark.parametrize("backend", ["embedded"], indirect=True),  # what is shown does not hang on the servers
]
PROVIDER_KEY = "hisab_test_key"
TOKEN = "gateway token/+ of the subscriber"  # which looks different in a URL
PASSWORD = "correct horse battery staple"
MOST = 5
"""Of one kind that are looked at: the newest."""
_LINK = re.compile(r'(?:href|data-href|data-pulse|data-description)="([^"]+)"')
_OURS = re.compile(r"whs(ec|k)_[A-Za-z0-9+/]{40,}=*")
_CSRF = re.compile(r'name="csrftoken" value="([^"]+)"')


class Searched:
    """All that was shown, with where; what was secret comes later, when it is known."""

    def __init__(self) -> None:
        self.shown: dict[str, bytes] = {}

    def __call__(self, answer: httpx.Response) -> httpx.Response:
        """Keep an answer, with its headers, for the search."""
        request = answer.request
        lines = [b"%s: %s" % line for line in answer.headers.raw]
        self.shown[f"{request.method} {request.url}"] = b"\n".join([*lines, answer.content])
        return answer

    def leaks(self, secrets: dict[str, str]) -> list[str]:
        """Which secret is shown where, in whatever form."""
        return [
            f"{name} in {where}"
            for name, secret in secrets.items()
            for form in _forms(secret)
            for where, content in self.shown.items()
            if form in content
        ]


def _forms(secret: str) -> set[bytes]:
    """A secret as it is, in JSON, HTML and URLs, in hexadecimal, and in base64 wherever it begins."""
    raw = secret.encode()
    written = {secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret, safe=""), quote_plus(secret)}
    forms = {form.encode() for form in written} | {raw.hex().encode(), raw.hex().upper().encode()}
    if _OURS.fullmatch(secret):
        encoded = secret.partition("_")[2]
        forms |= _forms(encoded) | {base64.b64decode(encoded).hex().encode()}
    for before in range(3):  # the first and the last letters hang on what stands beside it
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(bytes(before) + raw)[(0, 2, 3)[before] :].rstrip(b"=")[:-1])
    return forms


@pytest.fixture
def full(runtime: Runtime) -> Iterator[World]:
    """A little of everything, and a run that failed in saying what the provider's secrets are."""
    with world(runtime) as made:

        @made.dispatcher.registry.on("payment.received", name="ledger.tell", retries=0)
        def tell(event: Event, ctx: Context) -> None:
            raise ConnectionError(f"refused: {SECRET}, {PROVIDER_KEY}")

        made.events.append(received(runtime.engine, "payment.received", at=utcnow(), occurred_at=utcnow()))
        made.work()
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the receiver logs."""
    return tmp_path / "serve.log"


@pytest.fixture
def url(configured: Settings, log: Path) -> Iterator[str]:
    """A receiver that runs as a process of its own; where."""
    port = free_port()
    with log.open("wb") as file:
        environment = os.environ | {
            "BILLHOOK_LISTEN": f"127.0.0.1:{port}",
            "BILLHOOK_LOG_LEVEL": "debug",
            "BILLHOOK_LOG_FORMAT": "json",
            "BILLHOOK_EGRESS_NETWORKS": "127.0.0.0/8",
            "BILLHOOK_EGRESS_PORTS": "*",
        }
        with subprocess.Popen([*COMMAND, "serve"], env=environment, stdout=file, stderr=file) as process:
            try:
                wait_until(lambda: _listens(process, port), 60)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_no_secret_is_shown_after_it_was_made(
    url: str,
    log: Path,
    full: World,
    runtime: Runtime,
    engine: Engine,
    billhook: Billhook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched, mine = Searched(), certificate()
    made: dict[str, str] = {"password": PASSWORD, "token": TOKEN, "source": SECRET, "provider": PROVIDER_KEY}
    made |= {f"certificate {at}": line for at, line in enumerate(key_of(mine).splitlines()[1:-1])}
    made["encryption"] = runtime.settings.encryption_keys[0].get_secret_value()
    # given: what is secret is made at the command line, over the API and in the console
    made["key of CLI"] = billhook("keys", "create", "--scopes", "full", "--name", "cli").out.strip()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
    assert billhook("users", "add", "Ada", "--password-stdin").status == 0
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        bearer = {"authorization": f"Bearer {made['key of CLI']}"}
        wanted = {
            "url": "http://127.0.0.1:9/hook",
            "signing": "v1,v1a",
            "headers": {"x-token": TOKEN},
            "client_certificate": key_of(mine) + pem(mine),
        }
        again = bearer | {"idempotency-key": "k1"}
        added = client.post("/api/v1/endpoints", json=wanted, headers=again).json()["data"]
        made["endpoint of API"] = added["secret"]
        key = client.post(
            "/api/v1/keys", json={"name": "api", "scopes": ["read"]}, headers=again | {"idempotency-key": "k2"}
        )
        made["key of API"] = key.json()["data"]["key"]

        # when: everything is asked for
        _ask_the_api(lambda path: searched(client.get(f"/api/v1{path}", headers=bearer)))
        searched(client.patch(f"/api/v1/endpoints/{added['id']}", json={"description": "Books"}, headers=bearer))
        refused = client.post("/api/v1/endpoints", json=wanted | {"headers": {"x-token": f"{TOKEN}\n"}}, headers=bearer)
        assert searched(refused).status_code == 400
        for path in ("/metrics", "/readyz", "/livez"):
            assert searched(client.get(path)).status_code == 200
        client.headers["accept"] = "text/html"
        made["console key"] = _use_the_console(client, searched)
    for arguments in _commands(full, added["id"]):
        ended = billhook(*arguments)
        assert ended.status == 0, ended
        searched.shown[f"billhook {' '.join(arguments)}"] = f"{ended.out}{ended.err}".encode()
    searched.shown["the log"] = log.read_bytes()
    searched.shown["the database"] = b"".join(file.read_bytes() for file in runtime.settings.state_dir.glob("*.db*"))

    # then: it is found nowhere
    with database.read(engine) as connection:
        made["hash of the password"] = connection.execute(select(User.password)).scalar_one()
        kept = connection.execute(select(EndpointKey.id, EndpointKey.secret)).all()
    made |= {row.id: decrypt(open_vault(runtime.settings), row.secret) for row in kept}
    assert made["endpoint of API"] in made.values()
    at_rest = searched.leaks({name: secret for name, secret in made.items() if name != "hash of the password"})
    assert at_rest == []
    del searched.shown["the database"]
    assert searched.leaks(made) == []
    assert b"********" in searched.shown[f"GET {url}/console/events/detail?pk={full.events[-1]}"]


def _ask_the_api(get: Callable[[str], httpx.Response]) -> None:
    """Every GET operation there is, for the newest that the lists have."""
    paths = [path for path, operations in application().openapi()["paths"].items() if "get" in operations]
    of: dict[str, list[str]] = {}
    for path in [path for path in paths if "{" not in path]:
        answer = get(path)
        assert answer.status_code == 200, answer.text
        if isinstance(data := answer.json()["data"], list):
            of[path] = [str(one.get("id") or one.get("name")) for one in data]
    for path in [path for path in paths if "{" in path]:
        collection, _, rest = path.partition("/{")
        assert of[collection], f"there is none of {collection}"
        for name in of[collection][:MOST]:
            answer = get(f"{collection}/{quote(name)}{rest.partition('}')[2]}")
            assert answer.status_code in (200, 404), answer.text


def _use_the_console(client: httpx.Client, searched: Searched) -> str:
    """Sign in with the password, make a key there, and follow the links, of one kind the first; the key."""
    page = searched(client.get("/console/login"))
    form = {"csrftoken": _token(page), "name": "Ada"}
    assert searched(client.post("/console/login", data=form | {"secret": f"{PASSWORD}x"})).status_code == 401
    assert searched(client.post("/console/login", data=form | {"secret": PASSWORD})).status_code == 303
    page = client.post("/console/keys/new", data={"csrftoken": _token(page), "name": "c", "scopes": "events:read"})
    key = re.search(r"bh_live_[0-9a-f]+", page.text)
    assert key is not None
    known, kinds, todo = set[str](), Counter[str](), deque(["/console/"])
    while todo:
        path = todo.popleft()
        kind = path.partition("?")[0]
        if path in known or not kind.startswith("/console/") or kinds[kind] == MOST or "/static/" in path:
            continue
        known.add(path)
        kinds[kind] += 1
        answer = searched(client.get(path))
        assert answer.status_code == 200, path
        if "html" in answer.headers["content-type"]:
            todo += [urljoin(path, html.unescape(link)) for link in _LINK.findall(answer.text)]
    assert kinds["/console/events/detail"] == kinds["/console/deliveries/detail"] == MOST
    return key[0]


def _token(page: httpx.Response) -> str:
    found = _CSRF.search(page.text)
    assert found is not None
    return found[1]


def _commands(full: World, endpoint_id: str) -> list[list[str]]:
    """Whatever lists or shows."""
    lists = ["endpoints list", "deliveries list", "keys list", "users list", "schedules list", "events", "runs"]
    lists += ["sources", "stats", "audit-log", "settings", f"event {full.events[-1]}", f"endpoints show {endpoint_id}"]
    lists += [f"deliveries show {full.delivery}", f"schedules show {full.schedule}"]
    plain = [one.split() for one in lists]
    return [*plain, *([*one, "--json"] for one in plain)]
