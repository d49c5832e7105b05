"""The operations of a run. Each compares a host with its plan and yields nothing, or one execution.

Trouble of one host is a failing command, never an exception: an operation that raises aborts the run for every host
(pyinfra 3.10).
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from paramiko import Channel, ProxyCommand, SSHException
from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.exceptions import ConnectError

from privnet.deploy import changes, health, journal, waiting
from privnet.deploy.agreement import agree, apart
from privnet.deploy.changes.host import missing_packages
from privnet.deploy.connection import Connection, bounded
from privnet.deploy.facts import Addresses, Snapshot, question
from privnet.deploy.host_keys import OtherHostKey
from privnet.deploy.outcome import State
from privnet.deploy.run import Run, begin, runs
from privnet.deploy.script import CONFIRM, RUN, Script, Turn
from privnet.deploy.state import Armed, HostState, Unknown, parse_snapshot
from privnet.deploy.terminal import guard
from privnet.deploy.ways import endpoints
from privnet.diagnostics import DeclarationError, plural, render_text, visible

guard(logger)

QUESTION_SECONDS = 60
PROGRAM_SECONDS = 60
PREPARE_SECONDS = 900
"""A host that hangs is given up after this. To prepare it packages may have to be installed; a wave has twice the time
for which a host waits for its confirmation, if that is more."""
GRACE_SECONDS = 5
PAUSE_SECONDS = 10.0
"""Between two tries to connect, after shorter ones."""
MARGIN_SECONDS = 10.0
AGAIN_SECONDS = 1
"""Between two tries where another run has a host that will withdraw."""
QUIET_AT_MOST = 8
"""So many hosts that do not answer their peers are looked at before a run says that it was the change."""
CHANNEL_SECONDS = 15
"""How long a server may take to begin an execution; paramiko would wait for an hour."""
SILENCE = {
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 30_000,
}
"""In seconds, probes and milliseconds (tcp(7)): a host that is gone is noticed within 30 s, also in an upload, where no
probe is sent; its program would be waited for."""

Commands = Generator[StringCommand | FunctionCommand, None, None]


def outside() -> str:
    """Why this run of pyinfra can do nothing to a host; empty for the hosts of a fleet."""
    directory = host.data.get("privnet_directory")
    run = runs().get(Path(directory)) if directory else None
    if run is not None and host.name in run.plan.hosts:
        return ""
    return (
        f"{host.name} is no host of a fleet in this inventory, so nothing is done to it. Deploy with `privnet deploy "
        'INVENTORY` or the fleet\'s own inventory file; in a larger project: `if "fleet" in host.groups: '
        "private_network()`"
    )


@operation()
def leave_alone() -> Commands:
    """Do nothing to a host of somebody else's, and say so: other hosts go on."""
    yield FunctionCommand(_say_and_fail, (outside(),), {})


@operation()
def ask() -> Commands:
    """The one question."""
    run = _run()
    if state.is_executing:
        run.hold()
    if run.stopped:
        yield Refusal(run, run.stopped)
        return
    run.note(host.name, State.asked, "the run ended before it had answered")
    found = _snapshot(run)
    if isinstance(found, Unknown):
        yield Refusal(run, found.why)
        return
    run.note(host.name, State.asked, "the run ended before anything was done there")
    if found.armed and found.armed.held and not waiting.last_word() and not run.breaks(found.armed.run):
        run.stop(waiting.waits(found.armed.run, host.name), "locked")
    host.noop("it has answered")


@operation()
def record() -> Commands:
    """Write the lock file on this machine, before any host is changed. Never in a dry run, nor over a newer one."""
    run = _run()
    judged = run.judge(time.time(), _active())
    if not state.is_executing:
        # The last host of all has seen the answers of the others.
        for name, why in judged.items():
            run.host(name).changes.clear()
            run.note(name, State.failed, why)
    agree(run, {found.name for found in state.limit_hosts or state.inventory}, _active())
    if run.stopped or not run.must_record():
        host.noop("the lock file is up to date")
        return
    yield FunctionCommand(_record, (run,), {})


@operation()
def prepare_one() -> Commands:
    """Packages, key, networkd on one host, before any other that lacks some of it."""
    yield from _alone(_run(), "prepare", _to_prepare, _prepare)


@operation()
def prepare() -> Commands:
    """Packages, the host's own key, networkd; on no host before all have answered."""
    run = _run()
    if run.first.get("prepare") == host.name:
        host.noop("it was the first")
        return
    failed, found = _first_failed(run, "prepare"), _snapshot(run)
    if failed and isinstance(found, HostState) and _to_prepare(run, host.name, found):
        why = f"it was not prepared: {failed}, the first host that was to be, has failed"
        yield Refusal(run, why, State.pending)
        return
    yield from _prepare(run)


@operation()
def add_one() -> Commands:
    """Everything new on one host, before any other: what fails there, or finds another run at work, ends this one."""
    run = _run()
    apart(run, _failed())
    yield from _alone(run, "add", _to_add, _add)


