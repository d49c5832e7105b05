"""Small values are read in one form only, and come back as they were written."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from privnet.model import Fleet, Host, Invalid, Prefix, Project, Spread, VniRange
from privnet.model import identifiers as ids
from privnet.model.nodes import Scalar

ADDRESSES = st.integers(0, 2**32 - 1)


def scalar(text: str, quoted: bool = False) -> Scalar:
    value = Scalar(text)
    value.quoted = quoted
    return value


@given(ADDRESSES)
def test_addresses_are_read_as_they_are_written(number: int) -> None:
    text = ids.format_address(number)
    assert text == str(ipaddress.IPv4Address(number))
    assert ids.parse_address(text) == number


@given(ADDRESSES, st.integers(0, 32))
def test_prefixes_agree_with_the_standard_library(number: int, length: int) -> None:
    expected = ipaddress.ip_network((number, length), strict=False)
    prefix = Prefix.parse(str(expected))
    assert str(prefix) == str(expected)
    assert (prefix.first, prefix.last, prefix.size) == (
        int(expected.network_address),
        int(expected.broadcast_address),
        expected.num_addresses,
    )
    assert number in prefix
    if number != prefix.first:
        with pytest.raises(Invalid, match="bits set") as refused:
            Prefix.parse(f"{ids.format_address(number)}/{length}")
        assert refused.value.help == f"did you mean {prefix}?"


@given(ADDRESSES, st.integers(0, 32), ADDRESSES, st.integers(0, 32))
def test_overlap_agrees_with_the_standard_library(a: int, length_a: int, b: int, length_b: int) -> None:
    one, other = (ipaddress.ip_network(pair, strict=False) for pair in ((a, length_a), (b, length_b)))
    assert Prefix.parse(str(one)).overlaps(Prefix.parse(str(other))) == one.overlaps(other)


@given(st.text(max_size=20))
def test_what_is_accepted_is_canonical(text: str) -> None:
    for parse in (Prefix.parse, VniRange.parse, ids.check_address, ids.check_date, ids.check_domain):
        try:
            assert str(parse(text)) == text
        except Invalid:
            continue


@given(st.text(max_size=70))
def test_a_name_is_what_dns_and_a_file_system_take(text: str) -> None:
    try:
        ids.check_host_name(text)
    except Invalid:
        return
    assert text.isascii() and text == text.lower() and 1 <= len(text) <= 63
    assert all(character.isalnum() or character == "-" for character in text)
    assert text[0].isalpha() and text[-1].isalnum()


@given(st.uuids())
def test_ids_are_a_prefix_and_a_canonical_uuid(value: uuid.UUID) -> None:
    assert ids.check_application_id(f"ap-{value}") == f"ap-{value}"
    assert ids.check_network_id(f"pn-{value}") == f"pn-{value}"
    for wrong in (f"ap-{value}".upper(), f"ap-{value.hex}", str(value), f"ap-{{{value}}}", f"ap-{value} "):
        with pytest.raises(Invalid):
            ids.check_application_id(wrong)
    with pytest.raises(Invalid, match="not a canonical id"):
        ids.check_network_id(f"ap-{value}")


@pytest.mark.parametrize(
    ("check", "accepted"),
    [
        (ids.check_host_name, ["a", "par-a-1", "a" * 63]),
        (ids.check_process_type, ["web", "on", "no", "null", "p1"]),
        (ids.check_domain, ["private-network.internal", "a.b.c", "1.example"]),
        (ids.check_address, ["192.0.2.1", "2001:db8::1", "10.0.0.1", "8.8.8.8"]),
        (ids.check_endpoint, ["192.0.2.1:51820", "[2001:db8::1]:1"]),
        (ids.check_upstream, ["9.9.9.9", "2620:fe::fe", "127.0.0.53#53", "::1#5353"]),
        (ids.check_internal, ["corp.example", "lan", "corp.local", "a-b.1c.example", "internal"]),
        (ids.check_ssh_user, ["root", "deploy", "_x", "a-b_c"]),
        (ids.check_date, ["2025-09-25", "2024-02-29"]),
    ],
)
def test_right_values_are_accepted_as_they_are(check: Callable[[str], str], accepted: list[str]) -> None:
    assert [check(text) for text in accepted] == accepted


@pytest.mark.parametrize(
    ("check", "text", "code"),
    [
        (ids.check_host_name, "web\n", "PN210"),
        (ids.check_host_name, "", "PN210"),
        (ids.check_host_name, "a" * 64, "PN210"),
        (ids.check_host_name, "wéb", "PN210"),
        (ids.check_domain, "internal", "PN215"),
        (ids.check_domain, "a.local", "PN215"),
        (ids.check_address, "192.0.2.1\n", "PN212"),
        (ids.check_address, "1", "PN212"),
        (ids.check_address, "::ffff:192.0.2.1", "PN212"),
        (ids.check_address, "0.1.2.3", "PN212"),
        (ids.check_endpoint, "192.0.2.1:65536", "PN207"),
        (ids.check_endpoint, "[2001:db8::1]:", "PN212"),
        (ids.check_upstream, "dns.example", "PN212"),
        (ids.check_internal, "Corp.example", "PN215"),
        (ids.check_internal, "corp.example.", "PN215"),
        (ids.check_internal, "*.corp.example", "PN215"),
        (ids.check_internal, "", "PN215"),
        (ids.check_internal, ".", "PN215"),
        (ids.check_internal, "corp..example", "PN215"),
        (ids.check_internal, "corp.10", "PN215"),
        (ids.check_internal, "10.in-addr.arpa", "PN215"),
        (ids.check_internal, "ip6.arpa", "PN215"),
        (ids.check_internal, ".".join(["a" * 60] * 5), "PN215"),
        (ids.check_date, "2025-13-01", "PN209"),
        (ids.check_date, "20250925", "PN209"),
        (ids.parse_address, "1.2.3", "PN212"),
    ],
)
def test_wrong_values_are_refused(check: Callable[[str], str], text: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(text)
    assert refused.value.code == code


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("-3", -3), ("65535", 65535)])
def test_plain_decimals_are_integers(text: str, number: int) -> None:
    assert ids.parse_integer(scalar(text)) == number


@pytest.mark.parametrize("text", ["010", "0x10", "1_000", "1e3", "2.0", "+3", "-0", "٣", " 3", "", "9" * 5000, "22:22"])
def test_nothing_else_is_an_integer(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        ids.parse_integer(scalar(text))
    assert refused.value.code == "PN206"


def test_a_number_in_quotes_is_text() -> None:
    with pytest.raises(Invalid, match="text in quotes") as refused:
        ids.parse_integer(scalar("22", quoted=True))
    assert refused.value.help == "write 22 without quotes"


def test_only_true_and_false_are_booleans() -> None:
    assert ids.parse_boolean(scalar("true")) is True
    assert ids.parse_boolean(scalar("false")) is False
    for text in ("no", "on", "True", "FALSE", "y", "1", ""):
        with pytest.raises(Invalid):
            ids.parse_boolean(scalar(text))
    with pytest.raises(Invalid, match="quotes"):
        ids.parse_boolean(scalar("true", quoted=True))


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("30m", 1800), ("1h", 3600), ("2d", 172800)])
def test_durations_have_a_unit(text: str, seconds: int) -> None:
    assert ids.Seconds("rest", 10**9).parse(text) == seconds


def test_endpoints_are_an_address_and_a_port() -> None:
    assert ids.parse_endpoint("[2001:db8::1]:51820") == ("2001:db8::1", 51820)
    assert Host(address="192.0.2.1").wireguard_endpoint(51820) == ("192.0.2.1", 51820)
    assert Host(address="192.0.2.1", endpoint="198.51.100.7:99").wireguard_endpoint(51820) == ("198.51.100.7", 99)


def test_a_fleet_has_the_documented_defaults() -> None:
    fleet = Fleet.model_validate({"fleet": "x", "hosts": {"a": {"address": "192.0.2.1"}}})
    assert str(fleet.wireguard.mesh) == "100.64.0.0/16" and fleet.wireguard.port == 51820
    assert fleet.vxlan.vni == VniRange(7000000, 7999999) and fleet.vxlan.port == 4789
    assert str(fleet.network.cidr) == "10.240.0.0/22"
    assert (fleet.dns.ttl, fleet.dns.upstream) == (5, ())
    assert (fleet.policy.hds, fleet.policy.address_quarantine, fleet.policy.removal_guard) == ("refuse", 3600, 10)
    assert fleet.policy.rollback == 180
    assert fleet.domain == "private-network.internal" and fleet.lab is False
    host = fleet.hosts["a"]
    assert (host.mtu, host.ssh.user, host.ssh.port, host.zone, host.endpoint) == (1500, "root", 22, None, None)


def test_a_formation_is_a_list_of_hosts_or_a_count() -> None:
    text = {"web": ["a", "a"], "worker": {"count": "3", "spread": "zone"}, "clock": []}
    project = {"project": "x", "applications": {f"ap-{uuid.uuid4()}": {"formation": text}}}
    (application,) = Project.model_validate(project).applications.values()
    assert application.formation == {"web": ("a", "a"), "worker": Spread(count=3, spread="zone"), "clock": ()}


def test_models_are_frozen() -> None:
    host = Host(address="192.0.2.1")
    with pytest.raises(ValidationError, match="frozen"):
        host.address = "192.0.2.2"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Prefix(0, 8).length = 9  # type: ignore[misc]
