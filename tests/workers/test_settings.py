from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from handlers import signing
from handlers.errors import ParseError
from handlers.providers import PROVIDERS, Inbound
from workers import settings
from workers.settings import Option, Settings, SettingsError, Source

SECRET = "whsec_never_to_be_shown"
PASSWORD = "pa55word"


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set these options in the environment, their names without the prefix."""
    for name, value in variables.items():
        monkeypatch.setenv(f"BILLHOOK_{name}", value)


def complaint() -> str:
    """What is said about the settings of the environment; always one line."""
    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def option(name: str) -> Option:
    (found,) = [row for row in settings.options(settings.load()) if row.variable == f"BILLHOOK_{name}"]
    return found


# --- where a value comes from ---------------------------------------------------------------------


def test_with_nothing_set_everything_has_a_default() -> None:
    loaded = settings.load()

    assert loaded.embedded_database
    assert loaded.redis_url is None
    assert loaded.listen == "127.0.0.1:8000"
    assert loaded.sources == {}
    assert (loaded.egress_networks, loaded.egress_ports) == ((), ("80", "443", "8443"))
    assert loaded.sqlalchemy_url == f"sqlite:///{Path.cwd()}/.billhook/billhook.db"


def test_an_option_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, LISTEN="[::1]:9000", MAX_BODY_BYTES="1000", READ_TIMEOUT="2.5", EGRESS_NETWORKS="127.0.0.0/8")

    loaded = settings.load()

    assert (loaded.listen, loaded.max_body_bytes, loaded.read_timeout) == ("[::1]:9000", 1000, 2.5)
    assert loaded.egress_networks == ("127.0.0.0/8",)


def test_an_option_comes_from_a_file_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "db").write_text(f"postgresql://u:{PASSWORD}@h/d\n")
    (tmp_path / "secrets").write_text("one\n\ntwo,three\n")
    given(
        monkeypatch,
        DATABASE_URL_FILE=str(tmp_path / "db"),
        SOURCES__SHOP__PROVIDER="hisab",
        SOURCES__SHOP__SECRETS_FILE=str(tmp_path / "secrets"),
    )

    loaded = settings.load()

    assert loaded.sqlalchemy_url == f"postgresql+psycopg://u:{PASSWORD}@h/d"
    assert loaded.sources["shop"].keys() == (b"one", b"two", b"three")


def test_an_option_comes_from_the_toml_file_of_the_folder() -> None:
    Path("billhook.toml").write_text(
        'listen = "0.0.0.0:80"\nhandlers = ["shop", "more"]\n'
        '[sources.shop]\nprovider = "hisab"\nsecrets = ["a,b", "c"]\n'
    )

    loaded = settings.load()

    assert loaded.listen == "0.0.0.0:80"
    assert loaded.handlers == ("shop", "more")
    assert loaded.sources["shop"].keys() == (b"a,b", b"c")


def test_another_toml_file_is_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("billhook.toml").write_text('listen = "a:1"\n')
    (tmp_path / "other.toml").write_text('listen = "b:2"\n')
    given(monkeypatch, CONFIG=str(tmp_path / "other.toml"))

    assert settings.load().listen == "b:2"


def test_the_environment_wins_over_the_toml_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("billhook.toml").write_text(
        'listen = "a:1"\nlog_level = "error"\nredis_prefix = "toml:"\n'
        '[sources.shop]\nprovider = "hisab"\nsecrets = ["toml"]\ntimezone = "Asia/Dubai"\n'
        '[sources.other]\nprovider = "hisab"\nsecrets = ["other"]\n'
    )
    (tmp_path / "prefix").write_text("file:")
    given(monkeypatch, LISTEN="b:2", REDIS_PREFIX_FILE=str(tmp_path / "prefix"), SOURCES__SHOP__SECRETS="environment")

    loaded = settings.load()

    assert (loaded.listen, loaded.log_level, loaded.redis_prefix) == ("b:2", "error", "file:")
    assert loaded.sources["shop"].keys() == (b"environment",)
    assert loaded.sources["shop"].timezone == "Asia/Dubai"
    assert loaded.sources["other"].keys() == (b"other",)


@pytest.mark.parametrize("secrets", ["a, b", "a\nb", "a\r\nb\r\n", '["a", "b"]', " a ,, b ,"])
def test_a_list_may_be_written_in_several_ways(secrets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SOURCES__SHOP__PROVIDER="hisab", SOURCES__SHOP__SECRETS=secrets)

    assert settings.load().sources["shop"].keys() == (b"a", b"b")


def test_sources_may_be_one_json_document(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SOURCES='{"shop-1": {"provider": "hisab", "secrets": ["a"], "api_key": "k"}}')

    source = settings.load().sources["shop-1"]

    assert source.api_key == SecretStr("k")
    assert source.timezone == "UTC"


def test_settings_do_not_change_while_a_process_runs() -> None:
    loaded = settings.load()

    with pytest.raises(ValueError, match="frozen"):
        loaded.listen = "b:2"  # type: ignore[misc]


# --- what a source is told ------------------------------------------------------------------------

RAW = bytes(range(100, 132))
PUBLIC_KEY = "whpk_" + base64.b64encode(RAW).decode()
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_options_of_a_source_may_be_variables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        SOURCES__LIVE__PROVIDER="hibr",
        SOURCES__LIVE__SECRETS="a",
        SOURCES__LIVE__OPTIONS__LIVEMODE="true",
        SOURCES__PAY__PROVIDER="generic",
        SOURCES__PAY__SECRETS="AAAA",
        SOURCES__PAY__OPTIONS__SIGNATURE="Stripe-Signature",
        SOURCES__PAY__OPTIONS__CONTENT="{timestamp}.{body}",
        SOURCES__PAY__OPTIONS__MARK="v1=",
        SOURCES__PAY__OPTIONS__STAMP="t=",
        SOURCES__PAY__OPTIONS__SEPARATOR=",",
        SOURCES__PAY__OPTIONS__SECRET_ENCODING="base64",
    )

    sources = settings.load().sources

    with pytest.raises(ParseError, match="livemode is not true"):
        sources["live"].inbound().parse([], orjson.dumps(PROVIDERS["hibr"].sample("invoice.paid")))
    (scheme,) = sources["pay"].inbound().schemes
    assert (scheme.signature, scheme.mark, scheme.stamp, scheme.separator) == (b"stripe-signature", b"v1=", b"t=", b",")
    assert scheme.content == signing.template("{timestamp}.{body}")
    assert sources["pay"].keys() == (b"\0\0\0",)


@pytest.mark.parametrize("written", ["variable", "file", "toml"])
def test_the_options_of_a_source_may_be_one_document(
    written: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if written == "toml":
        Path("billhook.toml").write_text(
            '[sources.old]\nprovider = "hisab"\nsecrets = ["a"]\n[sources.old.options]\nformat = "older"\n'
        )
    else:
        given(monkeypatch, SOURCES__OLD__PROVIDER="hisab", SOURCES__OLD__SECRETS="a")
    if written == "variable":
        given(monkeypatch, SOURCES__OLD__OPTIONS='{"format": "older"}')
    if written == "file":
        (tmp_path / "options").write_text('{"format": "older"}\n')
        given(monkeypatch, SOURCES__OLD__OPTIONS_FILE=str(tmp_path / "options"))

    (scheme,) = settings.load().sources["old"].inbound().schemes

    assert scheme.signature == b"x-hisab-signature"


def test_a_source_without_options_has_those_of_its_provider() -> None:
    assert Source(provider="hisab", secrets="a").options == {}
    with pytest.raises(ValueError, match="option signature"):
        Source(provider="generic", secrets="a")


@pytest.mark.parametrize(
    ("provider", "options", "expected"),
    [
        ("hisab", '{"format": "newest"}', "option format: "),
        ("hisab", '{"livemode": true}', "there is no option livemode; this provider takes: format"),
        ("hibr", '{"livemode": "perhaps"}', "option livemode: "),
        ("hibr", '{"Livemode": true}', "there is no option Livemode; this provider takes: livemode"),
        ("standard", '{"mark": "v1,"}', "there is no option mark; this provider takes: none"),
        ("generic", '{"signature": "X-A", "content": "{timestamp}"}', "option content: "),
        ("generic", '{"signature": "X-A", "stamp": "t="}', "option stamp needs separator"),
        ("hibr", '"livemode"', "Input should be"),
        ("hibr", "[]", "Input should be"),
    ],
)
def test_a_wrong_option_of_a_source_is_named_with_the_source(
    provider: str, options: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(
        monkeypatch,
        SOURCES__SHOP__PROVIDER=provider,
        SOURCES__SHOP__SECRETS=STANDARD_SECRET,
        SOURCES__SHOP__OPTIONS=options,
    )

    said = complaint()

    assert said.startswith("BILLHOOK_SOURCES__SHOP")
    assert expected in said
    assert STANDARD_SECRET not in said


def test_the_secrets_of_a_source_are_read_as_its_provider_writes_them() -> None:
    for_hisab = Source(provider="hisab", secrets=[STANDARD_SECRET])
    for_standard = Source(provider="standard", secrets=[STANDARD_SECRET, PUBLIC_KEY])

    assert for_hisab.keys() == (STANDARD_SECRET.encode(),)
    symmetric, public = for_standard.keys()
    assert symmetric == base64.b64decode(STANDARD_SECRET.removeprefix("whsec_"))
    assert isinstance(public, Ed25519PublicKey)
    assert public.public_bytes(Encoding.Raw, PublicFormat.Raw) == RAW


@pytest.mark.parametrize(
    ("provider", "options", "secret"),
    [
        ("hisab", "{}", '[""]'),
        ("hibr", "{}", '["a", ""]'),
        ("standard", "{}", "whsec_"),
        ("standard", "{}", "whpk_"),
        ("standard", "{}", "whsec_never to be shown"),
        ("standard", "{}", "whsec_never_to_be_shown"),
        ("standard", "{}", f"{STANDARD_SECRET},whpk_AQ{'A' * 41}="),
        ("standard", "{}", f"whpk_{'A' * 43}="),
        ("generic", '{"signature": "X-A", "secret_encoding": "base64"}', "whsec_never_to_be_shown"),
    ],
)
def test_a_secret_that_cannot_verify_is_refused_and_not_shown(
    provider: str, options: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, SOURCES__SHOP__PROVIDER=provider, SOURCES__SHOP__SECRETS=secret, SOURCES__SHOP__OPTIONS=options)

    said = complaint()

    assert said.startswith("BILLHOOK_SOURCES__SHOP")
    assert "secret" in said or "public key" in said
    for written in ("never", STANDARD_SECRET, "A" * 10):
        assert written not in said


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a provider that does not sign and must be asked."""
    hisab = PROVIDERS["hisab"]
    inbound = Inbound(schemes=(), parse=hisab.inbound({}).parse, confirm=lambda client, event: None)
    monkeypatch.setitem(PROVIDERS, "unsigned", replace(hisab, name="unsigned", inbound=lambda _options: inbound))
    return "unsigned"