@operation()
def add() -> Commands:
    """Everything that is new, beside everything that is old."""
    run = _run()
    _stop_with_the_first(run, "add")
    apart(run, _failed())
    if run.stopped:
        yield Refusal(run, run.stopped)
        return
    if host.name in run.ready:
        host.noop("it has everything new")
        return
    yield from _add(run)


@operation()
def reach() -> Commands:
    """A host whose tunnels were touched asks the peers that answered before; no other is asked anything."""
    run = _run()
    apart(run, _failed())
    if host.name not in run.asking or host.name not in run.armed:
        host.noop("its tunnels are as they were")
        return
    yield Peers(run)


@operation()
def switch_one() -> Commands:
    """The same as `switch` on one host, when that is the first that the run changes anywhere."""
    run = _run()
    apart(run, _failed())
    _stop_where_peers_are_lost(run)
    if host.name in run.gone:
        yield Refusal(run, "it answered when the run began, and now it takes no new connection")
        return
    if not run.concerned["add"]:
        yield from _alone(run, "switch", _to_switch, _switch)


@operation()
def switch() -> Commands:
    """Forwarding of moved containers, and names; with it all that is gone elsewhere, when nothing is gone here."""
    yield from _after_the_first("switch", "nothing is switched or taken away", _switch)


@operation()
def settle() -> Commands:
    """A changed host takes a new connection before anything old goes: it would need that if it went back."""
    run = _run()
    found = _snapshot(run)
    _stop_with_too_many(run, "nothing is taken away")
    if run.stopped or isinstance(found, Unknown):
        yield Refusal(run, run.stopped or found.why)  # type: ignore[union-attr]
        return
    if host.name not in run.armed and found.armed:
        yield _what_was_left(run, found.armed, found.generation)
    elif state.is_executing and _leaving(run) and not _proven(run):
        yield FunctionCommand(_refuse, (), {})
    else:
        host.noop("it can be reached" if host.name in run.armed else "nothing was changed")
    run.settled.add(host.name)


@operation()
def retire_one() -> Commands:
    """The same as `retire` on one host, when that is the first that the run changes anywhere."""
    run = _run()
    if not run.concerned["add"] and not run.concerned["switch"]:
        yield from _alone(run, "retire", _to_retire, _retire)


@operation()
def retire() -> Commands:
    """Everything that is no longer in the plan."""
    yield from _after_the_first("retire", "nothing is taken away", _retire)


@operation()
def confirm() -> Commands:
    """A new connection proves that the host can still be reached: it forgets how to go back, and its lease ends.

    Those that have taken something away come later: they go back while another may have to that needs it.
    """
    run = _run()
    if host.name in run.concerned["retire"]:
        host.noop("others come first")
        return
    yield from _confirm(run)


@operation()
def confirm_retired() -> Commands:
    """The same for hosts that have taken something away, if no other has rolled back to where it is needed."""
    run = _run()
    if host.name not in run.concerned["retire"]:
        host.noop("it has taken nothing away")
        return
    found = _snapshot(run)
    needed = dict(run.needed(host.name, found)) if isinstance(found, HostState) else {}
    if needed and host.name in run.armed and not run.stopped:
        run.host(host.name).held = [*needed.values()]
        yield Return(run, next(iter(needed.values())))
        return
    yield from _confirm(run)


@operation()
def say() -> Commands:
    """What a person says of what a run has left waiting: to confirm it, all hosts have to be there."""
    run, word = _run(), waiting.last_word()
    found = _snapshot(run)
    if word == "confirm" and not run.stopped and (silent := sorted(_failed())):
        run.stop(waiting.silent(silent), "failed")
    if isinstance(found, Unknown):
        yield Refusal(run, run.stopped or found.why, State.pending)
    elif run.stopped:
        yield Refusal(run, run.stopped, State.pending)
    elif not found.armed:
        run.leave(host.name)
        host.noop("nothing waits there")
    elif word == "confirm":
        yield Confirmation(run, found.armed.run, found.generation, last=False)
    else:
        yield Undo(run, found.armed.run, found.generation)


# --- what waves share -------------------------------------------------------------------------------


def _alone(
    run: Run, wave: str, to_do: Callable[[Run, str, HostState], object], do: Callable[[Run], Commands]
) -> Commands:
    """Do it on one host that has something to do, before any other, and see that it can be reached."""
    # While pyinfra looks for changes it goes from host to host, and nobody is the first of all.
    first = _first(run, wave, to_do) if state.is_executing else None
    if first != host.name or run.stopped:
        host.noop(f"{first} is the first" if first else "nothing to do anywhere")
        return
    yield from do(run)
    if not _proven(run):
        yield FunctionCommand(_refuse, (), {})


