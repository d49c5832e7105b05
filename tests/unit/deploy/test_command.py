"""`privnet deploy` without hosts: what pyinfra is asked, and what is said of an outcome."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from privnet.deploy.command import (
    DONE,
    FAILED,
    LOCKED,
    PENDING,
    REFUSED,
    Ended,
    Request,
    Verdict,
    chosen,
    judge,
    live_data,
    read_outcome,
)
from privnet.deploy.outcome import VARIABLE, Outcome, State

HOSTS = ("h1", "h2", "h3")
STEPS = [{"stage": "add", "lines": ["write /etc/a", "run x"]}, {"stage": "switch", "lines": ["run y"]}]


def host(state: str, why: str = "", changes: Any = (), held: Any = (), applied: str | None = None) -> dict[str, Any]:
    return {"state": state, "why": why, "changes": list(changes), "held": list(held), "applied": applied}


def outcome(stopped: dict[str, str] | None = None, **hosts: dict[str, Any]) -> Outcome:
    """What a run has written, read back."""
    found = read_outcome(json.dumps({"run": "r1", "serial": 12, "stopped": stopped, "hosts": hosts}).encode())
    assert found is not None
    return found


def verdict(found: Outcome | None, code: int = 0, dry: bool = False, interrupted: bool = False) -> Verdict:
    return judge(Ended(code, interrupted, found), HOSTS, dry, 180)


# --- outcome → exit code and summary ------------------------------------------------------------------------


def test_done() -> None:
    found = outcome(h1=host("changed", changes=STEPS), h2=host("unchanged"), h3=host("unchanged"))
    assert verdict(found) == Verdict(
        DONE,
        (
            "  h1  changed and confirmed (add 2 steps, switch 1 step)",
            "nothing to do: 2 hosts (h2, h3)",
            "DONE: 3 hosts as planned",
        ),
    )


def test_a_host_that_did_not_answer_and_one_that_is_not_done() -> None:
    held = ["1.web.ap-1 in pn-1: h3 is not ready for it"]
    found = outcome(
        h1=host("changed", changes=STEPS),
        h2=host("pending", "1 container is held back", STEPS, held),
        h3=host("unreached", "timed out"),
    )
    for code in (0, 1):  # pyinfra's own: a host that it could not reach is a failure to it
        said = verdict(found, code)
        assert said.code == PENDING
        assert "  h2  pending: 1 container is held back (add 2 steps, switch 1 step)" in said.lines
        assert "  h3  no answer: timed out" in said.lines
        assert "  held back: 1.web.ap-1 in pn-1: h3 is not ready for it" in said.lines
        assert said.lines[-1].startswith("PENDING: 2 hosts not done, all others are.")
        assert "the same command again" in said.lines[-1]


def test_a_failed_host_counts_more_than_a_pending_one() -> None:
    found = outcome(h1=host("failed", "nft: no such table"), h2=host("pending", "x"), h3=host("changed"))
    said = verdict(found, 1)
    assert said.code == FAILED
    assert "  h1  failed: nft: no such table" in said.lines
    assert said.lines[-1].startswith("FAILED: ")


@pytest.mark.parametrize(
    ("kind", "code", "head"),
    [
        ("locked", LOCKED, "LOCKED"),
        ("stale", REFUSED, "REFUSED"),
        ("refused", REFUSED, "REFUSED"),
        ("failed", FAILED, "FAILED"),
    ],
)
def test_a_run_that_was_stopped(kind: str, code: int, head: str) -> None:
    stopped = {"why": "nothing is changed: so it is", "kind": kind}
    said = verdict(outcome(stopped, **{name: host("pending", "x") for name in HOSTS}), 1)
    assert (said.code, said.lines[-1].partition(". ")[0]) == (code, f"{head}: nothing is changed: so it is")
    assert (DONE, FAILED, REFUSED, PENDING, LOCKED) == (0, 1, 2, 3, os.EX_TEMPFAIL)


def test_what_stops_a_run_is_said_once() -> None:
    """And of each host, beside its name, only what is its own."""
    why = "PN509: nothing is changed: h2 was changed last by serial 44 of the lock file, and this one has 2"
    hosts = {name: host("pending", why) for name in HOSTS[:2]}
    hosts["h3"] = host("pending", f"it is as it was before: {why}", STEPS)
    said = verdict(outcome({"why": why, "kind": "stale"}, **hosts), 1)
    assert said.lines == (
        "  h1, h2  pending",
        "  h3  pending: it is as it was before (add 2 steps, switch 1 step)",
        f"REFUSED: {why}",
    )


def test_hosts_with_the_same_reason_are_one_line() -> None:
    found = outcome(
        h1=host("unreached", "it does not answer"),
        h2=host("failed", "no room on /etc"),
        h3=host("unreached", "it does not answer"),
        h4=host("unreached", "connection refused"),
        h5=host("changed", changes=STEPS),
        h6=host("changed", changes=STEPS),
    )
    assert judge(Ended(1, False, found), [f"h{n}" for n in range(1, 7)], False, 180).lines[:-1] == (
        "  h5  changed and confirmed (add 2 steps, switch 1 step)",
        "  h6  changed and confirmed (add 2 steps, switch 1 step)",
        "  h1, h3  no answer: it does not answer",
        "  h4  no answer: connection refused",
        "  h2  failed: no room on /etc",
    )


def test_a_run_that_was_stopped_by_a_failure_says_what_to_do() -> None:
    """Who waits for another run, or has the wrong lock file, is told so in the sentence itself."""
    for kind, says in (("failed", True), ("locked", False), ("stale", False)):
        stopped = {"why": "nothing else is changed: so it is", "kind": kind}
        last = verdict(outcome(stopped, **{name: host("pending", "x") for name in HOSTS}), 1).lines[-1]
        assert ("Put right what is said of the hosts above; the same command again" in last) == says, last


def test_an_interrupt_is_no_success_although_pyinfra_ends_with_0() -> None:
    found = outcome(**{name: host("unchanged") for name in HOSTS})
    said = verdict(found, 0, interrupted=True)
    assert said.code == FAILED
    assert said.lines[-1] == "INTERRUPTED: the same command again finishes what was begun"
    assert verdict(None, 0, interrupted=True) == Verdict(FAILED, ("INTERRUPTED: no host was changed",))


def test_pyinfra_s_failure_is_never_called_done() -> None:
    assert verdict(outcome(**{name: host("changed") for name in HOSTS}), 1).code == FAILED
    assert verdict(None, 1).code == FAILED
    assert verdict(None, 0).code == FAILED


def test_a_dry_run() -> None:
    found = outcome(h1=host("pending", "the run ended", STEPS), h2=host("unchanged"), h3=host("unchanged"))
    said = verdict(found, dry=True)
    assert said.code == DONE
    assert said.lines == (
        "nothing to do: 2 hosts (h2, h3)",
        "  h1  would change (add 2 steps, switch 1 step)",
        "DRY RUN: nothing was changed",
    )
    found = outcome(h1=host("unreached", "timed out"), h2=host("unchanged"), h3=host("unchanged"))
    assert verdict(found, dry=True).code == PENDING


def test_with_a_limit_only_those_hosts_count() -> None:
    found = outcome(h1=host("changed"), h2=host("unreached"), h3=host("unreached"))
    said = judge(Ended(0, False, found), {"h1"}, False, 180)
    assert (said.code, said.lines[-1]) == (DONE, "DONE: 1 host as planned")
    assert judge(Ended(0, False, found), {"h1", "h2"}, False, 180).code == PENDING


def test_a_large_fleet_is_counted() -> None:
    names = [f"h{number}" for number in range(300)]
    changed = {name: host("changed", changes=STEPS) for name in names[:200]}
    found = outcome(**changed, h250=host("failed", "x"))
    said = judge(Ended(1, False, found), names, False, 180)
    assert said.lines[0] == "changed and confirmed: 200 hosts"
    assert said.lines[1] == "  h250  failed: x"
    assert len(said.lines) == 3


def test_what_a_host_says_is_no_command_to_the_terminal() -> None:
    found = outcome(h1=host("failed", "\x1b]0;owned\x07", held=["\x9b2J"]))
    assert not any(character in line for line in verdict(found).lines for character in "\x1b\x07\x9b")


# --- a run that ends before it is over ------------------------------------------------------------------------

MIDDLE = {
    "h1": host("changed", changes=STEPS),
    "h2": host("begun", "the run ended before it was done there", STEPS),
    "h3": host("asked", "the run ended before anything was done there"),
}
UNKNOWN = (
    "each has the old state, or old and new beside each other, and rolls back within 180 s unless its change was "
    "confirmed. The same command again finishes what was begun"
)
OVER = "FAILED: the run ended before it was over; it says why above"


def test_an_internal_error_is_failed_and_names_the_hosts_of_unknown_state() -> None:
    """Also where a host was found locked before, and whatever pyinfra ends with."""
    for code in (0, 1):
        for stopped in (None, {"why": "another run has it", "kind": "locked"}):
            said = verdict(outcome(stopped, **MIDDLE), code)
            assert said == Verdict(
                FAILED,
                (
                    "  h1  changed and confirmed (add 2 steps, switch 1 step)",
                    "  h3  not done: the run ended before anything was done there",
                    "  h2  state unknown: the run ended before it was done there (add 2 steps, switch 1 step)",
                    f"{OVER}: the state of 1 host is unknown (h2): {UNKNOWN}",
                ),
            )
    # The twin: the same hosts when the run has come to its end.
    ends = {**MIDDLE, "h2": host("changed"), "h3": host("unchanged")}
    assert verdict(outcome(**ends)).code == DONE


def test_an_internal_error_before_anything_was_done_says_that() -> None:
    said = verdict(outcome(**{**MIDDLE, "h1": host("unreached"), "h2": MIDDLE["h3"]}), 1)
    assert said.code == FAILED and "state unknown" not in "".join(said.lines) and "  h1  no answer" in said.lines
    assert said.lines[-1].startswith(f"{OVER}: no host has a change that is not confirmed. ")


@pytest.mark.parametrize("text", [b"", b"\0", b'{"run": "r1", "hosts": {"h1": {"sta'])
def test_of_a_run_that_was_killed_what_it_did_not_write_down_is_unknown(text: bytes) -> None:
    """Its last half second is missing. What is cut short is not read, and not taken for `nothing was changed`."""
    found = read_outcome(text)
    if not text:
        assert found is None
        return
    said = verdict(found, -9)
    assert said.code == FAILED
    assert [line for line in said.lines if "  state unknown: " in line] == [
        f"  {name}  state unknown: the run ended before it said what had become of it" for name in HOSTS
    ]
    assert f"{OVER}: the state of 3 hosts is unknown (h1 h2 h3): {UNKNOWN}" == said.lines[-1]
    killed = verdict(outcome(**{**MIDDLE, "h1": host("unreached")}), -9)
    assert "the state of 3 hosts is unknown" in killed.lines[-1]


def test_an_interrupt_says_in_which_state_hosts_are() -> None:
    said = verdict(outcome(**MIDDLE), 0, interrupted=True)
    assert said.code == FAILED and "  h3  not done: the run ended before anything was done there" in said.lines
    assert said.lines[-1] == f"INTERRUPTED: the state of 1 host is unknown (h2): {UNKNOWN}"


def test_a_silent_host_is_no_part_of_a_saved_plan() -> None:
    found = outcome(h1=host("pending", "x", STEPS, applied="1 a r"), h2=host("unreached"), h3=host("failed"))
    assert live_data(found) == {"h1": {"applied": "1 a r", "changes": STEPS}}


def test_a_run_without_privnet_deploy_names_hosts_that_it_leaves_half_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = Outcome.of("r1", HOSTS)
    found.end()
    assert capsys.readouterr().err == "", "the twin"
    found.hosts["h2"].state = State.begun
    found.end()
    assert capsys.readouterr().err == (
        "privnet: FAILED: the run ended before it was over, and the state of 1 host is unknown (h2). The same command "
        "again finishes what was begun\n"
    )


# --- what pyinfra is asked ------------------------------------------------------------------------------------


def test_the_same_deploy_as_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVNET_LAB", "some")
    monkeypatch.chdir(tmp_path)
    request = Request(Path("prod"), ("h1", "zone_a"), allow="7", break_lease="r9")
    python, *words = request.command
    assert python == sys.executable
    assert words[0] == "-c" and "from pyinfra_cli.main import main" in words[1]
    assert words[2:7] == ["-y", "--limit", "h1", "--limit", "zone_a"]
    inventory, deploy = map(Path, words[-2:])
    assert (inventory.is_file(), deploy.is_file()) == (True, True)
    assert "private_network()" in deploy.read_text()
    environment = request.environment("/some/file")
    assert environment["PRIVNET_INVENTORY"] == str(tmp_path / "prod")
    assert environment["PRIVNET_OUTCOME"] == "/some/file"
    assert (environment["PRIVNET_ALLOW_REMOVALS"], environment["PRIVNET_BREAK_LEASE"]) == ("7", "r9")
    assert environment["PRIVNET_LAB"] == "some"


def test_what_was_not_said_is_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRIVNET_ALLOW_REMOVALS", "PRIVNET_BREAK_LEASE"):
        monkeypatch.delenv(name, raising=False)
    environment = Request(tmp_path).environment("/some/file")
    assert not {"PRIVNET_ALLOW_REMOVALS", "PRIVNET_BREAK_LEASE"} & environment.keys()
    assert "--dry" in Request(tmp_path, dry=True).command and "-y" not in Request(tmp_path, dry=True).command


def test_a_limit_means_hosts_groups_and_patterns(fleets: Any) -> None:
    hosts = {f"h{n}": {"address": f"192.0.2.{n}", "zone": zone} for n, zone in ((1, "par-a"), (2, "par-a"), (3, "b"))}
    fleet = fleets.declare({"hosts": hosts}, {}).fleet
    everybody = {"h1", "h2", "h3"}
    assert chosen(fleet, []) == (everybody, [])
    assert chosen(fleet, ["h1"]) == ({"h1"}, [])
    assert chosen(fleet, ["zone_par_a", "h3"]) == (everybody, [])
    assert chosen(fleet, ["h[12]", "h9", "zone_c"]) == ({"h1", "h2"}, ["h9", "zone_c"])
    assert chosen(fleet, ["all"]) == chosen(fleet, ["fleet"]) == (everybody, [])
