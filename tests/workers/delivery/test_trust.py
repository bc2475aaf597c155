from __future__ import annotations

import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workers.delivery.authority import LOOPBACK, Authority
from tests.workers.delivery.wire import saying, sending, serving, whole
from workers.delivery import trust, wires
from workers.delivery.sender import Request
from workers.delivery.trust import Unusable

OURS = Authority("ours")
OTHERS = Authority("others")


def secure(port: int, ca: str | None = None, certificate: str | None = None) -> Request:
    return Request(f"https://127.0.0.1:{port}/hook", (), b"{}", ca=ca, certificate=certificate)


def test_an_endpoints_own_authorities_are_believed_and_no_others() -> None:
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint, sending() as sender:
        right, wrong, usual, both = sender.send(
            [
                secure(endpoint.port, OURS.certificate),
                secure(endpoint.port, OTHERS.certificate),
                secure(endpoint.port),
                secure(endpoint.port, OTHERS.certificate + OURS.certificate),
            ]
        )
    assert (right.ok, both.ok) == (True, True)
    assert (wrong.error, usual.error) == ("tls", "tls")


def test_an_endpoints_own_authorities_do_not_excuse_a_wrong_name() -> None:
    with serving(saying(whole()), OURS.server("other.test")) as endpoint, sending() as sender:
        (answer,) = sender.send([secure(endpoint.port, OURS.certificate)])
    assert answer.error == "tls"
    assert "IP address mismatch" in answer.detail


def test_a_certificate_may_be_believed_itself() -> None:
    issued = OURS.issue(LOOPBACK)
    context = trust.special(issued.certificate, None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN


def test_an_endpoint_that_asks_who_we_are_is_shown_the_certificate() -> None:
    server = OURS.server(LOOPBACK, asks=OURS.certificate)
    with serving(saying(whole()), server) as endpoint, sending() as sender:
        shown, nothing, others = sender.send(
            [
                secure(endpoint.port, OURS.certificate, OURS.issue("billhook").both()),
                secure(endpoint.port, OURS.certificate),
                secure(endpoint.port, OURS.certificate, OTHERS.issue("billhook").both()),
            ]
        )
    assert shown.ok
    assert not nothing.ok
    assert not others.ok
    assert len(endpoint.heads) == 1


def test_a_certificate_without_authorities_goes_with_the_usual_ones() -> None:
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint, sending() as sender:
        (answer,) = sender.send([secure(endpoint.port, None, OURS.issue("billhook").both())])
    assert answer.error == "tls"


UNUSABLE = "the endpoint's client certificate cannot be used: PEM of a certificate and its unencrypted key is expected"


@pytest.mark.parametrize(
    ("ca", "certificate", "detail"),
    [
        ("", None, "authorities"),
        ("nonsense", None, "authorities"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None, "authorities"),
        ("ü" + OURS.certificate, None, "authorities"),
        (OURS.certificate, "", "client certificate"),
        (OURS.certificate, "\ud800", "client certificate"),
        (OURS.certificate, OURS.issue("billhook").certificate, "client certificate"),
        (OURS.certificate, OURS.issue("billhook").both(b"password"), "client certificate"),
        (OURS.certificate, replace(OURS.issue("billhook"), key=OURS.key).both(), "client certificate"),
    ],
)
def test_what_cannot_be_used_is_not_sent_and_said_without_a_word_of_the_key(
    ca: str, certificate: str | None, detail: str
) -> None:
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint, sending() as sender:
        answer, other = sender.send([secure(endpoint.port, ca, certificate), secure(endpoint.port, OURS.certificate)])
    assert (answer.status, answer.error, answer.refused) == (None, "unsendable", True)
    assert answer.detail.startswith(f"the endpoint's {detail} cannot be used: PEM")
    assert other.ok


def test_no_trace_of_a_key_stays_in_files() -> None:
    before = os.listdir("/proc/self/fd") if Path("/proc").exists() else []
    trust.special(OURS.certificate, OURS.issue("billhook").both())
    with pytest.raises(Unusable):
        trust.special(OURS.certificate, "nonsense")
    assert (os.listdir("/proc/self/fd") if before else []) == before


def test_where_memory_has_no_name_a_private_file_serves_and_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with trust._readable(b"key") as path:
        assert Path(path).parent == tmp_path
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert Path(path).read_bytes() == b"key"
    assert list(tmp_path.iterdir()) == []


def test_endpoints_that_trust_alike_share_a_connection() -> None:
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint, sending() as sender:
        for _ in range(3):
            assert sender.send([secure(endpoint.port, OURS.certificate)])[0].ok
    assert endpoint.connections == 1


def test_endpoints_that_trust_differently_share_no_connection() -> None:
    certificates = [None, OURS.issue("one").both(), OURS.issue("two").both()]
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint, sending() as sender:
        for certificate in certificates:
            assert sender.send([secure(endpoint.port, OURS.certificate, certificate)])[0].ok
    assert endpoint.connections == 3


def test_only_so_many_trusts_are_kept_the_last_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "MAX_CONTEXTS", 2)
    one, two, three = (OURS.certificate + "#" * number for number in range(3))
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint, sending() as sender:
        for ca in (one, two, one, three, one, two):
            assert sender.send([secure(endpoint.port, ca)])[0].ok
        assert sender._engine is not None
        assert len(sender._engine._wires._contexts) == 2
    assert endpoint.connections == 4  # one, two, three, and two anew