def _after_the_first(wave: str, otherwise: str, do: Callable[[Run], Commands]) -> Commands:
    """On all other hosts, unless the first or too many have failed; ``otherwise`` says what does not happen then."""
    run = _run()
    _stop_with_the_first(run, wave)
    _stop_with_too_many(run, otherwise)
    if not run.stopped and run.first.get(wave) == host.name:
        host.noop("it was the first")
        return
    yield from do(run)


def _first(run: Run, wave: str, to_do: Callable[[Run, str, HostState], object]) -> str | None:
    """The canary. The same for all who ask."""
    if wave not in run.first:
        active = _active()
        run.first[wave] = run.canary(
            {name: found for name, found in run.states().items() if name in active and to_do(run, name, found)}
        )
    return run.first[wave]


def _first_failed(run: Run, wave: str) -> str | None:
    first = run.first.get(wave)
    return first if first is not None and first not in _active() else None


def _stop_with_the_first(run: Run, wave: str) -> None:
    if state.is_executing and not run.stopped and (failed := _first_failed(run, wave)):
        so = f"nothing else is changed: {failed}, the first host of this change, has failed"
        run.stop(f"{so}. The next run begins with another one, if there is one to change", "failed")


def _stop_with_too_many(run: Run, otherwise: str) -> None:
    if not run.stopped and run.too_many_failed(_failed()):
        run.stop(f"{otherwise}: too many hosts have failed", "failed")


def _stop_where_peers_are_lost(run: Run) -> None:
    """Unless the peer itself has failed in this run, or is gone: then it is not the change that has cut it off.

    One that the run did not reach, or was not to, has answered its peers until the change.
    """
    with run.judging:
        lost, run.lost = health.pairs(run.lost, run.plan.hosts), {}
        lost = {pair: small for pair, small in lost.items() if not any(run.host(n).state is State.failed for n in pair)}
        if not lost or run.stopped:
            return
        quiet = sorted(
            {peer for _, peer in lost if run.host(peer).state is not State.unreached and peer not in run.proven}
        )
        # Half of the time that those who ask have left: the other half is for what is done with the answer.
        now = time.monotonic()
        until = now + (min((run.until.get(name, now) for name, _ in lost), default=now) - now) / 2
        looks = [gevent.spawn(_is_there, run, state.inventory.get_host(name), until) for name in quiet[:QUIET_AT_MOST]]
        run.gone = {name for name, look in zip(quiet, gevent.joinall(looks), strict=False) if not look.value}
        lost = {pair: small for pair, small in lost.items() if not run.gone.intersection(pair)}
        if lost:
            run.stop(health.sentence(lost, run.plan.hosts), "failed")


def _is_there(run: Run, other: Any, until: float) -> bool:
    """Whether a host takes a new connection until then. One that refuses a connection now and then is there."""
    with run.busy[other.name]:
        old = getattr(other.connector, "client", None)
        other.disconnect()
        if _refused(run, other, until) is not None:
            return False
        _close(old)
        return True


def _to_prepare(run: Run, name: str, found: HostState) -> Script:
    refused = name in run.judge(time.time(), _active()) or run.lost_key(name, found)
    return Script() if refused else changes.prepare(found)


def _prepare(run: Run) -> Commands:
    judged = run.judge(time.time(), _active())
    if run.stopped:
        yield Refusal(run, run.stopped)
        return
    found = _snapshot(run)
    if isinstance(found, Unknown):
        yield Refusal(run, found.why)
        return
    why = judged.get(host.name) or run.lost_key(host.name, found)
    if why is not None:
        yield Refusal(run, why)
        return
    script = changes.prepare(found)
    if not script:
        why = run.learn(host.name, found)
        if why is not None:
            yield Refusal(run, why)
        else:
            host.noop("packages, key and networkd are there")
        return
    if found.armed and (missing := missing_packages(found)):
        why = (
            f"it lacks {', '.join(missing)}, and waits to roll back from run {found.armed.run}. To fetch packages "
            f"while it waits could hold it up. It rolls back within {run.patience} s: run again then"
        )
        yield Refusal(run, why, State.pending)
        return
    run.note_changes(host.name, "prepare", script)
    yield Program(run, script)
    # What a host has after this is what the rest of the run stands on: its key, and that nothing else was there.
    found = _snapshot(run, again=True)
    if isinstance(found, Unknown):
        why = found.why
    else:
        # Without nft, which it may have only now, it could not say what rules it has.
        why = run.learn(host.name, found) or run.obstacles(host.name, found, time.time())
    if why is not None:
        yield Refusal(run, why)
    elif state.is_executing:
        run.note(host.name, State.asked, "the run ended when it was prepared, and nothing else was done there")


def _add(run: Run) -> Commands:
    found = _snapshot(run)
    if isinstance(found, Unknown):
        yield Refusal(run, found.why)
        return
    yield from _wave(run, found, "add", _to_add(run, host.name, found))
    run.ready.add(host.name)


def _to_add(run: Run, name: str, found: HostState) -> Script:
    """What is new for a host; found once, though the search for the first host asks as well."""
    if name not in run.new:
        run.new[name] = changes.add(run.plan_of(name), found)
    return run.new[name]


