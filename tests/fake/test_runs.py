"""The real `pyinfra` command over hosts that answer what a test says: how often each is asked, how a run ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import runpy
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import InventoryError

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit" / "deploy")]

from answers import answer, bare, key_of, text  # noqa: E402
from connector import CONNECTED, ENDED, LOG  # noqa: E402

import warm  # noqa: E402
from privnet.check import removal  # noqa: E402
from privnet.compiler import compile_fleet  # noqa: E402
from privnet.deploy import inventory  # noqa: E402
from privnet.deploy.inventory import fleet_groups  # noqa: E402
from privnet.diagnostics import DeclarationError  # noqa: E402
from privnet.model.identifiers import format_address  # noqa: E402
from privnet.model.lock import Lock  # noqa: E402
from privnet.store import load_lock, save_lock  # noqa: E402

DEPLOY = HERE.parents[1] / "deploys" / "private_network.py"
SHIM = f"""
import json, sys
from pathlib import Path
sys.path[:0] = [{str(HERE)!r}]
from connector import install
from hurry import install as hurry
from privnet.deploy.inventory import groups as _groups
install()
hurry(4)
_answers = json.loads(Path(__file__).with_name("answers.json").read_text())
_failures = json.loads(Path(__file__).with_name("failures.json").read_text())
def _answer(name):
    if name in _failures:
        return {{"success": False, "stderr": _failures[name]}}
    return _answers[name]
_programs = json.loads(Path(__file__).with_name("programs.json").read_text())
def _responses(name):
    said = {{"gzip -d": _answer(name)}}
    if name in _programs:
        said["base64 -d"] = {{"success": False, "stderr": _programs[name]}}
    return said
_hangs = json.loads(Path(__file__).with_name("hangs.json").read_text())
if _hangs:
    # Nobody has minutes for it.
    import privnet.deploy.operations as _operations
    _operations.QUESTION_SECONDS = _operations.PROGRAM_SECONDS = 6
    _operations.GRACE_SECONDS = 1
_more = json.loads(Path(__file__).with_name("data.json").read_text())
def _data(name):
    own = {{"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": _responses(name), "hangs": _hangs.get(name)}}
    return own | _more.get(name, {{}})
