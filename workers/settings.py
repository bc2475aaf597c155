"""Every option, once: its name, type, default and help; and where its value came from.

An option comes from the environment (`BILLHOOK_LISTEN`), from a file the environment names
(`BILLHOOK_DATABASE_URL_FILE=/run/secrets/db`, for mounted secrets) or from a TOML file (`billhook.toml`, or what
`BILLHOOK_CONFIG` names), in that order. Sources are options too:
`BILLHOOK_SOURCES__SHOP__SECRETS_FILE` is the file with the secrets of the source `shop`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from handlers.errors import BillhookError
from handlers.providers import PROVIDERS, Inbound
from handlers.vocabulary import INTERNAL
from workers.option_types import (
    Address,
    ApiUrl,
    AuditHours,
    DatabaseUrl,
    Names,
    Networks,
    Ports,
    ProxyUrl,
    RedisUrl,
    Seconds,
    Secrets,
    SentryDsn,
    Zone,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PREFIX = "BILLHOOK_"
CONFIG = "BILLHOOK_CONFIG"
OF_COMMANDS = frozenset({CONFIG, "BILLHOOK_LISTEN_SECRET", "BILLHOOK_URL", "BILLHOOK_KEY", "BILLHOOK_KEY_FILE"})
"""Variables that are no settings: where they are, an option of `billhook listen`, and which API a command goes over."""
_PARTS = re.compile(r'[^\s:,"{}]{8,}')
"""Of an API key that carries several credentials, each that could be one by itself."""
_SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class SettingsError(BillhookError):
    """One line that names the variable and says what it accepts."""


def _names(value: dict[str, Source]) -> dict[str, Source]:
    for name in value:
        if _SOURCE_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name for a source: lower-case letters, digits, - and _, at most 63")
        if name == INTERNAL:
            raise ValueError(f"{name!r} is the source of Billhook's own events: give this one another name")
    return value


class Source(BaseModel):
    """A configured sender: a provider, the secrets it signs with, its options, and how to call its API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str = Field(description="Which provider sends: " + ", ".join(sorted(PROVIDERS)) + ".")
    secrets: Secrets = Field(description="Signing secrets; all are tried, so that a rotation has no gap.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What this provider can be told, such as HIBR's livemode; see its page."
    )
    api_key: SecretStr | None = Field(None, description="Key of the provider's API, for handlers and schedules.")
    api_url: ApiUrl | None = Field(None, description="Base URL of the provider's API, where it is not the usual one.")
    timezone: Zone = Field("UTC", description="Time zone that decides what day it is for schedules; an IANA name.")
    calls_a_minute: PositiveInt | None = Field(
        None,
        description="Calls a minute that schedules make of the provider's API, over all workers. Unset: what the API "
        "says of its limit.",
    )
    max_schedules: PositiveInt | None = Field(
        None, description="Active and paused schedules that it may have. Unset: any number."
    )
    reconcile_hours: Annotated[float, Field(ge=0.1, le=168)] | None = Field(
        None,
        description="Hours between two comparisons with what the provider's API lists: 0.1 to 168. "
        "Unset: only by `billhook reconcile`.",
    )

    def model_post_init(self, context: object, /) -> None:
        if self.provider not in PROVIDERS:
            raise ValueError(f"provider {self.provider!r} is none of: {', '.join(sorted(PROVIDERS))}")
        if not self.keys():
            raise ValueError("a source needs at least one secret")
        if self.inbound().confirm is not None and self.api_key is None:
            raise ValueError(f"{self.provider} does not sign, so its API is asked: a source of it needs an api_key")
        if self.reconcile_hours is not None and PROVIDERS[self.provider].changes is None:
            raise ValueError(f"the API of {self.provider} lists no changes: leave reconcile_hours out")
        if self.reconcile_hours is not None and self.api_key is None:
            raise ValueError("reconcile_hours needs an api_key")

    def inbound(self) -> Inbound:
        """How its deliveries are verified and read."""
        return PROVIDERS[self.provider].inbound(self.options)

    def hidden(self) -> tuple[str, ...]:
        """What no log and no stored error may show: each secret, the API key, and the parts of a key of several."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        return tuple(
            secret
            for secret in (*(one.get_secret_value() for one in self.secrets), key, *_PARTS.findall(key))
            if secret
        )

    def keys(self) -> tuple[bytes | Ed25519PublicKey, ...]:
        """What its deliveries are checked with."""
        inbound = self.inbound()
        return tuple(inbound.key(secret.get_secret_value()) for secret in self.secrets)


class Settings(BaseSettings):
    """What this Billhook runs with. Read once, at the start of a process, and passed in."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=False
    )

    state_dir: Path = Field(Path(".billhook"), description="Folder of the embedded database and server.")
    database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL: postgresql://user:password@host/name. Unset: SQLite in the state folder."
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="Redis or Valkey: redis://user:password@host:6379/0, rediss:// with TLS, or sentinels: "
        "redis+sentinel://host:26379,host:26379/name. Unset: a private server in the state folder.",
    )
    redis_prefix: str = Field("billhook:", description="Stands before every Redis key, so that a server can be shared.")
    encryption_keys: Secrets = Field(
        (),
        description="Fernet keys for secrets at rest; the first encrypts, all decrypt. Unset with the embedded "
        "database: one is made in the state folder.",
    )
    sources: Annotated[dict[str, Source], AfterValidator(_names)] = Field(
        default_factory=dict, description="The senders, by the name that stands in their URL: /webhooks/{name}."
    )
    handlers: Names = Field((), description="Modules or files (globs too) with handler functions, separated by commas.")

    listen: Address = Field("127.0.0.1:8000", description="Where the receiver listens: host:port.")
    trusted_proxies: Networks = Field(
        (), description="Addresses or networks whose X-Forwarded-For is believed, separated by commas."
    )
    max_body_bytes: PositiveInt = Field(1_048_576, description="Largest body of a delivery, in bytes; 413 above it.")
    read_timeout: Seconds = Field(10.0, description="Seconds a sender may take to send its body; 408 after it.")
    max_waiting: PositiveInt = Field(5_000, description="Deliveries that may wait for the database; 503 above it.")
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        0.0,
        description="Seconds that the receiver goes on after SIGTERM while /readyz says that it is draining, so that a "
        "load balancer sends nothing more to it when it closes.",
    )
    failed_verifications: PositiveInt = Field(
        120, description="Failing deliveries answered 401 a minute for one source and address; 429 above it."
    )

    management: bool = Field(
        True, description="Whether the receiver also serves /api/v1 and /console. Deliveries are taken in any case."
    )
    api_rate: PositiveInt = Field(600, description="Calls of /api/v1 that a key may make in a minute; 429 above it.")

    worker_processes: PositiveInt = Field(2, description="Processes that one worker runs handlers in.")
    worker_memory_mb: PositiveInt = Field(512, description="A worker process above this size is replaced, in MiB.")
    max_starts: PositiveInt = Field(
        5, description="Starts without an end (the process died) after which a run is given up."
    )
    lease_grace: Seconds = Field(
        15.0, description="Seconds beyond its timeout after which work of a silent process is given to another."
    )
    sweep_interval: Seconds = Field(1.0, description="Seconds between looks for work that is due.")
    schedule_interval: Seconds = Field(5.0, description="Seconds between looks for schedules that are due.")
    pause_after_failures: PositiveInt = Field(
        3, description="Invoices of one schedule that fail in a row before it is paused."
    )

    retention_days: Annotated[int, Field(ge=35)] = Field(
        35, description="Days that ended events are kept and their repeats recognised; 35 or more."
    )
    once_retention_days: Annotated[int, Field(ge=35)] = Field(
        400, description="Days that a key of `once` keeps its effect from being repeated; 35 or more."
    )

    audit_hours: AuditHours = Field(
        6.0, description="Hours between two audits by the workers: 0.1 to 720. 0: only by `billhook audit`."
    )

    delivery_timeout: Seconds = Field(20.0, description="Seconds one attempt may take, from connect to answer.")
    deliveries_in_flight: PositiveInt = Field(400, description="Deliveries that one process has under way at once.")
    endpoint_concurrency: PositiveInt = Field(
        20, description="Deliveries under way to one endpoint, over all processes, where it has no limit of its own."
    )
    endpoint_rate: Annotated[int, Field(ge=0)] = Field(
        100, description="Deliveries a second to one endpoint, where it has no limit of its own; 0 is none."
    )
    egress_networks: Networks = Field(
        (), description="Private networks that endpoints may be in, such as 10.1.0.0/16, separated by commas."
    )
    egress_ports: Ports = Field(("80", "443", "8443"), description="Ports that endpoints may have; * is any.")
    egress_proxy: ProxyUrl | None = Field(
        None,
        description="Proxy that deliveries go through: http://host:3128. It resolves names, and must guard itself.",
    )

    delivery_traceparent: bool = Field(
        False, description="Whether deliveries bear the header traceparent, so that endpoints can continue their trace."
    )

    metrics_listen: Address | None = Field(
        None, description="Where worker and beat serve /metrics: host:port. Unset: nowhere. The receiver always does."
    )
    sentry_dsn: SentryDsn | None = Field(
        None, description="DSN of Sentry, where faults and dead runs are reported: https://KEY@host/1. Unset: nowhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "console"] = Field("json", description="JSON lines, or lines for people: console.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls), _Toml(settings_cls)

    @property
    def embedded_database(self) -> bool:
        return self.database_url is None

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL as SQLAlchemy wants it; holds the password."""
        if self.database_url is None:
            return f"sqlite:///{self.state_dir.absolute() / 'billhook.db'}"
        return self.database_url.get_secret_value().replace("postgresql://", "postgresql+psycopg://", 1)


class _Environment(EnvSettingsSource):
    """The environment, with the files that `BILLHOOK_…_FILE` name read into place."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in _environment(os.environ)}


