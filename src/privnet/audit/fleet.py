"""The audit of a fleet: what is asked of which host, and when. All hosts at once, each of them twice.

* ``state``: one execution of ``dump.sh``, compared with the plan feature by feature
* ``probes``: one execution of ``probe.pl``: first every host starts its listeners and asks its resolvers, and when all
  have, every host sends its packets
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from privnet.audit import names, ways
from privnet.audit.actual import Actual, parse_dump
from privnet.audit.checks import STATE_CHECKS
from privnet.audit.connection import Connection, connections_to
from privnet.audit.finding import Deviation, Finding, Unanswered, about, fold, fold_across
from privnet.audit.identity import identity
from privnet.audit.reach import Reach
from privnet.audit.session import Session
from privnet.compiler import Compiled, compile_fleet
from privnet.store import lock_versions

ANSWER = "answer"
"""The check that a host can be asked at all; where it fails, the host's other checks are not possible."""
PROBE_CHECKS = ("names", "reach", "isolation", "handshakes")
Consequence = tuple[str, str, Deviation]
"""Host and check that feel a deviation, and what they feel."""
HOSTS_AT_ONCE = 64


class UnknownHost(Exception):
    """A host was named that the inventory does not declare; the message lists what it does."""


@dataclass(slots=True)
class Audit:
    """One audit; nothing is asked before :meth:`begin`.

    :param hosts: the hosts that are audited, in the order of the inventory
    :param quick: look at each host and ask its resolvers, but send nothing between containers
    """

    directory: Path
    compiled: Compiled
    connections: Mapping[str, Connection]
    hosts: tuple[str, ...]
    quick: bool = False
    _results: dict[tuple[str, str], Future[Finding]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor | None = None
    _sessions: dict[str, Session] = field(default_factory=dict)
    _consequences: dict[tuple[str, Deviation], list[Consequence]] = field(default_factory=dict)

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks of each host, in the order of their lines."""
        return (ANSWER, *STATE_CHECKS, *(PROBE_CHECKS[:1] if self.quick else PROBE_CHECKS))

    def items(self) -> list[tuple[str, str]]:
        """(host, check) in the order in which results come: states first, then names, then packets."""
        state = [(host, check) for host in self.hosts for check in (ANSWER, *STATE_CHECKS)]
        probes = [check for check in self.checks if check in PROBE_CHECKS]
        return state + [(host, check) for check in probes for host in self.hosts]

    def begin(self) -> None:
        """Start asking, in the background."""
        if self._pool is not None:
            return
        for item in self.items():
            self._results[item] = Future()
        self._pool = ThreadPoolExecutor(min(HOSTS_AT_ONCE, len(self.hosts)) + 1, "audit")
        self._pool.submit(self._everything)

    def finding(self, host: str, check: str) -> Finding:
        """What a check found. Raises Unanswered when the host could not be asked."""
        self.begin()
        return self._results[host, check].result()

    def consequences(self, host: str, deviation: Deviation) -> list[Consequence]:
        """What follows from a deviation of that host, on whichever host; known when all have been asked everything."""
        if not self._consequences:
            for (felt, check), result in self._results.items():
                error = result.exception()
                if error is not None and not isinstance(error, Unanswered):
                    raise error
                for what, why in () if error is not None else result.result().follows:
                    self._consequences.setdefault((why.host or felt, why), []).append((felt, check, what))
        return self._consequences.get((host, deviation), [])

    def end(self) -> None:
        """End every prober that is still there."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    # --- in the background ----------------------------------------------------------------------

    def _everything(self) -> None:
        try:
            with ThreadPoolExecutor(min(HOSTS_AT_ONCE, len(self.hosts)), "host") as pool:
                for _ in pool.map(self._state, self.hosts):
                    pass
                reach = Reach(self.compiled.plan, self.hosts)
                # Listeners are open on every host before the first packet goes out.
                for _ in pool.map(lambda host: self._names(host, reach), self.hosts):
                    pass
                if not self.quick:
                    for _ in pool.map(lambda host: self._wake(host, reach), self.hosts):
                        pass
                    found: dict[tuple[str, str], Finding] = {}
                    for _ in pool.map(lambda host: self._reach(host, reach, found), self.hosts):
                        pass
                    # The cause may be on either host of two that do not reach each other.
                    for place, finding in fold_across(found, self._told()).items():
                        self._results[place].set_result(finding)
        except BaseException as error:
            # An error of our own is no finding: whoever waits for one gets the error itself.
            for result in self._results.values():
                if not result.done():
                    result.set_exception(error)
            raise
        finally:
            for session in self._sessions.values():
                session.close()

    @contextlib.contextmanager
    def _answering(self, host: str, *checks: str) -> Iterator[None]:
        """A host that stops answering ends its own checks and nobody else's."""
        try:
            yield
        except Unanswered as error:
            for check in checks:
                if not self._results[host, check].done():
                    self._results[host, check].set_exception(error)

    def _state(self, host: str) -> None:
        with self._answering(host, *self.checks):
            try:
                actual = self._dump(host)
            except Unanswered as error:
                finding = Finding("", (Deviation("the host", "an answer", str(error)),))
                self._results[host, ANSWER].set_result(finding)
                raise
            if not actual.root:
                why = "it is read without being root: log in as root, or as a user with sudo"
                self._results[host, ANSWER].set_result(Finding("", (Deviation("the host", "root's view", why),)))
                raise Unanswered(why)
            self._results[host, ANSWER].set_result(self._identity(host, actual))
            plan = self.compiled.plan.hosts[host]
            for name, finding in fold({name: check(plan, actual) for name, check in STATE_CHECKS.items()}).items():
                self._results[host, name].set_result(finding)

    def _dump(self, host: str) -> Actual:
        mark = f"##audit-{secrets.token_hex(16)}"
        script = (resources.files("privnet.audit") / "dump.sh").read_text()
        return parse_dump(self.connections[host].ask(f"MARK='{mark}'\n{script}", mark), mark)

    def _identity(self, host: str, actual: Actual) -> Finding:
        """The host that answers is the one that the lock file knows, and follows no other one."""
        key = self.compiled.lock.hosts[host].wireguard
        found = identity(key, lock_versions(self.compiled.known), actual, time.time())
        return Finding(f"answers on {self.compiled.plan.fleet.hosts[host].address}", tuple(found))

    def _names(self, host: str, reach: Reach) -> None:
        plan = self.compiled.plan.hosts[host]
        if self._results[host, "names"].done():
            return
        with self._answering(host, *PROBE_CHECKS[: 1 if self.quick else None]):
            if not plan.overlays:
                for check in self.checks:
                    if check in PROBE_CHECKS:
                        self._results[host, check].set_result(Finding("no container here"))
                return
            session = self._sessions[host] = Session(self.connections[host])
            closed = [] if self.quick else reach.open(host, session)
            finding = names.ask(self.compiled.plan, plan, session)
            failed = [one for netns in closed for one in about(
                "", [Deviation(f"listener in {netns}", "started", "failed")], *ways.of_listener(plan, netns)
            )]  # fmt: skip
            finding = replace(finding, deviations=(*finding.deviations, *failed))
            states = [self._results[host, check].result() for check in STATE_CHECKS]
            self._results[host, "names"].set_result(fold({"names": finding}, states)["names"])

    def _wake(self, host: str, reach: Reach) -> None:
        with self._answering(host, *PROBE_CHECKS):
            if host in self._sessions:
                reach.wake(host, self._sessions[host])

    def _reach(self, host: str, reach: Reach, found: dict[tuple[str, str], Finding]) -> None:
        session = self._sessions.get(host)
        if session is None or self._results[host, "reach"].done():
            return
        with self._answering(host, "reach", "isolation"):
            found[host, "reach"], found[host, "isolation"] = reach.run(host, session)
        with self._answering(host, "handshakes"):
            found[host, "handshakes"] = reach.handshakes(host, session)

    def _told(self) -> dict[str, list[Finding]]:
        """What is known of each host by itself."""
        own = {host: [self._results[host, check] for check in (ANSWER, *STATE_CHECKS, "names")] for host in self.hosts}
        return {host: [one.result() for one in ones if one.exception() is None] for host, ones in own.items()}


def prepare(directory: Path, only: Sequence[str] = (), quick: bool = False) -> Audit:
    """An audit of a fleet's directory.

    :param only: names of the hosts to audit; all of them if empty
    Raises DeclarationError when the declaration is refused, LabError when a lab fleet's lab is not up, UnknownHost.
    """
    compiled = compile_fleet(directory)
    fleet = compiled.declaration.fleet
    unknown = [name for name in only if name not in fleet.hosts]
    if unknown:
        raise UnknownHost(f"{directory} declares no host {unknown[0]!r}; it declares {', '.join(fleet.hosts)}")
    out = [name for name in only if name in fleet.out]
    if out:
        raise UnknownHost(f"{out[0]} is out of service (`state: out` in fleet.yaml): nothing is expected of it")
    hosts = tuple(name for name in fleet.hosts if name not in fleet.out and (not only or name in only))
    return Audit(directory, compiled, connections_to(directory, fleet, compiled.lock), hosts, quick)
