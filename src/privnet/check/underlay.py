"""Hosts can be told apart, and reach each other: addresses, endpoints, ports."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from privnet.diagnostics import COUNTED_AT_MOST, Place, Problem, Related
from privnet.load import Declaration


def check(declaration: Declaration) -> Iterator[Problem]:
    """Addresses and endpoints are used once; mesh and overlay have ports of their own."""
    yield from islice(_addresses(declaration), COUNTED_AT_MOST)
    yield from islice(_endpoints(declaration), COUNTED_AT_MOST)
    yield from _ports(declaration)


def _addresses(declaration: Declaration) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name, host in declaration.fleet.hosts.items():
        other = first.setdefault(host.address, name)
        if other != name:
            yield Problem(
                "PN308",
                f"address {host.address} is used by two hosts, `{other}` and `{name}`",
                declaration.place("hosts", name, "address"),
                help="give each host its own address; one machine is one host",
                related=(Related(declaration.place("hosts", other, "address"), f"`{other}` has it here"),),
            )


def _endpoints(declaration: Declaration) -> Iterator[Problem]:
    port = declaration.fleet.wireguard.port
    first: dict[tuple[str, int], str] = {}
    for name, host in declaration.fleet.hosts.items():
        endpoint = host.wireguard_endpoint(port)
        other = first.setdefault(endpoint, name)
        if other == name or declaration.fleet.hosts[other].address == host.address:
            continue
        yield Problem(
            "PN309",
            f"WireGuard endpoint {_shown(endpoint)} is used by two hosts, `{other}` and `{name}`",
            _endpoint_place(declaration, name),
            note="packets for one of them would arrive at the other and be dropped there",
            help="give each host an `endpoint:` with an address or port of its own",
            related=(Related(_endpoint_place(declaration, other), f"`{other}` has it here"),),
        )


def _endpoint_place(declaration: Declaration, name: str) -> Place:
    host = declaration.fleet.hosts[name]
    return declaration.place("hosts", name, "endpoint" if host.endpoint else "address")


def _shown(endpoint: tuple[str, int]) -> str:
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _ports(declaration: Declaration) -> Iterator[Problem]:
    port = declaration.fleet.vxlan.port
    if declaration.fleet.wireguard.port != port:
        return
    given = [part for part in ("vxlan", "wireguard") if declaration.declares(part, "port")]
    yield Problem(
        "PN313",
        f"WireGuard and VXLAN would both use UDP port {port}",
        declaration.place(given[0], "port"),
        help="leave one of them out: the defaults are 51820 for WireGuard and 4789 for VXLAN",
        related=tuple(Related(declaration.place(part, "port"), "the other is given here") for part in given[1:]),
    )
