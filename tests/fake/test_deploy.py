"""`privnet deploy` and `privnet plan --live` over hosts that answer what a test says: exit codes, and refusals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from connector import LOG
from test_runs import Fleet, fleet  # noqa: F401 - a fixture

HERE = Path(__file__).parent
PRIVNET = Path(sys.executable).parent / "privnet"
# pyinfra reads it from the working directory: the same fleet, with hosts that are not asked over SSH.
CONFIG = f"""
import json, sys
from pathlib import Path
sys.path[:0] = [{str(HERE)!r}]
from connector import install
import privnet.deploy.inventory as _inventory
install()
_answers, _planned, _failures, _programs, _away, _seconds = json.loads(Path("answers.json").read_text())
_groups = _inventory.fleet_groups
def _answer(name):
    return {{"success": False, "stderr": _failures[name]}} if name in _failures else _answers[name]
def _fake(name):
    said = {{"gzip -d": _answer(name)}}
    if name in _programs:
        said["base64 -d"] = {{"success": False, "stderr": _programs[name]}}
    own = {{"fake_delay": _seconds, "fake_delay_jitter": 0, "fake_responses": said, "away": name in _away}}
    return own | {{"confirmed": _planned.get(name)}}
_inventory.fleet_groups = lambda directory: {{
    group: [(name, data | _fake(name)) for name, data in hosts] for group, hosts in _groups(directory).items()
}}
"""


class Typed:
    """`privnet …` beside a fleet's directory."""

    def __init__(self, made: Fleet) -> None:
        self.fleet, self.folder = made, made.directory.parent
        (self.folder / "config.py").write_text(CONFIG)
        self.log = self.folder / "executed"
        self.away: set[str] = set()
        self.own: dict[str, str] = {}
        """Variables of the environment; `UNSET` for one that is not there."""

    @property
    def environment(self) -> dict[str, str]:
        own = {LOG: str(self.log), "PYINFRA_PROGRESS": "off", "PRIVNET_ALLOW_REMOVALS": "UNSET", **self.own}
        return {name: value for name, value in {**os.environ, **own}.items() if value != "UNSET"}

    def prepare(self, seconds: float) -> None:
        made = self.fleet
        given = [made.answers, made.planned(), made.failures, made.programs, sorted(self.away), seconds]
        (self.folder / "answers.json").write_text(json.dumps(given))
        self.log.write_text("")

    def begin(self, *words: str, seconds: float = 0) -> subprocess.Popen[str]:
        self.prepare(seconds)
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [str(PRIVNET), *words]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **streams)  # type: ignore[call-overload]

    def __call__(self, *words: str) -> tuple[int, str, str]:
        run = self.begin(*words)
        output, errors = run.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        return run.returncode, output, errors

    def at_a_terminal(self, words: tuple[str, ...], key: bytes, after: Callable[[str], bool]) -> tuple[int, str]:
        """The same at a terminal, where a key is pressed once what is shown is so; exit code and what was shown."""
        self.prepare(seconds=3)
        child, terminal = pty.fork()
        if not child:
            os.chdir(self.folder)
            os.execve(PRIVNET, [str(PRIVNET), *words], self.environment)
        shown, pressed = "", False
        with open(terminal, "rb", buffering=0) as screen:  # noqa: PTH123 - a descriptor
            while part := _read(screen.fileno()):
                shown += part
                if not pressed and after(shown):
                    os.write(terminal, key)
                    pressed = True
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown

    def asked(self) -> set[str]:
        return {json.loads(line)[0] for line in self.log.read_text().splitlines()}


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # the other end is closed
        return ""


@pytest.fixture
def typed(fleet: Callable[..., Fleet]) -> Typed:  # noqa: F811
    return Typed(fleet())


def test_done(typed: Typed) -> None:
    code, output, errors = typed("deploy", "test", "-y")
    assert (code, output.splitlines()[-1]) == (0, "DONE: 3 hosts as planned"), errors
    assert "nothing to do: 3 hosts (h1, h2, h3)" in output
    assert "Starting operation" in errors, "pyinfra's own words are let through"
    assert typed.asked() == {"h1", "h2", "h3"}
    code, output, _ = typed("deploy", "test", "-y", "--limit", "h2")
    assert (code, output.splitlines()[-1], typed.asked()) == (0, "DONE: 1 host as planned", {"h2"})


