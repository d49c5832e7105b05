"""Each rule across documents: what it refuses, and its twin that it lets pass.

The exact texts are in tests/errors; here are the edges.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from privnet.check import check
from privnet.check.names import TCP_AT_MOST, UDP_AT_MOST, held
from privnet.diagnostics import Problem, ordered
from privnet.load import Declaration, read_declaration
from privnet.model.identifiers import Prefix
from privnet.model.lock import Lock, NetworkLock

AP = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
OTHER = "ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10"
PN = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"
TERMS = "terms: {accepted_by: a, accepted_on: 2025-09-25, version: b}"
HOSTS = "hosts:\n  a: {address: 192.0.2.1, zone: x}\n  b: {address: 192.0.2.2, zone: y}\n"


class Small:
    """A small fleet, written piece by piece."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "projects").mkdir()
        self.fleet()

    def fleet(self, more: str = "", hosts: str = HOSTS) -> Small:
        (self.directory / "fleet.yaml").write_text(f"fleet: small\n{more}{hosts}")
        return self

    def project(self, name: str, network: str | None = None, applications: str = "{}") -> Small:
        block = f"private_network: {{{network}}}\n" if network else ""
        text = f"project: {name}\n{block}applications: {applications}\n"
        (self.directory / "projects" / f"{name}.yaml").write_text(text)
        return self

    def declaration(self) -> Declaration:
        return read_declaration(self.directory)

    def problems(self, lock: Lock | None = None) -> list[Problem]:
        return list(ordered(check(self.declaration(), lock)))

    def codes(self, lock: Lock | None = None) -> list[str]:
        return [problem.code for problem in self.problems(lock)]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def web(hosts: str, extra: str = "") -> str:
    return f"{{{AP}: {{{extra}formation: {{web: {hosts}}}}}}}"


def network(more: str = "", pn: str = PN) -> str:
    return f"id: {pn}, {more}{TERMS}"


def pn(number: int) -> str:
    return f"pn-{number:08x}-d05e-40ea-bf63-c4f8a75a9d8c"


# --- placement ------------------------------------------------------------------------------------


def test_a_host_may_hold_several_containers_of_one_type(small: Small) -> None:
    assert small.project("shop", network(), web("[a, a, b]")).codes() == []


def test_an_unknown_host_is_refused_also_without_a_network(small: Small) -> None:
    (problem,) = small.project("shop", None, web("[a, c]")).problems()
    assert problem.code == "PN301" and problem.label == "2.web is placed on it"


def test_each_container_on_an_unknown_host_is_told_once(small: Small) -> None:
    assert small.project("shop", None, web("[c, a, c]")).codes() == ["PN301", "PN301"]


@pytest.mark.parametrize(("spread", "codes"), [("zone", ["PN302"]), ("host", [])])
def test_spreading_over_zones_needs_a_zone_for_each_host(small: Small, spread: str, codes: list[str]) -> None:
    small.fleet(hosts="hosts:\n  a: {address: 192.0.2.1, zone: x}\n  b: {address: 192.0.2.2}\n")
    assert small.project("shop", network(), web(f"{{count: 2, spread: {spread}}}")).codes() == codes


def test_hosts_without_zones_are_right_when_nobody_asks_for_them(small: Small) -> None:
    small.fleet(hosts="hosts:\n  a: {address: 192.0.2.1}\n")
    assert small.project("shop", network(), web("{count: 3}")).codes() == []


# --- identity -------------------------------------------------------------------------------------


def test_an_application_in_two_projects_is_told_once_with_both_places(small: Small) -> None:
    (problem,) = small.project("shop", None, web("[a]")).project("zoo", None, web("[b]")).problems()
    assert problem.code == "PN303"
    assert problem.place and problem.place.path.endswith("zoo.yaml")
    assert problem.related[0].place.path.endswith("shop.yaml")


def test_a_network_in_two_projects_is_refused_and_two_networks_are_not(small: Small) -> None:
    assert small.project("shop", network()).project("zoo", network()).codes() == ["PN305"]
    assert small.project("zoo", network(pn=pn(1))).codes() == []


