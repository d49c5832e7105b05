"""The lock file's content: numbers once given, so that no change ever renumbers anything else.

Pure data. Reading and writing is ``privnet.store``; giving numbers is ``privnet.plan.allocate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from privnet.model.identifiers import Prefix


@dataclass(frozen=True, slots=True)
class HostLock:
    """What is remembered of a host.

    :param mesh: its address inside the mesh, as a number
    :param wireguard: its public key (base64), once the host has made one
    :param ssh: its SSH host key (``ssh-ed25519 AAAA…``), once a run has seen it
    """

    mesh: int
    wireguard: str | None = None
    ssh: str | None = None


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
class Lock:
    """The committed record of numbers once given.

    :param serial: grows by one with each write; a save is refused when another write came between
    :param applications: application id to project, for every application a run has seen
    :param history: the versions before this one, the oldest first, as far as they are remembered
    """

    fleet: str
    serial: int = 0
    hosts: Mapping[str, HostLock] = field(default_factory=dict)
    networks: Mapping[str, NetworkLock] = field(default_factory=dict)
    applications: Mapping[str, str] = field(default_factory=dict)
    quarantine: tuple[Rest, ...] = ()
    history: tuple[Version, ...] = ()

    @property
    def projects_with_applications(self) -> frozenset[str]:
        """Projects that had an application when the lock file was last written (rule M7)."""
        return frozenset(self.applications.values())

    def same_numbers(self, other: Lock) -> bool:
        """Whether both say the same, whatever their serials and what was before them."""
        return replace(self, serial=0, history=()) == replace(other, serial=0, history=())


def forget_host_keys(lock: Lock) -> Lock:
    """The same numbers for machines with other keys: what a rehearsal starts from."""
    return replace(lock, hosts={name: HostLock(mesh=host.mesh) for name, host in lock.hosts.items()})
