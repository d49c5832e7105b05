"""The operations of a run. Each compares a host with its plan and yields nothing, or one execution.

Trouble of one host is a failing command, never an exception: an operation that raises aborts the run for every host
(pyinfra 3.10).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from privnet.deploy import changes
from privnet.deploy.facts import Snapshot
from privnet.deploy.run import Run, begin
from privnet.deploy.script import RUN, Script
from privnet.deploy.state import HostState, Unknown
from privnet.deploy.terminal import guard
from privnet.diagnostics import DeclarationError, render_text, visible

guard(logger)

Commands = Generator[StringCommand | FunctionCommand, None, None]


@operation()
def record() -> Commands:
    """Write the lock file on this machine, before any host is changed. Never in a dry run."""
    run = _run()
    if not run.must_record():
        host.noop("the lock file is up to date")
        return
    yield FunctionCommand(_record, (run,), {})


@operation()
def prepare() -> Commands:
    """Packages, the host's own key, networkd."""
    run = _run()
    if run.stopped:
        yield _fail(run.stopped)
        return
    found = _snapshot(run)
    if isinstance(found, Unknown):
        yield _fail(found.why)
        return
    why = changes.obstacle(found) or run.lost_key(host.name, found)
    if why is not None:
        yield _fail(why)
        return
    script = changes.prepare(found)
    if not script:
        why = run.learn(host.name, found)
        if why is not None:
            yield _fail(why)
        else:
            host.noop("packages, key and networkd are there")
        return
    yield _execute(script)
    # What a host has after this is what the rest of the run stands on: its key, and that nothing else was there.
    found = _snapshot(run, again=True)
    why = found.why if isinstance(found, Unknown) else run.learn(host.name, found)
    if why is not None:
        yield _fail(why)


@operation()
def add() -> Commands:
    """Everything that is new, beside everything that is old."""
    yield from _wave(lambda run, found: changes.add(run.plan_of(host.name), found))


@operation()
def switch() -> Commands:
    """Forwarding of moved containers, and names."""
    yield from _wave(lambda run, found: changes.switch(run.plan_of(host.name), found))


@operation()
def retire() -> Commands:
    """Everything that is no longer in the plan."""
    yield from _wave(lambda run, found: changes.retire(run.plan_of(host.name), found))


def _wave(change: Callable[[Run, HostState], Script]) -> Commands:
    run = _run()
    if run.stopped:
        yield _fail(run.stopped)
        return
    found = _snapshot(run)
    if isinstance(found, Unknown):
        yield _fail(found.why)
        return
    script = change(run, found)
    if script:
        yield _execute(script)
    else:
        host.noop("nothing to change")


def _run() -> Run:
    return begin(Path(host.data.privnet_directory))


def _snapshot(run: Run, again: bool = False) -> HostState | Unknown:
    """The host's answer, asked once while pyinfra looks for changes and once while it makes them."""
    key = (host.name, state.is_executing)
    if again or key not in run.answers:
        answer = host.get_fact(Snapshot)
        if isinstance(answer, HostState):
            answer = _usable(answer)
        run.answers[key] = answer
    return run.answers[key]


def _usable(found: HostState) -> HostState | Unknown:
    if not found.systemd:
        return Unknown("it does not run systemd")
    if not found.root:
        return Unknown("commands do not run as root there: log in as root, or as a user with sudo")
    return found


def _execute(script: Script) -> StringCommand:
    return StringCommand("sh", "-c", QuoteString(RUN), _stdin=script.upload())


def _fail(why: str) -> FunctionCommand:
    """A command that fails with a sentence: this host stops here, the others go on.

    It runs on this machine: a host that answers everything with success would not let itself be stopped.
    """
    return FunctionCommand(_stop, (why,), {})


def _stop(state: Any, host: Any, why: str) -> bool:  # pyinfra passes the first two by their names
    logger.error(f"{host.print_prefix}privnet: {host.name}: {visible(why)}")
    return False


def _record(state: Any, host: Any, run: Run) -> bool:  # pyinfra passes these two by their names
    try:
        run.record()
    except DeclarationError as error:
        logger.error(render_text(error.problems, color=False, sources=error.sources))
        run.stopped = "nothing is changed: the lock file was written by another run in the meantime"
    except OSError as error:
        run.stopped = f"nothing is changed: the lock file cannot be written ({error.strerror}: {error.filename})"
        logger.error(run.stopped)
    # pyinfra runs this for one host, and goes on with the others when it fails; they look at `stopped`.
    return run.stopped is None