@pytest.mark.parametrize(("vni", "codes"), [(4095, ["PN307"]), (4096, []), (9000, []), (9001, ["PN307"])])
def test_a_declared_vni_is_one_of_the_fleets(small: Small, vni: int, codes: list[str]) -> None:
    small.fleet("vxlan: {vni: 4096-9000}\n")
    assert small.project("shop", network(f"vni: {vni}, ")).codes() == codes


@pytest.mark.parametrize(("vni", "codes"), [(4095, ["PN307"]), (4096, []), (7000000, []), (16777215, [])])
def test_without_a_range_a_declared_vni_is_any_that_no_vlan_has(small: Small, vni: int, codes: list[str]) -> None:
    assert small.project("shop", network(f"vni: {vni}, ")).codes() == codes


def test_three_networks_with_one_vni_are_two_problems(small: Small) -> None:
    for number, name in enumerate(("p", "q", "r")):
        small.project(name, network("vni: 5000, ", pn(number + 1)))
    assert small.codes() == ["PN304", "PN304"]
    assert small.project("q", network("vni: 5001, ", pn(2))).project("r", network("", pn(3))).codes() == []


# --- underlay and addresses -----------------------------------------------------------------------


def test_a_shared_address_is_not_told_again_as_a_shared_endpoint(small: Small) -> None:
    assert small.fleet(hosts="hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.1}\n").codes() == ["PN308"]


def test_hosts_behind_one_router_have_ports_of_their_own(small: Small) -> None:
    hosts = (
        "hosts:\n  a: {{address: 10.0.0.1, endpoint: '192.0.2.9:1'}}\n"
        "  b: {{address: 10.0.0.2, endpoint: '192.0.2.9:{}'}}\n"
    )
    assert small.fleet(hosts=hosts.format(2)).codes() == []
    assert small.fleet(hosts=hosts.format(1)).codes() == ["PN309"]


def test_an_endpoint_that_is_another_hosts_default_is_refused(small: Small) -> None:
    hosts = "hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.2, endpoint: '192.0.2.1:51820'}\n"
    assert small.fleet(hosts=hosts).codes() == ["PN309"]
    assert small.fleet("wireguard: {port: 51821}\n", hosts).codes() == []


@pytest.mark.parametrize(("hosts", "codes"), [(2, []), (3, ["PN310"])])
def test_the_mesh_has_an_address_for_each_host(small: Small, hosts: int, codes: list[str]) -> None:
    lines = "".join(f"  h{number}: {{address: 192.0.2.{number}}}\n" for number in range(1, hosts + 1))
    assert small.fleet("wireguard: {mesh: 100.64.0.0/30}\n", "hosts:\n" + lines).codes() == codes


def test_the_mesh_is_not_the_underlay(small: Small) -> None:
    hosts = "hosts:\n  a: {address: 10.1.0.1}\n  b: {address: '2001:db8::1', endpoint: '10.1.0.9:51820'}\n"
    assert small.fleet("wireguard: {mesh: 10.1.0.0/16}\n", hosts).codes() == ["PN311", "PN311"]
    assert small.fleet("wireguard: {mesh: 10.2.0.0/16}\n", hosts).codes() == []


@pytest.mark.parametrize(("count", "codes"), [(5, []), (6, ["PN312"])])
def test_a_network_has_an_address_for_each_container(small: Small, count: int, codes: list[str]) -> None:
    cidr = "cidr: 10.0.0.0/29, "
    assert small.project("shop", network(cidr), web(f"{{count: {count}}}")).codes() == codes
    assert small.project("shop", network(cidr), web(f"[{', '.join('ab' * count)[: 3 * count - 2]}]")).codes() == codes
    assert small.project("shop", None, web(f"{{count: {count}}}")).codes() == []


def test_the_prefix_that_is_offered_is_large_enough(small: Small) -> None:
    (problem, _) = small.project("shop", network(), web("{count: 1022}")).problems()
    assert "cidr: 10.240.0.0/21" in problem.help
    assert small.project("shop", network("cidr: 10.240.0.0/21, "), web("{count: 1022}")).codes() == ["PN702"]


def test_private_networks_may_use_the_same_addresses_and_those_of_the_mesh(small: Small) -> None:
    small.project("shop", network("cidr: 100.64.0.0/24, ")).project("zoo", network("cidr: 100.64.0.0/24, ", pn(1)))
    assert small.codes() == []


