from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.delivery.egress import CheckedResolver, Egress, Refused, check_address, check_url, checked_socket
from workers.settings import Settings

DENIED_4 = [
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link_local"),
    ("169.254.169.254/32", "metadata"),
    ("169.254.170.0/24", "metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.0.192/32", "metadata"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "reserved"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "reserved"),
    ("168.63.129.16/32", "metadata"),
    ("100.100.100.200/32", "metadata"),
]
DENIED_6 = [
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::127.0.0.1/128", "reserved"),
    ("::2/127", "reserved"),
    ("::ffff:0:0:0/96", "reserved"),
    ("64:ff9b:1::/48", "reserved"),
    ("100::/64", "reserved"),
    ("2001::/32", "reserved"),
    ("2001:2::/48", "reserved"),
    ("2001:20::/28", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("4000::/3", "reserved"),
    ("5f00::/16", "reserved"),
    ("fc00::/7", "private"),
    ("fd00:ec2::254/128", "metadata"),
    ("fd20:ce::254/128", "metadata"),
    ("fe80::/10", "link_local"),
    ("fec0::/10", "link_local"),
    ("ff00::/8", "multicast"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255"),
    *("192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.17"),
    *("2000::", "2001:200::1", "2606:4700:4700::1111", "2a00:1450::1", "3ffe::1", "3fff:1000::1"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
]
ODD_LOOPBACKS = ["0177.0.0.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "127.1", "127.0.1"]


STRICT = Egress()
HOME = Egress(networks=tuple(map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "::1", "fd12::/16"))), ports=None)
"""Allows what an operator may: some private networks, and all ports."""
EVERYTHING = Egress(networks=(ip_network("0.0.0.0/0"), ip_network("::/0")), ports=None)


def reason(address: str | IPv4Address | IPv6Address, egress: Egress = STRICT) -> str | None:
    try:
        check_address(address, egress)
    except Refused as refused:
        return refused.reason
    return None


def mapped(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("::ffff:0:0")) + int(address))


def nat64(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))


def six_to_four(address: IPv4Address) -> IPv6Address:
    return IPv6Address((0x2002 << 112) + (int(address) << 80) + 1)


@pytest.mark.parametrize(("block", "kind"), DENIED_4 + DENIED_6)
def test_the_first_and_the_last_address_of_a_denied_block_are_refused(block: str, kind: str) -> None:
    network = ip_network(block)
    kinds = {reason(network[0]), reason(network[-1])}
    assert kind in kinds
    assert None not in kinds


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed_also_next_to_a_denied_block(address: str) -> None:
    assert reason(address) is None


@given(st.sampled_from([block for block, _ in DENIED_4]), st.integers(min_value=0))
def test_any_denied_ipv4_address_is_refused_however_it_is_wrapped(block: str, offset: int) -> None:
    network = IPv4Network(block)
    address = network[offset % network.num_addresses]
    for spelt in (address, mapped(address), nat64(address), six_to_four(address)):
        assert reason(spelt) is not None
        assert reason(str(spelt)) == reason(spelt)


@given(st.sampled_from([block for block, _ in DENIED_6]), st.integers(min_value=0))
def test_any_denied_ipv6_address_is_refused(block: str, offset: int) -> None:
    network = IPv6Network(block)
    assert reason(network[offset % network.num_addresses]) is not None


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_outside_global_unicast_is_public_only_by_what_it_wraps(address: IPv6Address) -> None:
    wraps = address in IPv6Network("::ffff:0:0/96") or address in IPv6Network("64:ff9b::/96")
    if reason(address) is None and not wraps:
        assert address in IPv6Network("2000::/3")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "::1", "fd12::1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1"],
)
def test_private_and_loopback_addresses_are_allowed_in_the_networks_that_the_operator_names(address: str) -> None:
    assert reason(address) is not None
    assert reason(address, HOME) is None


@pytest.mark.parametrize("address", ["192.168.1.1", "172.31.0.1", "100.64.0.1", "fd13::1", "::ffff:192.168.1.1"])
def test_private_addresses_in_other_networks_stay_refused(address: str) -> None:
    assert reason(address, HOME) == "private"
    assert reason(address, EVERYTHING) is None


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42"),
        *("169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.1", "::", "255.255.255.255", "192.0.2.1"),
        *("::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "::127.0.0.1"),
    ],
)
def test_metadata_link_local_multicast_and_reserved_stay_refused_even_if_their_network_is_named(address: str) -> None:
    named = Egress(networks=(*EVERYTHING.networks, ip_network("169.254.0.0/16"), ip_network("fd00::/8")))
    assert reason(address, named) is not None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1111%1", "::1%lo"])
