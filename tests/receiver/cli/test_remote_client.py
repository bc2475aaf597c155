"""What the client of the API makes of servers that answer as they should not, and how it is told where to go."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from receiver.cli.remote import client, place
from tests.receiver.cli.conftest import Billhook
from tests.services import free_port
from workers.settings import unknown_variables

Answer = tuple[int, dict[str, str], Any]
KEY = "bh_live_s3cret"
DONE: Answer = (200, {}, {"success": True, "data": {"due": ["dlv_1"], "under_way": []}})
NONE: Answer = (
    200,
    {},
    {"success": True, "data": [], "meta": {"pagination": {"next_cursor": None, "has_more": False}}},
)
BUSY: Answer = (
    429,
    {"Retry-After": "7"},
    {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "enough"}},
)
LOST: Answer = (0, {}, None)
"""The connection ends instead of an answer."""


class Server(HTTPServer):
    """Answers one request after the other as it is told, and keeps what came."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.came: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.came.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, body = self.server.answers.pop(0)
        if not status:
            return
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(*answers: Answer) -> Iterator[Server]:
    with Server(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the client waited; it does not."""
    waited: list[float] = []
    monkeypatch.setattr(client, "sleep", waited.append)
    monkeypatch.setenv("BILLHOOK_KEY", KEY)
    return waited


def test_a_limit_is_waited_for_and_the_change_keeps_its_key(billhook: Billhook, waits: list[float]) -> None:
    with answering(BUSY, BUSY, DONE, DONE) as server:
        ended = billhook("--url", server.url, "deliveries", "retry", "dlv_1")
        billhook("--url", server.url, "deliveries", "retry", "dlv_1")

    assert ended.out == "1 delivery due now\n"
    assert waits == [7.0, 7.0]
    assert "going on in 7 s" in ended.err
    assert {path for path, _ in server.came} == {"/api/v1/deliveries/retry"}
    first, second, third, later = (headers["idempotency-key"] for _, headers in server.came)
    assert first == second == third != later
    assert server.came[0][1]["authorization"] == f"Bearer {KEY}"


def test_a_limit_of_hours_is_not_waited_for(billhook: Billhook, waits: list[float]) -> None:
    with answering((429, {"Retry-After": "3600"}, BUSY[2])) as server:
        assert billhook("--url", server.url, "events").complaint() == "RATE_LIMIT_EXCEEDED: enough"
    assert waits == []


def test_an_answer_that_was_lost_is_asked_for_again_under_the_same_key(billhook: Billhook) -> None:
    with answering(LOST, DONE) as server:
        assert billhook("--url", server.url, "deliveries", "retry", "dlv_1").status == 0
    first, second = (headers["idempotency-key"] for _, headers in server.came)
    assert first == second

    with answering(LOST, LOST) as server:
        said = billhook("--url", server.url, "deliveries", "retry", "dlv_1").complaint()
    assert said.startswith(f"{server.url} does not answer: ")
    assert said.endswith("; look whether it was done before you repeat it")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, "<html>hello</html>"), "answers 200, which is no answer of this API; is the address right?"),
        ((502, {}, "<html>bad gateway</html>"), "answers 502, which is no answer of this API; is the address right?"),
        ((200, {}, {"data": []}), "answers 200, which is no answer of this API; is the address right?"),
        ((200, {}, []), "answers 200, which is no answer of this API; is the address right?"),
        ((404, {}, {"detail": "Not Found"}), "answers 404, which is no answer of this API; is the address right?"),
        ((302, {"Location": "https://login.example/?t=1"}, ""), "answers 302, it redirects, which is not followed; is"),
        (
            (401, {}, {"error": {"code": "UNAUTHORIZED", "message": "x"}}),
            "the key is missing, wrong, expired or revoked",
        ),
    ],
    ids=["html", "gateway", "null", "list", "other", "redirect", "key"],
)
def test_a_server_that_is_none_is_told_in_one_line(answer: Answer, said: str, billhook: Billhook) -> None:
    with answering(answer) as server:
        complaint = billhook("--url", f"{server.url}/", "events").complaint()

    assert complaint.startswith(server.url)
    assert said in complaint
    assert KEY not in complaint


def test_another_version_that_tells_less_is_named(billhook: Billhook) -> None:
    with answering((200, {}, {"success": True, "data": {"id": "evt_1"}})) as server:
        said = billhook("--url", server.url, "event", "evt_1").complaint()

    assert said.startswith("the API answers without 'handler_runs': there is another version of Billhook")


def answers(data: Any, after: str | None = None) -> Answer:
    pagination = {"next_cursor": after, "has_more": after is not None}
    return 200, {}, {"success": True, "data": data, "meta": {"pagination": pagination}}


EVENT = {"handler_runs": [], "messages": [], "body": "", "headers": {}}
DAY = {"received": 0, "processed": 0, "ignored": 0, "dead": 0, "waiting": 0}


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("events", [{}]),
        ("runs", [{}]),
        ("sources", [{"last_day": DAY}]),
        ("sources", [{"name": "shop"}]),
        ("audit-log", [{"detail": {}}]),
        ("stats", {"due_next": []}),
        ("event", EVENT),
        ("event", EVENT | {"body_base64": None}),
        ("event", EVENT | {"body_base64": None, "runs": 0}),
    ],
)
def test_whatever_another_version_leaves_out_is_named(command: str, data: Any, billhook: Billhook) -> None:
    about = ["evt_1"] if command == "event" else []
    with answering(answers(data)) as server:
        said = billhook("--url", server.url, command, *about).complaint()

    assert said.startswith("the API answers without ")


@pytest.mark.parametrize(("command", "data"), [("events", None), ("events", {}), ("stats", None), ("runs", "many")])
def test_an_answer_of_another_shape_is_none_of_this_api(command: str, data: Any, billhook: Billhook) -> None:
    with answering(answers(data)) as server:
        said = billhook("--url", server.url, command).complaint()

    assert said.endswith("which is no answer of this API")


def test_a_list_that_goes_on_for_ever_with_nothing_is_left(billhook: Billhook) -> None:
    with answering(*[answers([], "more")] * 3) as server:
        assert billhook("--url", server.url, "events").err == "no events\n"

    assert len(server.came) == 1


def test_what_an_error_tells_beside_is_told(billhook: Billhook) -> None:
    wrong = {"code": "VALIDATION_ERROR", "message": "no\x1b[2J", "details": [{"field": "ids[0]", "message": "is long"}]}
    other = {"code": "PROVIDER_REFUSED", "message": "no", "details": {"code": "X", "scopes": ["a", "b"]}}
    with answering((400, {}, {"error": wrong}), (409, {}, {"error": other})) as server:
        said = billhook("--url", server.url, "events").complaint(2)
        assert said == "VALIDATION_ERROR: no\\x1b[2J; ids[0]: is long"
        said = billhook("--url", server.url, "events").complaint()
        assert said == "PROVIDER_REFUSED: no; code: X; scopes: a, b"


def test_where_nobody_answers_the_address_is_named(billhook: Billhook) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert billhook("--url", url, "events").complaint().startswith(f"{url} does not answer: ")


@pytest.mark.parametrize(
    ("url", "heard"),
    [
        ("http://billhook.example", True),
        ("http://10.1.2.3:8000", True),
        ("http://[2001:db8::1]", True),
        ("https://billhook.example", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("http://[::ffff:127.0.0.1]", False),
        ("http://127.8.8.8", False),
    ],
)
def test_a_key_that_goes_over_a_network_unencrypted_is_heard(url: str, heard: bool) -> None:
    assert place.is_heard(url) is heard


def test_who_sends_the_key_so_is_told(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "is_heard", lambda _url: True)
    with answering(NONE) as server:
        said = billhook("--url", server.url, "events").err

    warning, answer = said.splitlines()
    assert warning == f"billhook: {server.url} is not https: whoever listens on the way reads the key"
    assert answer == "no events"


# --- where, and who -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "billhook.example",
        "ftp://x",
        "https://",
        "https://x:y",
        "https://ann:s3cret@x",
        "https://x/?key=s3cret",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str, billhook: Billhook) -> None:
    said = billhook("--url", url, "events").complaint(2)

    assert said.startswith("--url: ")
    assert "s3cret" not in said


def test_the_environment_says_where_and_who(
    billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.delenv("BILLHOOK_KEY")
    monkeypatch.setenv("BILLHOOK_KEY_FILE", str(tmp_path / "key"))
    with answering(NONE) as server:
        monkeypatch.setenv("BILLHOOK_URL", f"{server.url}/prefix/api/v1/")
        assert billhook("events").err == "no events\n"

    path, headers = server.came[0]
    assert path.startswith("/prefix/api/v1/events?")
    assert headers["authorization"] == f"Bearer {KEY}"
    assert unknown_variables() == []


@pytest.mark.parametrize("written", ["@{}", "-", KEY], ids=["file", "stdin", "itself"])
def test_a_key_is_read_from_where_the_option_says(
    written: str, billhook: Billhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BILLHOOK_KEY")
    (tmp_path / "key").write_text(f" {KEY}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    with answering(NONE) as server:
        assert billhook("--url", server.url, "--key", written.format(tmp_path / "key"), "events").status == 0

    assert server.came[0][1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--key", ""], "--key: no key is there"),
        (["--key", "bh_live_s3 cret"], "--key: what is there is no API key"),
        (["--key", "@/no/such/file"], "--key: cannot read /no/such/file: No such file or directory"),
        (["--key", "@/dev/null"], "--key: no key is there"),
    ],
    ids=["empty", "words", "no-file", "empty-file"],
)
def test_what_is_no_key_is_refused(options: list[str], said: str, billhook: Billhook) -> None:
    complaint = billhook("--url", "http://127.0.0.1:1", *options, "events").complaint(2)

    assert complaint.startswith(said)
    assert "s3 cret" not in complaint


def test_a_key_without_an_address_or_two_keys_are_refused(billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert billhook("--key", KEY, "events").complaint(2) == "--key: say --url too"
    monkeypatch.setenv("BILLHOOK_KEY_FILE", "/key")
    assert billhook("--url", "http://x", "events").complaint(2).startswith("BILLHOOK_KEY_FILE: BILLHOOK_KEY is set too")
    monkeypatch.delenv("BILLHOOK_KEY_FILE")
    monkeypatch.delenv("BILLHOOK_KEY")
    assert billhook("--url", "http://x", "events").complaint(2).startswith("BILLHOOK_KEY: no key is there")


@pytest.mark.parametrize(
    "command", [["work"], ["serve"], ["migrate"], ["prune"], ["audit"], ["settings"], ["users", "list"], ["sandbox"]]
)
def test_what_works_here_alone_says_so(command: list[str], billhook: Billhook, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = f"`billhook {command[0]}` works on this machine alone"

    assert billhook("--url", "https://x", *command).complaint(2) == f"{alone}: leave --url out"
    monkeypatch.setenv("BILLHOOK_URL", "https://x")
    assert billhook(*command).complaint(2) == f"{alone}: unset BILLHOOK_URL"
    assert "Usage:" in billhook(*command, "--help").out


def test_a_part_of_a_command_that_works_here_alone_says_so(billhook: Billhook, tmp_path: Path) -> None:
    (tmp_path / "file.csv").touch()

    said = billhook("--url", "https://x", "schedules", "import", str(tmp_path / "file.csv")).complaint(2)

    assert said.startswith("this works on this machine alone")


def test_the_help_lists_what_goes_over_the_api(billhook: Billhook) -> None:
    told = " ".join(billhook("--help").out.split())

    assert "go: acknowledge, audit-log, deliveries, endpoints, event, events, keys, replay, runs" in told
