"""Give numbers: mesh addresses, VNIs, container addresses, and hosts for `{count, spread}` formations.

Numbers are sticky. What the lock file holds is kept, what is new gets the lowest free number in the order of
identifiers, what is gone rests in quarantine. The result is a function of the declaration, the lock file and the
clock (for the quarantine alone), never of which hosts answered.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from privnet.diagnostics import Problem
from privnet.load import Declaration
from privnet.model.application import Application, Spread
from privnet.model.fleet import Fleet
from privnet.model.identifiers import Prefix
from privnet.model.lock import HostLock, Lock, NetworkLock, Rest, Slot
from privnet.model.project import Project
from privnet.plan.settings import settings_of

RESOLVER_OFFSET = 1
"""The first usable address of every private network is its resolver's, on every host."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A lock file's new content, and why it may not be used."""

    lock: Lock
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Quarantine:
    """Numbers that may not be given now, and those that this allocation sends to rest."""

    resting: set[Rest]
    now: int
    until: int
    by_pool: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for rest in self.resting:
            self.by_pool.setdefault((rest.kind, rest.network), set()).add(rest.number)

    def numbers(self, kind: str, network: str = "") -> set[int]:
        return self.by_pool.get((kind, network), set())

    def add(self, kind: str, number: int, network: str = "") -> None:
        if self.until <= self.now:
            return
        self.resting.add(Rest(kind, network, number, self.until))
        self.by_pool.setdefault((kind, network), set()).add(number)


def slot_name(application: str, process_type: str, index: int) -> str:
    """``<index>.<type>.<ap-id>``, index from 1: the name of a container slot and of its network namespace."""
    return f"{index}.{process_type}.{application}"


def allocate(declaration: Declaration, lock: Lock, now: int) -> Allocation:
    """Extend ``lock`` to cover ``declaration`` and forget what it no longer declares.

    :param now: seconds since the epoch; only decides which quarantines are over
    """
    fleet = declaration.fleet
    quarantine = _Quarantine(
        {rest for rest in lock.quarantine if rest.until > now}, now, now + fleet.policy.address_quarantine
    )
    problems: list[Problem] = []
    hosts = _allocate_hosts(declaration, lock, quarantine, problems)
    networks = _allocate_networks(declaration, lock, quarantine, problems)
    applications = {
        application: project.project for project in declaration.projects for application in project.applications
    }
    extended = replace(
        lock,
        fleet=fleet.fleet,
        settings=settings_of(fleet),
        hosts=hosts,
        networks=networks,
        applications=dict(sorted(applications.items())),
    )
    # The end of a quarantine is no change by itself: a run that changes nothing leaves the file as it is.
    if not extended.same_numbers(lock.settled_by(extended)):
        extended = replace(extended, quarantine=tuple(sorted(quarantine.resting)))
    return Allocation(extended, tuple(problems))


def _allocate_hosts(
    declaration: Declaration, lock: Lock, quarantine: _Quarantine, problems: list[Problem]
) -> dict[str, HostLock]:
    mesh = declaration.fleet.wireguard.mesh
    kept = {
        name: lock.hosts[name]
        for name in declaration.fleet.hosts
        if name in lock.hosts and mesh.first < lock.hosts[name].mesh < mesh.last
    }
    for name, host in lock.hosts.items():
        if name not in kept:
            quarantine.add("mesh", host.mesh)
    free = _free_numbers(
        range(mesh.first + 1, mesh.last), {host.mesh for host in kept.values()}, quarantine.numbers("mesh")
    )
    hosts: dict[str, HostLock] = {}
    for name in sorted(declaration.fleet.hosts):
        if name in kept:
            hosts[name] = kept[name]
            continue
        number = next(free, None)
        if number is None:
            problems.append(_exhausted(declaration, f"mesh {mesh}", f"host {name}", ("wireguard", "mesh")))
            break
        # A host that changes its mesh prefix keeps its keys: they are its own, not the prefix's.
        known = lock.hosts.get(name)
        hosts[name] = replace(known, mesh=number) if known else HostLock(mesh=number)
    return hosts


def _allocate_networks(
    declaration: Declaration, lock: Lock, quarantine: _Quarantine, problems: list[Problem]
) -> dict[str, NetworkLock]:
    projects = {
        project.private_network.id: project for project in declaration.projects if project.private_network is not None
    }
    vnis = _allocate_vnis(declaration, projects, lock, quarantine, problems)
    placement = _Placement(declaration.fleet, projects.values(), lock)
    networks: dict[str, NetworkLock] = {}
    for network_id in sorted(vnis):
        project = projects[network_id]
        known = lock.networks.get(network_id)
        cidr = network_cidr(declaration.fleet, project)
        hosts = dict(_placed_slots(project, placement))
        slots = _allocate_addresses(network_id, cidr, hosts, known, quarantine)
        if slots is None:
            problems.append(_full_network(declaration, project, cidr, len(hosts)))
            continue
        networks[network_id] = NetworkLock(project.project, vnis[network_id], cidr, slots)
    return networks


def network_cidr(fleet: Fleet, project: Project) -> Prefix:
    """The prefix of a project's private network: its own, or the fleet's default."""
    network = project.private_network
    return fleet.network.cidr if network is None or network.cidr is None else network.cidr


def _allocate_vnis(
    declaration: Declaration,
    projects: Mapping[str, Project],
    lock: Lock,
    quarantine: _Quarantine,
    problems: list[Problem],
) -> dict[str, int]:
    span = declaration.fleet.vxlan.vni
    vnis: dict[str, int] = {}
    for network_id, project in projects.items():
        known = lock.networks.get(network_id)
        declared = project.private_network.vni if project.private_network else None
        if declared is not None:
            vnis[network_id] = declared
        elif known is not None and declaration.keeps_vni(known.vni):
            vnis[network_id] = known.vni
    problems.extend(_vni_conflicts(declaration, projects, vnis))
    for network_id, known in lock.networks.items():
        if vnis.get(network_id) != known.vni:
            quarantine.add("vni", known.vni)
    problems.extend(_vnis_at_rest(declaration, projects, lock, quarantine))
    free = _free_numbers(range(span.first, span.last + 1), set(vnis.values()), quarantine.numbers("vni"))
    for network_id in sorted(set(projects) - set(vnis)):
        number = next(free, None)
        if number is None:
            what = f"VNI range {span.first}-{span.last}"
            problems.append(_exhausted(declaration, what, f"private network {network_id}", ("vxlan", "vni")))
            break
        vnis[network_id] = number
    return vnis


def _vni_conflicts(
    declaration: Declaration, projects: Mapping[str, Project], vnis: Mapping[str, int]
) -> Iterator[Problem]:
    """A declared VNI that the lock file gave to another network (two declared ones are check's business)."""
    owner: dict[int, str] = {}
    for network_id, vni in sorted(vnis.items()):
        other = owner.setdefault(vni, network_id)
        if other == network_id:
            continue
        declared, sticky = (network_id, other) if _declares_vni(projects[network_id]) else (other, network_id)
        if _declares_vni(projects[sticky]):
            continue
        project = projects[declared]
        yield Problem(
            "PN504",
            f"VNI {vni} of private network {declared} belongs to private network {sticky} already",
            declaration.project_place(project.project, "private_network", "vni"),
            label=f"given to {sticky} ({projects[sticky].project}) by the lock file",
            help="delete the `vni:` line to let privnet choose, or pick one that `privnet names --vni` does not list",
        )


def _vnis_at_rest(
    declaration: Declaration, projects: Mapping[str, Project], lock: Lock, quarantine: _Quarantine
) -> Iterator[Problem]:
    """A declared VNI whose last network left it too recently: a host that was away may still send frames with it."""
    until = {rest.number: rest.until for rest in quarantine.resting if rest.kind == "vni"}
    for network_id, project in projects.items():
        known = lock.networks.get(network_id)
        vni = project.private_network.vni if project.private_network else None
        if vni is None or vni not in until or (known is not None and known.vni == vni):
            continue
        end = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(until[vni]))
        yield Problem(
            "PN504",
            f"VNI {vni} of private network {network_id} rests until {end}",
            declaration.project_place(project.project, "private_network", "vni"),
            label="it belonged to another network before",
            help="delete the `vni:` line to let privnet choose, pick another number, or wait",
        )