def test_an_address_with_a_zone_is_refused(address: str) -> None:
    assert reason(address, EVERYTHING) == "link_local"


def test_a_refusal_says_which_setting_could_allow_it_and_where_none_could_does_not() -> None:
    with pytest.raises(Refused, match="private addresses are refused unless BILLHOOK_EGRESS_NETWORKS names"):
        check_address("10.0.0.1", STRICT)
    with pytest.raises(Refused, match=r"metadata addresses are refused$"):
        check_address("169.254.169.254", STRICT)


def test_what_is_allowed_is_what_the_settings_say() -> None:
    own = Settings.model_validate(
        {
            "egress_networks": "10.1.2.3/8, fd12::/16",
            "egress_ports": "443,9000",
            "egress_proxy": "http://u:pa55word@proxy:3128",
        }
    )

    egress = Egress.of(own)

    assert egress.networks == (ip_network("10.0.0.0/8"), ip_network("fd12::/16"))
    assert egress.ports == frozenset({443, 9000})
    assert egress.proxy == "http://u:pa55word@proxy:3128"
    assert "pa55word" not in repr(egress)
    assert Egress.of(Settings.model_validate({"egress_ports": "*"})).ports is None


def test_with_nothing_set_no_private_network_is_allowed_and_only_the_ports_of_the_web() -> None:
    assert Egress.of(Settings()) == STRICT
    assert STRICT.ports == frozenset({80, 443, 8443})


@given(st.text())
def test_what_is_no_address_is_refused(text: str) -> None:
    assert reason(f"x{text}") == "malformed"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://example.com/",
        "HTTPS://Example.COM/hook?a=1&b=%20",
        "https://example.com:8443/hook",
        "https://my_service.example.com./",
        "https://münchen.example/",
        "https://8.8.8.8/hook",
        "https://[2606:4700:4700::1111]:8443/",
        "http://localhost/",  # a name: checked when it is resolved
        "https://a.example?x",
    ],
)
def test_an_ordinary_url_is_accepted(url: str) -> None:
    check_url(url, STRICT)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "scheme"),
        ("example.com", "scheme"),
        ("//example.com/", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.com/", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("https:example.com", "scheme"),
        ("https://user:pass@example.com/", "userinfo"),
        ("https://user@example.com/", "userinfo"),
        ("https://@example.com/", "userinfo"),
        ("https://example.com/#", "fragment"),
        ("https://example.com/a#b", "fragment"),
        ("http://127.0.0.1:80\\@example.com/", "characters"),
        ("https://example.com/a b", "characters"),
        (" https://example.com/", "characters"),
        ("https://example.com/\r\nX: y", "characters"),
        ("https://exam\tple.com/", "characters"),
        ("https://example.com/\x00", "characters"),
        ("https://example.com/\x7f", "characters"),
        ("https://example.com/\u202e", "characters"),
        ("https://example.com/\ud800", "characters"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://:443/", "host"),
        ("https://?x", "host"),
        ("https://./", "host"),
        ("https://a..b/", "host"),
        ("https://-a.example/", "host"),
        ("https://a,b/", "host"),
        (f"https://{'a' * 64}.example/", "host"),
        ("https://" + "a." * 127 + "example/", "host"),
        ("https://%31%32%37.0.0.1/", "host"),
        ("https://[fe80::1%25eth0]/", "host"),
        ("https://[::1/", "host"),
        ("https://①②⑦.0.0.1/", "host"),
        ("https://127.0.0.1./", "host"),
        ("https://1.2.3/", "host"),
        ("https://example.0x1/", "host"),
        ("https://example.com:/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:8a/", "host"),
        ("https://127.0.0.1/", "loopback"),
        ("https://127。0。0。1/", "loopback"),
        ("https://10.0.0.1:8080/", "private"),
        ("https://example.com:8080/", "port"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:169.254.169.254]/", "metadata"),
        ("https://[64:ff9b::a9fe:a9fe]/", "metadata"),
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("https://0.0.0.0/", "unspecified"),
        ("https://example.com/" + "a" * 2048, "length"),
    ],
)
def test_a_url_that_is_no_endpoint_is_refused_with_a_reason(url: str, expected: str) -> None:
    with pytest.raises(Refused) as refused:
        check_url(url, STRICT)
    assert refused.value.reason == expected