def test_wireguard_and_vxlan_have_ports_of_their_own(small: Small) -> None:
    (problem,) = small.fleet("wireguard: {port: 5000}\nvxlan: {port: 5000}\n").problems()
    assert problem.code == "PN313" and len(problem.related) == 1
    assert small.fleet("wireguard: {port: 5000}\nvxlan: {port: 5001}\n").codes() == []


def test_the_longest_name_fits(small: Small) -> None:
    label, rest = "w" * 63, ".".join(["d" * 60] * 4)
    fits = 253 - len(f"1.{label}.{AP}.{PN}.")
    for length, codes in ((fits, []), (fits + 1, ["PN314"])):
        domain = rest[:length].strip(".")
        domain += "x" * (length - len(domain))
        small.fleet(f"domain: {domain}\n")
        formation = f"{{{AP}: {{formation: {{{label}: [a]}}}}}}"
        assert small.project("shop", network(), formation).codes() == codes
        assert small.project("shop", None, formation).codes() == []


# --- policy ---------------------------------------------------------------------------------------


def test_hds_applications_stay_out_of_networks_unless_the_operator_allows_it(small: Small) -> None:
    assert small.project("shop", network(), web("[a]", "hds: true, ")).codes() == ["PN401"]
    assert small.fleet("policy: {hds: allow, hds_allowed: {by: dpo@x.example, on: 2025-01-01}}\n").codes() == []
    assert small.fleet().project("shop", None, web("[a]", "hds: true, ")).codes() == []


def remembers(network: bool = False) -> Lock:
    known = {PN: NetworkLock("shop", 4096, Prefix.parse("10.240.0.0/22"))} if network else {}
    return Lock("small", networks=known, applications={AP: "shop"})


def test_a_network_begins_on_an_empty_project(small: Small) -> None:
    small.project("shop", network(), web("[a]"))
    assert small.codes(remembers()) == ["PN403"]
    assert small.codes(None) == [], "a fleet that never was deployed has nothing to protect"
    assert small.codes(remembers(network=True)) == [], "the network was there before"
    assert small.codes(Lock("small", applications={AP: "zoo"})) == [], "the project was empty before"


def test_an_operator_can_enable_a_network_on_an_existing_project(small: Small) -> None:
    override = "enabled_on_existing_project: {by: ops, on: 2025-10-01}, "
    assert small.project("shop", network(override), web("[a]")).codes(remembers()) == []


# --- size -----------------------------------------------------------------------------------------


def test_many_unknown_hosts_are_judged_without_comparing_all_names(small: Small) -> None:
    hosts = "".join(f"  host-{n}: {{address: 10.0.{n >> 8}.{n & 255}}}\n" for n in range(1, 1001))
    placed = ", ".join(f"hots-{n}" for n in range(2000))
    found = small.fleet(hosts="hosts:\n" + hosts).project("shop", None, web(f"[{placed}]")).problems()
    assert len(found) == 100  # of one file no more are counted
    assert sum("did you mean" in problem.help for problem in found) == 30


def test_an_answer_holds_as_many_addresses_as_dnsmasq_puts_into_it() -> None:
    """Measured with dnsmasq 2.90: 74 in 1,222 bytes over UDP, 4,093 in 65,526 over TCP, cut off (TC) behind them."""
    name = "web.example.internal"
    assert (held(name, UDP_AT_MOST), held(name, TCP_AT_MOST)) == (74, 4093)


@pytest.mark.parametrize(("count", "said"), [(69, []), (70, ["too large for UDP"]), (4089, ["holds 4,088 addresses"])])
def test_a_name_with_more_addresses_than_an_answer_holds_is_a_warning(
    count: int, said: list[str], small: Small
) -> None:
    found = small.project("shop", network("cidr: 10.224.0.0/16, "), web(f"{{count: {count}}}")).problems()
    assert [(problem.code, problem.severity) for problem in found] == [("PN702", "warning")] * len(said)
    assert all(words in problem.message for words, problem in zip(said, found, strict=True))
    assert small.project("shop", None, web(f"{{count: {count}}}")).codes() == []  # no network, no name