def test_a_source_that_must_be_asked_needs_an_api_key(unsigned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SOURCES__CASH__PROVIDER=unsigned, SOURCES__CASH__SECRETS="x" * 24)

    said = complaint()

    assert said.startswith("BILLHOOK_SOURCES__CASH")
    assert "api_key" in said
    given(monkeypatch, SOURCES__CASH__API_KEY="key")
    assert settings.load().sources["cash"].keys() == (b"x" * 24,)


@pytest.mark.parametrize("secret", ["short", "never-to-be-shown-but-with-a/slash", "never to be shown, never to be"])
def test_the_secret_of_a_path_is_long_and_plain(secret: str, unsigned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        SOURCES__CASH__PROVIDER=unsigned,
        SOURCES__CASH__SECRETS=secret,
        SOURCES__CASH__API_KEY="key",
    )

    said = complaint()

    assert "24 to 200 letters" in said
    assert secret not in said


# --- what is wrong with one -----------------------------------------------------------------------

WRONG = [
    ("LISTEN", "8000"),
    ("LISTEN", ":8000"),
    ("LISTEN", "localhost:"),
    ("LISTEN", "localhost:65536"),
    ("LISTEN", "localhost:-1"),
    ("LISTEN", "localhost:٨٠"),
    ("METRICS_LISTEN", "nine"),
    ("DATABASE_URL", f"mysql://u:{PASSWORD}@h/d"),
    ("DATABASE_URL", "billhook.db"),
    ("DATABASE_URL", "postgresql://"),
    ("DATABASE_URL", f"postgresql://u:{PASSWORD}@h:port/d"),
    ("DATABASE_URL", f"postgresql://u:{PASSWORD}@x@h/d"),
    ("REDIS_URL", f"http://:{PASSWORD}@h"),
    ("REDIS_URL", f"redis://:{PASSWORD}@h:port/0"),
    ("REDIS_URL", f"redis://:{PASSWORD}#x@h:6379/0"),
    ("REDIS_URL", "redis://h:6379/zero"),
    ("MAX_BODY_BYTES", "1 MB"),
    ("MAX_BODY_BYTES", "0"),
    ("MAX_BODY_BYTES", "-1"),
    ("MAX_WAITING", "1.5"),
    ("READ_TIMEOUT", "soon"),
    ("READ_TIMEOUT", "0"),
    ("READ_TIMEOUT", "nan"),
    ("READ_TIMEOUT", "inf"),
    ("LEASE_GRACE", "inf"),
    ("AUDIT_HOURS", "0.05"),
    ("SWEEP_INTERVAL", "1e999"),
    ("EGRESS_NETWORKS", "localhost"),
    ("EGRESS_PORTS", "https"),
    ("EGRESS_PORTS", "0"),
    ("EGRESS_PORTS", "65536"),
    ("EGRESS_PROXY", f"socks5://u:{PASSWORD}@proxy:1080"),
    ("EGRESS_PROXY", f"http://u:{PASSWORD}@proxy:3128/path"),
    ("SENTRY_DSN", "sentry.internal"),
    ("SENTRY_DSN", f"https://{PASSWORD}@sentry.internal/project"),
    ("SENTRY_DSN", "https://sentry.internal/1"),
    ("SENTRY_DSN", f"ftp://{PASSWORD}@sentry.internal/1"),
    ("DELIVERY_TRACEPARENT", "perhaps"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("HANDLERS", '["a"'),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("TRUSTED_PROXIES", "proxy.example.com"),
    ("SOURCES", "{"),
    ("SOURCES", "[]"),
    ("SOURCES", '{"a b": {"provider": "hisab", "secrets": ["a"]}}'),
    ("SOURCES", '{"": {"provider": "hisab", "secrets": ["a"]}}'),
    ("SOURCES", '{"a/b": {"provider": "hisab", "secrets": ["a"]}}'),
    ("SOURCES", '{"%s": {"provider": "hisab", "secrets": ["a"]}}' % ("x" * 64)),
    ("SOURCES__SHOP", f'{{"provider": "hisab", "secrets": ["{SECRET}"], "secret": "x"}}'),
    ("SOURCES__SHOP", f'{{"provider": "stripe", "secrets": ["{SECRET}"]}}'),
    ("SOURCES__SHOP", '{"provider": "hisab"}'),
    ("SOURCES__SHOP", '{"provider": "hisab", "secrets": []}'),
    ("SOURCES__SHOP", '{"provider": "hisab", "secrets": [""]}'),
    ("SOURCES__SHOP", f'{{"provider": "hisab", "secrets": ["{SECRET}", 1]}}'),
    ("SOURCES__SHOP", f'{{"provider": "hisab", "secrets": "[{SECRET}"}}'),
    ("SOURCES__SHOP", f'{{"provider": "hisab", "secrets": ["{SECRET}"], "timezone": "Mars/Olympus"}}'),
    ("SOURCES__SHOP", f'{{"provider": "hisab", "secrets": ["{SECRET}"], "timezone": "../../etc/passwd"}}'),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **{name: value})

    said = complaint()

    assert said.startswith(f"BILLHOOK_{name}")
    assert SECRET not in said
    assert PASSWORD not in said


def test_what_an_option_accepts_is_said_with_the_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, LISTEN="8000")

    assert complaint() == "BILLHOOK_LISTEN: not host:port. Where the receiver listens: host:port."


