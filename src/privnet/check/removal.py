"""The removal guard: what a run would take away, and whether that is more than may go without being told.

Both sides are lock files: the one on disk, which is what hosts were last told to be, and the one that the run would
write. So it needs no host, and a removal that was recorded once is not counted again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from privnet.diagnostics import Problem, plural, quoted, some
from privnet.load import Declaration
from privnet.model.lock import Lock

ALLOW = "PRIVNET_ALLOW_REMOVALS"
"""The environment variable that tells a run the exact number."""
NAMED_AT_MOST = 8


@dataclass(frozen=True, slots=True)
class Removals:
    """What is in the old lock file and nowhere in the new one, or there and out of service.

    A container that moves to another host, or whose application goes to another network, is still there and does not
    count. A host is its mesh peers' peer, so hosts and peers are one number. A single host of a fleet may be out of
    service, with all that is on it: nobody writes that by mistake, and its return loses nothing. It does not count.

    :param containers: how many of each network's containers exist nowhere any more, by network
    :param had: how many containers each network had
    :param networks: gone as a whole
    :param emptied: networks that stay declared, without any of the containers that they had in service
    :param projects: the project that each network was of
    :param all_hosts: how many hosts there were
    :param out: hosts that go out of service
    :param stopped: how many of each network's containers stay declared, and are then on a host that is out, by network
    :param all_out: how many hosts are out then
    """

    containers: Mapping[str, int]
    had: Mapping[str, int]
    networks: tuple[str, ...]
    emptied: tuple[str, ...]
    hosts: tuple[str, ...]
    projects: Mapping[str, str]
    all_hosts: int
    out: tuple[str, ...] = ()
    stopped: Mapping[str, int] = field(default_factory=dict)
    all_out: int = 0

    @property
    def number(self) -> int:
        """Containers, networks and hosts that go, or go out of service: the number that a run has to be told."""
        gone = sum(self.containers.values()) + len(self.networks) + len(self.hosts)
        return gone + sum(self.stopped.values()) + len(self.out)

    @property
    def counts(self) -> str:
        """``5 of 8 containers, 1 of 2 private networks, 0 of 3 hosts``."""
        gone = ", ".join(
            f"{gone:,} of {plural(every, noun)}"
            for gone, every, noun in (
                (sum(self.containers.values()), sum(self.had.values()), "container"),
                (len(self.networks), len(self.had), "private network"),
                (len(self.hosts), self.all_hosts, "host"),
            )
        )
        if not self.out and not self.stopped:
            return gone
        stopped, hosts = sum(self.stopped.values()), plural(self.all_hosts, "host")
        return (
            f"{gone}, and takes {stopped:,} of {plural(sum(self.had.values()), 'container')} and {len(self.out):,} of "
            f"{hosts} out of service"
        )


def removals(old: Lock, new: Lock) -> Removals:
    """What a run that writes ``new`` over ``old`` takes away."""
    stay = {slot: at.host for network in new.networks.values() for slot, at in network.slots.items()}
    containers = {
        name: gone
        for name, network in sorted(old.networks.items())
        if (gone := sum(slot not in stay for slot in network.slots))
    }
    out, was_out = new.out, old.out
    alone = out if len(out) == 1 else frozenset[str]()
    stopped = {
        name: count
        for name, network in sorted(old.networks.items())
        if (count := sum(_stops(at.host, stay.get(slot), was_out, out, alone) for slot, at in network.slots.items()))
    }
    serving = {name for name, network in new.without(out).networks.items() if network.slots}
    return Removals(
        containers=containers,
        had={name: len(network.slots) for name, network in sorted(old.networks.items())},
        networks=tuple(sorted(set(old.networks) - set(new.networks))),
        emptied=tuple(sorted(({*containers, *stopped} & new.networks.keys()) - serving)),
        hosts=tuple(sorted(set(old.hosts) - set(new.hosts))),
        projects={name: network.project for name, network in old.networks.items()},
        all_hosts=len(old.hosts),
        out=tuple(sorted((out - was_out - alone) & old.hosts.keys())),
        stopped=stopped,
        all_out=len(out),
    )


def _stops(
    was: str, becomes: str | None, was_out: Collection[str], out: Collection[str], alone: Collection[str]
) -> bool:
    """Whether a container is then on a host that is out, and was not: by its host, or since it is placed there."""
    return was not in was_out and becomes in out and not (was == becomes and was in alone)


def exceeds(found: Removals, percent: int) -> tuple[str, ...]:
    """Why the guard stops it; nothing when it may pass.

    :param percent: ``policy.removal_guard``
    """
    return tuple(_exceeds(found, percent))


def _exceeds(found: Removals, percent: int) -> Iterator[str]:
    if found.networks:
        yield plural(len(found.networks), "whole private network")
    if found.emptied:
        yield f"all containers of {plural(len(found.emptied), 'private network')}"
    containers = sum(found.containers.values()) + sum(found.stopped.values())
    hosts = len(found.hosts) + (found.all_out if found.out else 0)
    for gone, every, noun in ((containers, sum(found.had.values()), "containers"), (hosts, found.all_hosts, "hosts")):
        if gone * 100 > percent * every:
            yield f"{-(-gone * 100 // every)}% of the {noun}"


def check(declaration: Declaration, old: Lock, new: Lock, told: str | None) -> Iterator[Problem]:
    """A plan that removes more than it may, or another number of things than the run was told.

    :param told: what the operator said (``--allow-removals``, ``PRIVNET_ALLOW_REMOVALS``), as typed
    """
    found, percent = removals(old, new), declaration.fleet.policy.removal_guard
    fleet, where = declaration.fleet.fleet, str(Path(declaration.place("fleet").path).parent)
    if told and not (told.isascii() and told.isdecimal()):
        yield Problem(
            "PN602",
            f"{quoted(told)} is not a number of removals",
            note=f"this plan of fleet {fleet} removes {found.counts}",
            help=_permit(found, where) if found.number else f"leave it out ({ALLOW}, --allow-removals): nothing goes",
        )
    elif told and found.number and told != str(found.number):
        yield Problem(
            "PN602",
            f"{told[:20]} removals were allowed, but the plan of fleet {fleet} makes {found.number:,}",
            note=f"{found.counts}: {'; '.join(named(found))}",
            help=_permit(found, where),
        )
    elif not told and (why := exceeds(found, percent)):
        yield Problem(
            "PN601",
            f"the plan of fleet {fleet} removes {found.counts}",
            note=f"{' and '.join(why)} would be {_how(found)}: {'; '.join(named(found))}. Without being told, no "
            f"private network goes as a whole, and at most {percent}% of the containers and hosts "
            "(`policy.removal_guard`)",
            help=f"{_undo(found)}. {_permit(found, where)}",
        )


def the_network(found: Removals) -> str:
    """The one private network of which all is that goes, when it goes as a whole or loses all of its containers."""
    touched = {*found.networks, *found.containers, *found.stopped}
    whole = {*found.networks, *found.emptied}
    return next(iter(touched)) if len(touched) == 1 and touched <= whole and not (found.hosts or found.out) else ""


def question(found: Removals) -> str:
    """What a person is asked who can be: to type what shows that all that goes was looked at."""
    network = the_network(found)
    name = f", or {found.projects[network]}, the project of the network," if network else ""
    return f"Type {found.number}, the number of all that goes{name or ','} to deploy this"


def agrees(found: Removals, typed: str) -> bool:
    """Whether that was typed."""
    network = the_network(found)
    return typed.strip() in {str(found.number), *((network, found.projects[network]) if network else ())}


def _how(found: Removals) -> str:
    return "gone or out of service" if found.out or found.stopped else "gone"


def _undo(found: Removals) -> str:
    if found.containers or found.networks or found.hosts:
        return "if a file or a line is missing, bring it back: `git status`, `git diff`"
    return "if that is not meant, delete `state: out`, or place the containers on hosts that are in service"


def _permit(found: Removals, where: str) -> str:
    return (
        f"If all of it is meant, say the number: `privnet deploy {where} --allow-removals {found.number}`, "
        f"or `{ALLOW}={found.number} pyinfra …`"
    )


def named(found: Removals) -> list[str]:
    """What goes, network by network, then the hosts; the first few of a large number."""
    parts = [_of_network(found, name) for name in sorted({*found.networks, *found.containers})]
    parts += [
        f"{count:,} of {plural(found.had[name], 'container')} of network {name} of project {found.projects[name]}, on "
        "hosts that are out"
        for name, count in sorted(found.stopped.items())
    ]
    if len(parts) > NAMED_AT_MOST:
        rest = len(parts) - NAMED_AT_MOST
        parts = [*parts[:NAMED_AT_MOST], f"the same of {plural(rest, 'more network')}"]
    for hosts, what in ((found.hosts, ""), (found.out, " out of service")):
        if hosts:
            noun = "host" if len(hosts) == 1 else "hosts"
            parts.append(f"{noun} {some(hosts, NAMED_AT_MOST)}{what}")
    return parts


def _of_network(found: Removals, name: str) -> str:
    gone, had, project = found.containers.get(name, 0), found.had[name], found.projects[name]
    if name in found.networks:
        return f"network {name} of project {project} with {plural(gone, 'container')}"
    return f"{gone:,} of {plural(had, 'container')} of network {name} of project {project}"
