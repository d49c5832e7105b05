"""Fleets of any size, as YAML. The same arguments give the same bytes."""

from __future__ import annotations

import uuid
from pathlib import Path

HOSTS_PER_NETWORK = 10
"""Networks have a constant size: at most this many hosts, however large the fleet is."""
ZONES = 4
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


def write_fleet(directory: Path, hosts: int, networks: int, containers: int, *, spread: bool = False) -> None:
    """Write ``fleet.yaml`` and one project a network below ``directory``.

    :param containers: in all; divided evenly over the networks, two applications each, on up to ten hosts
    :param spread: let privnet place them, instead of listing a host for each
    """
    (directory / "projects").mkdir(parents=True)
    (directory / "fleet.yaml").write_text(_fleet(hosts))
    for number in range(networks):
        count = containers // networks + (number < containers % networks)
        text = _project(number, count, hosts, spread)
        (directory / "projects" / f"project-{number}.yaml").write_text(text)


def _fleet(hosts: int) -> str:
    lines = ["fleet: bench", "wireguard: {mesh: 100.64.0.0/10}", "hosts:"]
    for number in range(hosts):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        lines.append(f"  host-{number}: {{address: {address}, zone: zone-{number % ZONES}}}")
    return "\n".join(lines) + "\n"


def _project(number: int, containers: int, hosts: int, spread: bool) -> str:
    web, worker = containers - containers // 2, containers // 2
    lines = [
        f"project: project-{number}",
        "private_network:",
        f"  id: pn-{_id('pn', number, 0)}",
        "  terms: {accepted_by: ops@bench.example, accepted_on: 2025-09-25, version: beta-1}",
        "applications:",
    ]
    at = 0
    for application, (process_type, count) in enumerate((("web", web), ("worker", worker))):
        lines += [f"  ap-{_id('ap', number, application)}:", "    formation:"]
        lines.append(f"      {process_type}: {_formation(number, at, count, hosts, spread)}")
        at += count
    return "\n".join(lines) + "\n"


def _formation(network: int, at: int, count: int, hosts: int, spread: bool) -> str:
    if spread:
        return f"{{count: {count}, spread: zone}}"
    # 7919 is prime: the hosts of a network are not those of the next one.
    places = (f"host-{(network * 7919 + (at + i) % HOSTS_PER_NETWORK) % hosts}" for i in range(count))
    return f"[{', '.join(places)}]"


def _id(kind: str, number: int, application: int) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, f"{kind}-{number}-{application}")