def test_a_source_complains_by_the_variable_of_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SOURCES__SHOP__PROVIDER="hisab")

    assert complaint().startswith("BILLHOOK_SOURCES__SHOP__SECRETS: ")


def test_a_source_cannot_pass_for_billhook_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SOURCES=f'{{"billhook": {{"provider": "hisab", "secrets": ["{SECRET}"]}}}}')

    said = complaint()

    assert said.startswith("BILLHOOK_SOURCES: 'billhook' is the source of Billhook's own events: give this one another")


@pytest.mark.parametrize("name", ["1", "2024"])
def test_a_source_with_a_number_for_a_name_keeps_it_in_the_complaint(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **{f"SOURCES__{name}__PROVIDER": "hisab"})

    assert complaint().startswith(f"BILLHOOK_SOURCES__{name}__SECRETS: ")


def test_every_provider_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, SOURCES__SHOP__PROVIDER="stripe", SOURCES__SHOP__SECRETS=SECRET)

    said = complaint()

    assert all(provider in said for provider in PROVIDERS)


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, DATABASE_URL_FILE=str(tmp_path / "nothing"))
    assert complaint().startswith(f"BILLHOOK_DATABASE_URL_FILE: cannot read {tmp_path / 'nothing'}")

    (tmp_path / "nothing").write_bytes(b"\xff\xfe")
    assert complaint().startswith("BILLHOOK_DATABASE_URL_FILE: cannot read")


