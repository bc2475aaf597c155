"""`billhook init` makes a project that runs at once, and overwrites nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from handlers.providers import PROVIDERS
from handlers.testing import signed_request
from receiver.cli.doctor.configured import _weakness
from receiver.cli.init import _project_name
from tests.receiver.cli.conftest import Billhook
from workers import settings

FILES = ["billhook.toml", "receipts.py", "test_receipts.py", "compose.yaml", ".gitignore", "README.md"]


@pytest.mark.parametrize("provider", ["hisab", "hibr", "standard"])
def test_its_source_takes_what_is_signed_with_its_secret(
    billhook: Billhook, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert billhook("init", "shop", "--provider", provider).status == 0
    monkeypatch.chdir("shop")

    source = settings.load().sources["shop"]
    secret = source.secrets[0].get_secret_value()
    request = signed_request(PROVIDERS[provider], "invoice.paid", secret)
    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]

    source.inbound().verify(headers, request.body, source.keys(), time.time())  # raises where it does not
    assert _weakness(secret) == ""


def test_its_handler_is_right_and_its_test_passes(tmp_path: Path, billhook: Billhook) -> None:
    ended = billhook("init", "shop", "--provider", "hibr")
    assert [line.split()[:2] for line in ended.out.splitlines()[1:]] == [
        ["cd", "shop"],
        ["billhook", "up"],
        ["billhook", "send"],
        ["billhook", "tail"],
        ["pytest", "#"],
    ]
    # In processes of their own: what is registered stays registered.
    for command in (["receiver.cli", "check"], ["pytest", "-q", "-p", "no:cacheprovider"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path / "shop",
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
    assert "2 passed" in done.stdout


def test_what_is_printed_for_programs_has_no_secret(billhook: Billhook, tmp_path: Path) -> None:
    ended = billhook("init", "--json")

    assert ended.objects == [{"folder": ".", "provider": "hisab", "source": "shop", "files": FILES}]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(FILES)
    assert settings.load().sources["shop"].secrets[0].get_secret_value() not in ended.out


def test_two_projects_have_nothing_secret_in_common(billhook: Billhook) -> None:
    texts = []
    for name in ("one", "two"):
        billhook("init", name)
        texts.append(Path(name, "billhook.toml").read_text() + Path(name, "compose.yaml").read_text())

    same = set(texts[0].split()) & set(texts[1].split())
    assert [word for word in same if len(word) >= 32 and word.isalnum()] == []


def test_its_containers_are_what_the_schema_of_compose_allows(billhook: Billhook, tmp_path: Path) -> None:
    billhook("init", "My Shop")
    file = tmp_path / "My Shop" / "compose.yaml"
    program = Path(sys.executable).with_name("check-jsonschema")

    checked = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", file], capture_output=True, timeout=60, check=False
    )

    assert checked.returncode == 0, checked.stdout
    found = yaml.safe_load(file.read_text())
    assert found["name"] == "my-shop"
    environment = found["services"]["worker"]["environment"]
    Fernet(environment["BILLHOOK_ENCRYPTION_KEYS"])  # raises where it is no key
    assert found["services"]["database"]["environment"]["POSTGRES_PASSWORD"] in environment["BILLHOOK_DATABASE_URL"]


@pytest.mark.parametrize("there", FILES)
def test_nothing_that_is_there_is_overwritten(billhook: Billhook, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("# mine\n")

    said = billhook("init").complaint()

    assert said == f"{there} is there already, and is left as it is; choose another folder"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {there: "# mine\n"}


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("hisap", "there is no provider 'hisap'; a project can begin with hisab, hibr, standard"),
        ("hesabe", "a source of hesabe needs more than a secret; begin with hisab, hibr, standard"),
        ("generic", "a source of generic needs more than a secret"),
    ],
)
def test_a_provider_that_needs_more_is_refused(billhook: Billhook, tmp_path: Path, provider: str, said: str) -> None:
    assert said in billhook("init", "--provider", provider).complaint(2)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert billhook("init", "file/shop").complaint().startswith("cannot write file/shop")


@pytest.mark.parametrize(("folder", "name"), [("Shop 1", "shop-1"), ("متجر", "billhook"), ("-x-", "x")])
def test_a_folders_name_becomes_one_that_compose_takes(folder: str, name: str) -> None:
    assert _project_name(Path(folder)) == name