@pytest.mark.parametrize("host", ODD_LOOPBACKS)
@pytest.mark.parametrize("egress", [STRICT, EVERYTHING])
def test_a_number_in_an_odd_spelling_is_no_host(host: str, egress: Egress) -> None:
    with pytest.raises(Refused, match=r"decimal numbers|malformed"):
        check_url(f"http://{host}/", egress)


def test_a_private_literal_is_accepted_where_the_operator_says_so() -> None:
    check_url("http://127.0.0.1:8000/hook", HOME)
    check_url("http://[::1]:8000/hook", HOME)


@pytest.mark.parametrize("port", [1, 22, 25, 6379, 5432, 8080, 65535])
def test_a_port_that_is_not_named_is_refused_and_the_message_says_which_are(port: int) -> None:
    with pytest.raises(
        Refused, match=f"port {port} are refused: BILLHOOK_EGRESS_PORTS allows 80, 443, 8443"
    ) as refused:
        check_url(f"https://example.com:{port}/", STRICT)
    assert refused.value.reason == "port"
    check_url(f"https://example.com:{port}/", EVERYTHING)


def test_the_usual_port_of_a_scheme_must_be_allowed_too() -> None:
    secure = Egress(ports=frozenset({443}))
    check_url("https://example.com/", secure)
    check_url("https://example.com:443/", secure)
    with pytest.raises(Refused, match="port 80 are refused"):
        check_url("http://example.com/", secure)


@given(st.text() | st.text().map("https://{}".format) | st.text().map("https://a{}.example/".format))
def test_checking_any_text_ends_in_refused_or_nothing(url: str) -> None:
    with suppress(Refused):
        check_url(url, STRICT)


def answering(*answers: Sequence[str]) -> CheckedResolver:
    """A resolver whose DNS gives these sets of addresses, one after the other."""
    pending = iter(answers)

    async def lookup(host: str, port: int, family: socket.AddressFamily) -> Sequence[str]:
        return next(pending)

    return CheckedResolver(STRICT, lookup)


def test_a_name_resolves_to_its_addresses() -> None:
    found = asyncio.run(answering(["8.8.8.8", "2606:4700::1111"]).resolve("endpoint.example", 443))

    assert [(one["hostname"], one["host"], one["port"], one["family"]) for one in found] == [
        ("endpoint.example", "8.8.8.8", 443, socket.AF_INET),
        ("endpoint.example", "2606:4700::1111", 443, socket.AF_INET6),
    ]


def test_one_bad_address_refuses_the_name() -> None:
    for addresses in (["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"], ["fe80::1%2", "8.8.8.8"]):
        with pytest.raises(Refused):
            asyncio.run(answering(addresses).resolve("mixed.example", 443))


def test_a_rebinding_name_is_refused_when_it_turns() -> None:
    resolver = answering(["8.8.8.8"], ["127.0.0.1"])

    assert asyncio.run(resolver.resolve("rebind.example", 443))
    with pytest.raises(Refused) as refused:
        asyncio.run(resolver.resolve("rebind.example", 443))
    assert refused.value.reason == "loopback"
    assert "127" not in str(refused.value)


def test_a_name_without_addresses_is_a_failed_lookup_not_a_refusal() -> None:
    with pytest.raises(OSError, match="not known"):
        asyncio.run(answering([]).resolve("empty.example", 443))


@pytest.mark.parametrize("host", [*ODD_LOOPBACKS, "①②⑦.0.0.1", "localhost"])
def test_an_odd_spelling_is_refused_for_the_address_that_the_system_makes_of_it(host: str) -> None:
    async def resolve() -> None:
        resolver = CheckedResolver(STRICT)
        try:
            await resolver.resolve(host, 80, socket.AF_UNSPEC)
        finally:
            await resolver.close()

    with pytest.raises(Refused) as refused:
        asyncio.run(resolve())
    assert refused.value.reason == "loopback"


def test_no_socket_is_made_for_a_denied_address_or_port() -> None:
    target = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 25))

    with pytest.raises(Refused, match="loopback"):
        checked_socket(target, STRICT)
    with pytest.raises(Refused, match="port 25"):
        checked_socket(target, Egress(networks=HOME.networks))
    with checked_socket(target, HOME) as made:
        assert made.family == socket.AF_INET
