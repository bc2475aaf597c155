"""What the owner of an endpoint or of a name can do to harm us; `THREATS` says which test shows that it fails."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.workers.delivery import test_egress, test_proxy, test_sender, test_trust
from tests.workers.delivery.authority import LOOPBACK, Authority
from tests.workers.delivery.wire import (
    Behaviour,
    Endpoint,
    endless_hints,
    exchange,
    naming,
    saying,
    sending,
    serving,
    whole,
)
from workers.delivery import trust
from workers.delivery.egress import Egress
from workers.delivery.sender import MAX_KEPT, Answer, Request

THREATS = {
    "a name is resolved once, and the connection goes to what was checked": (
        "test_hostile.test_each_attempt_asks_for_the_name_once_and_connects_to_what_it_heard",
        "test_sender.test_the_name_stays_in_host_while_the_connection_goes_to_the_checked_address",
        "test_sender.test_the_name_is_what_tls_asks_for_and_checks",
    ),
    "a name resolves to another address later": (
        "test_egress.test_a_rebinding_name_is_refused_when_it_turns",
        "test_sender.test_a_name_that_turns_to_loopback_is_refused",
    ),
    "one of a name's addresses is private": (
        "test_egress.test_one_bad_address_refuses_the_name",
        "test_hostile.test_a_name_with_one_address_in_here_is_refused_whichever_family_it_is_of",
    ),
    "an address is spelt oddly": (
        "test_sender.test_no_spelling_of_loopback_is_connected_to",
        "test_sender.test_the_address_is_refused_even_if_the_url_were_not_checked",
        "test_egress.test_an_odd_spelling_is_refused_for_the_address_that_the_system_makes_of_it",
    ),
    "an IPv4 address hides in an IPv6 address": (
        "test_egress.test_any_denied_ipv4_address_is_refused_however_it_is_wrapped",
        "test_hostile.test_a_name_that_resolves_to_a_wrapped_address_is_refused",
    ),
    "metadata of a cloud": (
        "test_egress.test_metadata_link_local_multicast_and_reserved_stay_refused_even_if_their_network_is_named",
    ),
    "a redirect leads elsewhere": ("test_sender.test_a_redirect_is_not_followed",),
    "a port of another service": (
        "test_egress.test_a_port_that_is_not_named_is_refused_and_the_message_says_which_are",
        "test_hostile.test_a_server_on_another_port_is_not_connected_to",
    ),
    "another scheme, a user in the URL, a fragment, what two parsers read apart": (
        "test_egress.test_a_url_that_is_no_endpoint_is_refused_with_a_reason",
    ),
    "a test delivery goes another way": ("test_hostile.test_one_that_is_waited_for_is_judged_like_one_among_many",),
    "what is refused is tried again": ("test_sender.test_no_spelling_of_loopback_is_connected_to",),
    "the environment redirects": (
        "test_sender.test_proxies_of_the_environment_are_not_used",
        "test_hostile.test_a_password_file_of_the_environment_is_not_used",
    ),
    "the proxy is asked for what is not allowed": (
        "test_proxy.test_addresses_and_ports_are_checked_before_the_proxy_is_asked",
        "test_proxy.test_a_server_behind_the_proxy_must_prove_its_name",
    ),
    "an answer that drips": ("test_sender.test_the_deadline_is_for_the_whole_exchange",),
    "a handshake that hangs": ("test_sender.test_a_handshake_that_takes_too_long_is_a_timeout",),
    "a bomb": (
        "test_hostile.test_a_bomb_is_neither_inflated_nor_read_whole",
        "test_sender.test_a_large_body_is_read_to_the_cap_and_its_beginning_kept",
    ),
    "headers or interim answers without end": (
        "test_sender.test_what_is_not_http_is_no_answer",
        "test_sender.test_an_endless_header_is_cut_off",
        "test_hostile.test_interim_answers_without_end_are_no_answer",
    ),
    "an answer of any bytes": ("test_sender.test_a_body_is_kept_byte_for_byte",),
    "what one endpoint said or was told reaches another": (
        "test_sender.test_cookies_are_not_sent_back",
        "test_hostile.test_names_at_one_address_share_no_connection",
        "test_trust.test_endpoints_that_trust_differently_share_no_connection",
    ),
    "headers that make two requests of one": ("test_sender.test_a_header_that_is_ours_or_not_http_is_not_sent",),
    "TLS that proves nothing": (
        "test_sender.test_an_untrusted_certificate_is_no_connection",
        "test_hostile.test_outdated_tls_is_no_connection",
        "test_trust.test_an_endpoints_own_authorities_are_believed_and_no_others",
    ),
    "a subscriber that asks who we are": (
        "test_trust.test_an_endpoint_that_asks_who_we_are_is_shown_the_certificate",
        "test_trust.test_what_cannot_be_used_is_not_sent_and_said_without_a_word_of_the_key",
    ),
}


def test_each_threat_is_met_by_a_test_that_exists() -> None:
    others = (test_egress, test_proxy, test_sender, test_trust)
    modules = {one.__name__.rpartition(".")[2]: vars(one) for one in others} | {"test_hostile": globals()}
    named = [name.split(".") for tests in THREATS.values() for name in tests]

    assert [name for module, name in named if name not in modules[module]] == []


# Where it leads


def test_each_attempt_asks_for_the_name_once_and_connects_to_what_it_heard() -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        asked.append(host)
        # Whoever asked a second time to connect would be led to another server.
        return ["127.0.0.1"] if len(asked) % 2 else ["127.0.0.9"]

    with serving(saying(whole(), then_close=True)) as endpoint, sending(lookup=lookup) as sender:
        assert sender.send([endpoint.request(host="customer.test")])[0].ok
        assert asked == ["customer.test"]
        assert sender.send([endpoint.request(host="customer.test")])[0].error == "connect"
    assert asked == ["customer.test"] * 2


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1", "10.0.0.1"],
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["fe80::1", "127.0.0.1"],
        ["127.0.0.1", "169.254.169.254"],
    ],
)
def test_a_name_with_one_address_in_here_is_refused_whichever_family_it_is_of(addresses: list[str]) -> None:
    with serving(saying(whole())) as endpoint, sending(lookup=naming(mixed=addresses)) as sender:
        (answer,) = sender.send([endpoint.request(host="mixed.test")])
    assert answer.refused
    assert endpoint.connections == 0


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "::1"])
def test_a_name_that_resolves_to_a_wrapped_address_is_refused(address: str) -> None:
    strict = Egress(ports=None)
    with serving(saying(whole())) as endpoint, sending(egress=strict, lookup=naming(wrapped=[address])) as sender:
        (answer,) = sender.send([endpoint.request(host="wrapped.test")])
    assert (answer.error, endpoint.connections) == ("refused", 0)
    assert "127" not in answer.detail


def test_a_server_on_another_port_is_not_connected_to() -> None:
    webs = Egress(networks=(ip_network("127.0.0.0/8"),))
    lookup = naming(database=["127.0.0.1"])
    with serving(saying(whole())) as endpoint, sending(egress=webs, lookup=lookup) as sender:
        (answer,) = sender.send([endpoint.request(host="database.test")])
    assert answer.refused
    assert answer.detail == (
        f"deliveries to port {endpoint.port} are refused: BILLHOOK_EGRESS_PORTS allows 80, 443, 8443"
    )
    assert endpoint.connections == 0


def test_one_that_is_waited_for_is_judged_like_one_among_many() -> None:
    heard: list[Mapping[str, Answer]] = []
    with serving(saying(whole())) as endpoint, sending(egress=Egress(ports=None)) as sender:
        sender.begin({"a": endpoint.request()}, heard.append)
        (waited_for,) = sender.send([endpoint.request()])
        sender.close(within=5)
    assert (waited_for.error, heard[0]["a"].error) == ("refused", "refused")
    assert waited_for.detail == heard[0]["a"].detail


def test_a_password_file_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(saying(whole())) as endpoint, sending() as sender:
        assert sender.send([endpoint.request()])[0].ok
    assert b"authorization" not in endpoint.heads[0].lower()


def test_names_at_one_address_share_no_connection() -> None:
    lookup = naming(one=["127.0.0.1"], two=["127.0.0.1"])
    with serving(saying(whole())) as endpoint, sending(lookup=lookup) as sender:
        assert sender.send([endpoint.request(host="one.test")])[0].ok
        assert sender.send([endpoint.request(host="two.test")])[0].ok
    assert endpoint.connections == 2


# What it answers


BOMB = gzip.compress(bytes(10_000_000)) * 30
"""300 MB of zeros in 300 KB."""


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_is_neither_inflated_nor_read_whole(layers: int) -> None:
    body = BOMB if layers == 1 else gzip.compress(BOMB)
    coding = ", ".join(["gzip"] * layers)
    with serving(saying(whole(body, "200 OK", f"Content-Encoding: {coding}"))) as endpoint, sending() as sender:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (answer,) = sender.send([endpoint.request()])
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (answer.ok, answer.body) == (True, body[:MAX_KEPT])
    assert grown < (50_000 if sys.platform == "linux" else 50_000_000)  # kilobytes; macOS counts bytes


async def flood(writer: asyncio.StreamWriter, endpoint: Endpoint) -> None:
    """Interim answers as fast as they are taken."""
    while not writer.is_closing():
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
        await writer.drain()


@pytest.mark.parametrize(
    "behave",
    [
        endless_hints,
        flood,
        saying(b"HTTP/1.1 102 Processing\r\n\r\n" * 21 + whole()),
        saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
    ],
)
def test_interim_answers_without_end_are_no_answer(behave: Behaviour) -> None:
    answer = exchange(behave)
    assert (answer.status, answer.error, answer.detail) == (None, "protocol", "the answer is not valid HTTP")


def test_some_interim_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20
    with serving(saying(hints + whole())) as endpoint, sending() as sender:
        for _ in range(3):
            assert sender.send([endpoint.request()])[0].ok
    assert endpoint.connections == 1


def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    with serving(saying(whole() + whole(b"forged", "299 Forged"))) as endpoint, sending() as sender:
        statuses = [sender.send([endpoint.request()])[0].status for _ in range(3)]
    assert statuses == [200, 200, 200]
    assert endpoint.connections == 3


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_outdated_tls_is_no_connection() -> None:
    authority = Authority("somebody")
    server = authority.server(LOOPBACK)
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.minimum_version = ssl.TLSVersion.TLSv1
    server.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(saying(whole()), server) as endpoint, sending() as sender:
        (answer,) = sender.send([Request(f"https://127.0.0.1:{endpoint.port}/", (), b"", ca=authority.certificate)])
    assert (answer.ok, endpoint.heads) == (False, [])
    assert {trust.usual().minimum_version, trust.special(authority.certificate, None).minimum_version} == {
        ssl.TLSVersion.TLSv1_2
    }
