"""DNS names of a private network: which addresses each one has, and which exist without any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from privnet.model.identifiers import Prefix, format_address
from privnet.plan.containers import Container

DEFAULT_TYPE = "web"
"""The process type that an application's bare name stands for."""


LOOPBACK = Prefix.parse("127.0.0.0/8")
SHARED = Prefix.parse("100.64.0.0/10")
"""Private in all but name, and unknown to dnsmasq as such: RFC 6598."""


@dataclass(frozen=True, slots=True)
class Outside:
    """How resolvers ask for names outside the private domain.

    :param upstream: the servers that are asked, as declared; without any, such names are refused
    :param internal: domains whose names may have private addresses
    """

    upstream: tuple[str, ...] = ()
    internal: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """Each server with its port."""
        return tuple(server if "#" in server else f"{server}#53" for server in self.upstream)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The servers' addresses alone, each once."""
        return tuple(sorted({server.partition("#")[0] for server in self.upstream}))

    @property
    def places(self) -> tuple[str, ...]:
        """Where each server is reached in a resolver's namespace: an address of its loopback, port 53."""
        return tuple(format_address(LOOPBACK.first + number) for number, _ in enumerate(self.upstream, 1))

    def barred(self, own: Prefix) -> tuple[str, ...]:
        """Prefixes to which no answer from outside may lead, beside those of RFC 1918: IPv4, and the same in IPv6.

        :param own: the network's: an answer would lead inside, whatever the prefix is
        """
        prefixes = (own,) if self.internal else (own, SHARED)
        mapped = (f"::ffff:{format_address(prefix.network)}/{96 + prefix.length}" for prefix in prefixes)
        return (*map(str, prefixes), *mapped)


@dataclass(frozen=True, slots=True)
class Record:
    """The names of one container, the most special first: a reverse look-up gives that one."""

    address: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """All names of one private network; the same on each of its hosts.

    :param empty: names that exist without an address and without a name below them: those of an application or a
        process type that is scaled to none. They are answered NODATA, not NXDOMAIN.
    """

    suffix: str
    records: tuple[Record, ...]
    empty: tuple[str, ...]


def plan_names(
    network: str, domain: str, containers: Iterable[Container], declared: Mapping[str, Iterable[str]]
) -> Names:
    """The names of a private network.

    :param declared: process types of each application, also those that have no containers
    """
    suffix = f"{network}.{domain}"
    records = tuple(Record(container.address, tuple(container_names(container, suffix))) for container in containers)
    exists = {(container.application, container.process_type) for container in containers}
    applications = {application for application, _ in exists}
    empty = [
        f"{process_type}.{application}.{suffix}"
        for application, types in declared.items()
        for process_type in types
        if (application, process_type) not in exists
    ]
    empty += [f"{application}.{suffix}" for application, types in declared.items() if application not in applications]
    return Names(suffix, records, tuple(sorted(empty)))


def container_names(container: Container, suffix: str) -> Iterator[str]:
    """The two or three names of one container, without the trailing dot."""
    yield f"{container.slot}.{suffix}"
    yield from _group_names(container.application, container.process_type, suffix)


def _group_names(application: str, process_type: str, suffix: str) -> Iterator[str]:
    yield f"{process_type}.{application}.{suffix}"
    if process_type == DEFAULT_TYPE:
        yield f"{application}.{suffix}"
