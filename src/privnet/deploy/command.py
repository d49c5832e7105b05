"""``privnet deploy``: the pyinfra deploy as a subprocess, and what is said about its outcome.

It does nothing to a host by itself, and needs neither an inventory file nor a ``deploys`` directory: those that pyinfra
is given are ``fleet.py`` and ``private_network.py`` beside this module.
"""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from privnet.check.removal import ALLOW
from privnet.compiler import Compiled
from privnet.deploy import outcome, waiting
from privnet.deploy.groups import EVERY, groups
from privnet.deploy.outcome import HostOutcome, Outcome, StageChanges, State
from privnet.deploy.waiting import WORD
from privnet.diagnostics import plural, visible
from privnet.model.fleet import Fleet
from privnet.report.deeds import Deed, Names, deed_lines, deeds_of
from privnet.report.difference import changes_of, host_changes
from privnet.report.fleet import network_title
from privnet.report.impact import ORDER, Impact, Label, impacts, steps_impact

DONE, FAILED, REFUSED, PENDING, LOCKED = 0, 1, 2, 3, 75
"""Exit codes; 75 is EX_TEMPFAIL of sysexits.h: try again later."""
INVENTORY = "PRIVNET_INVENTORY"
BREAK = "PRIVNET_BREAK_LEASE"
WITHIN = "PRIVNET_CONFIRM_WITHIN"
HERE = Path(__file__).parent
PYINFRA = "import sys; from pyinfra_cli.main import main; sys.exit(main())"
"""As its command does. `-m pyinfra` loads much before gevent patches it, and then waits for hosts for ever (3.10)."""
LISTED_AT_MOST = 30
STEPS_LISTED = 12


@dataclass(frozen=True, slots=True)
class Request:
    """What pyinfra is asked to do.

    :param limit: hosts, groups or patterns; empty for the whole fleet
    :param allow: the number of removals that the operator allows, as typed
    :param break_lease: the run whose lease on hosts may be taken
    :param within: seconds for which hosts wait for a person to confirm them; 0: the run confirms them
    :param word: ``confirm`` or ``undo``: the person's last word, and no change
    """

    directory: Path
    limit: tuple[str, ...] = ()
    dry: bool = False
    allow: str | None = None
    break_lease: str | None = None
    within: int = 0
    word: str | None = None

    @property
    def command(self) -> list[str]:
        """A dry run asks nothing when it is to print JSON (pyinfra 3.10), and compares only without ``-y``."""
        mode = ["--dry", "--json"] if self.dry else ["-y"]
        limits = [word for limit in self.limit for word in ("--limit", limit)]
        files = [str(HERE / "fleet.py"), str(HERE / ("last_word.py" if self.word else "private_network.py"))]
        return [sys.executable, "-c", PYINFRA, *mode, *limits, *files]

    def environment(self, outcome_file: str) -> dict[str, str]:
        """This process's, and what the run reads."""
        own = {INVENTORY: str(self.directory.resolve()), outcome.VARIABLE: outcome_file}
        more = {ALLOW: self.allow, BREAK: self.break_lease, WITHIN: str(self.within), WORD: self.word}
        own |= {name: value for name, value in more.items() if value is not None}
        return {**os.environ, **own}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    :param outcome: None when it ended before it knew its hosts
    :param said: what it wrote, when that was kept
    """

    code: int
    interrupted: bool
    outcome: Outcome | None
    said: str = ""


def perform(request: Request, quiet: bool = False) -> Ended:
    """Run pyinfra and wait for its end; an interrupt is passed on to it.

    :param quiet: keep what it says, instead of letting it through
    """
    streams: dict[str, Any] = {}
    if quiet:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    elif request.dry:
        streams = {"stdout": subprocess.DEVNULL}  # JSON for nobody
    # In memory: no disk that fills up, and no directory that goes, takes away what has become of the hosts.
    with os.fdopen(os.memfd_create("privnet-outcome"), "rb") as memory:
        streams |= {"env": request.environment(f"/proc/self/fd/{memory.fileno()}"), "pass_fds": (memory.fileno(),)}
        run = subprocess.Popen(request.command, text=True, errors="replace", **streams)
        with run, _passing_on(run) as interrupts:
            said = run.stderr.read() if run.stderr else ""
            code = run.wait()
        return Ended(code, bool(interrupts), read_outcome(memory.read()), said)


@contextmanager
def _passing_on(run: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end pyinfra in its own way; the list says which came.

    A terminal sends Ctrl-C to both, so the first one is not sent again: a second cuts off what pyinfra does at its end.
    """
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        by_terminal = number == signal.SIGINT and not seen and _in_foreground()
        seen.append(number)
        if not by_terminal:
            run.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        handle = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(handle) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(handle)