def _switch(run: Run) -> Commands:
    found = _snapshot(run)
    if run.stopped or isinstance(found, Unknown):
        yield Refusal(run, run.stopped or found.why)  # type: ignore[union-attr]
        return
    script = _to_switch(run, host.name, found)
    if not script and not _proven(run):
        yield FunctionCommand(_refuse, (), {})
        return
    if script and not _held(run, host.name, found):
        last = changes.retire(run.plan_of(host.name), found)
        if last.is_far:
            script.merge(last)
            run.finished.add(host.name)
    yield from _wave(run, found, "switch", script)


def _to_switch(run: Run, name: str, found: HostState) -> Script:
    return changes.switch(run.plan_of(name), found, frozenset(_held(run, name, found)))


def _retire(run: Run) -> Commands:
    found = _snapshot(run)
    if run.stopped or isinstance(found, Unknown):
        yield Refusal(run, run.stopped or found.why)  # type: ignore[union-attr]
        return
    if host.name in run.finished:
        host.noop("it was taken away with the switch")
        return
    if state.is_executing and host.name not in _leaving(run):
        host.noop("nothing to change")
        return
    script = changes.retire(run.plan_of(host.name), found)
    held = _still_held(run, host.name, found) if script else {}
    if held:
        _keep(run, [*held.values()])
        return
    yield from _wave(run, found, "retire", script)


def _to_retire(run: Run, name: str, found: HostState) -> bool:
    return name in _leaving(run) and not _still_held(run, name, found)


def _leaving(run: Run) -> frozenset[str]:
    """Hosts from which something is to be taken away; found once."""
    if run.leaving is None:
        run.leaving = frozenset(
            name
            for name, found in run.states().items()
            if name in _active() and name not in run.finished and changes.retire(run.plan_of(name), found)
        )
    return run.leaving


def _confirm(run: Run) -> Commands:
    if host.name in run.armed:
        yield Confirmation(run, run.id, run.been[host.name], word="hold" if run.within else "confirm")
    else:
        run.finish(host.name)
        host.noop("there is nothing to confirm")


def _what_was_left(run: Run, armed: Armed, generation: str) -> Confirmation | Refusal:
    """For a host that would go back from what another run has done there and this one needs no more to do."""
    if armed.token in (run.token, ""):
        # One of this machine's, which has died.
        return Confirmation(run, armed.run, generation, last=False)
    return Refusal(run, f"run {armed.run} of another operator is at work there: it has not been confirmed")


def _proven(run: Run) -> bool:
    """Whether a host that has something new takes a new connection, before old containers go for its new ones."""
    with run.busy[host.name]:
        return host.name not in run.armed or _reconnected(run, host)


def _wave(run: Run, found: HostState, wave: str, script: Script) -> Commands:
    left_alone = not state.is_executing and run.host(host.name).state is State.failed
    if not script or left_alone:
        host.noop("it would fail before" if left_alone else "nothing to change")
        return
    run.concerned[wave].add(host.name)
    run.note_changes(host.name, wave, script)
    turn = run.turn(host.name, wave, found, script.disturbs)
    if turn.asks:
        run.asking.add(host.name)
    yield Program(run, script, turn)


def _active() -> set[str]:
    return {found.name for found in state.active_hosts}


def _failed() -> set[str]:
    return {found.name for found in state.failed_hosts}


def _held(run: Run, name: str, found: HostState) -> dict[str, str]:
    """MACs of containers that must not be switched, each with the reason."""
    return dict(run.held(name, found))


def _still_held(run: Run, name: str, found: HostState) -> dict[str, str]:
    """MACs of containers that must not be taken away, each with the reason."""
    return dict(run.needed(name, found)) | _held(run, name, found)


def _keep(run: Run, why: list[str]) -> None:
    """Leave everything old where it is, and say so."""
    run.host(host.name).held = why
    run.note(host.name, State.pending, "what is old stays until a later run")
    some = visible("; ".join(why[:3]) + (f"; and {plural(len(why) - 3, 'other')}" if len(why) > 3 else ""))
    logger.warning(f"{host.print_prefix}privnet: {host.name}: nothing old is taken away: {some}. Run again when it is")
    host.noop("nothing is taken away")


def _run() -> Run:
    run = begin(Path(host.data.privnet_directory))
    run.enter(state.is_executing)
    return run


def _snapshot(run: Run, again: bool = False) -> HostState | Unknown:
    """The host's answer, asked once while pyinfra looks for changes and once while it makes them."""
    key = (host.name, state.is_executing)
    if again or key not in run.answers:
        _notice_silence(host)
        asked = Addresses(endpoints(run.plan_of(host.name)))
        try:
            with _at_most(host, QUESTION_SECONDS):
                answer = host.get_fact(Snapshot, endpoints=asked, _timeout=QUESTION_SECONDS)
        except TimeoutError:
            answer = Unknown("it gave no answer in time")
        if isinstance(answer, Unknown) and (complaint := _complaint(host)):
            answer = Unknown(f"{answer.why}: {complaint}")
        if isinstance(answer, HostState):
            answer = _usable(answer)
            if isinstance(answer, HostState) and answer.applied:
                applied = answer.applied
                run.host(host.name).applied = f"{applied.serial} {applied.checksum} {applied.run}"
        run.answers[key] = answer
    return run.answers[key]


