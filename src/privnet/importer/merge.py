"""The parts that hosts remember, put together; and everything that they do not agree on, in sentences.

Where two hosts contradict each other, the one with the newer serial is right. Nothing is left out on the evidence of a
host that did not answer, and a network that only one host still remembers is kept: what is declared too much is seen in
the YAML, what is missing would be taken from the hosts by the next run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from privnet.diagnostics import plural
from privnet.importer.answer import Answer, Remembered, Unusable
from privnet.importer.ask import Target
from privnet.model.application import Spread
from privnet.model.fleet import Fleet, Host, Ssh
from privnet.model.identifiers import format_address, parse_endpoint
from privnet.model.lock import HostLock, Lock
from privnet.model.project import Project
from privnet.plan.mesh import OVERHEAD_V4, OVERHEAD_V6
from privnet.plan.overlay import VXLAN_OVERHEAD
from privnet.store import VERSIONS_KEPT

UNKNOWN_ZONE = "unknown"
USUAL_MTU = 1500
LISTED_AT_MOST = 20


@dataclass(slots=True)
class Rebuilt:
    """A fleet as its hosts remember it.

    :param guessed: hosts that did not say themselves what they are, and what is not known of them
    :param remarks: what has to be judged by a person, one sentence each
    """

    fleet: Fleet
    projects: tuple[Project, ...]
    lock: Lock
    guessed: Mapping[str, str]
    remarks: list[str] = field(default_factory=list)


def merge(asked: Mapping[Target, Answer | Unusable]) -> Rebuilt:
    """One fleet from many answers. Raises Unusable when there is none, or when there are hosts of two fleets."""
    remarks: list[str] = []
    answers = _own(asked, remarks)
    if not answers:
        raise Unusable("no host remembers anything: " + "; ".join(f"{t} {why}" for t, why in asked.items()))
    newest = next(iter(answers.values()))
    if any(answer.fleet.fleet != newest.fleet.fleet for answer in answers.values()):
        raise Unusable(f"these are hosts of several fleets: {_by_fleet(answers)}; give those of one")
    remarks += _other_settings(newest, answers)
    networks = _networks(answers, remarks)
    hosts, guessed = _hosts(newest.fleet, answers, networks, asked)
    fleet = newest.fleet.model_copy(update={"hosts": {name: hosts[name] for name in sorted(hosts)}})
    if fleet.policy.canary not in (None, *hosts):
        remarks.append(f"`policy.canary: {fleet.policy.canary}` is left out: no host that answered knows this host")
        fleet = fleet.model_copy(update={"policy": fleet.policy.model_copy(update={"canary": None})})
    remarks += _silent(asked, hosts, guessed)
    lock = _lock(fleet, answers, networks)
    remarks += _few([*_kernel(answers, lock, set(fleet.out))])
    projects = sorted((known.project for known in networks.values()), key=lambda project: project.project)
    return Rebuilt(fleet, tuple(projects), lock, guessed, remarks)


def _own(asked: Mapping[Target, Answer | Unusable], remarks: list[str]) -> dict[str, Answer]:
    """One answer for each host, the newest serial first."""
    found: dict[str, Answer] = {}
    given = [(target, answer) for target, answer in asked.items() if isinstance(answer, Answer)]
    for target, answer in sorted(given, key=lambda item: (-item[1].serial, item[1].name)):
        other = found.setdefault(answer.name, answer)
        if other.key != answer.key:
            remarks.append(
                f"{target} says that it is {answer.name} (serial {answer.serial}), and so does another machine "
                f"(serial {other.serial}), whose word is taken; if one is a copy, take it off the network"
            )
    return found


def _by_fleet(answers: Mapping[str, Answer]) -> str:
    fleets: dict[str, list[str]] = {}
    for name, answer in answers.items():
        fleets.setdefault(answer.fleet.fleet, []).append(name)
    return ", ".join(f"{fleet} ({', '.join(sorted(names)[:5])})" for fleet, names in sorted(fleets.items()))


def _other_settings(newest: Answer, answers: Mapping[str, Answer]) -> Iterator[str]:
    own = newest.fleet.model_copy(update={"hosts": {}})
    others = [n for n, answer in answers.items() if answer.fleet.model_copy(update={"hosts": {}}) != own]
    if others:
        yield (
            f"{_names(others)} remember other settings of the fleet than {newest.name} (serial {newest.serial}), "
            "whose are taken"
        )


# --- networks -------------------------------------------------------------------------------------


def _networks(answers: Mapping[str, Answer], remarks: list[str]) -> dict[str, Remembered]:
    """Each private network as the newest of its hosts remembers it; of two that exclude each other, the newer."""
    found: dict[str, Remembered] = {}
    taken: dict[tuple[str, str | int], str] = {}
    for name, answer in answers.items():  # the newest serial first
        for network, known in sorted(answer.networks.items()):
            if network in found:
                if _differ(known, found[network]):
                    remarks.append(
                        f"{name} (serial {answer.serial}) remembers private network {network} in another way than "
                        "the hosts with a newer serial, whose word is taken"
                    )
                continue
            clash = next((taken[key] for key in _claims(known) if key in taken), None)
            if clash is not None:
                remarks.append(
                    f"private network {network} of project {known.lock.project}, which {name} (serial "
                    f"{answer.serial}) remembers, is left out: {clash}, which is newer, has its project, its VNI or "
                    "an application of it"
                )
                continue
            found[network] = known
            taken |= dict.fromkeys(_claims(known), network)
            remarks += _gone_elsewhere(network, known, name, answers)
    return dict(sorted(found.items()))


def _differ(one: Remembered, other: Remembered) -> bool:
    return (one.project, one.lock, one.places, one.out) != (other.project, other.lock, other.places, other.out)


def _claims(known: Remembered) -> Iterator[tuple[str, str | int]]:
    """What no other network may have."""
    yield "project", known.project.project
    yield "vni", known.lock.vni
    for application in known.project.applications:
        yield "application", application


def _gone_elsewhere(network: str, known: Remembered, name: str, answers: Mapping[str, Answer]) -> Iterator[str]:
    """A network that some of its hosts no longer remember."""
    without = [host for host in known.places if host in answers and network not in answers[host].networks]
    if without:
        yield (
            f"private network {network} of project {known.lock.project} is remembered by {name} (serial "
            f"{answers[name].serial}), and no longer by {_names(without)}: it is kept; if it was removed, delete "
            f"projects/{known.lock.project}.yaml"
        )


# --- hosts ----------------------------------------------------------------------------------------


def _hosts(
    fleet: Fleet,
    answers: Mapping[str, Answer],
    networks: Mapping[str, Remembered],
    asked: Mapping[Target, Answer | Unusable],
) -> tuple[dict[str, Host], dict[str, str]]:
    """Every host: as it says itself, or else as far as the others know it."""
    hosts = {name: answer.fleet.hosts[name] for name, answer in answers.items()}
    places = _places(networks)
    silent = [target for target, answer in asked.items() if isinstance(answer, Unusable)]
    for name in sorted(set(places) - set(hosts)):
        address, port = parse_endpoint(places[name][1])
        target = _asked_at(name, address, silent)
        ssh = Ssh(user=target.user or "root", port=target.port or 22) if target else Ssh()
        endpoint = None if port == fleet.wireguard.port else places[name][1]
        hosts[name] = Host(address=address, endpoint=endpoint, ssh=ssh)
    guessed = sorted(set(hosts) - set(answers))
    for name in sorted(set().union(*(known.out for known in networks.values())) & set(hosts)):
        # Also of one that answers: it has not been told.
        hosts[name] = hosts[name].model_copy(update={"state": "out"})
    zone = UNKNOWN_ZONE if any(map(_over_zones, networks.values())) else None
    for name in guessed:
        hosts[name] = hosts[name].model_copy(update={"mtu": _mtu_of(name, networks.values()), "zone": zone})
    return hosts, {name: _not_known(hosts[name]) for name in guessed}


def _asked_at(name: str, address: str, silent: Iterable[Target]) -> Target | None:
    """The target that was this host: its address, or its name in the SSH configuration."""
    return next((target for target in silent if target.address in (name, address)), None)


def _places(networks: Mapping[str, Remembered]) -> dict[str, tuple[int, str]]:
    return {name: place for known in networks.values() for name, place in known.places.items()}


def _over_zones(known: Remembered) -> bool:
    return any(
        isinstance(placed, Spread) and placed.spread == "zone"
        for application in known.project.applications.values()
        for placed in application.formation.values()
    )


def _mtu_of(name: str, networks: Iterable[Remembered]) -> int:
    """The smallest underlay that a host may have, in bytes, so that each of its networks has the MTU that it has."""
    paths = [known.mtu + VXLAN_OVERHEAD + _overhead(known) for known in networks if name in known.places]
    return max(paths, default=USUAL_MTU)


def _overhead(known: Remembered) -> int:
    return OVERHEAD_V6 if any(endpoint.startswith("[") for _, endpoint in known.places.values()) else OVERHEAD_V4


def _not_known(host: Host) -> str:
    zone = f"its zone (`{UNKNOWN_ZONE}` stands for it)" if host.zone else "its zone"
    login = "" if host.ssh != Ssh() else ", its SSH login"
    return f"{zone}, its MTU ({host.mtu} fits its networks){login}; its address is that of its WireGuard"


def _silent(
    asked: Mapping[Target, Answer | Unusable], hosts: Mapping[str, Host], guessed: Mapping[str, str]
) -> Iterator[str]:
    """Hosts that said nothing, or were not asked."""
    silent = {target: why for target, why in asked.items() if isinstance(why, Unusable)}
    for name, unknown in guessed.items():
        target = _asked_at(name, hosts[name].address, silent)
        why = f"({target}) {silent[target]}" if target else "was not asked"
        yield f"{name} {why}: what others know of it is taken; not known: {unknown}"
    known = {_asked_at(name, hosts[name].address, silent) for name in guessed}
    for target, reason in silent.items():
        if target not in known:
            yield f"{target} {reason}; no host that answered knows it: it is not in the declaration"


# --- the lock file --------------------------------------------------------------------------------


def _lock(fleet: Fleet, answers: Mapping[str, Answer], networks: Mapping[str, Remembered]) -> Lock:
    places = _places(networks)
    keys = {mesh: key for answer in [*answers.values()][::-1] for mesh, key in answer.peers.items()}
    hosts: dict[str, HostLock] = {}
    for name in fleet.hosts:
        own = answers.get(name)
        if own is not None:
            hosts[name] = HostLock(own.mesh, own.key)
        else:
            mesh = places[name][0]
            hosts[name] = HostLock(mesh, keys.get(mesh))
    applications = {
        application: known.project.project for known in networks.values() for application in known.project.applications
    }
    return Lock(
        fleet=fleet.fleet,
        # The next one: what no host remembers is missing here, and two lock files of one serial are two copies.
        serial=1 + max(answer.serial for answer in answers.values()),
        hosts=hosts,
        networks={name: known.lock for name, known in networks.items()},
        applications=dict(sorted(applications.items())),
        # Of what hosts were changed by, also where that is two copies of one serial: this file comes from all of them.
        history=tuple(sorted({a.applied for a in answers.values() if a.applied.checksum}))[-VERSIONS_KEPT:],
    )


# --- what really runs -----------------------------------------------------------------------------


def _kernel(answers: Mapping[str, Answer], lock: Lock, out: Set[str]) -> Iterator[str]:
    """Where records and kernels disagree."""
    for name, answer in sorted(answers.items()):
        wanted = {
            slot: f"{format_address(place.address)}/{network.cidr.length}"
            for network in lock.networks.values()
            for slot, place in network.slots.items()
            if place.host == name
        }
        for slot in sorted({*wanted, *answer.running}):
            recorded, found = wanted.get(slot), answer.running.get(slot)
            if found is None:
                yield f"{slot} is recorded on {name}, and does not run there"
            elif recorded is None:
                yield f"{slot} runs on {name}, and is not recorded there"
            elif found != recorded:
                yield f"{slot} is recorded on {name} with {recorded}, and has {found or 'no address'} there"
        yield from _forwarding(name, answer, lock, out)


def _forwarding(name: str, answer: Answer, lock: Lock, out: Set[str]) -> Iterator[str]:
    for network in lock.networks.values():
        if name not in {place.host for place in network.slots.values()} - out:
            continue
        for slot, place in network.slots.items():
            if place.host in out:
                continue
            found = answer.forwarding.get((network.vni, place.address))
            if place.host != name and found != lock.hosts[place.host].mesh:
                to = f"to {format_address(found)}" if found is not None else "nowhere"
                yield f"{slot} is recorded on {place.host}, and {name} sends its frames {to}"


def _few(sentences: list[str]) -> list[str]:
    more = len(sentences) - LISTED_AT_MOST
    return [*sentences[:LISTED_AT_MOST], f"and {more} more of this kind"] if more > 0 else sentences


def _names(hosts: list[str]) -> str:
    more = f" and {plural(len(hosts) - 5, 'other')}" if len(hosts) > 5 else ""
    return ", ".join(sorted(hosts)[:5]) + more