globals().update({{
    group: [(name, data | _data(name)) for name, data in hosts]
    for group, hosts in _groups().items()
}})
"""


@dataclass
class Ran:
    """One run: what it printed, and how often each host was asked something."""

    code: int
    stdout: str
    stderr: str
    asked: Counter[str]
    executed: list[tuple[str, str]]
    ended: list[tuple[str, str]]
    outcome: dict[str, Any]
    connections: Counter[str]

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)["results"]
        return found

    @property
    def programs(self) -> Counter[str]:
        """How many programs each host was given."""
        return Counter(name for name, command in self.executed if "base64 -d" in command)

    @property
    def changed(self) -> dict[str, list[str]]:
        operations = self.results["operations"]
        return {o["name"].rpartition(" | ")[2]: sorted(o["success"]) for o in operations if o["success"]}


class Fleet:
    """A fleet on disk whose hosts answer as they should, until a test says otherwise."""

    def __init__(self, directory: Path, networks: int, number: int = 3, elsewhere: list[str] | None = None) -> None:
        self.directory = directory
        self.answers: dict[str, list[str]] = {}
        self.failures: dict[str, list[str]] = {}
        self.programs: dict[str, list[str]] = {}
        self.hangs: dict[str, str] = {}
        self.data: dict[str, dict[str, Any]] = {}
        hosts = {f"h{n}": {"address": f"192.0.2.{n}"} for n in range(1, number + 1)}
        (directory / "projects").mkdir(parents=True)
        (directory / "fleet.yaml").write_text(json.dumps({"fleet": "test", "hosts": hosts}))
        for n in range(networks):
            self.project(f"p{n}", n, ["h1", "h2"])
        if elsewhere:
            self.project("elsewhere", networks, elsewhere)
        compiled = compile_fleet(directory)
        keys = {name: replace(host, wireguard=key_of(name)) for name, host in compiled.lock.hosts.items()}
        save_lock(directory, replace(compiled.lock, hosts=keys))
        for name, plan in compile_fleet(directory).plan.hosts.items():
            self.answers[name] = text(answer(plan))
        save_lock(directory, load_lock(directory, "test"))  # as of a fleet that was deployed again

    def project(self, name: str, number: int, hosts: list[str], network: bool = True) -> None:
        terms = {"accepted_by": "ops@test.example", "accepted_on": "2025-09-25", "version": "beta-1"}
        applications = {f"ap-00000000-0000-4000-8000-{number:012d}": {"formation": {"web": hosts}}}
        project: dict[str, Any] = {"project": name, "applications": applications}
        if network:
            project["private_network"] = {"id": f"pn-00000000-0000-4000-8000-{number:012d}", "terms": terms}
        (self.directory / "projects" / f"{name}.yaml").write_text(json.dumps(project))

    def planned(self) -> dict[str, list[str]]:
        """What each host answers when it is as planned by now, which is what a run makes of it."""
        try:
            return {name: text(answer(plan)) for name, plan in compile_fleet(self.directory).plan.hosts.items()}
        except DeclarationError:
            return {}

    def settings(self, **more: Any) -> None:
        """Declare more of the fleet."""
        file = self.directory / "fleet.yaml"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))

    def run(self, *arguments: str, more: str = "", deploy: Path = DEPLOY) -> Ran:
        """``more``: at the end of the inventory, when the fleet was read."""
        shim, log = self.directory.with_suffix(".py"), self.directory.with_name("executed")
        shim.write_text(SHIM + more)
        shim.with_name("answers.json").write_text(json.dumps(self.answers))
        shim.with_name("failures.json").write_text(json.dumps(self.failures))
        shim.with_name("programs.json").write_text(json.dumps(self.programs))
        shim.with_name("hangs.json").write_text(json.dumps(self.hangs))
        data = {name: {"confirmed": lines} | self.data.get(name, {}) for name, lines in self.planned().items()}
        shim.with_name("data.json").write_text(json.dumps({**self.data, **data}))
        for path in (log, log.with_suffix(ENDED), log.with_suffix(CONNECTED)):
            path.write_text("")
        outcome = self.directory.with_name("outcome.json")
        environment = {**os.environ, LOG: str(log), "PYINFRA_PROGRESS": "off", "PRIVNET_OUTCOME": str(outcome)}
        done = warm.run([*arguments, str(shim), str(deploy)], environment, timeout=120)
        executed, ended = (_lines(path) for path in (log, log.with_suffix(ENDED)))
        asked = Counter(name for name, _ in executed)
        known = json.loads(outcome.read_text()) if outcome.exists() else {}
        connections = Counter(name for (name,) in _lines(log.with_suffix(CONNECTED)))
        return Ran(done.returncode, done.stdout, done.stderr, asked, executed, ended, known, connections)


def _lines(log: Path) -> list[tuple[str, ...]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


@pytest.fixture
def fleet(tmp_path: Path) -> Callable[..., Fleet]:
    return lambda networks=2, hosts=3, elsewhere=None: Fleet(tmp_path / "test", networks, hosts, elsewhere)


@pytest.mark.parametrize("networks", [2, 50])
def test_a_run_that_changes_nothing_asks_each_host_once(fleet: Callable[..., Fleet], networks: int) -> None:
    made = fleet(networks)
    before = (made.directory / "privnet.lock.yaml").read_bytes()
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert ran.changed == {}
    assert ran.asked == {"h1": 1, "h2": 1, "h3": 1}
    assert (made.directory / "privnet.lock.yaml").read_bytes() == before


@pytest.mark.parametrize("networks", [2, 50])
def test_a_change_takes_one_execution_a_stage(fleet: Callable[..., Fleet], networks: int) -> None:
    made = fleet(networks)
    for number in range(networks):
        made.project(f"p{number}", number, ["h1", "h3"])
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert ran.changed["record numbers"] != []
    assert ran.changed["add what is new to one host"] == ["h1"]
    assert ran.changed["add what is new"] == ["h2", "h3"]
    assert ran.changed["switch what has moved"] == ["h1"]
    # What is gone elsewhere goes with the switch on a host where nothing of its own is gone.
    assert ran.changed["retire what is gone"] == ["h2"]
    assert ran.changed["confirm"] == ["h1", "h3"]
    assert ran.changed["confirm what was taken away"] == ["h2"]
    # One question, one execution for each wave that has something to do, and the confirmation: three at most.
    assert ran.asked == {"h1": 4, "h2": 4, "h3": 3}


def test_a_host_that_is_not_as_planned_after_its_last_wave_is_not_said_to_be(fleet: Callable[..., Fleet]) -> None:
    """Each step has succeeded there; the other hosts are done."""
    made = fleet()
    made.project("p0", 0, ["h1", "h3"])
    stays = [line for line in made.planned()["h1"] if " dev pnx7000000 " not in line]
    made.data["h1"] = {"confirmed": stays, "later": stays}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    step = "systemctl reload privnet-overlay@7000000.service"
    why = f"it was changed, and is not as planned: a run would still `run {step}`"
    assert ran.outcome["hosts"]["h1"]["state"] == "pending" and ran.outcome["hosts"]["h1"]["why"] == why
    assert f"privnet: h1: {why}" in ran.stderr
    assert {name: ran.outcome["hosts"][name]["state"] for name in ("h2", "h3")} == {"h2": "changed", "h3": "changed"}
    # It was confirmed all the same, and asked once more: what it lacks may come within a moment.
    *_, confirmed, again = [command for name, command in ran.executed if name == "h1"]
    assert " privnet confirm " in confirmed and "gzip -d" in confirmed
    assert " privnet confirm " not in again and "gzip -d" in again
    # The twin: with the same steps it is as planned.
    made.data.clear()
    assert made.run("--json", "-y").outcome["hosts"]["h1"]["state"] in ("changed", "unchanged")


@pytest.mark.parametrize("networks", [2, 50])
def test_a_container_more_concerns_the_hosts_of_its_network_alone(fleet: Callable[..., Fleet], networks: int) -> None:
    """`h3` has containers too, of another network."""
    made = fleet(networks, elsewhere=["h2", "h3"])
    made.project("p0", 0, ["h1", "h2", "h1"])
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert states(ran) == {"h1": "changed", "h2": "changed", "h3": "unchanged"}
    assert ran.asked["h3"] == 1, "the question, and no more"
    # The twin: after the question at most three.
    assert all(2 < ran.asked[name] <= 4 for name in ("h1", "h2")), ran.asked
    assert ran.programs["h1"] and ran.programs["h2"] and not ran.programs["h3"]


def test_no_program_runs_anywhere_before_all_hosts_have_answered(fleet: Callable[..., Fleet]) -> None:
    """Not the first one of all either, which prepares an empty host."""
    made = fleet()
    lock = load_lock(made.directory, "test")
    save_lock(made.directory, replace(lock, hosts=lock.hosts | {"h1": replace(lock.hosts["h1"], wireguard=None)}))
    made.answers["h1"] = text(bare())
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.data["h3"] = {"fake_delay": 1.5}
    ran = made.run("--json", "-y")
    programs = [number for number, (_, command) in enumerate(ran.executed) if "base64 -d" in command]
    assert ran.programs["h1"], "the twin: there is something to prepare"
    # What had begun before the first program, and what was over: the same three questions.
    begun = ran.executed[: programs[0]]
    assert sorted(name for name, _ in begun) == ["h1", "h2", "h3"]
    first_over = next(number for number, (_, command) in enumerate(ran.ended) if "base64 -d" in command)
    assert sorted(name for name, _ in ran.ended[:first_over]) == ["h1", "h2", "h3"]


def test_a_dry_run_finds_what_a_run_would_do_and_writes_nothing(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h3"])
    before = (made.directory / "privnet.lock.yaml").read_bytes()
    ran = made.run("--json", "--dry")
    assert ran.code == 0, ran.stderr
    plan = json.loads(ran.stdout)["plan"]
    found = {o["name"].rpartition(" | ")[2]: sorted(o["hosts_with_change"]) for o in plan if o["hosts_with_change"]}
    assert found["add what is new"] == ["h1", "h3"]
    assert ran.asked == {"h1": 1, "h2": 1, "h3": 1}
    assert (made.directory / "privnet.lock.yaml").read_bytes() == before


def test_limit_asks_one_host_alone(fleet: Callable[..., Fleet]) -> None:
    ran = fleet().run("--json", "-y", "--limit", "h2")
    assert ran.code == 0, ran.stderr
    assert ran.asked == {"h2": 1}


ANSWERS: dict[str, list[str]] = {
    "nothing": [],
    "rubbish": ["\x1b]0;owned\x07\x1b[2J"] * 1000,
    "half of it": text(bare())[:9],
    "no root": [line.replace("user 0", "user 1000") for line in text(bare())],
    "no systemd": [line for line in text(bare()) if line != "systemd yes"],
    "another key": [],
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_host_that_answers_wrongly_fails_alone_with_one_line(fleet: Callable[..., Fleet], what: str) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    # A host of this connector answers everything with success, also what is asked to make it stop.
    made.answers["h2"] = ANSWERS[what]
    if what == "another key":
        made.answers["h2"] = [line.replace(key_of("h2"), key_of("h9")) for line in text(answer_of(made, "h2"))]
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.results["failed_hosts"] == ["h2"]
    assert ran.changed["add what is new to one host"] == ["h1"] and ran.changed["add what is new"] == ["h3"]
    assert len([line for line in ran.stderr.splitlines() if "privnet: h2: " in line]) == 1, ran.stderr
    assert "Traceback" not in ran.stderr and "\x1b]" not in ran.stderr and "\x1b[2J" not in ran.stderr


NINES = "9" * 400
IMPOSSIBLE = {
    "a time of 400 digits": (f"time {NINES}", 'it says a time that cannot be: "9999'),
    "a release of 5,000 digits": (f"release {'9' * 5000}", 'it says a version of systemd that cannot be: "9999'),
    "a line of ten megabytes": ("x" * 10**7, "its answer has a line of more than 10,000 characters"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_fails_one_host_and_the_others_are_deployed_to(fleet: Callable[..., Fleet], what: str) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    line, said = IMPOSSIBLE[what]
    kept = [other for other in made.answers["h2"] if not other.startswith(f"{line.split(' ')[0]} ")]
    made.answers["h2"] = [kept[0], line, *kept[1:]]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h2"]
    assert states(ran) == {"h1": "changed", "h2": "failed", "h3": "changed"}
    lines = [line for line in ran.stderr.splitlines() if "privnet: h2: " in line]
    assert len(lines) == 1 and said in lines[0] and len(lines[0]) < 300
    assert "Traceback" not in ran.stderr and NINES not in ran.stderr
    assert ran.programs["h2"] == 0


def test_ten_megabytes_that_are_an_answer_hold_up_nobody(fleet: Callable[..., Fleet]) -> None:
    """Each line is one that a host may say, and each of some thousands is something to be put right."""
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    at = made.answers["h2"].index("##privnet fdb") + 1
    made.answers["h2"][at:at] = ["33:33:00:00:00:01 dev eth0 self permanent"] * 220_000
    made.answers["h2"][1:1] = [f"masked privnet-{n}.service" for n in range(30_000)]
    assert sum(map(len, made.answers["h2"])) > 9_800_000
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr[-2000:]
    assert states(ran) == dict.fromkeys(("h1", "h2", "h3"), "changed")


def test_what_a_host_says_does_not_reach_the_terminal_as_a_command(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.failures["h2"] = ["\x1b]0;owned\x07\x1b[2J\x9b31mevil"]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h2"]
    assert "\\x1b]0;owned\\x07\\x1b[2J\\x9b31mevil" in ran.stderr
    assert not set(re.sub("\x1b\\[[0-9;]*m", "", ran.stderr)) & {"\x1b", "\x07", "\x9b"}


def answer_of(made: Fleet, host: str) -> dict[str, list[str]]:
    return answer(compile_fleet(made.directory).plan.hosts[host])


def executed(made: Fleet, host: str) -> list[str]:
    """What a host was asked to execute by the last run."""
    lines = map(json.loads, made.directory.with_name("executed").read_text().splitlines())
    return [command for name, command in lines if name == host]


def test_a_refused_declaration_is_printed_whole_and_nobody_is_asked(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p0", 0, ["h1", "h7"])
    made.project("p1", 1, ["h8"])
    ran = made.run("-y")
    assert ran.code == 1
    assert "h7" in ran.stderr and "h8" in ran.stderr and "No host was contacted." in ran.stderr
    assert ran.asked == {}
    assert "Traceback" not in ran.stderr


def test_no_host_is_changed_when_the_lock_file_cannot_be_written(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h3"])
    # The name that the next lock file is written under is taken by something that is no file.
    (made.directory / ".privnet.lock.yaml.new").mkdir()
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert "nothing is changed: the lock file cannot be written (Is a directory: " in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not any("base64 -d" in command for host in ("h1", "h2", "h3") for command in executed(made, host))


def test_two_hosts_with_one_key_are_refused(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    lock = load_lock(made.directory, "test")
    save_lock(made.directory, replace(lock, hosts=lock.hosts | {"h3": replace(lock.hosts["h3"], wireguard=None)}))
    made.answers["h3"] = [line.replace(key_of("h3"), key_of("h1")) for line in made.answers["h3"]]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h3"]
    assert "is that of h1" in ran.stderr
    assert load_lock(made.directory, "test").hosts["h3"].wireguard is None


def test_a_host_without_its_key_gets_no_new_one(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.answers["h1"] = [
        line for line in made.answers["h1"] if not line.startswith("key ") and "privnet.key" not in line
    ]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h1"]
    said = next(line for line in ran.stderr.splitlines() if "PN508" in line)
    assert "is gone" in said and "umask 077; sed -n" in said
    assert not any("base64 -d" in command for command in executed(made, "h1"))


def test_operations_have_no_parameter_that_pyinfra_keeps_for_itself() -> None:
    import inspect

    from pyinfra.api.arguments import all_global_arguments

    from privnet.deploy import operations

    reserved = {name for name, _ in all_global_arguments()} | {name.lstrip("_") for name, _ in all_global_arguments()}
    for name in ("record", "ask", "prepare", "add", "switch", "settle", "retire", "confirm"):
        inner = getattr(operations, name)._inner
        assert not set(inspect.signature(inner).parameters) & (reserved | {"name", "host", "state"}), name


def test_a_fleets_hosts_and_zones_are_groups(fleet: Callable[..., Fleet]) -> None:
    groups = fleet_groups(fleet().directory)
    assert [name for name, _ in groups["fleet"]] == ["h1", "h2", "h3"]
    assert set(groups) == {"fleet"}


@pytest.mark.parametrize("beside", [True, False])
def test_a_link_to_an_inventory_file_is_an_inventory_file_of_its_own(
    fleet: Callable[..., Fleet], beside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two lines are the same for every fleet: a link must not deploy the fleet that it points to."""
    made = fleet()
    shim, link = made.directory.with_suffix(".py"), made.directory.with_name("staging.py")
    shim.write_text("from privnet.deploy.inventory import groups\n\nfound = groups()\n")
    link.symlink_to(shim.name)
    if not beside:
        with pytest.raises(InventoryError, match=r"staging: the declaration has 1 problem"):
            runpy.run_path(str(link))
        assert "staging/fleet.yaml" in capsys.readouterr().err
        return
    Fleet(made.directory.with_name("staging"), 1, number=2)
    assert [name for name, _ in runpy.run_path(str(link))["found"]["fleet"]] == ["h1", "h2"]
    assert [name for name, _ in runpy.run_path(str(shim))["found"]["fleet"]] == ["h1", "h2", "h3"]


