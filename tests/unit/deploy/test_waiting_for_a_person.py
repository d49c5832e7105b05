"""What is said of hosts that wait for a person, and of the person's last word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privnet.cli import app
from privnet.deploy.command import HERE, WITHIN, Ended, Request, judge
from privnet.deploy.outcome import HostOutcome, Outcome, State
from privnet.deploy.waiting import WORD, said

HOSTS = {"h1", "h2", "h3"}


def outcome(stopped: dict[str, str] | None = None, **hosts: State) -> Outcome:
    return Outcome("r1", {name: HostOutcome(state) for name, state in hosts.items()}, 12, stopped)


def test_a_run_that_leaves_hosts_waiting_says_until_when() -> None:
    found = outcome(h1=State.held, h2=State.held, h3=State.unchanged)
    verdict = judge(Ended(0, False, found), HOSTS, False, 180, 600)
    assert verdict.code == 0
    *lines, last = verdict.lines
    assert lines == [
        "  h1  changed, waits to be confirmed",
        "  h2  changed, waits to be confirmed",
        "nothing to do: 1 host (h3)",
    ]
    assert re.fullmatch(
        r"HELD: 2 hosts changed, for 600 s \(until \d\d:\d\d:\d\d\)\. `privnet confirm INVENTORY` keeps it, "
        r"`privnet undo INVENTORY` rolls it back now\. Without either they roll back by themselves",
        last,
    )


def test_hosts_that_are_not_done_have_their_turn_after_the_person() -> None:
    """Before, another run would be refused."""
    verdict = judge(Ended(1, False, outcome(h1=State.held, h2=State.unreached)), HOSTS, False, 180, 600)
    assert verdict.code == 3
    assert [line for line in verdict.lines if "same command" in line] == []
    assert verdict.lines[-1].endswith("they roll back by themselves. 1 other host not done: run again after that")


def test_what_failed_is_said_as_well() -> None:
    verdict = judge(Ended(1, False, outcome(h1=State.held, h2=State.failed)), HOSTS, False, 180, 600)
    assert verdict.code == 1
    assert [line.split(":")[0] for line in verdict.lines[-2:]] == ["FAILED", "HELD"]


@pytest.mark.parametrize(
    ("word", "found", "code", "last"),
    [
        ("confirm", outcome(h1=State.changed, h2=State.changed, h3=State.unchanged), 0,
         "CONFIRMED: 2 hosts keep what was changed"),
        ("undo", outcome(h1=State.undone, h3=State.unchanged), 0,
         "UNDONE: 1 host as before the change. Take it out of the YAML too, or the next deploy does it again"),
        ("confirm", outcome(h1=State.unchanged), 1,
         "FAILED: no host waits for it: it was confirmed or undone before, or the time was up and the hosts have "
         "rolled back"),
        ("undo", outcome(h1=State.undone, h2=State.unreached), 1,
         "FAILED: 1 host did not undo; 1 other host did"),
        ("confirm", outcome(h1=State.changed, h2=State.asked), 1,
         "FAILED: 1 host did not confirm; 1 other host did"),
        ("confirm", outcome({"why": "another run is under way", "kind": "locked"}, h1=State.asked), 75,
         "LOCKED: another run is under way"),
        ("undo", None, 1, "FAILED: no host was asked to undo; pyinfra says why above"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_last_word(word: str, found: Outcome | None, code: int, last: str) -> None:
    ended, lines = said(found, HOSTS, word)
    assert (ended, lines[-1]) == (code, last)


def test_a_last_word_is_a_run_of_its_own() -> None:
    asked = Request(Path("inventory/prod"), word="undo")
    assert asked.command[-1] == str(HERE / "last_word.py") and asked.environment("")[WORD] == "undo"
    change = Request(Path("inventory/prod"), within=600)
    assert change.command[-1] == str(HERE / "private_network.py") and change.environment("")[WITHIN] == "600"
    assert WORD not in change.environment("")


@pytest.mark.parametrize(
    ("time", "why"),
    [
        ("10", '--confirm-within "10" is not a duration: write 10s for seconds'),
        ("soon", '--confirm-within "soon" is not a duration: for example 0s, 30m or 1h'),
        ("5s", "--confirm-within 5s is shorter than 30s"),
        ("2d", "--confirm-within 2d is longer than 1d"),
    ],
)
def test_a_time_that_is_none_is_refused(tmp_path: Path, time: str, why: str) -> None:
    directory = tmp_path / "fleet"
    directory.mkdir()
    (directory / "fleet.yaml").write_text("fleet: one\nhosts: {h1: {address: 192.0.2.1}}\n")
    done = CliRunner().invoke(app, ["deploy", str(directory), "-y", "--confirm-within", time])
    assert done.exit_code == 2 and why in done.output.replace("\n", " ")