def _declares_vni(project: Project) -> bool:
    return project.private_network is not None and project.private_network.vni is not None


def _allocate_addresses(
    network_id: str,
    cidr: Prefix,
    hosts: Mapping[str, str],
    known: NetworkLock | None,
    quarantine: _Quarantine,
) -> dict[str, Slot] | None:
    """Addresses for the container slots of one network, or None when the prefix has too few."""
    first, last = cidr.first + RESOLVER_OFFSET + 1, cidr.last - 1
    old = known.slots if known else {}
    kept = {name: old[name].address for name in hosts if name in old and first <= old[name].address <= last}
    for name, slot in old.items():
        if name not in kept:
            quarantine.add("address", slot.address, network_id)
    free = _free_numbers(range(first, last + 1), set(kept.values()), quarantine.numbers("address", network_id))
    slots: dict[str, Slot] = {}
    for name, host in hosts.items():
        address = kept.get(name) or next(free, None)
        if address is None:
            return None
        slots[name] = Slot(address, host)
    return slots


def _free_numbers(pool: range, used: set[int], resting: set[int]) -> Iterator[int]:
    return (number for number in pool if number not in used and number not in resting)


def _placed_slots(project: Project, placement: _Placement) -> Iterator[tuple[str, str]]:
    """(slot name, host) of every container of a project, in the order of application, type and index."""
    for application_id, application in sorted(project.applications.items()):
        for process_type, formation in sorted(application.formation.items()):
            names = _slot_names(application_id, process_type, formation)
            if isinstance(formation, Spread):
                yield from zip(names, placement.spread(formation, names), strict=True)
            else:
                yield from zip(names, formation, strict=True)


