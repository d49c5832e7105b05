"""The guard: every rule, exactly the planned elements, and the barrier behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from privnet.audit.actual import Actual
from privnet.audit.finding import NOTHING, Deviation, Finding, about, compare_sets
from privnet.audit.rules import SETS, Spellings, Table, bridge_chains, inet_chains
from privnet.diagnostics import plural
from privnet.model.identifiers import parse_address
from privnet.plan.guard import Guard
from privnet.plan.host import HostPlan
from privnet.plan.mesh import Mesh
from privnet.render import guard_structure

UNIT = "privnet-guard.service"
_OWN_TABLES = {"table inet privnet", "table bridge privnet"}


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Both tables with all rules in order, all elements and no other, and the unreachable route for the mesh."""
    guard = plan.guard
    chains = {"inet": inet_chains(guard.vxlan_port, guard.mesh, guard.port), "bridge": bridge_chains()}
    elements = {"inet": {"speakers": speakers(guard), **peers(plan.mesh)}, "bridge": {"ports": bindings(guard)}}
    deviations = [*_barrier(plan, actual), *_owner(actual), *_saved(actual)]
    for family in ("inet", "bridge"):
        table = actual.guard.get(family)
        if table is None:
            missing = Deviation(f"table {family} privnet", "loaded", NOTHING)
            deviations += about(f"table {family}", [missing], f"unit {UNIT}")
            continue
        if table.flags != "owner":
            unowned = Deviation(f"owner of table {family} privnet", UNIT, table.flags or NOTHING)
            deviations += about(f"owner {family}", [unowned], f"unit {UNIT}")
        deviations += _rules(family, chains[family], table)
        deviations += _sets(family, elements[family], table)
    for name in sorted(actual.tables - _OWN_TABLES):
        if "privnet" in name:
            deviations.append(Deviation(name, NOTHING, "a stray table"))
    if not deviations:
        deviations += _notes(guard, actual.notes)
    rules = sum(len(lines) for family in chains.values() for lines in family.values())
    members = sum(len(found) for family in elements.values() for found in family.values())
    return Finding(f"{plural(rules, 'rule')}, {plural(members, 'element')}", tuple(deviations))


def speakers(guard: Guard) -> set[str]:
    """Elements of the set ``speakers``."""
    return {speaker(s.vtep, s.vni, s.mac, s.address) for s in guard.speakers}


def speaker(vtep: str, vni: int, mac: str, address: str) -> str:
    """One of them: mesh address, VNI with eight zeros, MAC without 02:70, inner address."""
    return f"{vtep} . {vni << 8} . {int(mac.replace(':', '')[4:], 16)} . {parse_address(address)}"


def peers(mesh: Mesh) -> dict[str, set[str]]:
    """Elements of the sets ``peers`` and ``peers6``: where packets for WireGuard may come from."""
    hosts = {peer.endpoint.rpartition(":")[0] for peer in mesh.peers}
    v6 = {host for host in hosts if host.startswith("[")}
    return {"peers": hosts - v6, "peers6": {host.strip("[]") for host in v6}}


def bindings(guard: Guard) -> set[str]:
    """Elements of the set ``ports``."""
    return {binding(b.port, b.mac, b.address) for b in guard.bindings}


def binding(port: str, mac: str, address: str) -> str:
    """One of them."""
    return f"{port} . {mac} . {address}"


def _rules(family: str, expected: Mapping[str, tuple[Spellings, ...]], table: Table) -> Iterator[Deviation]:
    for name in sorted(expected.keys() | table.chains.keys()):
        subject = f"rules of {family} privnet {name}"
        lines, wanted = table.chains.get(name), expected.get(name)
        if lines is None or wanted is None:
            yield _stray_or_missing(f"chain {family} privnet {name}", lines is not None)
            continue
        missing = [rule for rule in wanted if not any(spelling in lines for spelling in rule)]
        known = {spelling for rule in wanted for spelling in rule}
        stray = [line for line in lines if line not in known]
        way, barrier = f"way through {family} {name}", f"barrier of {family} {name}"
        for rule in missing:
            yield from about(way if _lets_pass(rule[0]) else barrier, [Deviation(subject, rule[0], NOTHING)])
        for line in stray:
            yield from about(barrier if _lets_pass(line) else way, [Deviation(subject, NOTHING, line)])
        if not missing and not stray and len(lines) != len(wanted):
            yield from about(way, [Deviation(subject, plural(len(wanted), "line"), plural(len(lines), "line"))])
        elif not missing and not stray and any(line not in rule for line, rule in zip(lines, wanted, strict=True)):
            yield from about(way, [Deviation(subject, "their order", "another order")])


def _lets_pass(rule: str) -> bool:
    """Without such a rule less comes through, without any other one more."""
    return rule.endswith(" accept")


def _sets(family: str, expected: Mapping[str, Iterable[str]], table: Table) -> Iterator[Deviation]:
    for name in sorted(expected.keys() | table.sets.keys()):
        if name not in expected or name not in table.sets:
            yield _stray_or_missing(f"set {family} privnet {name}", name in table.sets)
            continue
        properties, members = table.sets[name]
        if properties != SETS[family][name]:
            yield Deviation(f"set {family} privnet {name}", "; ".join(SETS[family][name]), "; ".join(properties))
        subject = f"element of {family} privnet {name}"
        for deviation in compare_sets(expected[name], (" . ".join(member) for member in members), subject):
            # One too many keeps nobody out.
            yield from about(f"{subject}: {deviation.expected}", [deviation])


def _stray_or_missing(subject: str, is_there: bool) -> Deviation:
    return Deviation(subject, NOTHING, "loaded") if is_there else Deviation(subject, "loaded", NOTHING)


def _owner(actual: Actual) -> Iterator[Deviation]:
    """The process without which nothing of the guard can be changed."""
    if not actual.owner.startswith(("D", "R", "S")):
        deaf = Deviation("the guard's owner", "hears what it is told", actual.owner or "cannot be told anything")
        yield from about("", [deaf], f"unit {UNIT}")


def _notes(guard: Guard, notes: Mapping[str, str]) -> Iterator[Deviation]:
    """By these a run judges the rules; where they are lost it loads all of them again."""
    structure = guard_structure(guard.vxlan_port, guard.mesh, guard.port)
    if (
        notes.get("guard.structure") != structure
        or notes.get("guard.sum", "") != notes.get("listing")
        or not notes["listing"]
    ):
        yield Deviation("what the guard has noted", "the rules that are loaded", "others, or nothing")


def _saved(actual: Actual) -> Iterator[Deviation]:
    """Files that cannot be loaded beside the guard, so the host would be without its own firewall after that."""
    for path in actual.saved:
        yield Deviation(f"saved rules in {path}", "no table of the guard, or nft refuses them all", "has one")


def _barrier(plan: HostPlan, actual: Actual) -> Iterator[Deviation]:
    barrier = barrier_of(plan.mesh)
    if barrier not in actual.routes:
        yield Deviation("barrier behind the mesh", barrier, NOTHING)


def barrier_of(mesh: Mesh) -> str:
    """The route behind all others for the mesh's prefix."""
    return f"unreachable {mesh.prefix} metric 4294967295"
