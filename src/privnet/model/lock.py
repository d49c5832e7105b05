"""The lock file's content: numbers once given, so that no change ever renumbers anything else.

Pure data. Reading and writing is ``privnet.store``; giving numbers is ``privnet.plan.allocate``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from privnet.model.identifiers import Prefix


@dataclass(frozen=True, slots=True)
class HostLock:
    """What is remembered of a host.

    :param mesh: its address inside the mesh, as a number
    :param wireguard: its public key (base64), once the host has made one
    :param ssh: its SSH host key (``ssh-ed25519 AAAA…``), once a run has seen it
    :param forgotten: the next answer decides which WireGuard key it has; until then its peers keep this one
    """

    mesh: int
    wireguard: str | None = None
    ssh: str | None = None
    forgotten: bool = False

    def forget(self) -> HostLock:
        """The same host, of which the next run takes whatever keys it shows."""
        return replace(self, ssh=None, forgotten=self.wireguard is not None)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a container slot (``<index>.<type>.<ap-id>``) lives: its address (a number) and its host."""

    address: int
    host: str


@dataclass(frozen=True, slots=True)
class NetworkLock:
    """What is remembered of a private network; ``slots`` is keyed by ``<index>.<type>.<ap-id>``."""

    project: str
    vni: int
    cidr: Prefix
    slots: Mapping[str, Slot] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Rest:
    """A number in quarantine: not given again before ``until`` (seconds since the epoch).

    :param kind: ``address`` (of a container in ``network``), ``mesh`` or ``vni``
    :param network: the private network's id for ``address``, else empty
    """

    kind: str
    network: str
    number: int
    until: int


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One version of the lock file: its serial, and the checksum that tells it from a copy's of that serial."""

    serial: int
    checksum: str


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How a host was declared, as far as others feel it; named as in ``fleet.yaml``."""

    address: str
    endpoint: str | None
    mtu: int
    state: str = "in"


@dataclass(frozen=True, slots=True)
class SettingsLock:
    """The settings of a fleet that traffic feels, as they were applied last. Decides nothing: a plan compares them."""

    domain: str
    wireguard_mesh: Prefix
    wireguard_port: int
    vxlan_port: int
    dns_ttl: int
    dns_upstream: tuple[str, ...]
    dns_internal: tuple[str, ...] = ()
    hosts: Mapping[str, HostSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lock:
    """The committed record of numbers once given.

    :param serial: grows by one with each write; a save is refused when another write came between
    :param settings: those of the last run; None when an older privnet wrote the file
    :param applications: application id to project, for every application a run has seen
    :param history: the versions before this one, the oldest first, as far as they are remembered
    :param checksum: of the file that it was read from, whatever has been changed in it since; empty without one
    """

    fleet: str
    serial: int = 0
    settings: SettingsLock | None = None
    hosts: Mapping[str, HostLock] = field(default_factory=dict)
    networks: Mapping[str, NetworkLock] = field(default_factory=dict)
    applications: Mapping[str, str] = field(default_factory=dict)
    quarantine: tuple[Rest, ...] = ()
    history: tuple[Version, ...] = ()
    checksum: str = field(default="", compare=False, repr=False)

    @property
    def projects_with_applications(self) -> frozenset[str]:
        """Projects that had an application when the lock file was last written (rule M7)."""
        return frozenset(self.applications.values())

    def same_numbers(self, other: Lock) -> bool:
        """Whether both say the same, whatever their serials and what was before them."""
        return replace(self, serial=0, history=()) == replace(other, serial=0, history=())

    def is_still(self, before: Lock) -> bool:
        """Whether the file that this was read from is the one that ``before`` was read from."""
        return (self.serial, self.checksum) == (before.serial, before.checksum)

    @property
    def out(self) -> frozenset[str]:
        """Hosts that are out of service."""
        hosts = self.settings.hosts if self.settings else {}
        return frozenset(name for name, host in hosts.items() if host.state == "out")

    def without(self, hosts: Collection[str]) -> Lock:
        """The same without some hosts, and without the containers on them."""
        if not hosts:
            return self
        networks = {
            name: replace(network, slots={slot: at for slot, at in network.slots.items() if at.host not in hosts})
            for name, network in self.networks.items()
        }
        return replace(self, networks=networks, hosts={n: host for n, host in self.hosts.items() if n not in hosts})

    def renamed(self, names: Mapping[str, str]) -> Lock:
        """The same under other names of hosts; ``names`` leads from old to new."""
        if not names:
            return self
        settings = self.settings and replace(self.settings, hosts=_renamed(self.settings.hosts, names))
        networks = {
            network: replace(
                known,
                slots={slot: replace(at, host=names.get(at.host, at.host)) for slot, at in known.slots.items()},
            )
            for network, known in self.networks.items()
        }
        return replace(self, settings=settings, hosts=_renamed(self.hosts, names), networks=networks)

    def settled_by(self, other: Lock) -> Lock:
        """The same, with the other's settings where this one knows none."""
        return self if self.settings else replace(self, settings=other.settings)


Of = TypeVar("Of")


def _renamed(hosts: Mapping[str, Of], names: Mapping[str, str]) -> dict[str, Of]:
    return {names.get(host, host): known for host, known in hosts.items()}


def forget_host_keys(lock: Lock) -> Lock:
    """The same numbers for machines with other keys, and addresses: what a rehearsal starts from."""
    return replace(lock, settings=None, hosts={name: HostLock(mesh=host.mesh) for name, host in lock.hosts.items()})
