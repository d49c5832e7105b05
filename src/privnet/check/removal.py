"""The removal guard: what a run would take away, and whether that is more than may go without being told.

Both sides are lock files: the one on disk, which is what hosts were last told to be, and the one that the run would
write. So it needs no host, and a removal that was recorded once is not counted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from privnet.diagnostics import Problem, plural, quoted
from privnet.load import Declaration
from privnet.model.lock import Lock

ALLOW = "PRIVNET_ALLOW_REMOVALS"
"""The environment variable that tells a run the exact number."""
NAMED_AT_MOST = 8


@dataclass(frozen=True, slots=True)
class Removals:
    """What is in the old lock file and nowhere in the new one.

    A container that moves to another host, or whose application goes to another network, is still there and does not
    count. A host is its mesh peers' peer, so hosts and peers are one number.

    :param containers: how many of each network's containers exist nowhere any more, by network
    :param had: how many containers each network had
    :param networks: gone as a whole
    :param emptied: networks that stay declared, without any of the containers that they had
    :param projects: the project that each network was of
    :param all_hosts: how many hosts there were
    """

    containers: Mapping[str, int]
    had: Mapping[str, int]
    networks: tuple[str, ...]
    emptied: tuple[str, ...]
    hosts: tuple[str, ...]
    projects: Mapping[str, str]
    all_hosts: int

    @property
    def number(self) -> int:
        """Containers, networks and hosts that go: the number that a run has to be told."""
        return sum(self.containers.values()) + len(self.networks) + len(self.hosts)

    @property
    def counts(self) -> str:
        """``5 of 8 containers, 1 of 2 private networks, 0 of 3 hosts``."""
        return ", ".join(
            f"{gone:,} of {plural(every, noun)}"
            for gone, every, noun in (
                (sum(self.containers.values()), sum(self.had.values()), "container"),
                (len(self.networks), len(self.had), "private network"),
                (len(self.hosts), self.all_hosts, "host"),
            )
        )


def removals(old: Lock, new: Lock) -> Removals:
    """What a run that writes ``new`` over ``old`` takes away."""
    stay = {slot for network in new.networks.values() for slot in network.slots}
    containers = {
        name: gone
        for name, network in sorted(old.networks.items())
        if (gone := sum(slot not in stay for slot in network.slots))
    }
    return Removals(
        containers=containers,
        had={name: len(network.slots) for name, network in sorted(old.networks.items())},
        networks=tuple(sorted(set(old.networks) - set(new.networks))),
        emptied=tuple(name for name in containers if name in new.networks and not new.networks[name].slots),
        hosts=tuple(sorted(set(old.hosts) - set(new.hosts))),
        projects={name: network.project for name, network in old.networks.items()},
        all_hosts=len(old.hosts),
    )


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
    containers = (sum(found.containers.values()), sum(found.had.values()), "containers")
    for gone, every, noun in (containers, (len(found.hosts), found.all_hosts, "hosts")):
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
            note=f"{' and '.join(why)} would be gone: {'; '.join(named(found))}. Without being told, no private "
            f"network goes as a whole, and at most {percent}% of the containers and hosts (`policy.removal_guard`)",
            help=f"if a file or a line is missing, bring it back: `git status`, `git diff`. {_permit(found, where)}",
        )


def _permit(found: Removals, where: str) -> str:
    return (
        f"If all of it is meant, say the number: `privnet deploy {where} --allow-removals {found.number}`, "
        f"or `{ALLOW}={found.number} pyinfra …`"
    )


def named(found: Removals) -> list[str]:
    """What goes, network by network, then the hosts; the first few of a large number."""
    parts = [_of_network(found, name) for name in sorted({*found.networks, *found.containers})]
    if len(parts) > NAMED_AT_MOST:
        rest = len(parts) - NAMED_AT_MOST
        parts = [*parts[:NAMED_AT_MOST], f"the same of {plural(rest, 'more network')}"]
    if found.hosts:
        shown = found.hosts[:NAMED_AT_MOST]
        more = len(found.hosts) - len(shown)
        noun = "host" if len(found.hosts) == 1 else "hosts"
        parts.append(f"{noun} {', '.join(shown)}" + (f" and {more:,} more" if more else ""))
    return parts


def _of_network(found: Removals, name: str) -> str:
    gone, had, project = found.containers.get(name, 0), found.had[name], found.projects[name]
    if name in found.networks:
        return f"network {name} of project {project} with {plural(gone, 'container')}"
    return f"{gone:,} of {plural(had, 'container')} of network {name} of project {project}"