def test_nobody_is_asked_when_nobody_can_agree_or_no_host_is_meant(typed: Typed) -> None:
    unknown = 'the fleet has no host or group "h9"; its hosts are h1, h2, h3; its groups are fleet'
    for words, said in ((("deploy", "test"), "`-y`"), (("deploy", "test", "-y", "--limit", "h9"), unknown)):
        code, _, errors = typed(*words)
        assert (code, typed.asked()) == (2, set())
        assert said in errors


# What each of these is for a program that has started the run.
ENDS: dict[str, tuple[Callable[[Typed], object], int, str, str]] = {
    "a host that has answered nonsense has failed": (
        lambda typed: typed.fleet.answers.update(h2=["rubbish"]),
        1,
        "  h2  failed: its answer is not complete: ",
        "FAILED: see what is said of the hosts above; ",
    ),
    "a host whose question came back with an error has failed": (
        lambda typed: typed.fleet.failures.update(h2=["no"]),
        1,
        "  h2  failed: it gave no answer",
        "FAILED: see what is said of the hosts above; ",
    ),
    "a host that cannot be reached is pending": (
        lambda typed: typed.away.add("h2"),
        3,
        "  h2  no answer",
        "PENDING: 1 host not done, all others are. ",
    ),
    "one that has failed counts more than one that is pending": (
        lambda typed: (typed.away.add("h2"), typed.fleet.failures.update(h3=["no"])),
        1,
        "  h2  no answer",
        "FAILED: see what is said of the hosts above; ",
    ),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_host_that_is_not_done_and_those_that_are(typed: Typed, what: str) -> None:
    spoil, ended, said, last = ENDS[what]
    spoil(typed)
    code, output, _ = typed("deploy", "test", "-y")
    assert code == ended, output
    assert said in output and "nothing to do: " in output and "h1" in output.partition("nothing to do: ")[2]
    assert output.splitlines()[-1].startswith(last)


def test_a_host_that_waits_for_one_that_is_away_is_pending(typed: Typed) -> None:
    typed.fleet.project("p0", 0, ["h1", "h3"])  # 2.web moves from h2 to h3
    typed.away.add("h3")
    code, output, _ = typed("deploy", "test", "-y")
    assert code == 3, output
    assert "  h2  pending: " in output and "  h3  no answer" in output and "  held back: 2.web." in output
    assert output.splitlines()[-1].startswith("PENDING: 3 hosts not done")
    # So it is when nobody asks the other one.
    typed.away.clear()
    code, output, _ = typed("deploy", "test", "-y", "--limit", "h2")
    assert (code, output.splitlines()[-1][:27]) == (3, "PENDING: 1 host not done, a"), output
    # The twin: it is back, nobody waits any more.
    code, output, _ = typed("deploy", "test", "-y")
    assert (code, output.splitlines()[-1]) == (0, "DONE: 3 hosts as planned")


def test_a_run_that_is_under_way_here_is_75(typed: Typed) -> None:
    folder = typed.fleet.directory / ".privnet"
    folder.mkdir()
    with (folder / "run").open("w+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, output, _ = typed("deploy", "test", "-y")
    assert (code, typed.asked()) == (75, set())
    assert output.splitlines()[-1].startswith("LOCKED: nothing is changed: another run is under way in ")


def test_a_lock_file_that_is_not_the_one_of_all_hosts_is_said_once(typed: Typed) -> None:
    """Where it happens with the hosts that it stops, and at the end: not for each host."""
    for name, lines in typed.fleet.answers.items():
        lines[:] = [line for line in lines if not line.startswith("applied ")]
        lines.insert(lines.index("##privnet packages"), f"applied 44 {'a' * 64} r7")
        typed.fleet.answers[name] = lines
    code, output, errors = typed("deploy", "test", "-y")
    assert code == 2, output + errors
    assert output.splitlines()[-1].startswith("REFUSED: PN509: ") and "  h1, h2, h3  pending" in output
    assert (output + errors).count("PN509") == 2, errors
    assert errors.count("the same as of h") == 2


@pytest.mark.parametrize(
    ("host", "said"),
    [("h1", "LOCKED: nothing is changed: h1: run r7 "), ("h2", "LOCKED: another run is at work, so what this ")],
)
def test_a_lease_that_another_run_has_is_75(typed: Typed, host: str, said: str) -> None:
    """On the first host, where nothing has begun, and on a later one."""
    typed.fleet.project("p1", 1, ["h1", "h2", "h3"])
    typed.fleet.programs[host] = ["privnet: locked: run r7 of alice@desk has it since 40 s. If that run is dead, …"]
    code, output, errors = typed("deploy", "test", "-y")
    assert code == 75, output
    assert output.splitlines()[-1].startswith(said)
    # Once where it happens, and once at the end.
    sentence = output.splitlines()[-1].removeprefix("LOCKED: ")
    assert (output + errors).count(sentence) == 2, errors
    # The twin: what a program says otherwise is a failure.
    typed.fleet.programs[host] = ["cannot: no"]
    assert typed("deploy", "test", "-y")[0] == 1


def test_the_removal_guard(typed: Typed) -> None:
    (typed.fleet.directory / "projects" / "p1.yaml").unlink()
    for words in ((), ("--dry",), ("--allow-removals", "2")):
        code, _, errors = typed("deploy", "test", "-y", *words)
        assert (code, typed.asked()) == (2, set())
        assert "error[PN60" in errors and "--allow-removals 3" in errors and "No host was contacted." in errors
    code, output, errors = typed("deploy", "test", "--allow-removals", "3", "--dry")
    assert (code, output.splitlines()[-1]) == (0, "DRY RUN: nothing was changed"), errors
    assert "  h1  would change (" in output and "  h2  would change (" in output
    # A live plan asks the hosts, although a run would be refused: that is what it is for.
    code, output, _ = typed("plan", "test", "--live")
    assert code == 0
    assert "REFUSED unless told: 1 whole private network" in output
    assert "3 of 3 hosts answered, 2 of them would be changed" in output


REMOVED = "network pn-00000000-0000-4000-8000-000000000001 of project p1 with 2 containers"
ASKED = "Type 3, the number of all that goes, or p1, the project of the network, to deploy this: "


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (b"3\n", 0),
        (b"p1\n", 0),
        (b"pn-00000000-0000-4000-8000-000000000001\n", 0),
        (b"\n", 2),
        (b"2\n", 2),
        (b"y\n", 2),
        (b"p0\n", 2),
    ],
)
def test_at_a_terminal_a_person_is_asked_for_the_number(typed: Typed, key: bytes, code: int) -> None:
    """Right there, below what goes; the number is the consent, and nothing else is asked."""
    (typed.fleet.directory / "projects" / "p1.yaml").unlink()
    ended, shown = typed.at_a_terminal(("deploy", "test"), key, lambda shown: ASKED in shown)
    plan, _, rest = shown.partition(ASKED)
    assert f"\n  {REMOVED}\r\n" in plan and "That is more than goes unsaid (PN601): 1 whole private" in plan
    assert "REFUSED" not in plan and "Deploy this?" not in shown
    assert (ended, bool(typed.asked())) == (code, code == 0), shown
    assert ("not deployed: no host was contacted" in rest) == (code == 2)


