"""What every command has in common: its errors, its exit status, and what it never prints."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from receiver.bodies import escaped
from receiver.cli.output import Failure, many
from receiver.versions import VERSION
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import COMMAND, running

PASSWORD = "pa55word"


def test_without_a_command_the_commands_are_listed(billhook: Billhook) -> None:
    ended = billhook()

    listed = ended.out + ended.err
    for command in ("serve", "work", "beat", "up", "migrate", "events", "audit", "endpoints", "settings", "send"):
        assert command in listed
    assert ended.status in {0, 2}


def test_it_says_which_version_it_is(billhook: Billhook) -> None:
    ended = billhook("--version")

    assert (ended.status, ended.out) == (0, f"billhook {VERSION}\n")


@pytest.mark.parametrize("command", [["nothing"], ["events", "--limit", "0"], ["events", "--loud"], ["endpoints", "x"]])
def test_a_wrong_command_line_ends_with_2(command: list[str], billhook: Billhook) -> None:
    assert billhook(*command).misuse()


def test_a_wrong_setting_ends_with_2_and_names_the_variable(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN", "8000")

    said = billhook("events").complaint(2)

    assert said.startswith("BILLHOOK_LISTEN: not host:port.")


COMMANDS = [["settings"], ["events"], ["audit"], ["migrate"], ["serve"], ["beat"], ["up"], ["send", "x"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_says_what_is_wrong_with_a_setting(
    command: list[str], billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRET", PASSWORD)

    said = billhook(*command).complaint(2)

    assert said.startswith("BILLHOOK_SOURCES__SHOP__SECRET")
    assert PASSWORD not in said


UNREACHABLE = [
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/billhook",
    f"postgresql://u:x{PASSWORD}#%@127.0.0.1:1/billhook",
    f"postgresql://u:x@{PASSWORD}@127.0.0.1:1/billhook",
    f"postgresql://u:{PASSWORD}@127.0.0.1:port/billhook",
    f"postgresql://u:x:{PASSWORD}@[::1/billhook",
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/billhook?no_such_option=1",
    "sqlite:////nowhere/at/all.db",
    "sqlite:////",
]


@pytest.mark.parametrize("url", UNREACHABLE)
def test_a_database_that_does_not_answer_is_said_in_one_line_without_the_password(
    url: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_DATABASE_URL", url)

    for command in ("events", "migrate"):
        ended = billhook(command)

        said = ended.complaint(ended.status)
        assert ended.status in {1, 2}
        assert "BILLHOOK_DATABASE_URL" in said
        assert PASSWORD not in said


@pytest.mark.parametrize(
    "url", [f"redis://:{PASSWORD}@127.0.0.1:port/0", f"redis://:{PASSWORD}#@127.0.0.1:1/0", f"redis://:x@{PASSWORD}@["]
)
def test_a_redis_url_that_is_none_is_said_in_one_line_without_the_password(
    url: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_REDIS_URL", url)

    for command in ("serve", "beat"):
        said = billhook(command).complaint(2)

        assert said.startswith("BILLHOOK_REDIS_URL")
        assert PASSWORD not in said


@pytest.mark.parametrize("where", ["file", "file/inside"])
def test_a_state_folder_that_cannot_be_made_is_named(
    where: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BILLHOOK_STATE_DIR", str(tmp_path / where))

    assert "BILLHOOK_STATE_DIR" in billhook("events").complaint(status=2)


def test_an_error_nobody_thought_of_is_one_line_too() -> None:
    failure = Failure.of(KeyError("x"))

    assert failure.status == 1
    assert failure.message.startswith("unexpected KeyError: 'x';")


@pytest.mark.parametrize("error", [ValueError("first\nsecond"), RuntimeError("a\r\nb")])
def test_an_error_of_several_lines_is_one_line(error: Exception) -> None:
    assert len(Failure.of(error).message.splitlines()) == 1


@pytest.mark.parametrize(("count", "said"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_one_is_no_plural(count: int, said: str) -> None:
    assert many(count, "run") == said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("back\rover\x9b2J", "back\\rover\\x9b2J"),
        ("\u202etxt", "\\u202etxt"),
        ("half \ud800", "half \\ud800"),
        ("Été شركة\n\ttwo lines", "Été شركة\n\ttwo lines"),
    ],
)
def test_what_is_no_letter_is_shown_as_python_writes_it(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_an_error_cannot_colour_the_terminal() -> None:
    assert Failure.of(ValueError("\x1b[31m")).message.startswith("unexpected ValueError: \\x1b[31m;")


def test_a_traceback_is_shown_to_who_asks_for_it(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BILLHOOK_LOG_LEVEL", "debug")
    monkeypatch.setenv("BILLHOOK_STATE_DIR", str(tmp_path / "state"))

    ended = billhook("events", "--status", "lost")

    assert ended.err.startswith("billhook: ")
    assert "Traceback" in ended.err


NO_API_URLS = (
    *("", "https://[bad", "ftp://x", "api.example.com", "https://", "http://x:99999", "http://x:0", "http://a b/"),
    *("https://x/?key=1", "https://x/#part", "http://xn--a.b/", "http://x\x1b/", f"https://:{PASSWORD}@/"),
)


@pytest.mark.parametrize("url", NO_API_URLS)
def test_an_api_url_that_is_none_is_named_with_its_source_and_what_it_accepts(
    url: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", "whsec_x")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__API_URL", url)

    said = billhook("settings").complaint(2)

    assert said.startswith("BILLHOOK_SOURCES__SHOP__API_URL: not an http:// or https:// URL with a host")
    assert PASSWORD not in said


PRINTING = pytest.mark.parametrize(
    "arguments", [["settings"], ["settings", "--json"], ["run-handler", "seen.py"]], ids=" ".join
)


@pytest.fixture
def seen(tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text('from handlers import on\n\n@on("invoice.paid")\ndef handle(event, ctx): ...\n')


@PRINTING
@pytest.mark.usefixtures("seen")
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run([*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)

    os.close(writing)
    assert ended.stderr == b""
    assert ended.returncode == 0


@PRINTING
@pytest.mark.usefixtures("seen")
def test_a_disk_that_is_full_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)

    assert ended.stderr == b"billhook: cannot write what there is to say: No space left on device\n"
    assert ended.returncode == 1


@pytest.mark.parametrize("stream", [0, 1, 2], ids=["stdin", "stdout", "stderr"])
def test_a_stream_that_is_closed_is_no_error(stream: int) -> None:
    ended = subprocess.run(["sh", "-c", f'exec "$@" {stream}>&-', "sh", *COMMAND, "settings"], timeout=60, check=False)

    assert ended.returncode == 0


def test_an_interrupted_command_ends_with_130_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__PROVIDER", "hisab")
    monkeypatch.setenv("BILLHOOK_SOURCES__SHOP__SECRETS", "whsec_x")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running("send", "invoice.paid", "--url", url) as process:
            silent.settimeout(30)
            asked, _ = silent.accept()
            with asked:
                asked.recv(1)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err


def test_the_command_is_installed_under_its_name() -> None:
    from importlib.metadata import entry_points

    (command,) = entry_points(group="console_scripts", name="billhook")

    assert command.value == "receiver.cli:main"
