"""Hosts that a run has left waiting for a person (``--confirm-within``), and the person's last word on them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from privnet.deploy.outcome import Outcome, State
from privnet.diagnostics import plural, visible

WORD = "PRIVNET_LAST_WORD"
"""``confirm`` or ``undo``, in the environment of the run that says it."""
DONE, FAILED, LOCKED = 0, 1, 75
_BECOMES = {"confirm": State.changed, "undo": State.undone}


def last_word() -> str | None:
    """What this run is to say of hosts that wait; None for a run that changes hosts."""
    return os.environ.get(WORD)


def waits(run: str, host: str) -> str:
    """Why another run changes nothing."""
    return (
        f"nothing is changed: run {run} waits on {host} for a person: `privnet confirm INVENTORY` keeps what it has "
        "done, `privnet undo INVENTORY` rolls it back"
    )


def silent(hosts: Iterable[str]) -> str:
    """Why nothing is confirmed: who does not answer would roll back alone."""
    names = ", ".join(hosts)
    return (
        f"nothing is confirmed, since hosts without an answer would roll back alone: {names}. Try again when they "
        "answer, or `privnet undo INVENTORY`; `--limit` with the other hosts confirms those all the same"
    )


def closing(held: int, others: int, seconds: int, until: str) -> str:
    """The last line of a run that leaves hosts waiting.

    :param others: hosts that are not done
    """
    rest = f". {plural(others, 'other host')} not done: run again after that" if others else ""
    return (
        f"HELD: {plural(held, 'host')} changed, for {seconds} s (until {until}). `privnet confirm INVENTORY` keeps it, "
        f"`privnet undo INVENTORY` rolls it back now. Without either they roll back by themselves{rest}"
    )


def said(outcome: Outcome | None, hosts: Collection[str], word: str) -> tuple[int, list[str]]:
    """Exit code, and what a person is told of a last word on these hosts."""
    if outcome is None:
        return FAILED, [f"FAILED: no host was asked to {word}; pyinfra says why above"]
    about = {name: host for name, host in sorted(outcome.hosts.items()) if name in hosts}
    done = [name for name, host in about.items() if host.state == _BECOMES[word]]
    bad = {name: host.why or "it does not answer" for name, host in about.items() if host.state not in _GOOD}
    lines = [f"  {name}  {visible(why)}" for name, why in bad.items()]
    if outcome.stopped:
        code = LOCKED if outcome.stopped["kind"] == "locked" else FAILED
        return code, [f"{'LOCKED' if code == LOCKED else 'FAILED'}: {visible(outcome.stopped['why'])}"]
    if bad:
        rest = f"; {plural(len(done), 'other host')} did" if done else ""
        return FAILED, [*lines, f"FAILED: {plural(len(bad), 'host')} did not {word}{rest}"]
    if not done:
        why = "it was confirmed or undone before, or the time was up and the hosts have rolled back"
        return FAILED, [f"FAILED: no host waits for it: {why}"]
    return DONE, [_ENDED[word].format(hosts=plural(len(done), "host"))]


_GOOD = (State.changed, State.undone, State.unchanged)
_ENDED = {
    "confirm": "CONFIRMED: {hosts} keep what was changed",
    "undo": "UNDONE: {hosts} as before the change. Take it out of the YAML too, or the next deploy does it again",
}