def test_a_value_and_a_file_for_it_are_one_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "listen").write_text("a:1")
    given(monkeypatch, LISTEN="b:2", LISTEN_FILE=str(tmp_path / "listen"))

    said = complaint()

    assert "BILLHOOK_LISTEN_FILE" in said
    assert "only one" in said


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("listen = ", "BILLHOOK_CONFIG: "),
        ('lisen = "a:1"', "BILLHOOK_LISEN: there is no such option; did you mean listen?"),
        ("something = 1", "BILLHOOK_SOMETHING: there is no such option; see `billhook settings`"),
        (
            '[sources.shop]\nprovider = "hisab"\nsecret = "whsec_never_to_be_shown"\n',
            "BILLHOOK_SOURCES__SHOP__",
        ),
        ("sources = 5", "BILLHOOK_SOURCES: "),
        ("[[sources]]\n", "BILLHOOK_SOURCES: "),
    ],
)
def test_a_wrong_toml_file_is_refused(toml: str, expected: str) -> None:
    Path("billhook.toml").write_text(toml)

    said = complaint()

    assert said.startswith(expected)
    assert SECRET not in said


def test_a_toml_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, CONFIG="nowhere.toml")

    assert complaint().startswith("BILLHOOK_CONFIG: cannot read nowhere.toml")