COUNTED = """
import atexit, inspect, sys
import privnet.deploy.stages
from pyinfra.api import util
_found, _frames = [], inspect.getouterframes
inspect.getouterframes = lambda *words: _found.append(1) or _frames(*words)
atexit.register(lambda: print("STACKS", len(_found), file=sys.stderr))
"""
OWN = (
    COUNTED
    + """
sys.modules["pyinfra.api.operation"].get_operation_order_from_stack = util.get_operation_order_from_stack
"""
)


def test_no_source_is_looked_for_to_order_operations(fleet: Callable[..., Fleet]) -> None:
    """Their order is the same with pyinfra's own way to find it, the twin, which counts for each host."""
    made = fleet()
    ran, own = (made.run("--json", "-y", more=more) for more in (COUNTED, OWN))
    assert (ran.code, own.code) == (0, 0), ran.stderr + own.stderr
    assert "STACKS 0\n" in ran.stderr
    operations = [[operation["op_hash"] for operation in one.results["operations"]] for one in (ran, own)]
    assert operations[0] == operations[1] != []
    assert f"STACKS {3 * len(operations[0])}\n" in own.stderr


def test_the_keys_of_hosts_are_written_once(fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host is given the same file, with all of them."""
    made, written = fleet(hosts=5), []
    own = inventory.write_known_hosts
    monkeypatch.setattr(inventory, "write_known_hosts", lambda *words: written.append(words) or own(*words))
    groups = fleet_groups(made.directory)
    assert len({data["ssh_known_hosts_file"] for _, data in groups["fleet"]}) == 1 and len(groups["fleet"]) == 5
    assert len(written) == 1


# --- several hosts, several runs ---------------------------------------------------------------------


def states(ran: Ran) -> dict[str, str]:
    return {name: host["state"] for name, host in ran.outcome["hosts"].items()}


def test_the_outcome_says_what_became_of_each_host(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    assert states(made.run("--json", "-y")) == dict.fromkeys(("h1", "h2", "h3"), "unchanged")
    made.project("p1", 1, ["h1", "h3"])
    dry = made.run("--json", "--dry")
    assert states(dry) == {"h1": "pending", "h2": "pending", "h3": "pending"}
    assert any("privnet-container@" in line for c in dry.outcome["hosts"]["h3"]["changes"] for line in c["lines"])
    ran = made.run("--json", "-y")
    assert states(ran) == dict.fromkeys(("h1", "h2", "h3"), "changed")
    assert ran.outcome["stopped"] is None
    assert ran.outcome["hosts"]["h3"]["applied"].split(" ")[0] == str(ran.outcome["serial"])


def test_the_first_host_that_fails_stops_the_run_before_any_other_is_changed(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.programs["h1"] = ["cannot: no"]
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.programs == {"h1": 1}
    assert "nothing else is changed: h1, the first host of this change, has failed" in ran.stderr
    assert states(ran) == {"h1": "failed", "h2": "pending", "h3": "pending"}
    assert ran.outcome["stopped"]["kind"] == "failed"


def test_a_host_that_failed_is_not_the_first_of_the_next_run(fleet: Callable[..., Fleet]) -> None:
    """So it stops one run, and no other; and none at all where another host is declared to be the first."""
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.programs["h1"] = ["cannot: no"]
    assert states(made.run("--json", "-y")) == {"h1": "failed", "h2": "pending", "h3": "pending"}
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h1"]
    assert states(ran) == {"h1": "failed", "h2": "changed", "h3": "changed"}


def test_the_declared_host_is_the_first(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.settings(policy={"canary": "h3"})
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.programs["h1"] = ["cannot: no"]
    ran = made.run("--json", "-y")
    assert ran.changed["add what is new to one host"] == ["h3"]
    assert states(ran) == {"h1": "failed", "h2": "changed", "h3": "changed"}


def test_a_host_that_was_wrong_before_is_not_the_first(fleet: Callable[..., Fleet]) -> None:
    """The change is about h2 and h3; what is to be repaired on h1 fails, and keeps nobody from it."""
    made = fleet()
    made.project("p9", 9, ["h2", "h3"])
    made.answers["h1"] = [line for line in made.answers["h1"] if "peer" not in line]
    made.programs["h1"] = ["cannot: no"]
    ran = made.run("--json", "-y")
    assert ran.changed["add what is new to one host"] == ["h2"]
    assert states(ran) == {"h1": "failed", "h2": "changed", "h3": "changed"}


def test_another_host_that_fails_stops_nobody_else(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.programs["h2"] = ["cannot: no"]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h2"]
    assert states(ran) == {"h1": "changed", "h2": "failed", "h3": "changed"}
    assert ran.outcome["hosts"]["h2"]["why"] == "cannot: no"


@pytest.mark.parametrize("command", ["gzip -d", " privnet confirm "])
def test_a_host_that_never_says_how_a_command_has_ended_is_given_up(fleet: Callable[..., Fleet], command: str) -> None:
    """A server may send all of an output and no exit code, and keep the connection alive."""
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.hangs["h2"] = command
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.results["failed_hosts"] == ["h2"]
    assert states(ran) == {"h1": "changed", "h2": "failed", "h3": "changed"}
    assert "Traceback" not in ran.stderr
    # The twin: it was asked.
    assert any(name == "h2" and command in text for name, text in ran.executed)


TOO_MANY = "nothing is switched or taken away: too many hosts have failed"


@pytest.mark.parametrize(("hosts", "lost"), [(3, ["h2", "h3"]), (5, ["h4", "h5"])])
def test_more_than_a_third_that_fail_stop_the_run_before_anything_is_switched(
    fleet: Callable[..., Fleet], hosts: int, lost: list[str]
) -> None:
    made = fleet(1, hosts)
    made.project("p1", 1, [f"h{n}" for n in range(1, hosts + 1)])
    made.project("p0", 0, ["h1", "h1"])  # 2.web moves from h2 to h1
    made.programs.update({name: ["cannot: no"] for name in lost})
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert f": {TOO_MANY}" in ran.stderr
    assert ran.outcome["stopped"] == {"why": TOO_MANY, "kind": "failed"}
    # Each has executed one program at most, and none is confirmed: it rolls back.
    assert ran.programs == {f"h{n}": 1 for n in range(1, hosts + 1)}
    assert not any(" privnet confirm " in command for _, command in ran.executed)
    assert states(ran) == {f"h{n}": "failed" if f"h{n}" in lost else "pending" for n in range(1, hosts + 1)}
    assert withdrawn(ran) == sorted({f"h{n}" for n in range(1, hosts + 1)} - {*lost})


def withdrawn(ran: Ran, word: str = "withdraw") -> list[str]:
    """Hosts that were told to go back at once; ``undo``: though something may stay elsewhere."""
    return sorted(name for name, command in ran.executed if f" privnet {word} " in command)


@pytest.mark.parametrize(("hosts", "lost"), [(3, ["h3"]), (6, ["h5", "h6"])])
def test_a_third_that_fails_stops_nobody_else(fleet: Callable[..., Fleet], hosts: int, lost: list[str]) -> None:
    made = fleet(1, hosts)
    made.project("p1", 1, [f"h{n}" for n in range(1, hosts + 1)])
    made.project("p0", 0, ["h1", "h1"])
    made.programs.update({name: ["cannot: no"] for name in lost})
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == lost
    assert TOO_MANY not in ran.stderr and ran.outcome["stopped"] is None
    assert ran.changed["retire what is gone"] == ["h1", "h2"]
    assert states(ran) == {f"h{n}": "failed" if f"h{n}" in lost else "changed" for n in range(1, hosts + 1)}


@pytest.mark.parametrize("option", ["--serial", "--no-wait"])
def test_hosts_that_do_not_wait_for_each_other_are_refused(fleet: Callable[..., Fleet], option: str) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    ran = made.run(option, "-y")
    assert ran.code == 1 and ran.asked == {}
    assert (
        f"{option} lets a host go on before the others are where it is: old containers would go before new ones are "
        "there. Run without it" in ran.stderr
    )


def test_a_lease_that_another_run_has_stops_the_run(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.programs["h1"] = ["privnet: locked: run r7 of alice@desk has it since 40 s. If that run is dead, …"]
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.programs == {"h1": 1}
    assert ran.outcome["stopped"] == {
        "why": "nothing is changed: h1: run r7 of alice@desk has it since 40 s. If that run is dead, …",
        "kind": "locked",
    }


def test_a_lease_found_later_stops_the_run_too_and_keeps_nothing(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.programs["h2"] = ["privnet: locked: run r7 of alice@desk has it since 40 s. If that run is dead, …"]
    made.data["h2"] = SLOW
    made.hangs["h3"] = " privnet withdraw "
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.programs["h1"] == ran.programs["h2"] == 1, "nothing is switched, and nothing confirmed"
    assert ran.outcome["stopped"] == {
        "why": "another run is at work, so what this one has begun is taken back: h2: "
        "run r7 of alice@desk has it since 40 s. If that run is dead, …",
        "kind": "locked",
    }
    assert states(ran) == {"h1": "pending", "h2": "failed", "h3": "pending"}
    assert withdrawn(ran) == ["h1", "h3"]
    assert ran.outcome["hosts"]["h1"]["why"].startswith("it is as it was before: another run is at work, so")
    assert ran.outcome["hosts"]["h3"]["why"].startswith("it rolls back to what it was within 180 s: another run is at")


SLOW = {"fake_delay": 2}
"""Seconds; the other hosts have their programs by then."""
LATER = "privnet: later: run r7 of alice@desk has it since 40 s. If that run is dead, …"


def test_a_run_that_began_earlier_waits_for_the_other_to_withdraw(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.data["h2"] = {"first": [LATER, LATER]}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    waits = "h2: it waits for another run to stop, for 90 s at most: run r7 of alice@desk has it since 40 s. If"
    assert ran.stderr.count(waits) == 1
    assert ran.programs == {"h1": 2, "h2": 2 + 2, "h3": 1}
    assert set(states(ran).values()) == {"changed"} and withdrawn(ran) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("privnet: stale: it has rolled back since", "it has rolled back since"),
        ("privnet: locked: run r7 has changed it since", "run r7 has changed it since"),
        ("its program was killed", "its program was killed"),
        (None, "the connection was lost, or it hangs: Socket is closed"),
    ],
)
def test_a_run_that_has_waited_in_vain_stops_whatever_the_reason(
    fleet: Callable[..., Fleet], said: str | None, why: str
) -> None:
    """Without the wait only the second is one to stop for: the others fail the host alone."""
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.data["h2"] = {"first": [LATER, said], **SLOW}
    ran = made.run("--json", "-y")
    assert ran.code == 1
    begun = "another run is at work, so what this one has begun is taken back"
    assert ran.outcome["stopped"] == {"why": f"{begun}: h2: {why}", "kind": "locked"}
    assert states(ran) == {"h1": "pending", "h2": "failed", "h3": "pending"} and withdrawn(ran) == ["h1", "h3"]


def test_a_run_does_not_wait_for_ever(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    settings = json.loads((made.directory / "fleet.yaml").read_text())
    (made.directory / "fleet.yaml").write_text(json.dumps({**settings, "policy": {"rollback": "10s"}}))
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.data["h2"] = {"first": [LATER] * 60}
    ran = made.run("--json", "-y")
    assert ran.code == 1 and ran.outcome["stopped"]["kind"] == "locked"
    assert 3 <= ran.programs["h2"] <= 6 and withdrawn(ran) == ["h1", "h3"]


def test_who_has_confirmed_something_does_not_say_that_nothing_has_been(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its second program `h1` keeps what the first has brought: a run that waits on `h2` must not go on."""
    made = fleet(2, elsewhere=["h2", "h3", "h3"])
    made.project("p0", 0, ["h1", "h2", "h1"])
    made.project("elsewhere", 2, ["h2", "h3"])
    monkeypatch.setenv(removal.ALLOW, "1")
    made.data["h3"] = SLOW
    made.programs["h3"] = ["privnet: locked: run r7 of alice@desk has it since 40 s. If that run is dead, …"]
    ran = made.run("--json", "-y")
    assert ran.code == 1 and ran.outcome["stopped"]["kind"] == "locked"
    assert ran.programs["h1"] == 2
    assert "h1" in withdrawn(ran, "undo") and withdrawn(ran) == []
    assert ran.outcome["stopped"]["why"].startswith("another run is at work, so what this one has begun and not conf")
    why = "what is confirmed stays, and the rest is taken back: another run is at work"
    assert ran.outcome["hosts"]["h1"]["why"].startswith(why)


def test_two_runs_of_one_directory_one_proceeds(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    path = made.directory / ".privnet" / "run"
    path.parent.mkdir()
    who = f"run 20261123T000000-abcdef of alice@{socket.gethostname()}, process {os.getpid()}"
    path.write_text(f"{who}, since {int(time.time()) - 40}\n")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.asked == {}
    assert f"nothing is changed: {who}, is under way in " in ran.stderr
    assert re.search(
        rf" since [45][0-9] s\. Wait for its end; if it hangs: `kill {os.getpid()}`$", ran.outcome["stopped"]["why"]
    )
    assert ran.outcome["stopped"]["kind"] == "locked"
    # The twin: what the file says is nobody's lock.
    assert made.run("--json", "-y").code == 0


@pytest.mark.parametrize("what", ["a link", "a directory"])
def test_something_else_in_the_place_of_the_lock_counts_as_held(fleet: Callable[..., Fleet], what: str) -> None:
    """What it leads to is not ours to write; and nobody can say that no run is under way."""
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    mine, lock = made.directory.parent / "mine", made.directory / ".privnet" / "run"
    lock.parent.mkdir()
    mine.write_text("not privnet's\n")
    if what == "a link":
        lock.symlink_to(mine)
    else:
        lock.mkdir()
    ran = made.run("--json", "-y")
    assert (ran.code, ran.asked) == (1, {})
    assert ran.outcome["stopped"]["kind"] == "locked" and "counts as held" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert mine.read_text() == "not privnet's\n"


def test_a_lock_file_that_is_damaged_before_a_run_holds_the_lock_stops_it(fleet: Callable[..., Fleet]) -> None:
    """After it was read, as by a checkout meanwhile."""
    made = fleet()
    lock = made.directory / "privnet.lock.yaml"
    damage = f"\nPath({str(lock)!r}).write_text('')\n"
    ran = made.run("--json", "-y", more=damage)
    assert (ran.code, ran.asked) == (1, {})
    assert ran.outcome["stopped"]["kind"] == "stale"
    assert "nothing is changed: since this run began, " in ran.stderr
    assert "Traceback" not in ran.stderr and lock.read_text() == ""


def remembers(made: Fleet, host: str, applied: str | None) -> None:
    """Let a host say by which lock file it was changed last."""
    lines = [line for line in made.answers[host] if not line.startswith("applied ")]
    if applied is not None:
        lines.insert(lines.index("##privnet packages"), f"applied {applied} r7")
    made.answers[host] = lines


def checksum(made: Fleet) -> str:
    """The one that the lock file says of itself."""
    return re.findall("^checksum: (.*)$", (made.directory / "privnet.lock.yaml").read_text(), re.MULTILINE)[0]


def stops_as_stale(made: Fleet, said: str) -> None:
    before = (made.directory / "privnet.lock.yaml").read_bytes()
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert f"PN509: nothing is changed: {said}" in ran.stderr
    assert ran.programs == {}
    assert ran.outcome["stopped"]["kind"] == "stale"
    assert (made.directory / "privnet.lock.yaml").read_bytes() == before, "nothing is written over it"


OTHER = "a" * 64


def test_a_lock_file_older_than_what_a_host_remembers_stops_the_run(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    remembers(made, "h2", f"44 {OTHER}")
    stops_as_stale(made, "h2 was changed last by serial 44 of the lock file, and this one has 2")
    remembers(made, "h2", f"2 {OTHER}")
    stops_as_stale(made, "h2 was changed by run r7 with another lock file of serial 2 too")


@pytest.mark.parametrize(("own", "other"), [("h1", "h3"), ("h3", "h1")])
def test_every_host_is_asked_by_which_lock_file_it_was_changed(
    fleet: Callable[..., Fleet], own: str, other: str
) -> None:
    """Of two operators each has changed a host, with the same serial."""
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    remembers(made, own, f"2 {checksum(made)}")
    remembers(made, other, f"2 {OTHER}")
    stops_as_stale(made, f"{other} was changed by run r7 with another lock file of serial 2 too")
    # The twin: both by this one.
    remembers(made, other, f"2 {checksum(made)}")
    assert states(made.run("--json", "-y")) == dict.fromkeys(("h1", "h2", "h3"), "changed")


def test_a_copy_that_went_its_own_way_is_known_by_its_earlier_serials(fleet: Callable[..., Fleet]) -> None:
    """Each run with `--limit` raises the serial of a copy, until it is higher than what the other hosts remember."""
    made = fleet()
    known = {2: checksum(made)}
    for serial in (3, 4):
        save_lock(made.directory, load_lock(made.directory, "test"))
        known[serial] = checksum(made)
    made.project("p1", 1, ["h1", "h2", "h3"])
    remembers(made, "h1", f"4 {known[4]}")
    remembers(made, "h2", f"3 {OTHER}")
    stops_as_stale(made, "h2 was changed by run r7 with another lock file of serial 3 than the one from which this")
    # The twin: it was away while the others were changed.
    remembers(made, "h2", f"2 {known[2]}")
    assert states(made.run("--json", "-y")) == dict.fromkeys(("h1", "h2", "h3"), "changed")


def new_fleet(made: Fleet) -> Path:
    """Hosts that have nothing yet, and no lock file."""
    for name in made.answers:
        machine = "machine 0123456789abcdef0123456789abcde"
        made.answers[name] = [f"{machine}{name[-1]}" if machine in line else line for line in text(bare())]
    lock = made.directory / "privnet.lock.yaml"
    lock.unlink()
    return lock


@pytest.mark.parametrize("why", ["not asked", "away", "it says nothing", "it has a record"])
def test_without_a_lock_file_every_host_has_to_say_that_it_has_nothing(fleet: Callable[..., Fleet], why: str) -> None:
    made = fleet()
    lock = new_fleet(made)
    planned = text(answer(compile_fleet(made.directory).plan.hosts["h3"]))
    spoil: dict[str, tuple[Callable[[], object], str]] = {
        "not asked": (lambda: None, "there is no privnet.lock.yaml in "),
        "away": (lambda: made.data.update(h3={"away": True}), "there is no privnet.lock.yaml in "),
        "it says nothing": (lambda: made.answers.update(h3=["rubbish"]), "there is no privnet.lock.yaml in "),
        "it has a record": (lambda: made.answers.update(h3=planned), "private networks are on h3 already, and there"),
    }
    change, said = spoil[why]
    change()
    limit = ("--limit", "h1", "--limit", "h2") if why == "not asked" else ()
    for mode in ("-y", "--dry"):
        ran = made.run("--json", mode, *limit)
        assert not lock.exists()
        assert ran.programs == {} and ran.outcome["stopped"]["kind"] == "stale"
        told = ran.outcome["stopped"]["why"]
        assert told.startswith(f"PN509: nothing is changed: {said}")
        assert "h3" in told and "privnet import" in told and "git log --all -- " in told
        assert ("run without `--limit` while every host answers" in told) == (why != "it has a record")


def test_a_new_fleet_gets_its_lock_file_when_all_hosts_have_nothing(fleet: Callable[..., Fleet]) -> None:
    """The twin of the refusals above."""
    made = fleet()
    lock = new_fleet(made)
    assert made.run("--json", "--dry").outcome["stopped"] is None
    ran = made.run("--json", "-y")
    assert ran.outcome["stopped"] is None, ran.stderr
    # The first that is prepared answers as before, without a key, and ends it.
    assert lock.exists() and set(ran.programs) == {"h1"}


def test_no_package_is_fetched_where_a_host_waits_to_roll_back(fleet: Callable[..., Fleet]) -> None:
    """A mirror that does not answer would hold the lock of programs, for which a rollback waits."""
    made = fleet()
    at = made.answers["h2"].index("##privnet system") + 1
    lacks = [line for line in made.answers["h2"] if not line.startswith("ii  dnsmasq-base ")]
    made.answers["h2"] = [*lacks[:at], f"armed 20250101T000000-abcdef {'0' * 32}", *lacks[at:]]
    ran = made.run("--json", "-y")
    assert ran.programs == {} and states(ran)["h2"] == "pending"
    assert ran.outcome["hosts"]["h2"]["why"] == (
        "it lacks dnsmasq-base, and waits to roll back from run 20250101T000000-abcdef. To fetch packages while it "
        "waits could hold it up. It rolls back within 180 s: run again then"
    )
    # The twin: it waits no longer.
    made.answers["h2"] = lacks
    assert made.run("--json", "-y").programs["h2"] > 0


def test_copies_of_one_machine_are_left_alone_and_the_others_go_on(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    machine = next(line for line in made.answers["h3"] if line.startswith("machine "))
    made.answers["h2"] = [machine if line.startswith("machine ") else line for line in made.answers["h2"]]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h2", "h3"]
    assert "h2: it has the machine-id of h3: one is a copy of the other" in ran.stderr
    assert states(ran)["h1"] == "changed"


def test_rules_that_are_read_only_when_nft_is_there_keep_a_host_from_joining(fleet: Callable[..., Fleet]) -> None:
    """It has its packages and its key, and nothing else; the others go on."""
    made = fleet(2)
    ready = bare()
    ready["system"] += ["enabled systemd-networkd.service enabled"]
    ready["key"] = [f"key {key_of('h2')}"]
    ready["firewall"] = ["table ip own {", "chain in {", "type filter hook input priority 0; policy drop;", "}", "}"]
    made.answers["h2"] = text({**bare(), "key": ready["key"]})
    made.data["h2"] = {"later": text(ready)}
    ran = made.run("--json", "-y")
    assert ran.code == 1 and ran.results["failed_hosts"] == ["h2"]
    assert ran.programs["h2"] == 1
    keeps_out = "privnet: h2: its firewall keeps peers out: chain ip own in drops UDP port 51820, to which h1 (192.0."
    assert keeps_out in ran.stderr + ran.stdout
    made.data["h2"] = {"later": text({**ready, "firewall": []})}
    assert made.run("--json", "-y").programs["h2"] > 1, "the twin: without the rules it joins"


def test_nothing_is_switched_to_a_host_that_is_not_ready(fleet: Callable[..., Fleet]) -> None:
    made = fleet(1)
    made.project("p0", 0, ["h1", "h3"])  # 2.web moves from h2 to h3
    made.programs["h3"] = ["cannot: no"]
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h3"]
    assert "privnet: h2: nothing old is taken away: 2.web.ap-00000000-0000-4000-8000-000000000000 in pn-" in ran.stderr
    assert "switch what has moved" not in ran.changed and "retire what is gone" not in ran.changed
    # The twin: when it is ready, all of that happens.
    made.programs.clear()
    ran = made.run("--json", "-y")
    assert ran.changed["switch what has moved"] == ["h1"]
    assert ran.changed["retire what is gone"] == ["h2"]


def test_a_connection_that_is_refused_once_is_tried_again(fleet: Callable[..., Fleet]) -> None:
    """As by a limit on new connections: nothing is wrong with the host."""
    made = fleet()
    made.project("p0", 0, ["h1", "h3"])
    made.data["h1"] = {"refuses": [2]}
    made.data["h3"] = {"refuses": [2, 3]}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert ran.stderr.count("h1: no new connection: connection refused: trying again for ") == 1
    assert ran.stderr.count(". A limit on new connections may be why") == 2
    assert states(ran) == dict.fromkeys(("h1", "h2", "h3"), "changed")


def test_connections_are_few(fleet: Callable[..., Fleet]) -> None:
    """One without a change; one more after each wave that changed a host, for the next wave or the confirmation."""
    made = fleet()
    assert made.run("--json", "-y").connections == {"h1": 1, "h2": 1, "h3": 1}
    for number in range(2):
        made.project(f"p{number}", number, ["h1", "h3"])
    ran = made.run("--json", "-y")
    assert ran.programs == {"h1": 2, "h2": 2, "h3": 1}
    assert ran.connections == {"h1": 3, "h2": 3, "h3": 2}


@pytest.mark.parametrize(
    ("before", "after"),
    [(["h3", "h1"], ["h3", "h2"]), (["h2", "h3"], ["h2", "h1"]), (["h1"], ["h1"])],
    ids=["it has something to switch", "to take away", "neither"],
)
def test_nothing_is_taken_away_for_a_host_that_takes_no_new_connection(
    fleet: Callable[..., Fleet], before: list[str], after: list[str]
) -> None:
    """It has everything new, and will go back to what it was: whatever moves to it has to stay where it was."""
    made = fleet(2, elsewhere=before)
    made.project("elsewhere", 2, after)
    made.project("p0", 0, ["h1", "h3"])  # 2.web moves from h2 to h3
    made.data["h3"] = {"connections_at_most": 1}
    made.settings(policy={"rollback": "10s"})
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == ["h3"]
    why = "it takes no new connection, so it rolls back within 10 s: it takes no new connection"
    assert ran.outcome["hosts"]["h3"]["why"] == why
    assert ran.stderr.count(f"privnet: h3: {why}") == 1
    assert ran.programs["h3"] == 1 and "h3" in ran.changed["add what is new"]
    assert "privnet: h2: nothing old is taken away: 2.web.ap-00000000-0000-4000-8000-000000000000 in pn-" in ran.stderr
    assert "h2" not in ran.changed.get("retire what is gone", [])
    # The twin: over a new connection, all of that happens.
    made.data.clear()
    ran = made.run("--json", "-y")
    assert ran.results["failed_hosts"] == [] and "h2" in ran.changed["retire what is gone"]


# --- what is old stays while somebody sends to it ---------------------------------------------------------

MOVED = "2.web.ap-00000000-0000-4000-8000-000000000001"


def moving(fleet: Callable[..., Fleet]) -> Fleet:
    """A container moves from `h2` to `h1`, and another of its network stays on `h3`."""
    made = fleet(1, elsewhere=["h3", "h2"])
    made.project("elsewhere", 1, ["h3", "h1"])
    return made


@pytest.mark.parametrize(
    ("data", "stands"),
    [
        ({"first": ["cannot: no"]}, "failed"),
        ({"first": ["", "cannot: no"]}, "failed"),
        ({"first": ["", None]}, "failed"),
        ({"connections_at_most": 2}, "failed"),
        ({"away": True}, "unreached"),
    ],
    ids=["at what is new", "at the switch", "lost at the switch", "after it", "before the run"],
)
def test_a_container_stays_where_a_host_that_failed_still_sends(
    fleet: Callable[..., Fleet], data: dict[str, Any], stands: str
) -> None:
    made = moving(fleet)
    made.settings(policy={"rollback": "10s"})
    made.data["h3"] = data
    ran = made.run("--json", "-y")
    assert "retire what is gone" not in ran.changed
    assert states(ran) == {"h1": "changed", "h2": "pending", "h3": stands}
    (why,) = ran.outcome["hosts"]["h2"]["held"]
    silent = "h3 has not answered, and may still send to h2"
    so = silent if stands == "unreached" else "h3 still sends to h2, and is not ready"
    assert why.startswith(f"{MOVED} in pn-") and why.endswith(f" goes to h1, but {so}")
    assert f"privnet: h2: nothing old is taken away: {why}. Run again when it is" in ran.stderr
    # The twin: a plain run finishes it.
    made.data.clear()
    ran = made.run("--json", "-y")
    assert "h2" in ran.changed["retire what is gone"]
    assert set(states(ran).values()) == {"changed"}


def test_a_host_that_sends_elsewhere_already_holds_up_nobody(fleet: Callable[..., Fleet]) -> None:
    """It was switched by an earlier run, and fails in this one."""
    made = moving(fleet)
    lock = compile_fleet(made.directory).lock
    to = {name: format_address(lock.hosts[name].mesh) for name in ("h1", "h2")}
    made.answers["h3"] = [
        line.replace(f"dst {to['h2']} ", f"dst {to['h1']} ") if " dev pnx" in line else line
        for line in made.answers["h3"]
    ]
    made.answers["h3"] = ["time 5" if line.startswith("time ") else line for line in made.answers["h3"]]
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "changed", "h2": "changed", "h3": "failed"}
    assert ran.changed["retire what is gone"] == ["h2"]


def test_a_host_that_has_never_been_reached_holds_up_nobody(fleet: Callable[..., Fleet]) -> None:
    made = moving(fleet)
    lock = load_lock(made.directory, "test")
    save_lock(made.directory, replace(lock, hosts=lock.hosts | {"h3": replace(lock.hosts["h3"], wireguard=None)}))
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "changed", "h2": "changed", "h3": "unreached"}


def test_a_host_that_is_out_holds_up_nobody_and_is_not_asked(fleet: Callable[..., Fleet]) -> None:
    """Nothing listens where it was: one question, or one connection, would fail."""
    made = moving(fleet)
    hosts = json.loads((made.directory / "fleet.yaml").read_text())["hosts"]
    made.settings(hosts=hosts | {"h3": {**hosts["h3"], "state": "out"}})
    made.data["h3"] = {"away": True}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert states(ran) == {"h1": "changed", "h2": "changed"}
    assert "h2" in ran.changed["retire what is gone"]
    assert "h3" not in ran.asked and "h3" not in ran.connections
    assert ran.code == 0 and "PN706" in ran.stderr
    # Its return is an ordinary run; it is as an earlier run has left it.
    made.answers |= {name: lines for name, lines in made.planned().items() if name != "h3"}
    made.settings(hosts=hosts)
    made.data.clear()
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert states(ran)["h3"] == "changed" and "h3" in ran.asked


def test_a_renamed_host_is_the_one_that_it_was(fleet: Callable[..., Fleet]) -> None:
    """It answers by its new name; nothing but files with names is written, and the lock file's entry follows."""
    made = fleet(2)
    before = load_lock(made.directory, "test").hosts
    hosts = json.loads((made.directory / "fleet.yaml").read_text())["hosts"]
    made.settings(hosts={"h1": hosts["h1"], "h3": hosts["h3"], "paris": {**hosts["h2"], "renamed_from": "h2"}})
    for number in (0, 1):
        made.project(f"p{number}", number, ["h1", "paris"])
    made.answers["paris"] = made.answers.pop("h2")
    dry = made.run("--json", "--dry")
    lines = {line for host in dry.outcome["hosts"].values() for change in host["changes"] for line in change["lines"]}
    files = {"write /etc/privnet/mesh.conf", "write /etc/privnet/record.json"}
    assert lines - files == {"run sh /etc/privnet/lib/mesh.sh assemble"}
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert states(ran) == {"h1": "changed", "h3": "unchanged", "paris": "changed"}
    after = load_lock(made.directory, "test")
    assert after.hosts == {"h1": before["h1"], "h3": before["h3"], "paris": before["h2"]}
    assert {at.host for network in after.networks.values() for at in network.slots.values()} == {"h1", "paris"}


def test_without_a_lock_file_a_host_that_is_out_has_not_said_what_it_has(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    hosts = json.loads((made.directory / "fleet.yaml").read_text())["hosts"]
    made.settings(hosts=hosts | {"h3": {**hosts["h3"], "state": "out"}})
    (made.directory / "privnet.lock.yaml").unlink()
    for name in ("h1", "h2"):
        made.answers[name] = text(bare())
    ran = made.run("--json", "-y")
    assert ran.programs == {} and "whether private networks are on h3 already nobody has said" in ran.stderr


def test_what_was_taken_away_is_back_when_a_host_goes_back_to_it(fleet: Callable[..., Fleet]) -> None:
    """It took a new connection after it was switched, and says nothing any more when that is to be confirmed."""
    made = moving(fleet)
    made.hangs["h3"] = " privnet confirm "
    ran = made.run("--json", "-y")
    assert ran.changed["retire what is gone"] == ["h2"]
    assert withdrawn(ran, "undo") == ["h2"]
    assert states(ran) == {"h1": "changed", "h2": "pending", "h3": "failed"}
    why = ran.outcome["hosts"]["h2"]["why"]
    assert why.startswith("what was old is back: ") and why.endswith("but h3 still sends to h2, and is not ready")
    assert not any(name == "h2" and " privnet confirm " in command for name, command in ran.executed)


def test_a_host_that_confirms_what_it_has_taken_away_holds_up_nobody(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was switched before, and sends where the plan says even if it rolls that back."""
    made = fleet(1, elsewhere=["h1", "h3"])
    made.project("elsewhere", 1, ["h3", "h1"])  # each to where the other was
    (made.directory / "projects" / "p0.yaml").unlink()  # of h1 and h2
    monkeypatch.setenv(removal.ALLOW, str(removal.removals(*locks(made)).number))
    made.data |= {"h1": {"fake_delay": 0.2}, "h2": {"fake_delay": 1.5}, "h3": {"fake_delay": 0.2}}
    # While h2 takes its time the others are told to wait on, over connections that are as good as new ones.
    soon = "from privnet.deploy.run import Run\nRun.patience = property(lambda self: 3)\n"
    ran = made.run("--json", "-y", more=soon)
    assert ran.changed["retire what is gone"] == ["h1", "h2", "h3"]
    extended = {name for name, command in ran.executed if " privnet extend " in command and "retire done" in command}
    assert extended == {"h1", "h3"}
    assert withdrawn(ran, "undo") == []
    assert set(states(ran).values()) == {"changed"}


# --- the first host of what is changed -----------------------------------------------------------------


def to_prepare(made: Fleet, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("h1", "h2"):
        made.answers[name] = [
            line.replace("enabled systemd-networkd.service enabled", "enabled systemd-networkd.service disabled")
            for line in made.answers[name]
        ]
    return "prepare host"


def to_switch(made: Fleet, monkeypatch: pytest.MonkeyPatch) -> str:
    """The resolvers of two hosts get other settings, and nothing is new anywhere."""
    settings = json.loads((made.directory / "fleet.yaml").read_text())
    (made.directory / "fleet.yaml").write_text(json.dumps({**settings, "dns": {"ttl": 9}}))
    return "switch what has moved"


def to_retire(made: Fleet, monkeypatch: pytest.MonkeyPatch) -> str:
    (made.directory / "projects" / "p1.yaml").unlink()
    monkeypatch.setenv(removal.ALLOW, str(removal.removals(*locks(made)).number))
    return "retire what is gone"


def locks(made: Fleet) -> tuple[Lock, Lock]:
    compiled = compile_fleet(made.directory)
    return compiled.known, compiled.lock


FIRST = {"prepare": to_prepare, "switch": to_switch, "retire": to_retire}


@pytest.mark.parametrize("what", FIRST)
def test_whatever_a_run_changes_first_it_changes_on_one_host_first(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = fleet()
    stage = FIRST[what](made, monkeypatch)
    made.programs["h1"] = ["cannot: no"]
    ran = made.run("--json", "-y")
    assert ran.code == 1
    assert ran.programs == {"h1": 1}
    assert states(ran)["h1"] == "failed" and states(ran)["h2"] == "pending"
    if what == "prepare":
        # Who has all that goes on.
        assert states(ran)["h3"] == "unchanged" and ran.outcome["stopped"] is None
        assert "h2: it was not prepared: h1, the first host that was to be, has failed" in ran.stderr
    else:
        assert ran.outcome["stopped"]["kind"] == "failed"
        assert "The next run begins with another one, if there is one to change" in ran.outcome["stopped"]["why"]
    # The twin: it goes well on another one, and then everywhere; no host is asked more than before.
    made.programs.clear()
    ran = made.run("--json", "-y")
    assert ran.code == 0, ran.stderr
    assert ran.changed[f"{what} on one host" if what != "prepare" else "prepare one host"] == ["h2"]
    assert ran.changed[stage] == ["h1"]
    # The third one is told of another setting of the fleet, and of nothing else.
    assert ran.asked == {"h1": 3, "h2": 3, "h3": 3 if what == "switch" else 1}


def test_a_first_host_that_takes_no_new_connection_is_the_last_that_is_changed(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p1", 1, ["h1", "h2", "h3"])
    made.data["h1"] = {"connections_at_most": 1}
    made.settings(policy={"rollback": "10s"})
    ran = made.run("--json", "-y")
    assert ran.programs == {"h1": 1}
    assert states(ran) == {"h1": "failed", "h2": "pending", "h3": "pending"}
    assert ran.outcome["stopped"]["why"].startswith("nothing else is changed: h1, the first host of this change, has")


NOTHING_GOES = "nothing is taken away: too many hosts have failed"


@pytest.mark.parametrize(("lost", "stops"), [(["h4", "h5"], True), (["h5"], False)])
def test_more_than_a_third_that_cannot_switch_stop_the_run_before_anything_is_taken_away(
    fleet: Callable[..., Fleet], lost: list[str], stops: bool
) -> None:
    made = fleet(1, 6, elsewhere=["h1", "h2", "h3", "h4", "h5", "h2"])
    made.project("elsewhere", 1, ["h1", "h2", "h3", "h4", "h5", "h1"])  # from h2 to h1
    made.data.update({name: {"first": ["", "cannot: no"]} for name in lost})
    ran = made.run("--json", "-y")
    assert [name for name, found in states(ran).items() if found == "failed"] == lost
    assert (NOTHING_GOES in ran.stderr) == stops
    assert ran.outcome["stopped"] == ({"why": NOTHING_GOES, "kind": "failed"} if stops else None)
    assert withdrawn(ran, "undo") == (["h1", "h2", "h3"] if stops else [])
