"""`billhook init`: a folder with all that a project needs, which runs at once."""

from __future__ import annotations

import base64
import json
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.beginnings import handler_files, refuse_to_overwrite, write
from receiver.cli.options import one_of
from receiver.cli.output import WrongUse
from receiver.cli.records import Json

if TYPE_CHECKING:
    from handlers.providers import Provider

SOURCE, MODULE, EVENT = "shop", "receipts", "invoice.paid"

_TOML = """# Settings of this project. An environment variable overrules what stands here: BILLHOOK_LISTEN, say, or
# BILLHOOK_SOURCES__{variable}__SECRETS. `billhook settings` lists them all, `billhook doctor` says what is missing.

handlers = ["{module}.py"]

[sources.{source}]
provider = "{provider}"
# Made for development, which is why it may stand here: `billhook send` signs with it. The provider's own secret belongs
# nowhere near the code: set BILLHOOK_SOURCES__{variable}__SECRETS_FILE to a file that only the service can read.
secrets = ["{secret}"]
# api_key = "…"   for handlers that ask the provider's API, and for recurring invoices; better as …__API_KEY_FILE
"""
_IGNORE = """# Billhook's own: the embedded database, the private server, and the key of what is encrypted there.
.billhook/

__pycache__/
.pytest_cache/
.venv/
"""
_COMPOSE = """# This project in containers, with PostgreSQL and Valkey: docker compose up, then
#
#   docker compose exec receiver billhook send {event}
#   docker compose exec receiver billhook events
#
# The image is built in Billhook's own repository, by `make image`. Password and key were made for trials on this
# machine: make others before anything real is sent here.
name: {name}

x-billhook: &billhook
  image: billhook:{version}
  environment: &environment
    BILLHOOK_DATABASE_URL: postgresql://billhook:{password}@database/billhook
    BILLHOOK_REDIS_URL: redis://redis:6379/0
    BILLHOOK_ENCRYPTION_KEYS: {key}
    BILLHOOK_LOG_FORMAT: console
  # billhook.toml and the handlers.
  volumes: [".:/app:ro"]
  read_only: true
  tmpfs: ["/tmp:mode=1777"]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  # Requests and handlers under way get 25 s.
  stop_grace_period: 30s
  depends_on: &migrated
    migrate: {{condition: service_completed_successfully}}
    redis: {{condition: service_healthy}}
  restart: unless-stopped

services:
  migrate:
    <<: *billhook
    command: [migrate]
    restart: "no"
    depends_on:
      database: {{condition: service_healthy}}

  receiver:
    <<: *billhook
    command: [serve]
    # To this machine only.
    ports: ["127.0.0.1:8000:8000"]

  worker:
    <<: *billhook
    command: [work]

  beat:
    <<: *billhook
    command: [beat]

  database:
    image: postgres:17.6-bookworm
    environment:
      POSTGRES_USER: billhook
      POSTGRES_PASSWORD: {password}
      POSTGRES_DB: billhook
    volumes: ["database:/var/lib/postgresql/data"]
    healthcheck:
      # Over TCP: while it is being set up, it answers on its socket alone.
      test: [CMD, pg_isready, --host=127.0.0.1, --username=billhook, --dbname=billhook]
      interval: 2s
      timeout: 5s
      retries: 30
    restart: unless-stopped

  redis:
    image: valkey/valkey:8.1.3-bookworm
    # It holds no truth, so it keeps nothing.
    command: [valkey-server, --save, "", --appendonly, "no"]
    healthcheck:
      test: [CMD, valkey-cli, ping]
      interval: 2s
      timeout: 5s
      retries: 30
    restart: unless-stopped

volumes:
  database:
"""
_README = """# {name}

Webhooks of {provider}, received by Billhook and handled in `{module}.py`.

```console
$ pip install 'billhook[embedded]' pytest
$ pytest                      # the handlers, with no server
$ billhook up --reload        # receives, handles and sends on, until Ctrl-C; in another terminal:
$ billhook send {event}   # a signed sample, posted to it
$ billhook tail --since 5m    # what came, and how it ended
$ billhook doctor             # what is missing, and what to do about it
```

| file | what it is |
|---|---|
| `billhook.toml` | the settings; its secret is for development |
| `{module}.py`, `test_{module}.py` | a handler and its test; `billhook new handler NAME` writes more of them |
| `compose.yaml` | the same in containers, with PostgreSQL and Valkey |

State is kept in `.billhook`, which is not for git. In the provider's dashboard the webhook's URL is
`https://your.host/webhooks/{source}`; the secret that it shows there is set as `BILLHOOK_SOURCES__{variable}__SECRETS`.
"""


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command()(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where the files are put; default: here.")
    ] = Path(),
    provider: Annotated[
        str,
        one_of("hisab", "hibr", "standard", before="Who sends: "),
    ] = "hisab",
    as_json: Json = False,
) -> None:
    """Begin a project: settings, a handler, its test, containers.

    It runs at once. Nothing that is there is overwritten.

    Example: billhook init shop && cd shop && billhook up --reload
    """
    files = _files(folder, provider)
    refuse_to_overwrite((folder / name for name in files), "choose another folder")
    write(folder, files)
    if as_json:
        print(json.dumps({"folder": str(folder), "provider": provider, "source": SOURCE, "files": list(files)}))
        return
    print(f"wrote {', '.join(files)} in {folder.resolve()}; next:")
    if folder != Path():
        print(f"  cd {shlex.quote(str(folder))}")
    for command, why in (
        ("billhook up --reload", "receives and handles, until Ctrl-C; in another terminal:"),
        (f"billhook send {EVENT}", "a signed sample, posted to it"),
        ("billhook tail --since 5m", "what came, and how it ended"),
        ("pytest", "the handler's test"),
    ):
        print(f"  {command:<26} # {why}")