def test_a_secret_shows_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        DATABASE_URL=f"postgresql://u:{PASSWORD}@h/d",
        REDIS_URL=f"redis://:{PASSWORD}@h:6379/0",
        ENCRYPTION_KEYS=SECRET,
        SOURCES__SHOP__PROVIDER="hisab",
        SOURCES__SHOP__SECRETS=SECRET,
        SOURCES__SHOP__API_KEY=SECRET,
    )

    loaded = settings.load()

    for shown in (repr(loaded), str(loaded), loaded.model_dump_json(), repr(settings.options(loaded))):
        assert SECRET not in shown
        assert PASSWORD not in shown


# --- listing them ---------------------------------------------------------------------------------


def test_every_option_is_listed_once_with_help() -> None:
    rows = settings.options(settings.load())

    assert [row.variable for row in rows] == [f"BILLHOOK_{name.upper()}" for name in Settings.model_fields]
    assert all(row.help.endswith(".") for row in rows)
    assert {row.origin for row in rows} == {"default"}
    assert all(row.value == row.default for row in rows)


def test_every_field_of_a_source_has_help() -> None:
    assert all((field.description or "").endswith(".") for field in Source.model_fields.values())


def test_an_option_says_where_its_value_came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "prefix").write_text("file:")
    Path("billhook.toml").write_text('log_level = "error"\n')
    given(monkeypatch, LISTEN="b:2", REDIS_PREFIX_FILE=str(tmp_path / "prefix"))

    assert (option("LISTEN").origin, option("LISTEN").value, option("LISTEN").default) == (
        "BILLHOOK_LISTEN",
        "b:2",
        "127.0.0.1:8000",
    )
    assert (option("REDIS_PREFIX").origin, option("REDIS_PREFIX").value) == ("BILLHOOK_REDIS_PREFIX_FILE", "file:")
    assert (option("LOG_LEVEL").origin, option("LOG_LEVEL").value) == ("billhook.toml", "error")
    assert option("MAX_WAITING").origin == "default"


