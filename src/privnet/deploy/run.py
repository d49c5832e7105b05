"""One run over a fleet: the compiled declaration, what hosts have answered, and the lock file that is to be written.

pyinfra executes a deploy once per host; what is the same for all hosts is here, once per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from privnet.compiler import Compiled, compile_fleet
from privnet.deploy.state import HostState, Unknown
from privnet.load import shown_path
from privnet.model.lock import Lock
from privnet.plan.host import HostPlan, Plan, plan_fleet
from privnet.render import ETC
from privnet.store import save_lock

KEY = f"{ETC}/wireguard.key"
CONFIG = "/etc/wireguard/privnet.conf"


@dataclass(slots=True)
class Run:
    """What a run knows, and what it has learnt.

    :param saved: the lock file as it stands on disk
    :param lock: what it is to hold
    :param stopped: why no host may be changed any more
    """

    directory: Path
    compiled: Compiled
    saved: Lock
    lock: Lock
    plan: Plan
    stopped: str | None = None
    answers: dict[tuple[str, bool], HostState | Unknown] = field(default_factory=dict)

    def plan_of(self, host: str) -> HostPlan:
        """The plan of one host, with every key that is known by now."""
        return self.plan.hosts[host]

    def must_record(self) -> bool:
        """Whether the lock file says something else than this run knows."""
        return not self.lock.same_numbers(self.saved)

    def record(self) -> None:
        """Write the lock file. Raises DeclarationError when another run has written it in the meantime."""
        if self.must_record():
            self.lock = self.saved = save_lock(self.directory, self.lock)
            self.plan = plan_fleet(self.compiled.declaration, self.lock)

    def lost_key(self, host: str, state: HostState) -> str | None:
        """The reason to leave a host alone that has no key any more: a new one would cut it off from its peers."""
        known = self.lock.hosts[host].wireguard
        unreadable = KEY in state.files and "wireguard-tools" not in state.packages
        if known is None or state.public_key is not None or unreadable:
            return None
        remedy = (
            f"the mesh still has it: `umask 077; sed -n 's/^PrivateKey = //p' {CONFIG} > {KEY}` there as root"
            if state.config_key == known
            else f"put it back, or if the host was reinstalled: `privnet forget {shown_path(self.directory)} {host}`"
        )
        found = f"PN508: its WireGuard key {KEY} is gone, and the lock file has {known}. No new one is made"
        return f"{found}: {remedy}, then run again"

    def learn(self, host: str, state: HostState) -> str | None:
        """Remember a host's keys. Gives the reason when they are not the ones it had before."""
        known = self.lock.hosts[host]
        if state.public_key is None:
            return "it has no WireGuard key that can be read"
        if known.wireguard is not None and state.public_key != known.wireguard:
            return (
                f"PN508: its WireGuard key is {state.public_key}, but the lock file has {known.wireguard}: "
                "another machine answers at its address, or it was reinstalled. If you know that it was: "
                f"`privnet forget {shown_path(self.directory)} {host}`, then run again"
            )
        twin = next((n for n, h in self.lock.hosts.items() if n != host and h.wireguard == state.public_key), None)
        if twin is not None:
            # Two peers with one key are one peer: the second would take the first one's traffic.
            return (
                f"PN508: its WireGuard key is that of {twin}: one is a copy of the other, or one machine answers for "
                f"both. If it is a copy, delete {KEY} on {host} and run again"
            )
        learnt = replace(known, wireguard=known.wireguard or state.public_key, ssh=known.ssh or state.ssh_key)
        if learnt != known:
            self.lock = replace(self.lock, hosts={**self.lock.hosts, host: learnt})
        return None


_RUNS: dict[Path, Run] = {}


def begin(directory: Path) -> Run:
    """The run over a fleet's directory: compiled at the first call, the same object afterwards.

    Raises DeclarationError when the declaration is refused.
    """
    directory = directory.resolve()
    if directory not in _RUNS:
        compiled = compile_fleet(directory)
        _RUNS[directory] = Run(directory, compiled, compiled.known, compiled.lock, compiled.plan)
    return _RUNS[directory]


def runs() -> Mapping[Path, Run]:
    """Every run of this process, by directory."""
    return _RUNS