def _files(folder: Path, name: str) -> dict[str, str]:
    """What is written, by file name. Raises WrongUse for a provider that needs more than a secret."""
    from cryptography.fernet import Fernet

    from receiver.versions import VERSION

    words = {
        "name": _project_name(folder),
        "provider": name,
        "source": SOURCE,
        "variable": SOURCE.upper(),
        "module": MODULE,
        "event": EVENT,
        "secret": _secret(_provider(name)),
        "version": VERSION,
        "password": secrets.token_hex(16),
        "key": Fernet.generate_key().decode(),
    }
    texts = {"billhook.toml": _TOML, "compose.yaml": _COMPOSE, ".gitignore": _IGNORE, "README.md": _README}
    return {
        "billhook.toml": texts.pop("billhook.toml").format(**words),
        **handler_files(MODULE, EVENT, name),
        **{file: text.format(**words) for file, text in texts.items()},
    }


def _provider(name: str) -> Provider:
    from handlers.providers import PROVIDERS

    able = [one for one, provider in PROVIDERS.items() if _signs_by_default(provider)]
    if name in able:
        return PROVIDERS[name]
    if name not in PROVIDERS:
        raise WrongUse(f"--provider: there is no provider {name!r}; a project can begin with {', '.join(able)}")
    raise WrongUse(
        f"--provider: a source of {name} needs more than a secret; begin with {', '.join(able)}, and change "
        f"billhook.toml as the page of {name} in Billhook's documents says"
    )


def _signs_by_default(provider: Provider) -> bool:
    try:
        return bool(provider.inbound({}).schemes)
    except ValueError:  # it has no format of its own
        return False


def _secret(provider: Provider) -> str:
    """A new one, of the form that the provider's are of."""
    raw = secrets.token_bytes(32)
    if provider.inbound({}).schemes[0].key == "base64":
        return "whsec_" + base64.b64encode(raw).decode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _project_name(folder: Path) -> str:
    """The folder's name, as Compose takes one."""
    name = "".join(one if one.isascii() and one.isalnum() else "-" for one in folder.resolve().name.lower())
    return name.strip("-") or "billhook"