def test_a_number_that_was_typed_with_the_command_is_not_asked_for(typed: Typed) -> None:
    """A wrong one is refused; with `-y` nobody is asked."""
    (typed.fleet.directory / "projects" / "p1.yaml").unlink()
    words = ("deploy", "test", "--allow-removals", "3")
    ended, shown = typed.at_a_terminal(words, b"n\n", lambda shown: "Deploy this? [y/N]" in shown)
    assert ended == 2 and "Type " not in shown
    for more, code in ((("--allow-removals", "2"), "PN602"), (("-y",), "PN601")):
        ended, shown = typed.at_a_terminal(("deploy", "test", *more), b"", lambda shown: False)
        assert (ended, typed.asked()) == (2, set()) and f"error[{code}]" in shown and "Type " not in shown


def test_a_saved_plan_is_its_own_consent(typed: Typed) -> None:
    """While it is what would be done; the twin: another number is refused, and so is a plan that does not show it."""
    (typed.fleet.directory / "projects" / "p1.yaml").unlink()
    assert typed("plan", "test", "--out", "saved")[0] == 0
    for more in ((), ("--allow-removals", "2")):
        saved = json.loads((typed.folder / "saved").read_text())
        if not more:
            saved["removals"]["number"] = 1
        (typed.folder / "other").write_text(json.dumps(saved))
        code, _, errors = typed("deploy", "test", "-y", "--plan", "other", *more)
        assert (code, typed.asked()) == (2, set()) and "error[PN60" in errors
    (typed.fleet.directory / "projects" / "p0.yaml").unlink()
    code, _, errors = typed("deploy", "test", "-y", "--plan", "saved")
    assert (code, typed.asked()) == (2, set()) and "error[PN603]" in errors
    typed.fleet.project("p0", 0, ["h1", "h2"])
    code, output, errors = typed("deploy", "test", "-y", "--plan", "saved")
    assert code == 0 and "  h1  changed and confirmed (retire" in output, errors


