"""No line shows a secret of the settings, whoever wrote it and however deep it stands in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workers.logs import hidden, masked
from workers.settings import Settings, Source

ROOT = Path(__file__).parents[2]
SECRETS = {
    "signing": "whsec_c2lnbmluZw==",
    "escaped": 'pass"wörd\\of the API',
    "vault": "nZ2VzT0m3Sl7H5m3kq7sVQ8n3mQ0o8r1m6Xo3yq5b3E=",
    "database": "s3cret/of postgres",
    "redis": "s3cret-of-redis",
    "sentinels": "s3cret+of-sentinels",
    "key of TLS": "s3cret/of-tls",
}
CONFIGURED = {
    "sources": {"shop": {"provider": "hisab", "secrets": SECRETS["signing"], "api_key": SECRETS["escaped"]}},
    "encryption_keys": SECRETS["vault"],
    "database_url": "postgresql://bill:s3cret%2Fof%20postgres@db/billhook",
    "redis_url": "rediss+sentinel://:s3cret-of-redis@[fd00::1],[fd00::2]/cache"
    "?sentinel_password=s3cret+of-sentinels&ssl_certfile=/tls.pem&ssl_password=s3cret%2Fof-tls",
}
LOGS = """
import json, logging, sys
from workers import logs
from workers.settings import Settings

configured, secrets, form = json.loads(sys.stdin.read())
logs.configure(Settings(**configured, log_format=form))
ours, library = logs.log.bind(handler="leaks"), logging.getLogger("a library")
for name, secret in secrets.items():
    ours.info(f"calling with {secret}!", action=name)
    ours.info("calling", action=name, given=secret, nested={"headers": [{secret: f"Bearer {secret}"}]})
    ours.info("calling", action=name, given=secret.encode() if secret.isascii() else "")
    library.warning("calling with %s", secret)
    try:
        deep = {"given": secret}
        raise ValueError(f"401 for {deep['given']}")
    except ValueError:
        ours.exception("failed", action=name)
        library.exception("failed")
ours.info("calling", url=configured["database_url"])
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_shows_a_secret_of_the_settings(form: str) -> None:
    given = json.dumps([CONFIGURED, SECRETS, form])

    ended = subprocess.run(
        [sys.executable, "-c", LOGS], cwd=ROOT, input=given, check=True, capture_output=True, text=True, timeout=60
    )

    for secret in [*SECRETS.values(), "s3cret%2Fof%20postgres"]:
        for part in (
            secret,
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            repr(secret)[1:-1],
        ):
            assert part not in ended.stderr
    assert ended.stderr.count("calling with ********") == 2 * len(SECRETS)
    assert ended.stderr.count("ValueError: 401 for ********") == 2 * len(SECRETS)
    if form == "json":
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        assert {line["action"] for line in lines if "action" in line} == SECRETS.keys()
        assert [line["nested"] for line in lines if "nested" in line] == [
            {"headers": [{"********": "Bearer ********"}]}
        ] * len(SECRETS)


def test_of_two_secrets_the_longer_is_masked_whole() -> None:
    key = "842217:abcdefgh-access:ivivivivivivivi0:abcdefghijklmnopqrstuvwxyz012345"
    secrets = hidden(Settings(sources={"pay": Source(provider="hesabe", secrets="a" * 24, api_key=key)}))

    assert masked(f"{key} has abcdefgh-access", secrets) == "******** has ********"


@pytest.mark.parametrize("password", ["billhook", "bill", "db.example", "short"])
def test_what_is_a_word_of_the_log_too_is_left_in_it(password: str) -> None:
    assert hidden(Settings(database_url=f"postgresql://bill:{password}@db.example/billhook")) == ()


def test_a_password_among_the_options_of_a_url_is_masked() -> None:
    configured = Settings(database_url="postgresql://bill@db/billhook?password=p4ss%2Fword&sslmode=require")

    assert masked("p4ss/word, p4ss%2Fword, require", hidden(configured)) == "********, ********, require"