def _usable(found: HostState) -> HostState | Unknown:
    if not found.systemd:
        return Unknown("it does not run systemd")
    if not found.root:
        return Unknown("commands do not run as root there: log in as root, or as a user with sudo")
    if found.busy:
        return Unknown("a program of an earlier run, or its own rollback, is at work there: run again when it is over")
    return found


class Program(StringCommand):
    """One upload and one program on a host; what it says about leases is heard.

    A wave's program comes over a new connection when the one before it is not confirmed yet: that confirms it.
    """

    def __init__(self, run: Run, script: Script, turn: Turn | None = None) -> None:
        seconds = max(PROGRAM_SECONDS, 2 * turn.seconds) if turn else PREPARE_SECONDS
        words = ("sh", "-c", QuoteString(RUN), "privnet", str(seconds))
        super().__init__(*words, _stdin=script.upload(turn), _timeout=seconds)
        self._run, self._turn, self._seconds = run, turn, seconds

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Run it; pyinfra calls this."""
        run, turn, arguments = self._run, self._turn, _without_upload(connector_arguments)
        with run.busy[host.name]:
            if not run.stopped and host.name in run.armed and not _reconnected(run, host):
                return False, []
            if run.stopped:
                # Another host of this wave has found out why, after this one was about to begin.
                return _stop(state, host, run, run.stopped, arguments), []
            if host.name in run.armed:
                run.armed.discard(host.name)
                run.kept = run.kept or not run.within
            run.proven.discard(host.name)
            begun = time.monotonic()
            done, output = self._tried(state, host, connector_arguments)
            if done and turn is not None:
                run.armed.add(host.name)
                run.until[host.name] = begun + turn.seconds
                run.been[host.name] = turn.generation
                _extend_later(run, turn, state, host, arguments)
        return done, output

    def _tried(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Execute it; again while a run has the host that began later, and so will withdraw if it meets this one."""
        run, turn, execute = self._run, self._turn, super().execute
        done, output = _executed(run, host, execute, state, connector_arguments, self._seconds)
        if turn is None or done or _said(output)[0] != "later":
            return done, output
        until = time.monotonic() + turn.seconds / 2
        why = f"it waits for another run to stop, for {turn.seconds // 2} s at most: {_said(output)[1]}"
        logger.warning(f"{host.print_prefix}privnet: {host.name}: {why}")
        # Whatever it is that keeps this run from the host: it has met another one, which may be at work elsewhere.
        try:
            while not done and _said(output)[0] == "later" and time.monotonic() < until:
                gevent.sleep(AGAIN_SECONDS)
                if run.stopped:
                    break
                done, output = _executed(run, host, execute, state, connector_arguments, self._seconds)
        except (OSError, SSHException):
            _met(run, host, begun=True)
            raise
        if not done:
            _met(run, host, begun=_said(output)[0] is None)
        return done, output


class Confirmation(StringCommand):
    """Over a new connection: what was done is kept, or held for a person, and the host says what it is by now.

    Only a host that was read after its ``last`` wave can be said to be as planned.
    """

    def __init__(self, run: Run, armed: str, generation: str, last: bool = True, word: str = "confirm") -> None:
        self._word = word
        wait = (str(run.within),) if word == "hold" else ()
        words = (*_kept(word, armed, generation), *wait, *(("&&", *question()) if last else ()))
        # It waits for a program that is at work there, and then for the answer.
        self._run, self._last, self._seconds = run, last, 2 * QUESTION_SECONDS
        super().__init__(*words, _timeout=self._seconds)

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Run it; pyinfra calls this."""
        run = self._run
        with run.busy[host.name]:
            if not run.stopped and not _reconnected(run, host):
                return False, []
            if run.stopped:
                return _stop(state, host, run, run.stopped, connector_arguments), []
            run.kept = run.kept or self._word == "confirm"
            if host.name not in run.concerned["retire"]:
                # Not before it has said so: one that rolls back its switch sends to where it did.
                run.settled.discard(host.name)
            done, output = _executed(run, host, super().execute, state, connector_arguments, self._seconds)
            if done:
                run.settled.add(host.name)
                run.armed.discard(host.name)
                missing = self._missing(state, host, connector_arguments, output)
                _confirmed(run, host.name, missing, State.held if self._word == "hold" else State.changed)
        return done, output

    def _missing(self, state: Any, host: Any, connector_arguments: Any, output: Any) -> str:
        """What is not as planned though each step has succeeded; asked again, since a device may take a moment."""
        run = self._run
        if not self._last:
            return ""
        why = run.difference(host.name, _read(output))
        if why:
            gevent.sleep(AGAIN_SECONDS)
            again = StringCommand(*question(), _timeout=QUESTION_SECONDS)
            try:
                done, output = _executed(run, host, again.execute, state, connector_arguments, QUESTION_SECONDS)
            except (OSError, SSHException) as error:
                return f"{why} ({error})"
            why = run.difference(host.name, _read(output)) if done else why
        if why:
            logger.warning(f"{host.print_prefix}privnet: {host.name}: {visible(why)}")
        return why


def _read(output: Any) -> HostState | Unknown:
    """A host's answer behind another command."""
    found = parse_snapshot(getattr(output, "stdout_lines", []))
    return _usable(found) if isinstance(found, HostState) else found


