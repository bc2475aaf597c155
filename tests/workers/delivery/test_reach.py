"""Whether an endpoint can be reached is found out as a delivery would find it out, and nothing is sent."""

from __future__ import annotations

import socket
from contextlib import closing
from ipaddress import ip_network

import pytest

from tests.workers.delivery.authority import LOOPBACK, Authority
from tests.workers.delivery.wire import HERE, Endpoint, saying, serving, whole
from workers.delivery.egress import Egress
from workers.delivery.reach import Place, Reached, reach

OURS = Authority("ours")


def how(url: str, egress: Egress = HERE, within: float = 5.0, **certificates: str) -> tuple[str, str]:
    (reached,) = reach([Place("ep_1", url, **certificates)], egress, within)
    return reached.error, reached.detail


def at(endpoint: Endpoint, scheme: str = "https", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{endpoint.port}/hook"


def test_an_endpoint_is_reached_by_name_and_by_address_and_sent_nothing() -> None:
    with serving(saying(whole())) as endpoint:
        both = [Place("ep_1", at(endpoint, "http")), Place("ep_2", at(endpoint, "http", "localhost"))]
        egress = Egress(networks=(ip_network("127.0.0.0/8"), ip_network("::1/128")), ports=None)

        assert reach(both, egress, 5.0) == [Reached(one) for one in both]
        assert endpoint.heads == []


def test_tls_is_spoken_with_the_authorities_of_the_endpoint() -> None:
    with serving(saying(whole()), OURS.server(LOOPBACK)) as endpoint:
        assert how(at(endpoint), ca=OURS.certificate) == ("", "")
        error, detail = how(at(endpoint))
        assert (error, "no secure connection: " in detail) == ("tls", True)
        assert how(at(endpoint), ca="none")[0] == "refused"


def test_what_speaks_no_tls_is_told() -> None:
    with serving(saying(whole())) as endpoint:
        error, _ = how(at(endpoint), within=1.0)

    assert error in {"tls", "timeout", "connect"}


@pytest.mark.parametrize(
    ("url", "error", "detail"),
    [
        ("http://127.0.0.1:9/", "connect", "no connection: connection refused"),
        ("http://no-such-name.invalid/", "dns", "its name does not resolve"),
        ("http://10.0.0.1/", "refused", "unless BILLHOOK_EGRESS_NETWORKS names their network"),
        ("http://[::1]/", "refused", "unless BILLHOOK_EGRESS_NETWORKS names their network"),
    ],
)
def test_what_is_in_the_way_is_one_word_and_a_sentence(url: str, error: str, detail: str) -> None:
    word, sentence = how(url)

    assert word == error
    assert detail in sentence


def test_one_that_does_not_answer_is_waited_for_no_longer_than_that() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:  # takes connections, and never speaks
        assert how(f"https://127.0.0.1:{deaf.getsockname()[1]}/", within=0.1) == (
            "timeout",
            "no connection within 0.1 s",
        )


def test_behind_a_proxy_the_way_to_the_proxy_is_looked_at() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy:
        egress = Egress(proxy=f"http://user:s3cret@localhost:{proxy.getsockname()[1]}")

        assert how("https://example.com/hook", egress) == ("", "")
    assert how("https://example.com/hook", egress)[0] == "connect"
