"""One run over a fleet: the compiled declaration, what hosts have answered, and the lock file that is to be written.

pyinfra executes a deploy once per host; what is the same for all hosts is here, once per process.
"""

from __future__ import annotations

import atexit
import getpass
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from privnet.committed import committed_locks
from privnet.compiler import Compiled, compile_fleet
from privnet.deploy import changes, preflight, releases
from privnet.deploy.alone import Held, Unwritable, place, take
from privnet.deploy.canary import canary
from privnet.deploy.changes.containers import unit_of
from privnet.deploy.health import Loss
from privnet.deploy.host_keys import Identity
from privnet.deploy.memory import doubt
from privnet.deploy.outcome import HostOutcome, Outcome, StageChanges, State
from privnet.deploy.script import Script, Turn
from privnet.deploy.state import HostState, Unknown
from privnet.deploy.together import Together
from privnet.diagnostics import DeclarationError, Problem, plural
from privnet.load import shown_path
from privnet.model.lock import HostLock, Lock, Version
from privnet.plan.host import HostPlan, Plan, plan_fleet
from privnet.plan.overlay import Network
from privnet.progress import Diary, load_progress
from privnet.render import KEY, OLD_KEY
from privnet.report.difference import host_changes
from privnet.store import load_lock, lock_checksum, lock_versions, moved_on, save_lock

ABORT_SHARE = 3
"""One host in so many that fails in a wave stops the run before the next one."""
REASONS_SAID = 5
"""Of one host: a host can say as many foreign routes and devices as it likes."""
STEPS_SAID, STEP_WIDTH = 3, 200
"""Of what a host still lacks after a run."""
BREAK = "PRIVNET_BREAK_LEASE"
WITHIN = "PRIVNET_CONFIRM_WITHIN"

CONFIG = "/etc/wireguard/privnet.conf"