class Undo(StringCommand):
    """A host rolls back at once from what a run has left waiting there."""

    def __init__(self, run: Run, armed: str, generation: str) -> None:
        self._run, self._seconds = run, 2 * PROGRAM_SECONDS
        super().__init__(*_kept("undo", armed, generation), _timeout=self._seconds)

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Tell it; pyinfra calls this."""
        with self._run.busy[host.name]:
            done, output = _executed(self._run, host, super().execute, state, connector_arguments, self._seconds)
            if done:
                self._run.note(host.name, State.undone, "a person has undone the last change")
        return done, output


class Peers(StringCommand):
    """Over a new connection: which peers have answered the host before it was changed, and do not any more."""

    def __init__(self, run: Run) -> None:
        wait = health.seconds(run.patience)
        self._run, self._seconds = run, wait + PROGRAM_SECONDS
        super().__init__(*_kept("lost", run.id, run.been[host.name]), str(wait), _timeout=self._seconds)

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Run it; pyinfra calls this."""
        run = self._run
        with run.busy[host.name]:
            if run.stopped:
                return _stop(state, host, run, run.stopped, connector_arguments), []
            if not _reconnected(run, host):
                return False, []
            done, output = _executed(run, host, super().execute, state, connector_arguments, self._seconds)
            if done:
                run.lost[host.name] = health.losses(output.stdout_lines)
        return done, output


class Refusal(StringCommand):
    """A command that fails with a sentence: this host stops here, the others go on.

    It runs on this machine: a host that answers everything with success would not let itself be stopped.
    """

    def __init__(self, run: Run, why: str, becomes: State = State.failed) -> None:
        super().__init__("false")
        self._run, self._why, self._becomes = run, why, becomes
        if not state.is_executing and not run.stopped:
            # What is yielded now is shown, and not executed: a dry run would say that the host is changed.
            run.note(host.name, becomes, why)

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Run nothing there, but take back what a run that is stopped has begun; pyinfra calls this."""
        with self._run.busy[host.name]:
            return _stop(state, host, self._run, self._why, connector_arguments, self._becomes), []


class Return(StringCommand):
    """A host rolls back at once from what it has not confirmed: another one, which has rolled back, needs it."""

    def __init__(self, run: Run, why: str) -> None:
        super().__init__("true")
        self._run, self._why = run, why

    def execute(self, state: Any, host: Any, connector_arguments: Any) -> Any:
        """Tell it; pyinfra calls this."""
        run = self._run
        with run.busy[host.name]:
            back = _withdrawn(state, host, run, connector_arguments)
        when = "what was old is back" if back else f"what was old is back within {run.patience} s"
        run.note(host.name, State.pending, f"{when}: {self._why}")
        logger.warning(f"{host.print_prefix}privnet: {host.name}: {visible(when)}: {visible(self._why)}")
        return True, []


def _without_upload(connector_arguments: Any) -> dict[str, Any]:
    """What pyinfra gives to other executions on the host, which would send the program's standard input again."""
    return {name: value for name, value in connector_arguments.items() if name != "_stdin"}


def _kept(word: str, armed: str, generation: str) -> tuple[Any, ...]:
    """A word of ``CONFIRM`` about what a run has left on a host, if it is still that."""
    return "sh", "-c", QuoteString(CONFIRM), "privnet", word, QuoteString(armed), QuoteString(generation)


def _executed(
    run: Run, host: Any, execute: Callable[..., Any], state: Any, connector_arguments: Any, seconds: int
) -> Any:
    _notice_silence(host)
    began = time.monotonic()
    try:
        with _at_most(host, seconds):
            done, output = execute(state, host, connector_arguments)
    except (OSError, SSHException, EOFError) as error:
        # pyinfra says it, and goes on without the host.
        why = f"{error or type(error).__name__}"
        run.note(host.name, State.failed, f"the connection was lost, or it hangs: {why}")
        if isinstance(error, EOFError):
            # paramiko's, of a connection that ends while a channel opens; pyinfra does not expect it.
            raise OSError(why) from error
        raise
    if not done:
        _heard(run, host, output)
        if _POINTER.search(run.host(host.name).why):
            _say_causes(run, state, host, connector_arguments, int(time.monotonic() - began) + 2)
    return done, output