def _slot_names(application: str, process_type: str, formation: tuple[str, ...] | Spread) -> list[str]:
    count = formation.count if isinstance(formation, Spread) else len(formation)
    return [slot_name(application, process_type, index) for index in range(1, count + 1)]


class _Placement:
    """Chooses hosts for `{count, spread}`: sticky, and new containers where the fewest are.

    A container stays where it is as long as its host exists; so a host that comes moves nothing, and a host that goes
    moves only its own containers. That holds for an application that changes its project, too. A host that is out keeps
    those that it has, and gets no more.
    """

    def __init__(self, fleet: Fleet, projects: Iterable[Project], lock: Lock) -> None:
        self.zone_of = {name: host.zone or "" for name, host in fleet.hosts.items()}
        self.load: Counter[str] = Counter()
        self.known = {
            name: slot.host
            for network in lock.networks.values()
            for name, slot in network.slots.items()
            if slot.host in self.zone_of
        }
        for project in projects:
            for application_id, application in project.applications.items():
                self.load.update(self._settled(application_id, application))
        self.heaps: dict[str, list[tuple[int, str]]] = {}
        for name, zone in self.zone_of.items():
            if fleet.hosts[name].state == "in":
                self.heaps.setdefault(zone, []).append((self.load[name], name))
        for heap in self.heaps.values():
            heapq.heapify(heap)

    def spread(self, formation: Spread, names: list[str]) -> list[str]:
        """A host for each container slot of a formation."""
        hosts = [self.known.get(name) for name in names]
        used = Counter(host for host in hosts if host is not None)
        zones = Counter(self.zone_of[host] for host in used.elements())
        placed: list[str] = []
        for host in hosts:
            if host is None:
                host = self._choose(used, zones if formation.spread == "zone" else None)
                used[host] += 1
                zones[self.zone_of[host]] += 1
                self.load[host] += 1
                heapq.heappush(self.heaps[self.zone_of[host]], (self.load[host], host))
            placed.append(host)
        return placed

    def _settled(self, application_id: str, application: Application) -> Iterator[str]:
        """Hosts of the containers whose place is not a question: listed in the YAML, or placed before."""
        for process_type, formation in application.formation.items():
            if isinstance(formation, Spread):
                names = _slot_names(application_id, process_type, formation)
                yield from (self.known[name] for name in names if name in self.known)
            else:
                yield from (host for host in formation if host in self.zone_of)

    def _choose(self, used: Counter[str], zones: Counter[str] | None) -> str:
        candidates = [self._lightest(zone, used) for zone in self.heaps]
        if zones is None:
            return min(candidates)[2]
        return min(candidates, key=lambda best: (zones[self.zone_of[best[2]]], best))[2]

    def _lightest(self, zone: str, used: Counter[str]) -> tuple[int, int, str]:
        """(containers of this formation, containers in all, name) of the best host of a zone."""
        heap, passed, best = self.heaps[zone], [], None
        while heap and (best is None or best[0] > 0):
            load, host = heap[0]
            if load != self.load[host]:
                heapq.heappop(heap)  # an entry from before the host got one more
                continue
            rank = (used[host], load, host)
            best = rank if best is None else min(best, rank)
            if not used[host]:
                break
            passed.append(heapq.heappop(heap))
        for entry in passed:
            heapq.heappush(heap, entry)
        if best is None:
            raise LookupError(f"zone {zone!r} has no hosts")
        return best


def _exhausted(declaration: Declaration, what: str, who: str, keys: tuple[str, ...]) -> Problem:
    return Problem(
        "PN505",
        f"{what} has no free number for {who}",
        declaration.place(*keys),
        help=f"widen `{'.'.join(keys)}` in fleet.yaml: numbers given before stay as they are; "
        "or wait: those of what was removed rest for `policy.address_quarantine`",
    )


def _full_network(declaration: Declaration, project: Project, cidr: Prefix, containers: int) -> Problem:
    network = project.private_network
    name = network.id if network else project.project
    usable = cidr.size - 3  # without network, resolver and broadcast address
    return Problem(
        "PN506",
        f"private network {name} has no free address for one of its {containers} containers",
        declaration.project_place(project.project, "private_network"),
        label=f"{cidr} has {usable} addresses for containers; those of removed containers rest for a while",
        help="give the network a larger `cidr:`, or wait until `policy.address_quarantine` is over",
    )