class _Toml(PydanticBaseSettingsSource):
    """`billhook.toml`, or the file that `BILLHOOK_CONFIG` names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        path = toml_path()
        if path is None:
            return {}
        try:
            return tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{CONFIG}: cannot read {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{CONFIG}: {path} is not TOML: {error}") from None


def toml_path() -> Path | None:
    """The TOML file in use; None where there is none."""
    if named := os.environ.get(CONFIG):
        return Path(named)
    return Path("billhook.toml") if Path("billhook.toml").exists() else None


def _environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in OF_COMMANDS:
            continue
        if not name.endswith("_FILE"):
            yield name, value
            continue
        plain = name.removesuffix("_FILE")
        if plain in environ:
            raise SettingsError(f"{name}: {plain} is set too; set only one of them")
        try:
            yield plain, Path(value).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}: cannot read {value}: {error}; it names a file with the value") from None


def load() -> Settings:
    """The settings of this process. Raises SettingsError with one line for people."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except (ValueError, TypeError) as error:  # JSON in a variable that does not parse, before validation
        named = re.search(r'field "(\w+)"', str(error))
        variable = PREFIX + named[1].upper() if named else PREFIX + "…"
        raise SettingsError(f"{variable}: not the JSON that belongs here: {error.__cause__ or error}") from None