def test_a_live_plan_says_what_is_wrong_with_an_answer(typed: Typed) -> None:
    typed.fleet.answers.update(h2=["rubbish"])
    typed.away.add("h3")
    code, output, _ = typed("plan", "test", "--live")
    assert code == 0 and "1 of 3 hosts answered" in output, output
    assert "  h2  would fail: its answer is not complete: system" in output
    assert "  h3  no answer: no route to it\n" in output


def test_a_live_plan(typed: Typed) -> None:
    typed.fleet.project("p1", 1, ["h1", "h3"])
    typed.fleet.failures["h2"] = ["no"]
    before = (typed.fleet.directory / "privnet.lock.yaml").read_bytes()
    code, output, _ = typed("plan", "test", "--live")
    assert code == 0
    assert "2 of 3 hosts answered, 2 of them would be changed" in output
    assert "\n  h2  no answer" in output or "\n  h2  would fail" in output
    network, slot = "pn-00000000-0000-4000-8000-000000000001", "2.web.ap-00000000-0000-4000-8000-000000000001"
    assert f"private network {network} of project p1, VNI " in output
    assert f"\n  h3  + container {slot}, + overlay, + resolver, ~ forwarding entries, ~ names\n" in output
    assert "\nhosts themselves\n  h1  + peer h3, " in output
    assert "impact: that of the changes above, and no other" in output
    assert ": run " not in output and "wg addconf" not in output
    code, output, _ = typed("plan", "test", "--live", "--steps")
    assert "    add: run " in output
    code, _, errors = typed("plan", "test", "--steps")
    assert code == 2 and "`--live`" in errors
    code, output, _ = typed("plan", "test", "--live", "--format", "json")
    live = json.loads(output)["live"]
    assert {stage["stage"] for stage in live["h1"]["changes"]} >= {"add"}
    assert live["h1"]["impact"] == [] and set(live) == {"h1", "h2", "h3"}
    assert {"network": network, "kind": "container", "name": slot, "sign": "+"} in live["h3"]["deeds"]
    assert (typed.fleet.directory / "privnet.lock.yaml").read_bytes() == before


def test_a_saved_plan_is_done_while_it_holds(typed: Typed) -> None:
    typed.fleet.project("p1", 1, ["h1", "h1"])
    code, _, errors = typed("plan", "test", "--live", "--out", "saved")
    assert code == 0 and "saved written" in errors
    saved = json.loads((typed.folder / "saved").read_text())
    assert set(saved["live"]) == {"h1", "h2", "h3"}
    # As if another run had been there since.
    saved["live"]["h1"]["applied"] = "7 abc 20250101T000000-abcdef"
    (typed.folder / "other").write_text(json.dumps(saved))
    code, _, errors = typed("deploy", "test", "-y", "--plan", "other")
    assert code == 2
    assert "error[PN603]: host h1 has moved on since the plan was saved" in errors
    assert "serial 7 by run 20250101T000000-abcdef then" in errors
    assert errors.endswith("\nNo host was changed.\n") and "contacted" not in errors
    code, _, errors = typed("deploy", "test", "--dry", "--plan", "saved")
    assert code == 0, errors
    typed.fleet.project("p1", 1, ["h1", "h3"])
    code, _, errors = typed("deploy", "test", "-y", "--plan", "saved")
    assert (code, typed.asked()) == (2, set())
    assert "error[PN603]: the YAML has changed since the plan was saved: projects/p1.yaml" in errors


