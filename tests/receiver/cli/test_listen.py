"""`billhook listen` as a process, and what it refuses; and how a body is shown."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.signing import STANDARD, hmac_key
from receiver.bodies import SHOWN, of_body
from tests.receiver.cli.conftest import Billhook
from tests.receiver.cli.terminal import running
from workers.delivery import keys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
THIRD = "whsec_bm90IG9uZSBvZiB0aGUgb3RoZXJz"
BODY = b'{"type":"receipt.issued","data":{"total":12480.00,"note":"\\u001b[2J"}}'


@contextmanager
def listening(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The command, its URL, and what it said first."""
    with running("listen", "0", *arguments) as process:
        assert process.stderr is not None
        said = "".join(process.stderr.readline() for _ in range(4))
        found = re.search(r"http://\S+/", said)
        assert found is not None, said + process.stderr.read()
        yield process, found[0], said


def post(url: str, secret: str = SECRET, body: bytes = BODY) -> int:
    headers = keys.signed([hmac_key(STANDARD, secret)], "msg_1", int(time.time()), body)
    return httpx.post(url, content=body, headers=headers | {"authorization": "Bearer x"}, trust_env=False).status_code


def test_it_shows_what_comes_and_ends_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLHOOK_LISTEN_SECRET", f"{OTHER} {SECRET}")
    with listening() as (process, url, said):
        answered = [post(f"{url}hooks"), post(f"{url}hooks", THIRD)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert answered == [204, 401]
    assert f"BILLHOOK_EGRESS_NETWORKS=127.0.0.0/8 BILLHOOK_EGRESS_PORTS=* billhook endpoints add {url}\n" in said
    assert "POST /hooks  verified with secret 2 (v1)  answered 204\n" in out
    assert '    "total": 12480.00,\n' in out
    assert "  webhook-id: msg_1\n" in out
    assert "refused: no signature fits" in out
    assert "came before: 1" in out
    assert "Bearer" not in out
    assert SECRET not in said + out + err
    assert (process.returncode, err) == (0, "received 2, refused 1\n")


def test_for_scripts_it_ends_after_so_many_with_one_object_a_line(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{OTHER}\n{SECRET}\n")
    arguments = ("--secret-file", str(tmp_path / "secrets"), "--answer", "503,204", "--header", "Authorization")
    with listening("--json", "--count", "3", *arguments) as (process, url, _):
        answered = [post(url), post(url), post(url, THIRD, b"\xff\x00")]
        out, err = process.communicate(timeout=20)

    first, second, third = (json.loads(line) for line in out.splitlines())
    assert answered == [503, 204, 204]
    assert (first["verified"], first["before"], first["answered"]) == (True, 0, 503)
    assert (second["before"], second["answered"]) == (1, 204)
    assert first["body"].encode() == BODY
    assert first["headers"]["authorization"] == "Bearer x"
    assert (third["verified"], third["reason"], third["answered"]) == (False, "bad_signature", 204)
    assert (third["body"], third["body_base64"]) == (None, "/wA=")
    assert (process.returncode, err) == (1, "received 3, refused 1\n")


def test_a_long_delay_does_not_hold_up_the_end() -> None:
    with (
        listening("--delay", "10m") as (process, url, said),
        socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as sender,
    ):
        sender.sendall(b"POST / HTTP/1.1\r\nhost: sink\r\ncontent-length: 0\r\n\r\n")
        assert process.stdout is not None
        shown = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert "not verifying" in said
    assert "not verified" in shown
    assert (process.returncode, err) == (0, "received 1, refused 0\n")


def test_it_ends_well_when_nobody_reads_any_more() -> None:
    with listening() as (process, url, _):
        assert process.stdout is not None
        process.stdout.close()
        post(url)
        ended = process.wait(20)

    assert ended == 0


def test_a_port_that_is_taken_is_told_in_one_line(billhook: Billhook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = billhook("listen", str(taken.getsockname()[1])).complaint()

    assert said.startswith("cannot listen on 127.0.0.1:")
    assert said.endswith("set another PORT")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--secret", "whsk_c2VjcmV0"], "secret 1 is a private key"),
        (["--secret", f"{SECRET},nonsense!"], "secret 2: a secret of Standard Webhooks"),
        (["--secret-file", "nowhere"], "cannot read nowhere: No such file"),
        (["--secret-file", "/dev/null"], "/dev/null is empty"),
        (["--answer", "503,2o4"], "'2o4' is no status from 200 to 599"),
        (["--answer", "100"], "'100' is no status"),
        (["--delay", "soon"], "'soon' is no time such as"),
        (["--host", "é"], "is no address"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(arguments: list[str], words: str, billhook: Billhook) -> None:
    said = billhook("listen", "0", *arguments).complaint(2)

    assert words in said
    assert "nonsense" not in said


# --- a body ---------------------------------------------------------------------------------------


def shown(body: bytes) -> str:
    return "".join(piece for piece, _ in of_body(body))


def test_json_is_indented_and_nothing_else_of_it_is_changed() -> None:
    body = b'{"a":1.50,"a":[],"b":{},"c":[1,{"d":"x\\u00e9, \\"}"}],"e":1e400}'

    assert shown(body) == "\n".join(
        [
            "  {",
            '    "a": 1.50,',
            '    "a": [],',
            '    "b": {},',
            '    "c": [',
            "      1,",
            "      {",
            '        "d": "x\\u00e9, \\"}"',
            "      }",
            "    ],",
            '    "e": 1e400',
            "  }",
        ]
    )


def test_other_text_is_shown_as_it_is_and_bytes_in_hexadecimal() -> None:
    assert shown(b"a=1&b=\x1b[31m\nc") == "  a=1&b=\\x1b[31m\n  c"
    assert shown(b"") == "  (no body)"
    assert shown(b"\xff\x00A") == f"  00000000  {'ff 00 41':<47}  ..A"


@pytest.mark.parametrize(
    "body", [b'"' + b"x" * 50_000 + b'"', b"x" * 50_000, b"\xff" * 50_000, b"[" * 50_000, b"[1," * 900]
)
def test_a_long_body_is_cut(body: bytes) -> None:
    assert len(shown(body)) < SHOWN + 100


@given(body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_body_can_act_on_the_terminal(body: bytes) -> None:
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown(body)) is None


@given(
    document=st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_shown_of_json_is_the_same_json(document: object) -> None:
    assert json.loads(shown(json.dumps(document).encode())) == document