def test_a_value_that_was_overridden_is_not_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("billhook.toml").write_text('listen = "a:1"\n')
    given(monkeypatch, LISTEN="b:2")

    assert option("LISTEN").origin == "BILLHOOK_LISTEN"


def test_sources_say_all_the_places_they_came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(SECRET)
    Path("billhook.toml").write_text('[sources.shop]\nprovider = "hisab"\n')
    given(monkeypatch, SOURCES__SHOP__SECRETS_FILE=str(tmp_path / "secrets"))

    assert option("SOURCES").origin == "BILLHOOK_SOURCES__SHOP__SECRETS_FILE, billhook.toml"
    assert option("SOURCES").value == "shop (hisab, 1 secrets)"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DATABASE_URL", "postgresql://u:pa55word@h/d", "********"),
        ("ENCRYPTION_KEYS", "one,two", "********, ********"),
        ("HANDLERS", "shop, more.py", "shop, more.py"),
        ("EGRESS_PORTS", "443,9000", "443, 9000"),
        ("READ_TIMEOUT", "3", "3.0"),
    ],
)
def test_a_value_is_shown_as_people_write_it_and_a_secret_masked(
    name: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **{name: value})

    assert option(name).value == shown


def test_a_variable_that_is_no_option_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("x")
    given(
        monkeypatch,
        PORT="tcp://10.0.0.1:8000",
        SERVICE_HOST="10.0.0.1",
        LISEN="a:1",
        LISTEN="a:1",
        SOURCES__SHOP__PROVIDER="hisab",
        SOURCES__SHOP__SECRETS="a",
        DATABASE_ULR_FILE=str(tmp_path / "value"),
    )
    settings.load()

    unknown = settings.unknown_variables()

    assert {"BILLHOOK_LISEN", "BILLHOOK_PORT", "BILLHOOK_SERVICE_HOST"} <= set(unknown)
    assert len(unknown) == 4
    assert not any("SOURCES" in name or name == "BILLHOOK_LISTEN" for name in unknown)


def test_a_variable_that_is_no_option_is_told_as_it_was_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("x")
    given(monkeypatch, DATABASE_ULR_FILE=str(tmp_path / "value"))

    assert settings.unknown_variables() == ["BILLHOOK_DATABASE_ULR_FILE"]


def test_what_must_stay_hidden_are_the_secrets_the_api_key_and_its_parts() -> None:
    key = "842217:c333729b-d060-4b74-a49d-7686a8353481:PkW64zMe5NVdrlPVNnjo2Jy9nOb7v1Xg:5NVdrlPVNnjo2Jy9"
    source = Source(provider="hesabe", secrets="a-word-in-the-path-of-it", api_key=key)

    assert set(source.hidden()) == {"a-word-in-the-path-of-it", key, *key.split(":")[1:]}