def _explain(error: ValidationError) -> str:
    """The first complaint, as `BILLHOOK_LISTEN: not host:port. Where …`; never the value, it may be secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    # A list's index, which is a number, is no part of a variable's name.
    location = [part for part in first["loc"] if isinstance(part, str) and not part.startswith("function-")]
    variable = PREFIX + "__".join(location).upper()
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], [*Settings.model_fields, *Source.model_fields], n=1)
        hint = f"did you mean {near[0]}?" if near else "see `billhook settings`"
        return f"{variable}: there is no such option; {hint}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{variable}: {message}. {_help(location)}"


def _help(location: list[str]) -> str:
    fields = Source.model_fields if location[0] == "sources" and len(location) > 2 else Settings.model_fields
    return fields[location[2] if fields is Source.model_fields else location[0]].description or ""


@dataclass(frozen=True, slots=True)
class Option:
    """One line of `billhook settings`; `value` is masked where it is secret."""

    variable: str
    value: str
    default: str
    help: str
    origin: str


def options(settings: Settings) -> list[Option]:
    """Every option with its value and where that came from (`default`, a variable, or the TOML file)."""
    given = dict(_environment(os.environ))
    toml = _Toml(Settings)()
    rows = []
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        origins = sorted(_as_set(plain) for plain in given if plain == variable or plain.startswith(variable + "__"))
        if name in toml and (name == "sources" or not origins):  # sources are merged, one by one
            origins.append(str(toml_path()))
        default = field.get_default(call_default_factory=True)
        rows.append(
            Option(
                variable=variable,
                value=shown(getattr(settings, name)),
                default=shown(default),
                help=field.description or "",
                origin=", ".join(origins) or "default",
            )
        )
    return rows


def unknown_variables() -> list[str]:
    """Variables that start like ours and are none; Kubernetes sets some for a Service named billhook."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(_as_set(name) for name, _ in _environment(os.environ) if name.split("__")[0] not in known)


def _as_set(variable: str) -> str:
    return f"{variable}_FILE" if f"{variable}_FILE" in os.environ else variable


def shown(value: object) -> str:
    """A value as people read it; secrets masked."""
    match value:
        case None:
            return ""
        case SecretStr():
            return "********"
        case tuple():
            return ", ".join(shown(item) for item in value)
        case dict():
            return "; ".join(
                f"{name} ({source.provider}, {len(source.secrets)} secrets)" for name, source in value.items()
            )
        case bool():
            return str(value).lower()
    return str(value)
