"""What a change does to traffic while it is made. Pure: from the old and the new numbers, or from a host's steps.

Four labels. What is not named by a label's flows loses nothing: everything new is in place on all hosts before
anything is switched, and everything is switched before anything old goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from privnet.model.lock import Lock
from privnet.plan.mesh import endpoint_of
from privnet.report.difference import NOTHING, Change


class Label(StrEnum):
    """How much a change is felt, from nothing on."""

    none = "none"
    """No flow that there is loses a packet."""
    new_flows = "new flows only"
    """Flows that there are go on as they are; those that begin later see the change."""
    brief = "brief"
    """These flows stop for seconds while the run goes on, and continue by themselves."""
    outage = "outage"
    """These flows end; something outside of privnet has to begin them again, or else."""


ORDER = tuple(Label)


@dataclass(frozen=True, slots=True)
class Impact:
    """A label, and why.

    :param flows: whose flows it is about; empty for none
    :param reason: why, and how long
    """

    label: Label
    flows: str
    reason: str

    def __str__(self) -> str:
        return f"{self.label}{f', {self.flows}' if self.flows else ''}: {self.reason}"


def nothing(reason: str) -> Impact:
    """Nobody feels it."""
    return Impact(Label.none, "", reason)


NEW = nothing("it comes beside what is there")
NUMBERS = nothing("nothing on any host depends on it")
MOVED = Impact(
    Label.outage,
    "flows of the moved container",
    "from the moment it is switched until its process runs on the new host; it keeps address and names",
)
REMOVED = Impact(Label.outage, "flows of the removed container", "they end, and its names are no longer answered")
MIGRATED = Impact(
    Label.outage,
    "flows of the application in its old network",
    "they end: it has other names and addresses, and is reached from its new network only",
)
NETWORK_REMOVED = Impact(Label.outage, "all flows of the network", "they end: it is taken from every host")
ADDRESSES = Impact(
    Label.outage, "all flows of the network", "its containers get other addresses; names answer them after the switch"
)
PREFIX_LENGTH = Impact(Label.brief, "all flows of the network", "each address is set anew in its namespace")
VNI = Impact(
    Label.brief,
    "all flows of the network",
    "its devices and ports are made anew: between two hosts from the first one's change to the other one's",
)
MESH = Impact(
    Label.brief,
    "all flows between this host and others",
    "its tunnels' ends are made anew: from its own change to that of the other host",
)
KEY = Impact(
    Label.brief,
    "all flows between this host and others",
    "only if it shows another key: from the first peer that takes it to the last. Until then peers keep the old one",
)
HOST_GONE = nothing("its containers are with their networks below; what still runs on it is cut off from all others")
SMALLER = Impact(
    Label.brief,
    "packets of the network that are larger than the new MTU",
    "lost while one host has the new MTU and another not yet; connections then go on with smaller ones",
)
LARGER = Impact(
    Label.new_flows,
    "flows of the network",
    "connections keep their size of packets; a larger datagram is lost until all hosts have the new MTU",
)
BETWEEN = "all flows between hosts"
UNTIL_BOTH = "from the first host's change to the other one's; a host that a run does not reach stays apart from them"
SETTINGS: Mapping[str, Impact] = {
    "domain": Impact(
        Label.outage,
        "questions for names in the old domain",
        "they have no answer from the switch on, and each resolver starts again; flows that there are go on",
    ),
    "wireguard.mesh": Impact(Label.brief, BETWEEN, "the address of each host's mesh is set anew, with another length"),
    "wireguard.port": Impact(Label.brief, BETWEEN, UNTIL_BOTH),
    "vxlan.port": Impact(Label.brief, BETWEEN, f"the networks' devices are made anew: {UNTIL_BOTH}"),
    "dns.ttl": Impact(Label.brief, "questions for names", "each resolver starts again"),
    "dns.internal": Impact(
        Label.brief,
        "questions for names",
        "each resolver starts again; private addresses are answered for names of these domains alone",
    ),
}
UPSTREAM_NEW = Impact(Label.brief, "questions for names", "each resolver starts again, and then asks outside too")
UPSTREAM_GONE = Impact(
    Label.outage, "questions for names outside", "they are refused from now on, and each resolver starts again"
)
UPSTREAM = Impact(Label.brief, "questions for names outside", "each network's forwarder starts again")
ENDPOINT = Impact(
    Label.brief,
    "all flows between this host and others",
    "until both sides send to where the other one is; they end when it is not reached there",
)
RENAMED = nothing("hosts have its name in files for people, and in none for the kernel")
SAME_NETWORK = nothing("its project has another name, and the same private network")
LOGIN_ONLY = nothing("the other hosts reach it where they did; a run goes there")
OUT = Impact(
    Label.outage,
    "flows of containers on the host",
    "the other hosts drop it, and names do not lead there. No run goes there: what still runs on it goes on, alone",
)
OUT_EMPTY = nothing("no container is on it")
BACK = nothing("it comes back beside what is there")
NOT_REACHED = nothing("the host is out of service, and nobody's peer")
STOPPED = Impact(
    Label.outage, "flows of the container", "it is placed on a host that is out of service: it counts as not running"
)
NOT_RUNNING = nothing("on a host that is out of service a container counts as not running")
OWN_MTU = nothing("where the MTU of a network follows from it, that is said of the network")


def impacts(old: Lock, new: Lock, changes: Iterable[Change]) -> Iterator[tuple[Change, Impact]]:
    """Each change with what it does to traffic."""
    stay = {slot for network in new.networks.values() for slot in network.slots}
    had = {slot.split(".")[2] for network in old.networks.values() for slot in network.slots}
    networks = [{network.project: name for name, network in lock.networks.items()} for lock in (old, new)]
    for change in changes:
        if (change.kind, change.sign) == ("application", "~"):
            was, becomes = (
                of.get(lock.applications[change.name]) for of, lock in zip(networks, (old, new), strict=True)
            )
            yield change, SAME_NETWORK if was and was == becomes else MIGRATED if change.name in had else NUMBERS
        else:
            yield change, _impact(old, new, change, stay)


def _impact(old: Lock, new: Lock, change: Change, stay: set[str]) -> Impact:
    match change.kind, change.sign:
        case "setting", _:
            return _of_setting(old, new, change)
        case "container", _ if (found := _out_of_service(old, new, change)) is not None:
            return found
        case "container", "-":
            gone = change.where not in new.networks
            return MIGRATED if change.name in stay else NETWORK_REMOVED if gone else REMOVED
        case "container", "~":
            was, becomes = (lock.networks[change.where].slots[change.name] for lock in (old, new))
            return MOVED if was.address == becomes.address else ADDRESSES
        case "network", "-":
            return NETWORK_REMOVED if old.networks[change.name].slots else nothing("it had no container")
        case "network", "~":
            return _of_network(old, new, change.name)
        case "application", "-":
            return nothing("what its containers had is said with their network")
        case "rename", _:
            return RENAMED
        case "host", "~":
            return MESH
        case "host", "-":
            return HOST_GONE
        case "key", _:
            return KEY
        case "mtu", _:
            return SMALLER if _number(change.becomes) < _number(change.was) else LARGER
        case "quarantine", _:
            return NUMBERS
    return NEW


def _of_setting(old: Lock, new: Lock, change: Change) -> Impact:
    if change.name in SETTINGS:
        return SETTINGS[change.name]
    if change.name == "dns.upstream":
        return UPSTREAM_NEW if change.was == NOTHING else UPSTREAM_GONE if change.becomes == NOTHING else UPSTREAM
    _, host, name = change.name.split(".")
    if name == "state":
        placed = any(at.host == host for network in old.networks.values() for at in network.slots.values())
        return BACK if change.becomes == "in" else OUT if placed else OUT_EMPTY
    if host in new.out and host in old.out:
        return NOT_REACHED
    if name == "mtu" or old.settings is None or new.settings is None:
        return OWN_MTU
    # With one port for both: another one is a change of its own.
    port = new.settings.wireguard_port
    was, becomes = (endpoint_of(settings.hosts[host], port) for settings in (old.settings, new.settings))
    return LOGIN_ONLY if was == becomes else ENDPOINT


def _out_of_service(old: Lock, new: Lock, change: Change) -> Impact | None:
    """Of a container that was on a host that is out, or is placed on one."""
    was, becomes = (
        lock.networks[change.where].slots.get(change.name) if change.where in lock.networks else None
        for lock in (old, new)
    )
    if was is None or was.host in old.out:
        return NOT_RUNNING if was or (becomes and becomes.host in new.out) else None
    return STOPPED if becomes and becomes.host in new.out else None


def _of_network(old: Lock, new: Lock, name: str) -> Impact:
    was, becomes = old.networks[name], new.networks[name]
    if not was.slots or (was.vni, was.cidr) == (becomes.vni, becomes.cidr):
        return NUMBERS
    both = was.slots.keys() & becomes.slots.keys()
    if any(was.slots[slot].address != becomes.slots[slot].address for slot in both):
        return ADDRESSES
    return VNI if was.vni != becomes.vni else PREFIX_LENGTH


def _number(text: str) -> int:
    return int(text.rpartition(" ")[2])


# --- what a host was found to need ------------------------------------------------------------------

_STEPS: tuple[tuple[str, Impact], ...] = (
    (
        r"(?!retire )\S+ run ip link delete dev pn[bx][0-9]+",
        Impact(
            Label.brief,
            "flows of that network between this host and others",
            "its device is made anew: another VXLAN port, mesh address or VNI, or somebody has changed it",
        ),
    ),
    (
        r"\S+ run wg set privnet listen-port .*",
        Impact(
            Label.brief,
            "all flows between this host and others",
            "WireGuard's port is another one: until the other host knows it",
        ),
    ),
    (
        r"\S+ run (sh \S*mesh[.]sh up restart|wg set privnet private-key .*)",
        Impact(Label.brief, "all flows between this host and others", "its tunnels begin anew"),
    ),
    (
        r"add run wg addconf privnet peers[.]conf",
        Impact(
            Label.brief,
            "flows to peers whose endpoint or key is another",
            "until both sides send to where the other one is",
        ),
    ),
    (
        r"\S+ run sh \S*mesh[.]sh key anew",
        Impact(
            Label.brief,
            "all flows between this host and others",
            "it makes a new key: from the first peer that takes it to the last",
        ),
    ),
    (
        r"\S+ run systemctl restart privnet-guard[.]service",
        Impact(
            Label.brief,
            "all flows of this host's containers",
            "its guard starts again, and nothing passes while it is away",
        ),
    ),
    (
        r"add run ip address delete \S+ dev privnet",
        Impact(Label.brief, "all flows between this host and others", "the address of its mesh is set anew"),
    ),
    (
        r"\S+ run systemctl restart privnet-dns@\S+",
        Impact(Label.brief, "questions for names of that network from this host", "its resolver starts again"),
    ),
    (
        r"(?!retire )\S+ run systemctl stop privnet-forwarder@.*",
        Impact(Label.brief, "questions for names outside from this host", "forwarders start again"),
    ),
    (
        r"\S+ run sh \S+/container[.]sh name .*",
        Impact(
            Label.outage,
            "flows of these containers, if their namespace is gone",
            "what ran in it has to be started again by its owner; where a process still lives in it, nothing is lost",
        ),
    ),
    (
        r"\S+ run (systemctl stop .*privnet-container@|.* ip link delete dev )pnc[0-9a-f]{6}(?!0001)[0-9a-f]{4}\b.*",
        Impact(Label.outage, "flows of these containers on this host", "they go from this host"),
    ),
)
"""By ``<stage> <step>``. A port whose offset is 0001 is a resolver's."""


def steps_impact(steps: Iterable[tuple[str, str]]) -> list[Impact]:
    """What a host's steps do to traffic, the worst first; of what comes or is repaired beside running traffic, nothing.

    :param steps: stage and step as a run writes it down: ``write PATH``, ``run COMMAND``
    """
    lines = [" ".join(step) for step in steps]
    found = {impact for line in lines for pattern, impact in _STEPS if re.fullmatch(pattern, line)}
    return sorted(found, key=lambda impact: (-ORDER.index(impact.label), impact.flows))