@dataclass
class Run:
    """What a run knows, and what it has learnt.

    :param saved: the lock file as it stands on disk
    :param lock: what it is to hold
    :param stopped: why no host may be changed any more
    :param ready: hosts that have everything new of the plan
    :param armed: hosts that were changed and not confirmed yet
    :param proven: hosts that have taken a new connection since their last change
    :param asking: hosts that were changed, and are to be asked which peers answer them no more
    :param lost: of each host the peers that have answered it before it was changed, and do not any more
    :param gone: hosts that have answered the run, and take no new connection though nothing was done to them
    :param together: what hosts change that have to agree; None until all have answered
    :param judging: one host at a time judges what is lost
    :param until: when a host that was changed rolls back at the earliest, by the monotonic clock
    :param kept: whether anything that this run has changed may have been confirmed
    :param been: what each host that this run has changed has been through
    :param busy: one thing at a time is done to a host
    :param finished: hosts from which everything old was taken away together with the switch
    :param concerned: by wave, the hosts that it changes, or was to change
    :param settled: hosts that send where the plan says, and will go on to
    :param said: what was printed of a host, and of which one first
    :param first: by wave, and for what comes before them, the host that is changed before any other
    :param identities: of each host, the SSH key by which this run knows it
    """

    directory: Path
    compiled: Compiled
    saved: Lock
    lock: Lock
    plan: Plan
    stopped: str | None = None
    answers: dict[tuple[str, bool], HostState | Unknown] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    armed: set[str] = field(default_factory=set)
    proven: set[str] = field(default_factory=set)
    asking: set[str] = field(default_factory=set)
    lost: dict[str, tuple[Loss, ...]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    together: Together | None = None
    judging: threading.Lock = field(default_factory=threading.Lock)
    until: dict[str, float] = field(default_factory=dict)
    kept: bool = False
    been: dict[str, str] = field(default_factory=dict)
    busy: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    finished: set[str] = field(default_factory=set)
    concerned: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    settled: set[str] = field(default_factory=set)
    leaving: frozenset[str] | None = None
    new: dict[str, Script] = field(default_factory=dict)
    executing: bool = False
    judged: dict[str, str] | None = None
    said: dict[str, str] = field(default_factory=dict)
    first: dict[str, str | None] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    under_way: int | None = None
    id: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}")

    @cached_property
    def outcome(self) -> Outcome:
        """What has become of each host."""
        found = Outcome.of(self.id, self.plan.hosts)
        found.serial = self.saved.serial
        atexit.register(found.end)
        return found

    def host(self, name: str) -> HostOutcome:
        """What has become of one host."""
        return self.outcome.hosts[name]

    def note(self, name: str, state: State, why: str = "") -> None:
        """Write down where a host stands."""
        self.host(name).state = state
        self.host(name).why = why
        self.outcome.write()
        if self.executing and not self.stopped:
            self._note_progress(name, state, why)

    def _note_progress(self, name: str, state: State, why: str) -> None:
        serial = self.saved.serial
        if state in (State.changed, State.unchanged):
            self.diary.done(name, serial, self.checksum(serial))
        elif state in (State.begun, State.pending, State.failed, State.held, State.undone):
            # A host at which the run ends now is pending, as it is called when a run comes to its end.
            stands = State.pending if state is State.begun else state
            said = f"{stands}: {why}" if why else stands
            self.diary.begun(name, serial, self.checksum(serial), said, failed=state is State.failed)

    def finish(self, name: str) -> None:
        """The run has come to its end at a host that has nothing to confirm."""
        found = self.host(name)
        if found.state is State.asked:
            self.note(name, State.changed if found.changes else State.unchanged)
        elif found.state is State.begun and not self.executing:
            self.note(name, State.pending, "the run only looked for changes")

    def leave(self, name: str) -> None:
        """Nothing was to be done at a host, which says nothing of how far it is."""
        self.host(name).state = State.unchanged
        self.host(name).why = ""
        self.outcome.write()

    @cached_property
    def diary(self) -> Diary:
        """For a later plan: which hosts this run has come to, and which it has finished."""
        return Diary(self.directory, self.saved.fleet, self.plan.fleet.hosts, self.compiled.renames)

    def note_changes(self, name: str, stage: str, script: Script) -> None:
        """Write down what a stage does, or would do, to a host; until it is confirmed the host is pending."""
        self.host(name).changes.append(StageChanges(stage, script.lines()))
        self.note(name, State.begun, "the run ended before it was done there")

    def stop(self, why: str, kind: str) -> None:
        """Change no host any more."""
        self.stopped = why
        self.outcome.stopped = {"why": why, "kind": kind}
        self.outcome.write()

    def stop_unread(self, problem: Problem) -> None:
        """The same, where the lock file is no longer what this run has read."""
        why = f"{problem.code}: nothing is changed: since this run began, {problem.message}"
        kind = "locked" if problem.code == "PN507" else "stale"
        self.stop("; ".join(filter(None, (why, problem.help))), kind)

    def enter(self, executing: bool) -> None:
        """Begin anew when pyinfra has looked for changes and now makes them: what it looked at may have changed."""
        if executing and not self.executing:
            self.executing = True
            for found in (self.ready, self.concerned, self.settled, self.finished, self.new, self.asking):
                found.clear()
            for host in self.outcome.hosts.values():
                host.changes.clear()

    # --- one run at a time ------------------------------------------------------------------------

    def hold(self) -> None:
        """Take this machine's lock, until the process ends. Stops the run when another one has it."""
        if self.under_way is not None or self.stopped:
            return
        try:
            self.under_way = take(self.directory, self.id, self.owner)
            # What was compiled before the lock was had may be what another run has changed since.
            present = load_lock(self.directory, self.saved.fleet)
        except Held as error:
            self.stop(f"nothing is changed: {error}", "locked")
            return
        except Unwritable as error:
            self.stop(f"nothing is changed: {error}", "refused")
            return
        except DeclarationError as error:
            self.stop_unread(error.problems[0])
            return
        if not present.is_still(self.saved):
            why = f"the lock file has changed: {moved_on(self.saved, present)}"
            self.stop(f"nothing is changed: since this run began, {why}. Run again", "locked")

    @property
    def patience(self) -> int:
        """Seconds for which a host waits to be confirmed."""
        return self.compiled.declaration.fleet.policy.rollback

    @cached_property
    def within(self) -> int:
        """Seconds for which hosts wait for a person to confirm them; 0 when the run does that itself."""
        return int(os.environ.get(WITHIN, "0"))

    def breaks(self, run: str) -> bool:
        """Whether the operator says that what this run has left on hosts may be taken over."""
        return os.environ.get(BREAK) == run

    @cached_property
    def owner(self) -> str:
        """For people: who runs this, and where."""
        return f"{user_name()}@{socket.gethostname()}"

    @cached_property
    def token(self) -> str:
        """What all runs have in common that this machine's lock keeps apart."""
        return place(self.directory)

    def turn(self, name: str, wave: str, state: HostState, disturbs: bool = False) -> Turn:
        """What a host is told before and after a wave's program.

        :param disturbs: whether that may cut off peers that it has
        """
        by_mesh = self.compiled.declaration.fleet.policy.confirm == "mesh"
        return Turn(
            run=self.id,
            wave=wave,
            expected=self.been.get(name, state.generation),
            seconds=self.patience,
            token=self.token,
            owner=self.owner,
            broken=os.environ.get(BREAK, ""),
            serial=self.saved.serial,
            checksum=self.checksum(self.saved.serial),
            asks=by_mesh and disturbs and state.mesh is not None and bool(state.mesh.peers),
            held=self.within > 0,
        )

    def checksum(self, serial: int) -> str:
        """Of the lock file as it stands on disk; ``serial`` says which one that is."""
        if self._checksum[0] != serial:
            self._checksum = (serial, lock_checksum(self.saved))
        return self._checksum[1]

    _checksum: tuple[int, str] = (-1, "")

    # --- the fleet as a whole -----------------------------------------------------------------------

    def states(self) -> dict[str, HostState]:
        """Hosts that have answered in this phase."""
        return {n: s for (n, e), s in self.answers.items() if e == self.executing and isinstance(s, HostState)}

    def judge(self, now: float, active: Collection[str]) -> Mapping[str, str]:
        """Hosts that have to be left alone, each with its reasons.

        Stops the run when hosts were changed by another lock file than this one. While changes are made all hosts have
        answered when this is asked first; while pyinfra looks for them it asks one host after the other.

        :param active: hosts that have answered, or will be asked yet
        """
        if self.judged is None or not self.executing:
            states = self.states()
            silent = [name for name in self.plan.fleet.hosts if name not in active or self._is_unknown(name)]
            if why := doubt(self.directory, self.versions, states, silent, lambda: self.committed):
                self.stop(why, "stale")
            copies = preflight.twins(states)
            self.judged = {}
            for name, state in states.items():
                reasons = [why] if (why := self.obstacles(name, state, now)) else []
                if name in copies:
                    reasons.append(
                        f"it has the machine-id of {copies[name]}: one is a copy of the other, or one machine answers "
                        "for both. On a copy: `rm /etc/machine-id && systemd-machine-id-setup`, then reboot it"
                    )
                if reasons:
                    self.judged[name] = "; ".join(reasons)
        return self.judged

    @cached_property
    def versions(self) -> tuple[Version, ...]:
        """The lock file with which this run began, and those before it."""
        return lock_versions(self.compiled.known)

    @cached_property
    def committed(self) -> Sequence[tuple[str, Sequence[Version]]]:
        """The lock files that git has."""
        return [*committed_locks(self.directory, self.saved.fleet)]

    def _is_unknown(self, name: str) -> bool:
        return isinstance(self.answers.get((name, self.executing)), Unknown)

    def obstacles(self, name: str, state: HostState, now: float) -> str | None:
        """Why a host has to be left alone, by its own answer."""
        accepted = self.compiled.declaration.fleet.policy.releases
        reasons = [*releases.obstacles(accepted, state), *preflight.obstacles(self.plan.hosts[name], state, now)]
        if len(reasons) > REASONS_SAID:
            reasons[REASONS_SAID:] = [f"and {plural(len(reasons) - REASONS_SAID, 'other reason')}"]
        return "; ".join(reasons) or None

    def difference(self, name: str, found: HostState | Unknown) -> str:
        """What keeps a host that this run has changed from being as planned; empty when nothing does.

        Of what waits for another host nothing is said: that one has failed, or is said to be pending.
        """
        if isinstance(found, Unknown):
            return f"it was changed, and what it is now is not known: {found.why}"
        lines = changes.everything(self.plan_of(name), found)
        if not lines or any(self.held(name, found)) or any(self.needed(name, found)):
            return ""
        more = f" and {plural(len(lines) - STEPS_SAID, 'other step')}" if len(lines) > STEPS_SAID else ""
        steps = ", ".join(f"`{line[:STEP_WIDTH]}`" for line in lines[:STEPS_SAID])
        return f"it was changed, and is not as planned: a run would still {steps}{more}"

    def canary(self, candidates: Mapping[str, HostState]) -> str | None:
        """The host that is changed before any other of those that are fit and have something to do."""
        return canary(candidates, self.compiled.declaration.fleet.policy.canary, *self._before)

    @cached_property
    def _before(self) -> tuple[Collection[str], Collection[str]]:
        """As this run began: hosts that failed in the last one, and those that the change is about."""
        progress = load_progress(self.directory, self.saved.fleet) or {}
        failed = {self.compiled.renames.get(name, name) for name, found in progress.items() if found.failed}
        return failed, host_changes(self.compiled.before, self.compiled.lock).keys()

    def too_many_failed(self, failed: set[str]) -> bool:
        """Whether so many of the hosts that a wave was to change have failed that the change itself must be wrong."""
        lost = [(len(hosts & failed), len(hosts)) for hosts in self.concerned.values()]
        return any(few > 1 and few * ABORT_SHARE > all_of_them for few, all_of_them in lost)

    def held(self, name: str, state: HostState) -> Iterator[tuple[str, str]]:
        """Containers that have moved to a host that is not ready, as far as this host still knows their old place.

        Yields each one's MAC and a sentence. Nothing of theirs is switched or taken away: it may be all that there is.
        """
        # While pyinfra looks for changes nobody is ready; then it shows what will be when all goes well.
        ready = self.ready if self.executing else self.plan.hosts.keys()
        for network in self.plan.networks.values():
            if network.vxlan not in state.links or ready >= set(network.hosts):
                continue
            fdb = state.fdb.get(network.vxlan, {})
            for remote in network.remotes:
                container = remote.container
                if container.host in ready:
                    continue
                unit = state.units.get(unit_of(container.port))
                here = container.host != name and unit is not None and unit.active == "active"
                if here or fdb.get(container.mac, remote.vtep) != remote.vtep:
                    goes = f"{container.slot} in {network.id} goes to {container.host}"
                    yield container.mac, f"{goes}, which is not ready"

    def needed(self, name: str, state: HostState) -> Iterator[tuple[str, str]]:
        """Containers that have moved away from a host to which another host of their network may still send.

        Yields each one's MAC and a sentence. Where they are now nobody would answer that other host's containers.
        """
        if not self.executing:
            return
        here = self.plan.hosts[name].mesh.address
        for network in self.plan.networks.values():
            late = [host for host in network.hosts if host != name and host not in self.settled]
            if network.vxlan not in state.links or not late:
                continue
            for container in network.containers:
                unit = state.units.get(unit_of(container.port))
                if container.host == name or unit is None or unit.active != "active":
                    continue
                sender = next((host for host in late if self._sends(host, network, container.mac, here)), None)
                if sender is not None:
                    goes = f"{container.slot} in {network.id} goes to {container.host}"
                    silent = not isinstance(self.answers.get((sender, True)), HostState)
                    yield (
                        container.mac,
                        f"{goes}, but {sender} has not answered, and may still send to {name}"
                        if silent
                        else f"{goes}, but {sender} still sends to {name}, and is not ready",
                    )

    def _sends(self, name: str, network: Network, mac: str, vtep: str) -> bool:
        """Whether a host may send a container's frames to this VTEP; one that says nothing, or rolls back, may."""
        answer = self.answers.get((name, self.executing))
        if not isinstance(answer, HostState):
            # One without a key has never been reached by any run.
            return self.lock.hosts[name].wireguard is not None
        if answer.armed:
            return True
        return answer.fdb.get(network.vxlan, {}).get(mac, "").partition(" ")[0] == vtep

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
            self.outcome.serial = self.saved.serial
            self.plan = plan_fleet(self.compiled.declaration, self.lock)

    def lost_key(self, host: str, state: HostState) -> str | None:
        """The reason to leave a host alone that has no key any more: a new one would cut it off from its peers."""
        known = self.lock.hosts[host].wireguard
        unreadable = {KEY, OLD_KEY} & state.files.keys() and "wireguard-tools" not in state.packages
        if known is None or state.public_key is not None or unreadable or self.lock.hosts[host].forgotten:
            return None
        remedy = (
            f"the mesh still has it: `umask 077; sed -n 's/^PrivateKey = //p' {CONFIG} > {KEY}` there as root"
            if state.config_key == known
            else f"put it back, or if the host was reinstalled: `privnet forget {shown_path(self.directory)} {host}`"
        )
        found = f"PN508: its WireGuard key {KEY} is gone, and the lock file has {known}. No new one is made"
        return f"{found}: {remedy}, then run again"

    def refused_key(self, host: str, state: HostState) -> str | None:
        """The reason to leave a host alone for its key, whether that is another one or gone."""
        return self.lost_key(host, state) or (self._other_key(host, state) if state.public_key else None)

    def learn(self, host: str, state: HostState) -> str | None:
        """Remember a host's keys. Gives the reason when they are not the ones it had before."""
        known = self.lock.hosts[host]
        if state.public_key is None:
            return "it has no WireGuard key that can be read"
        if (why := self._other_key(host, state)) is not None:
            return why
        identity = self.identities.get(host)
        learnt = HostLock(known.mesh, state.public_key, known.ssh or (identity.key if identity else None))
        if learnt != known:
            self.lock = replace(self.lock, hosts={**self.lock.hosts, host: learnt})
        return None

    def _other_key(self, host: str, state: HostState) -> str | None:
        known = self.lock.hosts[host]
        if known.wireguard not in (None, state.public_key) and not known.forgotten:
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
        return None


def user_name() -> str:
    """Who runs this; a user without an entry in passwd(5), as in many a container, by number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


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