def read_outcome(text: bytes) -> Outcome | None:
    """A run's outcome; None when it has not got so far as to write one. One that was cut short has no host."""
    if not text:
        return None
    try:
        data = json.loads(text)
    except ValueError:
        return Outcome("", {})
    hosts = {
        name: HostOutcome(
            **{
                **host,
                "state": State(host["state"]),
                "changes": [StageChanges(**stage) for stage in host["changes"]],
            }
        )
        for name, host in data["hosts"].items()
    }
    return Outcome(data["run"], hosts, data["serial"], data["stopped"])


def chosen(fleet: Fleet, limit: Iterable[str]) -> tuple[set[str], list[str]]:
    """The hosts that a run is about, as pyinfra understands ``--limit``; and limits that mean no host."""
    patterns, known = list(limit), groups(fleet)
    hosts = set(known[EVERY])
    if not patterns:
        return hosts, []
    known["all"] = known[EVERY]
    found = {pattern: set(known.get(pattern) or fnmatch.filter(hosts, pattern)) for pattern in patterns}
    return set().union(*found.values()), [pattern for pattern, hosts in found.items() if not hosts]


# --- what is said of it -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """An exit code, and what a person is told."""

    code: int
    lines: tuple[str, ...]


def judge(ended: Ended, hosts: Collection[str], dry: bool, rollback: int, within: int = 0) -> Verdict:
    """What has become of a run.

    :param hosts: those that it was about
    :param rollback: ``policy.rollback``, in seconds: when a host that nobody confirmed rolls back
    :param within: seconds for which changed hosts wait for a person
    """
    found = ended.outcome
    if found is None:
        # The first thing that a run learns of a host is written down, and before that it changes none.
        if ended.interrupted:
            return Verdict(FAILED, ("INTERRUPTED: no host was changed",))
        return Verdict(FAILED, (f"FAILED: pyinfra ended with {ended.code}, no host was changed; it says why above",))
    about = {name: _last_known(ended, name) for name in sorted(found.hosts or hosts) if name in hosts}
    code = _code(ended, about, dry)
    stopped = found.stopped["why"] if found.stopped else ""
    lines = [*_summary(about, dry, stopped), *_closing(code, ended, about, dry, rollback)]
    if held := sum(host.state is State.held for host in about.values()):
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + within))
        if code in (DONE, PENDING):
            lines = [*_summary(about, dry, stopped)]
        lines.append(waiting.closing(held, sum(host.state in _OPEN for host in about.values()), within, until))
    return Verdict(code, tuple(lines))


def _last_known(ended: Ended, name: str) -> HostOutcome:
    """Where a host stands; unknown where the run has ended before it could say so."""
    host = ended.outcome.hosts.get(name) if ended.outcome else None
    killed = ended.code < 0  # before it could write down what it knew last
    if host is None or (killed and host.state in (State.unreached, State.asked)):
        return HostOutcome(State.unknown, "the run ended before it said what had become of it")
    return replace(host, state=State.unknown) if host.state is State.begun else host


def is_cut_short(ended: Ended) -> bool:
    """Whether the run has ended before it was over: by an error of its own, or since something has ended it."""
    hosts = ended.outcome.hosts if ended.outcome else {}
    return ended.code < 0 or not hosts or any(host.state in (State.asked, State.begun) for host in hosts.values())


def _code(ended: Ended, about: Mapping[str, HostOutcome], dry: bool) -> int:
    stopped = ended.outcome.stopped if ended.outcome else None
    states = {host.state for host in about.values()}
    if is_cut_short(ended):
        return FAILED
    if stopped:
        return {"locked": LOCKED, "stale": REFUSED, "refused": REFUSED}.get(stopped["kind"], FAILED)
    if ended.interrupted or State.failed in states:
        return FAILED
    # What a dry run would change is pending too, and that is what was asked.
    if State.unreached in states or (State.pending in states and not dry):
        return PENDING
    return FAILED if ended.code else DONE


_HEADS = (
    (State.changed, "changed and confirmed"),
    (State.held, "changed, waits to be confirmed"),
    (State.unchanged, "nothing to do"),
    (State.pending, "pending"),
    (State.asked, "not done"),
    (State.unreached, "no answer"),
    (State.failed, "failed"),
    (State.unknown, "state unknown"),
)
_SHARED = (State.pending, State.unreached, State.failed)
"""Of hosts in such a state, those with the same reason are one line."""
_OPEN = (State.pending, State.unreached)
_COUNTED = (State.changed, State.unchanged)
"""Of many hosts in such a state, none is listed."""