_POINTER = re.compile("journalctl -x")
"""In systemctl's last line, which says where to look (systemctl.c, `log_job_error_with_service_result`)."""


def _say_causes(run: Run, state: Any, host: Any, connector_arguments: Any, seconds: int) -> None:
    """Look where systemctl points to: at what the units that failed have written in the last seconds."""
    command = StringCommand(journal.question(seconds), _timeout=QUESTION_SECONDS)
    try:
        with _at_most(host, QUESTION_SECONDS):
            execute: Callable[..., Any] = command.execute
            _, output = execute(state, host, _without_upload(connector_arguments))
    except (OSError, SSHException, EOFError):
        return
    if why := journal.causes(output.stdout_lines):
        run.note(host.name, State.failed, why)
        logger.error(f"{host.print_prefix}privnet: {host.name}: {why}")


@contextmanager
def _at_most(host: Any, seconds: int) -> Iterator[None]:
    """Bound what the host sends, and raise TimeoutError when pyinfra's own time did not end the waiting.

    That one ends with the output (pyinfra 3.10): a server that never says how a command has ended would be waited for.
    """
    hangs = TimeoutError("it does not say how it has ended")
    with bounded(_transport(host)), gevent.Timeout(seconds + GRACE_SECONDS, hangs):
        yield


def _extend_later(run: Run, turn: Turn, state: Any, host: Any, connector_arguments: Any) -> None:
    """Other hosts may take longer for a wave than this one waits: while they do, it is told to wait on."""
    timer = threading.Timer(turn.seconds / 3, _extend, (run, turn, state, host, connector_arguments))
    timer.daemon = True
    timer.start()


def _extend(run: Run, turn: Turn, state: Any, host: Any, connector_arguments: Any) -> None:
    with run.busy[host.name]:
        waits = host.name in run.armed and run.been[host.name] == turn.generation
        # Over a new connection, since the old one proves nothing: who cannot be reached so rolls back in time.
        if run.stopped or not waits or host not in state.active_hosts or not _reconnected(run, host):
            return
        command = StringCommand(*_kept("extend", run.id, turn.generation), _timeout=QUESTION_SECONDS)
        begun = time.monotonic()
        try:
            done, _ = _executed(run, host, command.execute, state, connector_arguments, QUESTION_SECONDS)
        except (OSError, SSHException) as error:
            why = f"it was not told to wait on, so it may go back to what it was, and a later run repeats it: {error}"
            logger.error(f"{host.print_prefix}privnet: {host.name}: {visible(why)}")
            return
    if done:
        run.until[host.name] = begun + turn.seconds
        _extend_later(run, turn, state, host, connector_arguments)


def _confirmed(run: Run, name: str, missing: str, becomes: State) -> None:
    outcome = run.host(name)
    serial, why = run.saved.serial, run.stopped or (outcome.why if outcome.held else "") or missing
    outcome.applied = f"{serial} {run.checksum(serial)} {run.id}"
    # A host that is held waits for a person, whatever it still lacks: that comes with a run after the person's word.
    run.note(name, State.pending if why and becomes is not State.held else becomes, why)


def _reconnected(run: Run, host: Any) -> bool:
    """Whether the host takes a new connection after its last change; the old one proves nothing."""
    if host.name in run.proven:
        return True
    old = getattr(host.connector, "client", None)
    host.disconnect()
    # What is confirmed shortly before the host rolls back arrives in time, or is refused there.
    refused = _refused(run, host, run.until.get(host.name, 0.0) - min(MARGIN_SECONDS, run.patience / 4))
    if refused is not None:
        why = f"it takes no new connection, so it rolls back within {run.patience} s: {visible(refused)}"
        # What it has it will not have for long: nothing goes elsewhere for it, and a late confirmation would be wrong.
        run.ready.discard(host.name)
        run.settled.discard(host.name)
        run.armed.discard(host.name)
        run.note(host.name, State.failed, why)
        logger.error(f"{host.print_prefix}privnet: {host.name}: {why}")
        return False
    run.proven.add(host.name)
    _close(old)
    return True


def _refused(run: Run, host: Any, until: float) -> str | None:
    """Connect, again and again until then by the monotonic clock; why not, or None when it is done.

    A rate limit on port 22 refuses a connection, and takes the next one.
    """
    for tries in itertools.count():
        try:
            host.connect(reason="again", raise_exceptions=True)
            return None
        except ConnectError as error:
            pause = min(2.0**tries, PAUSE_SECONDS)
            left = until - time.monotonic()
            if isinstance(error.__context__, OtherHostKey) or run.stopped or left < pause:
                return str(error)
            if not tries:
                why = f"{error}: trying again for {left:.0f} s. A limit on new connections may be why"
                logger.warning(f"{host.print_prefix}privnet: {host.name}: no new connection: {visible(why)}")
        gevent.sleep(pause)
    return None


