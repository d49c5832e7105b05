"""Changes that hosts make together or not at all: who keeps the old value does not reach who has the new one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from privnet.deploy.changes.mesh import INTERFACE
from privnet.deploy.state import HostState
from privnet.diagnostics import plural
from privnet.model.lock import SettingsLock
from privnet.plan.host import Plan
from privnet.plan.mesh import path_mtu
from privnet.plan.overlay import VXLAN_OVERHEAD, Network

LISTED_AT_MOST = 4
Has = Callable[[Plan, str, HostState], bool | None]
"""Whether a host has the plan's value; None where nothing runs that has one."""
Had = Callable[[Plan, SettingsLock], bool]
"""Whether a lock file had the plan's value already."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A setting that some hosts have to have the same.

    :param name: its path in ``fleet.yaml``, or what follows from one
    """

    name: str
    hosts: frozenset[str]
    has: Has = field(repr=False, compare=False)
    had: Had = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Together:
    """Settings that a run is to change on hosts that have to agree.

    :param changing: of each setting the hosts that have another value
    :param settled: settings that the lock file had before: who does not answer has them, unless it is behind
    """

    changing: Mapping[Shared, frozenset[str]]
    settled: frozenset[Shared] = frozenset()

    def hindered(self, unfit: Mapping[str, str], silent: Mapping[str, str], behind: frozenset[str]) -> str | None:
        """Why none of it may be begun.

        :param unfit: hosts that have answered, and may not be changed, with reasons
        :param silent: hosts that have not answered, with reasons
        :param behind: hosts that no run has brought to the lock file
        """
        for shared, hosts in self.changing.items():
            counts = behind if shared in self.settled else shared.hosts
            cannot = {name: why for name, why in unfit.items() if name in hosts}
            cannot |= {name: why for name, why in silent.items() if name in shared.hosts & counts}
            if cannot:
                return _refusal(shared.name, dict(sorted(cannot.items())))
        return None

    def torn(self, failed: set[str]) -> str | None:
        """Why what has begun is taken back everywhere."""
        for shared, hosts in self.changing.items():
            if lost := sorted(failed & hosts):
                why = f"hosts have to change {shared.name} together, or would lose each other"
                return f"nothing is confirmed: {lost[0]} has failed, and {why}"
        return None


def together(plan: Plan, states: Mapping[str, HostState], before: SettingsLock | None) -> Together:
    """What hosts that have answered would change of what they share.

    :param before: of the lock file with which the run began
    """
    changing, settled = dict[Shared, frozenset[str]](), set[Shared]()
    for shared in _shared(plan):
        found = {name: shared.has(plan, name, states[name]) for name in shared.hosts & states.keys()}
        others = {name for name, has in found.items() if has is False}
        if not others or True in found.values():
            # Where one has it the others follow: an earlier run did not come to its end, or somebody has changed them.
            continue
        if before is not None and shared.had(plan, before):
            if 2 * len(others) <= len(shared.hosts):
                # These few were changed by hand.
                continue
            settled.add(shared)
        changing[shared] = frozenset(others)
    return Together(changing, frozenset(settled))


def _refusal(name: str, cannot: Mapping[str, str]) -> str:
    listed = [f"{host} cannot: {why}" for host, why in list(cannot.items())[:LISTED_AT_MOST]]
    if len(cannot) > LISTED_AT_MOST:
        listed.append(f"nor can {plural(len(cannot) - LISTED_AT_MOST, 'other host')}")
    why = f"hosts have to change {name} together, or would lose each other"
    remedy = "Put that right, or let the host be out of service (`state: out`) until it is, and run again"
    return f"nothing is changed: {why}. {'; '.join(listed)}. {remedy}"


def _shared(plan: Plan) -> Iterator[Shared]:
    meeting = frozenset(name for name, host in plan.hosts.items() if host.mesh.peers or host.mesh.pending)
    yield Shared("wireguard.port", meeting, _has_port, lambda p, old: old.wireguard_port == p.fleet.wireguard.port)
    yield Shared("wireguard.mesh", meeting, _has_address, lambda p, old: old.wireguard_mesh == p.fleet.wireguard.mesh)
    yield Shared("vxlan.port", meeting, _has_vxlan_port, lambda p, old: old.vxlan_port == p.fleet.vxlan.port)
    for network in plan.networks.values():
        if len(network.hosts) > 1:
            name = f"the MTU of {network.id} (`mtu` of its hosts)"
            yield Shared(name, frozenset(network.hosts), partial(_has_mtu, network), partial(_had_mtu, network))


def _has_port(plan: Plan, name: str, state: HostState) -> bool | None:
    return state.mesh.port == plan.hosts[name].mesh.port if state.mesh and state.mesh.peers else None


def _has_address(plan: Plan, name: str, state: HostState) -> bool | None:
    present = {address.partition("/")[0] for address in state.addresses.get(INTERFACE, ())}
    return plan.hosts[name].mesh.address in present if present and state.mesh and state.mesh.peers else None


def _has_vxlan_port(plan: Plan, name: str, state: HostState) -> bool | None:
    host = plan.hosts[name]
    links = [state.links.get(overlay.network.vxlan) for overlay in host.overlays]
    ports = {link.data.get("port") for link in links if link is not None}
    return host.guard.vxlan_port in ports if ports else None


def _has_mtu(network: Network, plan: Plan, name: str, state: HostState) -> bool | None:
    link = state.links.get(network.vxlan)
    return link.mtu == network.mtu if link is not None else None


def _had_mtu(network: Network, plan: Plan, old: SettingsLock) -> bool:
    hosts = [old.hosts[name] for name in network.hosts if name in old.hosts]
    return path_mtu(hosts, old.wireguard_port) - VXLAN_OVERHEAD == network.mtu