def _summary(about: Mapping[str, HostOutcome], dry: bool, stopped: str = "") -> Iterator[str]:
    """What has become of each host; of those that have the same reason, in one line.

    :param stopped: what is said of the whole run, and so not of each host
    """
    for state, head in _HEADS:
        some = {name: host for name, host in about.items() if host.state == state}
        if not some:
            continue
        shown = "would change" if dry and state is State.pending else head
        if state is State.unchanged or len(some) > LISTED_AT_MOST:
            yield f"{shown}: {plural(len(some), 'host')}{_few(some)}"
            some = {} if state in _COUNTED else dict(list(some.items())[:LISTED_AT_MOST])
        lines: dict[tuple[str, str], list[str]] = {}
        for name, host in some.items():
            said = "" if dry and state is State.pending else host.why
            if stopped and said.endswith(stopped):
                said = said.removesuffix(stopped).rstrip(": ")
            steps = ", ".join(f"{stage.stage} {plural(len(stage.lines), 'step')}" for stage in host.changes)
            line = shown + (f": {visible(said)}" if said else "") + (f" ({steps})" if steps else "")
            shared = state in _SHARED and (said or stopped)
            lines.setdefault((line, "" if shared else name), []).append(name)
        yield from (f"  {', '.join(names)}  {line}" for (line, _), names in lines.items())
    held = sorted({visible(line) for host in about.values() for line in host.held})
    for line in held[:LISTED_AT_MOST]:
        yield f"  held back: {line}"
    if len(held) > LISTED_AT_MOST:
        yield f"  held back: {len(held) - LISTED_AT_MOST:,} more"


def _few(hosts: Collection[str]) -> str:
    return f" ({', '.join(hosts)})" if len(hosts) <= STEPS_LISTED else ""


def _closing(code: int, ended: Ended, about: Mapping[str, HostOutcome], dry: bool, rollback: int) -> Iterator[str]:
    stopped = ended.outcome.stopped if ended.outcome else None
    if is_cut_short(ended):
        yield _cut_short(ended, about, rollback)
    elif stopped:
        head = {LOCKED: "LOCKED", REFUSED: "REFUSED"}.get(code, "FAILED")
        remedy = ". Put right what is said of the hosts above; the same command again tries those that are not done"
        yield f"{head}: {visible(stopped['why'])}" + (remedy if code == FAILED else "")
    elif ended.interrupted:
        yield "INTERRUPTED: the same command again finishes what was begun"
    elif code == FAILED:
        yield "FAILED: see what is said of the hosts above; the same command again tries those that are not done"
    elif code == PENDING and not dry:
        open_hosts = sum(host.state in _OPEN for host in about.values())
        silent = any(host.state is State.unreached for host in about.values())
        held = silent and any(host.held for host in about.values())
        yield (
            f"PENDING: {plural(open_hosts, 'host')} not done, all others are. Nothing was taken away that a host "
            "without an answer may need. When what is said of them is put right, the same command again finishes them"
        ) + (". A host that stays away holds back moves until fleet.yaml says `state: out` of it" if held else "")
    elif code == PENDING:
        yield "PENDING: not every host has answered; of those nothing is known"
    elif dry:
        yield "DRY RUN: nothing was changed"
    else:
        yield f"DONE: {plural(len(about), 'host')} as planned"


def _cut_short(ended: Ended, about: Mapping[str, HostOutcome], rollback: int) -> str:
    unknown = [name for name, host in about.items() if host.state is State.unknown]
    head = "INTERRUPTED" if ended.interrupted else "FAILED: the run ended before it was over; it says why above"
    state = (
        f"the state of {plural(len(unknown), 'host')} is unknown ({_some(unknown)}): each has the old state, or old "
        f"and new beside each other, and rolls back within {rollback} s unless its change was confirmed"
        if unknown
        else "no host has a change that is not confirmed"
    )
    return f"{head}: {state}. The same command again finishes what was begun"


def live_data(found: Outcome) -> dict[str, dict[str, Any]]:
    """What hosts that answered a dry run were found to be, for a saved plan."""
    return {
        name: {"applied": host.applied, "changes": _steps(host)}
        for name, host in sorted(found.hosts.items())
        if host.state not in (State.unreached, State.failed)
    }