def test_a_plan_tells_what_a_run_has_not_finished(typed: Typed) -> None:
    """Hosts say the same all the time, so each run has to do the same again, with the same lock file."""

    def told() -> str:
        return typed("plan", "test")[1]

    assert typed("deploy", "test", "--dry")[0] == 0
    assert "is not known here" in told(), "a dry run has finished nothing"
    typed.fleet.project("p1", 1, ["h1", "h3"])
    typed.fleet.programs["h1"] = ["cannot: no"]
    assert typed("deploy", "test", "-y")[0] == 1
    said = told()
    assert "Nothing differs from the lock file" in said
    told_of = "The last run was not finished on: h1 (failed: cannot: no), h2 (no run has come to its end there), h3 "
    assert told_of in said
    typed.fleet.programs.clear()
    assert typed("deploy", "test", "-y")[0] == 0
    assert "not finished" not in told() and "not known" not in told()
    # The control machine dies in the middle of the next one.
    run = typed.begin("deploy", "test", "-y", seconds=2)
    while "base64 -d" not in typed.log.read_text():
        assert run.poll() is None
        time.sleep(0.05)
    for process in (*Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split(), run.pid):
        os.kill(int(process), signal.SIGKILL)
    run.communicate()
    assert "The last run was not finished on: h1 (pending: the run ended before it was done there). A plain" in told()
    assert typed("deploy", "test", "-y")[0] == 0
    assert "not finished" not in told()


def test_a_run_finishes_hosts_that_its_change_does_not_concern(typed: Typed) -> None:
    """An application without a network changes the lock file and no host: each host has what the lock file says."""
    typed.fleet.project("p2", 2, ["h2"], network=False)
    code, output, _ = typed("deploy", "test", "-y")
    assert (code, "nothing to do: 3 hosts" in output) == (0, True)
    said = typed("plan", "test")[1]
    assert "Nothing differs from the lock file" in said
    assert "not finished" not in said and "not known" not in said
    # A network on one host, with the two others that have nothing to do with it.
    typed.fleet.project("p3", 3, ["h2"])
    code, output, _ = typed("deploy", "test", "-y")
    assert (code, "nothing to do: 2 hosts (h1, h3)" in output) == (0, True)
    said = typed("plan", "test")[1]
    assert "not finished" not in said and "not known" not in said
    # The twin: a host that the next run does not ask is one that it does not finish.
    typed.fleet.project("p3", 3, ["h2", "h2"])
    assert typed("deploy", "test", "-y", "--limit", "h2")[0] == 0
    assert "The last run was not finished on: h1 (it has serial " in typed("plan", "test")[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_pyinfra(typed: Typed, number: signal.Signals) -> None:
    """What is being executed ends, nothing more begins. Only who was started is told, not its process group."""
    begun = time.monotonic()
    run = typed.begin("deploy", "test", "-y", seconds=3)
    while not typed.log.read_text():
        assert run.poll() is None and time.monotonic() - begun < 60
        time.sleep(0.1)
    run.send_signal(number)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Exiting upon user request!" in output + errors
    assert "Traceback" not in errors
    assert output.splitlines()[-1].startswith("INTERRUPTED: ")
    assert "Starting operation: Private network | ask" in errors
    assert "Starting operation: Private network | confirm" not in errors


def test_ctrl_c_at_a_terminal(typed: Typed) -> None:
    """The terminal tells both; what is being executed ends all the same."""
    code, shown = typed.at_a_terminal(("deploy", "test", "-y"), b"\x03", lambda shown: "Private network | ask" in shown)
    assert code == 1, shown
    assert shown.count("Exiting upon user request!") == 1
    assert "\nINTERRUPTED: " in shown and "Traceback" not in shown
    assert "Private network | confirm" not in shown


@pytest.mark.parametrize(("key", "code"), [(b"n\n", 2), (b"y\n", 0)])
def test_at_a_terminal_a_person_agrees(typed: Typed, key: bytes, code: int) -> None:
    ended, shown = typed.at_a_terminal(("deploy", "test"), key, lambda shown: "Deploy this? [y/N]" in shown)
    assert ended == code
    assert "Nothing differs from the lock file" in shown.partition("Deploy this?")[0]
    assert typed.asked() == ({"h1", "h2", "h3"} if code == 0 else set())
    assert ("DONE: 3 hosts as planned" in shown) == (code == 0)