def _notice_silence(host: Any) -> None:
    """Let the kernel ask a silent host whether it is still there, and do not wait for a server that hangs."""
    transport = _transport(host)
    if transport is None:
        return
    transport.channel_timeout = CHANNEL_SECONDS
    sock = transport.sock
    while isinstance(sock, Channel):
        # Of a host in between (ProxyJump). A program that connects (ProxyCommand) has to look after its own line.
        sock = sock.get_transport().sock
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in SILENCE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _transport(host: Any) -> Any:
    """paramiko's transport to a host, if it has one."""
    client = getattr(host.connector, "client", None)
    return client.get_transport() if client is not None else None


def _complaint(host: Any) -> str:
    """What the execution that has just failed on a host has said last."""
    transport = _transport(host)
    return visible(transport.complaint[:1000]) if isinstance(transport, Connection) else ""


_OPEN: list[Any] = []


def _close(client: Any) -> None:
    """Close an SSH connection, if it is one."""
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return
    if isinstance(transport.sock, ProxyCommand):
        # paramiko 4 ends the proxy's process a second time, which prints a traceback: it ends with this process then.
        _OPEN.append(client)
    else:
        client.close()


_REFUSALS = {f"privnet: {kind}: ": kind for kind in ("locked", "later", "stale")}


def _said(output: Any) -> tuple[str | None, str]:
    """What a program that failed has said last, and whether another run is in the way; ``later``: it may stop."""
    lines = [line for line in getattr(output, "stderr_lines", []) if line.strip()]
    why = visible(lines[-1][:1000]) if lines else "its program failed without a word"
    kind = next((kind for mark, kind in _REFUSALS.items() if why.startswith(mark)), None)
    return kind, why.split(": ", 2)[2] if kind else why


def _heard(run: Run, host: Any, output: Any) -> None:
    kind, why = _said(output)
    run.note(host.name, State.failed, why)
    if kind == "locked":
        _met(run, host)


def _met(run: Run, host: Any, begun: bool = False) -> None:
    """Stop: two runs that meet have numbers of their own for the same things, so what one has begun must not stay.

    :param begun: whether this one may have begun something on that host just now
    """
    if not run.stopped:
        first = host.name in run.first.values() and not run.been and not begun
        what = "has begun and not confirmed" if run.kept else "has begun"
        so = "nothing is changed" if first else f"another run is at work, so what this one {what} is taken back"
        run.stop(f"{so}: {host.name}: {run.host(host.name).why}", "locked")


def _stop(state: Any, host: Any, run: Run, why: str, connector_arguments: Any, becomes: State = State.failed) -> bool:
    # What stops a run is the same for hundreds of hosts: it is printed of the first.
    first = run.said.setdefault(why, host.name)
    printed = visible(why) if first == host.name else f"the same as of {first}"
    if run.stopped and host.name in run.armed:
        back = _withdrawn(state, host, run, connector_arguments)
        gone = "what is confirmed stays, and the rest is taken back" if run.kept else "it is as it was before"
        now = gone if back else f"it rolls back to what it was within {run.patience} s"
        why, printed = f"{now}: {why}", f"{now}: {printed}"
    run.note(host.name, State.pending if run.stopped else becomes, why)
    logger.error(f"{host.print_prefix}privnet: {host.name}: {printed}")
    return False


def _withdrawn(state: Any, host: Any, run: Run, connector_arguments: Any) -> bool:
    """Whether a host has rolled back at once from what this run has begun there; if not, its timer does it.

    It says that nothing has been only when that is so everywhere: another run may have waited for it.
    """
    run.armed.discard(host.name)
    word = "undo" if run.kept else "withdraw"
    command = StringCommand(*_kept(word, run.id, run.been[host.name]), _timeout=PROGRAM_SECONDS)
    try:
        done, _ = _executed(run, host, command.execute, state, connector_arguments, PROGRAM_SECONDS)
    except (OSError, SSHException):
        return False
    return bool(done)


def _refuse(state: Any, host: Any) -> bool:  # pyinfra passes these two by their names
    """A command that fails when all is said."""
    return False


def _say_and_fail(state: Any, host: Any, why: str) -> bool:  # pyinfra passes these two by their names
    logger.error(f"{host.print_prefix}privnet: {visible(why)}")
    return False


def _record(state: Any, host: Any, run: Run) -> bool:  # pyinfra passes these two by their names
    try:
        run.record()
    except DeclarationError as error:
        logger.error(render_text(error.problems, color=False, sources=error.sources))
        run.stop_unread(error.problems[0])
    except OSError as error:
        so = "nothing else" if any(found.changes for found in run.outcome.hosts.values()) else "nothing"
        why = f"{so} is changed: the lock file cannot be written ({error.strerror}: {error.filename})"
        run.stop(why, "failed" if so == "nothing else" else "refused")
        logger.error(why)
    # The other hosts look at `stopped`.
    if run.stopped:
        run.note(host.name, State.pending, run.stopped)
    return run.stopped is None