def _steps(host: HostOutcome) -> list[dict[str, Any]]:
    return [{"stage": stage.stage, "lines": stage.lines} for stage in host.changes]


def _impacts(host: HostOutcome) -> list[Impact]:
    return steps_impact(_stage_lines(host))


def _deeds(found: Outcome, compiled: Compiled) -> dict[str, list[Deed]]:
    names, changed = Names.of(compiled.before, compiled.lock), host_changes(compiled.before, compiled.lock)
    would = {name: host for name, host in sorted(found.hosts.items()) if host.changes}
    return {
        name: deeds_of(_stage_lines(host), names, changed[name].meets if name in changed else ())
        for name, host in would.items()
    }


def _stage_lines(host: HostOutcome) -> list[tuple[str, str]]:
    return [(stage.stage, line) for stage in host.changes for line in stage.lines]


def live_report(found: Outcome, compiled: Compiled) -> dict[str, Any]:
    """The same with hosts that did not, what the steps come to, and their impact, for machines."""
    deeds = _deeds(found, compiled)
    return {
        name: {
            "state": host.state,
            "why": host.why,
            "applied": host.applied,
            "changes": _steps(host),
            "deeds": [asdict(deed) for deed in deeds.get(name, ())],
            "impact": [
                {"label": str(impact.label), "flows": impact.flows, "reason": impact.reason}
                for impact in _impacts(host)
            ],
        }
        for name, host in sorted(found.hosts.items())
    }


def live_lines(found: Outcome, compiled: Compiled, steps: bool = False) -> Iterator[str]:
    """What a run would do by network and host, for people; and hosts of which nothing is known.

    :param steps: also what it would execute there, stage by stage
    """
    silent = {name: host for name, host in sorted(found.hosts.items()) if host.state in (State.unreached, State.failed)}
    would = {name: host for name, host in sorted(found.hosts.items()) if name not in silent and host.changes}
    asked = len(found.hosts) - len(silent)
    if found.stopped:
        yield f"A run would stop: {visible(found.stopped['why'])}"
    yield f"{asked:,} of {plural(len(found.hosts), 'host')} answered, {len(would):,} of them would be changed"
    reasons: dict[str, list[str]] = {}
    for name, host in list(silent.items())[:LISTED_AT_MOST]:
        word = "no answer" if host.state is State.unreached else "would fail"
        reasons.setdefault(f"{word}{f': {visible(host.why)}' if host.why else ''}", []).append(name)
    yield from (f"  {', '.join(names)}  {said}" for said, names in reasons.items())
    if len(silent) > LISTED_AT_MOST:
        yield f"  and {len(silent) - LISTED_AT_MOST:,} more like these"
    networks = compiled.known.networks.keys() | compiled.lock.networks.keys()
    deeds = {name: some for name, some in _deeds(found, compiled).items() if name in would}
    yield from deed_lines(deeds, {network: network_title(compiled, network) for network in networks})
    felt: dict[Impact, list[str]] = {}
    for name, host in would.items():
        for impact in _impacts(host):
            felt.setdefault(impact, []).append(name)
    if would:
        yield "impact" if felt else _unfelt(compiled, bool(silent))
    for impact in sorted(felt, key=lambda impact: ORDER.index(impact.label)):
        yield f"  {impact} (by {_some(felt[impact])})"
    if steps:
        yield "steps"
        for name, host in list(would.items())[:STEPS_LISTED]:
            yield from _host_lines(name, host)
        if len(would) > STEPS_LISTED:
            yield f"  {len(would) - STEPS_LISTED:,} more hosts: `--format json` has all of them"


def _unfelt(compiled: Compiled, silent: bool) -> str:
    """No step is felt by itself; that a container goes to another host is a change of the plan, not of a host."""
    changed = impacts(compiled.before, compiled.lock, changes_of(compiled))
    if any(impact.label is not Label.none for _, impact in changed):
        return "impact: that of the changes above, and no other"
    return f"impact: none, no flow{' of hosts that answered' if silent else ''} loses a packet"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - STEPS_LISTED:,} more" if len(names) > STEPS_LISTED else ""
    return " ".join(names[:STEPS_LISTED]) + more


def _host_lines(name: str, host: HostOutcome) -> Iterator[str]:
    yield f"  {name}"
    for stage in host.changes:
        for line in stage.lines[:STEPS_LISTED]:
            yield f"    {stage.stage}: {visible(line)}"
        if len(stage.lines) > STEPS_LISTED:
            yield f"    {stage.stage}: {len(stage.lines) - STEPS_LISTED:,} more"
